"""A folder of records: whole files or none, in the order of their ids."""

from __future__ import annotations

import math
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.core.cases import Case, Trajectory
from evalsuite.core.errors import NonFiniteError, SchemaError
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore


def record(case: str | Case = "smoke.chair/a", reason: str = "") -> Record:
    if isinstance(case, str):
        scene, arm = case.split("/")
        case = Case(Trajectory(scene, arm, None, (0,)), 0)
    trajectory = case.trajectory
    return Record(
        case=case.id,
        scene=trajectory.scene,
        stratum="thin",
        arm=trajectory.arm,
        budget=trajectory.budget,
        steps=case.steps,
        seed=trajectory.seed,
        suite="smoke",
        protocol="object-128",
        protocol_hash="0123456789ab",
        reason=reason,
    )


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "out")


def files(store: RecordStore) -> list[str]:
    return sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())


def test_what_is_written_is_read(store: RecordStore) -> None:
    path = store.write(record())
    assert path == store.path("smoke.chair/a") == store.root / "smoke.chair" / "a.json"
    assert store.read("smoke.chair/a") == record()
    assert files(store) == ["smoke.chair/a.json"]


def test_a_case_with_dots_has_a_file_of_its_own(store: RecordStore) -> None:
    cases = ["gso.v1.2/b-0.5", "gso.v1.2/b-0.6", "gso.v1.3/b-0.5"]
    for case in cases:
        store.write(record(case))
    assert [found.case for found in store] == cases
    assert [found.case for case in cases if (found := store.read(case))] == cases


def test_a_later_record_replaces_the_earlier(store: RecordStore) -> None:
    store.write(record(reason="first"))
    store.write(record(reason="second"))
    assert [found.reason for found in store] == ["second"]


def test_an_empty_store(store: RecordStore) -> None:
    assert store.read("smoke.chair/a") is None
    assert list(store) == []


def test_a_refused_record_leaves_the_old_file_whole(store: RecordStore) -> None:
    path = store.write(record())
    before = path.read_bytes()
    with pytest.raises(NonFiniteError):
        store.write(replace(record(), seconds={"optimise": math.nan}))
    assert path.read_bytes() == before
    assert files(store) == ["smoke.chair/a.json"]


def test_an_interrupted_write_leaves_the_old_file_whole(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.write(record())
    before = path.read_bytes()

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write(record(reason="never seen"))
    assert path.read_bytes() == before
    assert files(store) == ["smoke.chair/a.json"]


def test_the_old_file_is_whole_until_the_new_one_is(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of replacement, both are complete: no reader ever sees half a record."""
    path = store.write(record(reason="old"))
    seen: list[tuple[str, str]] = []
    replace_file = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((path.read_text(), self.read_text()))
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    store.write(record(reason="new"))
    assert seen == [(record(reason="old").dumps(), record(reason="new").dumps())]


def test_a_record_is_as_readable_as_any_file(store: RecordStore) -> None:
    """Records are published by CI and read by other users."""
    path = store.write(record())
    plain = path.with_name("plain.txt")
    plain.touch()
    assert stat.filemode(path.stat().st_mode) == stat.filemode(plain.stat().st_mode)


def test_records_come_in_the_order_of_their_ids(store: RecordStore) -> None:
    trajectories = [
        Trajectory(scene, arm, "capture", (0, 50, 1000), seed)
        for scene in ("chair-2", "chair", "chair.b")
        for arm in ("c", "b")
        for seed in (1, 0)
    ]
    cases = [case for trajectory in trajectories for case in trajectory.cases]
    for case in cases:
        store.write(record(case))
    assert [found.case for found in store] == sorted(case.id for case in cases)


def test_a_record_under_the_name_of_another_case_is_refused(store: RecordStore) -> None:
    store.path("smoke.chair/a").parent.mkdir(parents=True)
    store.path("smoke.chair/b").write_text(record("smoke.chair/a").dumps())
    with pytest.raises(SchemaError, match=r"is the record of smoke\.chair/a, expected smoke\.chair/b: run that case"):
        store.read("smoke.chair/b")


def test_images_and_unfinished_files_are_no_records(store: RecordStore) -> None:
    store.write(record())
    for name in ("a.png", "a.ply", "tmpabc.tmp", "truth.png"):
        (store.root / "smoke.chair" / name).write_bytes(b"x")
    (store.root / "summary.json").write_text("{}")
    assert [found.case for found in store] == ["smoke.chair/a"]


def test_a_damaged_file_is_named(store: RecordStore) -> None:
    path = store.write(record())
    path.write_text(path.read_text()[:40])
    with pytest.raises(SchemaError) as caught:
        store.read("smoke.chair/a")
    assert str(path) in str(caught.value)
    with pytest.raises(SchemaError, match=r"a\.json"):
        list(store)
