"""What moved, shown and not judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_factories import record

from evalsuite.gates.golden import Approved, Golden, GoldenStore, Provenance
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore
from evalsuite.report.difference import difference_lines

SCENES = ("smoke.blob", "smoke.chair")


@pytest.fixture
def stores(tmp_path: Path) -> tuple[RecordStore, GoldenStore]:
    return RecordStore(tmp_path / "out"), GoldenStore(tmp_path / "golden", "smoke", "cpu-x86-64")


def approve(goldens: GoldenStore, found: Record, weights: str = "") -> None:
    metrics = {
        name: Approved(reading.value, reading.version, views=len(reading.per_view))
        for name, reading in found.metrics.items()
        if reading.value is not None
    }
    made = replace(Provenance.of(found), weights=weights)
    goldens.write(Golden(found.case, found.protocol_hash, (0,), metrics, made))


def forward(scene: str) -> Record:
    return record(scene, "a", None, 0)


def test_nothing_moved(stores: tuple[RecordStore, GoldenStore]) -> None:
    for scene in SCENES:
        stores[0].write(forward(scene))
        approve(stores[1], forward(scene))
    assert difference_lines(*stores, [f"{scene}/a" for scene in SCENES]) == ["2 cases: 2 same"]


def test_what_moved_what_lacks_and_what_else_differs(stores: tuple[RecordStore, GoldenStore]) -> None:
    for scene in SCENES:
        found = replace(forward(scene), weights="new")
        moved = {name: replace(r, value=None if r.value is None else r.value - 1) for name, r in found.metrics.items()}
        approve(stores[1], found, weights="old")
        stores[0].write(replace(found, metrics=moved))
    (stores[0].root / "smoke.blob" / "c.json").write_text("{")
    lines = difference_lines(*stores, ["smoke.blob/a", "smoke.chair/a", "smoke.blob/b", "smoke.blob/c"])
    assert lines[-1] == "4 cases: 1 failed, 1 not-run, 2 worse"
    assert "differs in 2 cases: weights old -> new" in lines
    assert any(line.startswith("worse        a: psnr lost +1 dB in the mean over 2 scenes") for line in lines)
    assert any(line.startswith("worse        smoke.blob/a: psnr") for line in lines)
    assert any(line.startswith("not-run      smoke.blob/b") for line in lines)
