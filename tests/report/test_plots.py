"""Plots: what is drawn, in which colour, and that nothing needs a display."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_factories import record, scene_records, study

from evalsuite.report.plots import COLOURS, psnr_against_seconds, psnr_against_steps

STRATA = {"s.one": "thin", "s.two": "thin"}


def by_label(figure: Figure) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].lines}


def test_steps_plot_draws_means_levels_and_a_thin_line_per_scene() -> None:
    figure = psnr_against_steps(study(STRATA), "capture", "objects")
    lines = by_label(figure)
    assert lines["B warm start"] == pytest.approx([22.45, 24.85, 29.25, 32.15])
    assert lines["A feed-forward"] == pytest.approx([22.45, 22.45])
    assert {"C scratch", "mean colour", "visual hull"} <= set(lines)
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() < 1]
    assert len(thin) == 4
    assert {line.get_color() for line in thin} == {COLOURS["b"], COLOURS["c"]}
    assert figure.axes[0].get_xticks().tolist() == [0, 50, 200, 1000, 3000]
    assert figure.axes[0].get_xlim()[0] < 0


def test_steps_plot_breaks_the_line_and_hollows_the_mean_where_a_scene_is_missing() -> None:
    records = [r for r in study(STRATA) if r.case != "s.one/b-capture-n200"]
    axes = psnr_against_steps(records, "capture", "objects").axes[0]
    thin = [line for line in axes.lines if line.get_linewidth() < 1 and line.get_color() == COLOURS["b"]]
    assert [bool(np.isnan(line.get_ydata()).any()) for line in thin] == [True, False]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[200]]


def test_seconds_plot_has_every_arm_and_n_and_the_front() -> None:
    figure = psnr_against_seconds(scene_records("s.one"), "inputs", "objects")
    lines = by_label(figure)
    assert lines["B warm start"] == pytest.approx([22.2, 24.2, 23.7, 21.9])
    assert lines["C scratch"] == pytest.approx([16.3, 19.4, 20.5, 20.1])
    assert lines["Pareto front"] == pytest.approx([22.2, 22.2, 24.2])
    assert {text.get_text() for text in figure.axes[0].texts} >= {"0", "50", "200", "1,000", "3,000"}


@pytest.mark.parametrize("draw", [psnr_against_steps, psnr_against_seconds])
def test_a_pool_without_numbers_or_without_curves_still_gives_a_picture(draw: type[Figure]) -> None:
    for records in ([record()], [record("s.one", "b", "capture", 0, None, status="crashed")]):
        buffer = io.BytesIO()
        draw(records, "capture", "thin").savefig(buffer)
        assert Image.open(buffer).size == (1200, 750)
