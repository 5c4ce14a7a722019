"""The table in docs/metrics.md is what the command beside it prints, and every row of it agrees."""

from __future__ import annotations

from pathlib import Path

from benchmarks.metrics import line, reference
from evalsuite.metrics.spec import METRICS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_documented_values_are_todays_and_agree() -> None:
    rows = list(reference())
    text = DOCS.read_text(encoding="utf-8")
    for row in rows:
        _, _, ours, theirs, tolerance = row
        assert abs(ours - theirs) <= tolerance, line(row)
        assert line(row) in text
    image_metrics = {"psnr", "psnr-fg", "ssim", "flip-67", "alpha-iou"}
    assert {name for name, *_ in rows} == image_metrics, "LPIPS is compared where its weights are"
    assert all(f"`{name}`" in text for name in METRICS)
