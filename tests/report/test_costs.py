"""Cost per asset in words: training shared, sunk or unknown, and never passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_factories import record, scene_records, write_store
from rich.console import Console

from evalsuite.report.costs import cost_cells, cost_tables, training_sentence
from evalsuite.report.page import write_page

FIRST_VOLUME = 3
"""Column of the first volume, after arm, seconds and hours with training sunk."""


def rows(training_seconds: float | None) -> dict[str, list[str]]:
    """Rows of the first table (budget capture) by arm and N."""
    _, _, found = next(iter(cost_cells(scene_records("s.one"), training_seconds)))
    return {row[0]: list(row) for row in found}


def test_known_training_is_charged_to_a_and_b_and_shown_beside_sunk() -> None:
    found = rows(36_000.0)
    a, c = found["A feed-forward"], found["C scratch, N = 3,000"]
    assert float(a[FIRST_VOLUME]) == pytest.approx(0.1 + 1 / 3600, rel=1e-3)
    assert float(a[2]) == pytest.approx(1 / 3600, rel=1e-3)
    assert a[-1] == "240"  # 36,000 s over the 150 s that each asset saves
    assert c[2:] == [f"{151 / 3600:.4g}"] * 5 + [""]


def test_unknown_training_is_unknown_and_not_nothing() -> None:
    found = rows(None)
    a, c = found["A feed-forward"], found["C scratch, N = 3,000"]
    assert a[FIRST_VOLUME:] == ["unknown"] * 5
    assert float(a[2]) == pytest.approx(1 / 3600, rel=1e-3)
    assert c == rows(0.0)["C scratch, N = 3,000"], "C has no training"


def test_an_arm_without_seconds_has_a_dash_whatever_is_known_of_training() -> None:
    records = [record(psnr=None, status="oom"), record("smoke.chair", "c", "capture", 50)]
    for training in (None, 10.0):
        _, _, ((_, seconds, *cells), _) = next(iter(cost_cells(records, training)))
        assert seconds.startswith("—")
        assert cells[:-1] == ["—"] * 5


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [(5810.0, "Training took 5,810 s of processor time (1.61 h)"), (0.0, "sunk"), (None, "is unknown")],
)
def test_page_and_terminal_say_what_training_took(tmp_path: Path, seconds: float | None, sentence: str) -> None:
    assert sentence in training_sentence(seconds)
    write_store(tmp_path / "store", scene_records("s.one"))
    page = write_page(tmp_path / "store", tmp_path / "out", [], seconds)
    assert training_sentence(seconds) in page.read_text(encoding="utf-8")
    console = Console(width=200, record=True, file=(tmp_path / "terminal").open("w"))
    console.print(*cost_tables(scene_records("s.one"), seconds))
    console.file.close()
    shown = console.export_text()
    assert sentence in " ".join(shown.split())
    assert "Cost per asset: Budget capture, objects" in shown
