"""Two checkouts in turns: what is refused before any time is spent, and in which order laps run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.execution import checkouts
from evalsuite.execution.checkouts import Checkout, checkout, fingerprint, laps
from evalsuite.gates.paired import MIN_PAIRS, judge_pairs
from evalsuite.records.schema import SCHEMA, Record
from evalsuite.records.store import RecordStore

RECORD = Record(
    *(
        "smoke.blob/c-capture-n200",
        "smoke.blob",
        "compact",
        "c",
        "capture",
        200,
        0,
        "smoke",
        "object-128",
        "0123456789ab",
    )
)

WRITER = """import pathlib, sys
if "--out" in sys.argv:
    path = pathlib.Path(sys.argv[sys.argv.index("--out") + 1], "records/smoke/smoke.blob/c-capture-n200.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('''{text}''')
"""

CLI = """import sys
print("this is a small evalsuite")
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package of the right name and two commits; the current folder."""
    folder = tmp_path / "repository"
    (folder / "evalsuite").mkdir(parents=True)
    (folder / "evalsuite/__init__.py").touch()
    (folder / "evalsuite/cli.py").write_text(CLI)
    git(folder, "init", "--quiet", "--initial-branch", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    git(folder, "tag", "first")
    (folder / "evalsuite/cli.py").write_text(CLI + "second = 2\n")
    git(folder, "commit", "--quiet", "--all", "--message", "two")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_folder_is_itself(repository: Path, scratch: Path) -> None:
    with checkout(".", scratch) as found:
        assert found.root == repository
        assert found.commit == git(repository, "rev-parse", "HEAD")
        assert found.name == "."
    assert not list(scratch.iterdir())


def test_a_revision_lives_in_a_work_tree_and_leaves_none(repository: Path, scratch: Path) -> None:
    with checkout("first", scratch) as first, checkout("trunk", scratch) as trunk, checkout("first", scratch) as again:
        assert len({first.root, trunk.root, again.root}) == 3
        assert (first.root / "evalsuite/cli.py").read_text() == CLI
        assert (trunk.root / "evalsuite/cli.py").read_text() != CLI
        assert first.commit == again.commit == git(repository, "rev-parse", "first")
    assert not list(scratch.iterdir())
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_work_tree_goes_also_when_its_use_fails(repository: Path, scratch: Path) -> None:
    def use() -> None:
        with checkout("first", scratch):
            raise RuntimeError("lap failed")

    with pytest.raises(RuntimeError, match="lap failed"):
        use()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def refusal(name: str, scratch: Path) -> str:
    with pytest.raises(OptionError) as caught, checkout(name, scratch):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_checkout_is_refused(repository: Path, scratch: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "is not a git checkout of evalsuite" in refusal(str(tmp_path / "plain"), scratch)
    assert "neither a folder nor a git revision" in refusal("frist", scratch)
    git(repository, "rm", "--quiet", "evalsuite/cli.py")
    git(repository, "commit", "--quiet", "--message", "gone")
    assert "expected a folder with evalsuite/cli.py" in refusal(".", scratch)


def test_uncommitted_changes_are_refused_and_new_files_are_not(repository: Path, scratch: Path) -> None:
    (repository / "notes.txt").touch()
    with checkout(".", scratch):
        pass
    (repository / "evalsuite/cli.py").write_text(CLI)
    assert ". has 1 changed files (first: evalsuite/cli.py)" in refusal(".", scratch)


def test_an_environment_that_cannot_import_is_named(repository: Path, scratch: Path) -> None:
    (repository / "evalsuite/cli.py").write_text("import nothing_of_this_name\n")
    git(repository, "commit", "--quiet", "--all", "--message", "broken")
    message = refusal(".", scratch)
    assert "No module named 'nothing_of_this_name'" in message
    assert message.endswith("run `make environment` there")


def test_a_checkouts_own_environment_is_used(repository: Path, scratch: Path) -> None:
    own = repository / ".venv/bin/python"
    own.parent.mkdir(parents=True)
    own.write_text(f"#!/bin/sh\necho {repository}/evalsuite/cli.py\n")
    own.chmod(0o755)
    with checkout(".", scratch) as found:
        assert found.python == own
    own.write_text("#!/bin/sh\necho /elsewhere/evalsuite/cli.py\n")
    assert "does not import evalsuite from ." in refusal(".", scratch)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the sides, as their processes would start."""
    started: list[str] = []

    def lap(side: Checkout, arguments: Sequence[str], out: Path, device: str) -> list[Record]:
        started.append(side.name if "c" in arguments else f"warm {side.name}")
        record = replace(RECORD, git={"commit": side.name}, protocol_hash=side.commit)
        RecordStore(out / "records/smoke").write(record)
        return [record]

    monkeypatch.setattr(checkouts, "_lap", lap)
    return started


def test_laps_alternate_after_a_warm_one_and_stay_in_pairs(order: list[str], scratch: Path) -> None:
    base, head = (Checkout(name, scratch, scratch, "p") for name in "AB")
    found = [tuple([r.git["commit"] for r in side] for side in pair) for pair in laps(base, head, 3, scratch)]
    assert order == ["warm A", "warm B", "A", "B", "B", "A", "A", "B"]
    assert found == [(["A"], ["B"])] * 3


def test_laps_that_have_ended_are_kept_and_half_a_pair_is_run_again(
    order: list[str], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, head = (Checkout(name, scratch, scratch, "p") for name in "AB")
    whole = checkouts._lap

    def dies(side: Checkout, arguments: Sequence[str], out: Path, device: str) -> list[Record]:
        if out.name == "1" and "pair-1" in out.parent.name:
            raise KeyboardInterrupt
        return whole(side, arguments, out, device)

    monkeypatch.setattr(checkouts, "_lap", dies)
    with pytest.raises(KeyboardInterrupt):
        list(laps(base, head, 3, scratch))
    monkeypatch.setattr(checkouts, "_lap", whole)
    order.clear()
    found = [tuple([r.git["commit"] for r in side] for side in pair) for pair in laps(base, head, 3, scratch)]
    assert order == ["warm A", "warm B", "B", "A", "A", "B"]
    assert found == [(["A"], ["B"])] * 3


def test_a_fingerprint_is_of_commit_and_environment(repository: Path, scratch: Path) -> None:
    with checkout("first", scratch) as first, checkout("trunk", scratch) as trunk, checkout("first", scratch) as again:
        assert fingerprint(first) == fingerprint(again) != fingerprint(trunk)
        other = scratch / "python"
        other.write_text(f'#!/bin/sh\necho patched library\nexec {sys.executable} "$@"\n')
        other.chmod(0o755)
        assert fingerprint(replace(first, python=other)) != fingerprint(first)


def test_other_protocols_are_refused_before_any_time_is_spent(order: list[str], scratch: Path) -> None:
    base, head = (Checkout(name, scratch, scratch, f"protocol-{name}") for name in "AB")
    with pytest.raises(NotComparableError, match="A follows protocol protocol-A, B protocol-B, expected one") as caught:
        next(laps(base, head, 12, scratch))
    assert "\n" not in str(caught.value)
    assert order == ["warm A", "warm B"]


def of_schema_2(record: Record) -> dict[str, Any]:
    """The record as the code of that time wrote it."""
    younger = ("base_host_bytes", "peak_host_bytes", "peak_device_bytes", "frames_per_second", "frame_px")
    tree = {name: value for name, value in asdict(record).items() if name not in younger}
    del tree["anchor_seconds"], tree["anchor_share"]
    return {**tree, "schema": 2, "peak_bytes": 700}


def test_a_base_of_an_older_schema_is_compared_by_what_both_measure(repository: Path, scratch: Path) -> None:
    """Each side writes with its own code; this one reads both: frames, which the base did not time, are left out."""
    new = replace(RECORD, seconds={"optimise": 4.0}, frames_per_second=100.0)
    for name, tree in (("old", of_schema_2(replace(new, seconds={"optimise": 2.0}))), ("new", asdict(new))):
        (repository / "evalsuite/cli.py").write_text(WRITER.format(text=json.dumps(tree)))
        git(repository, "commit", "--quiet", "--all", "--message", name)
        git(repository, "tag", name)
    with checkout("old", scratch) as base, checkout("new", scratch) as head:
        (pair,) = laps(base, head, 1, scratch)
    assert [side[0].schema for side in pair] == [SCHEMA, SCHEMA]
    (found,) = judge_pairs([pair] * MIN_PAIRS, 0.05)
    assert (found.quantity, found.verdict, found.ratio) == ("optimise", "slower", pytest.approx(2.0))


def test_a_lap_that_fails_ends_with_its_last_line(repository: Path, scratch: Path) -> None:
    (repository / "evalsuite/cli.py").write_text(
        "import sys\nif sys.argv[1:]: sys.exit('first line\\nno such suite')\n"
    )
    git(repository, "commit", "--quiet", "--all", "--message", "failing")
    with checkout(".", scratch) as side, pytest.raises(OptionError, match=r"a lap of \. failed: no such suite"):
        next(laps(side, side, 1, scratch))
