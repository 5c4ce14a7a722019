"""PSNR against N and against seconds. Figures are built without pyplot: no global state, no display."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from evalsuite.records.schema import Record
from evalsuite.report.crossover import Point, mean_points, pareto_front
from evalsuite.report.tables import STUDY_ARMS, Outcome, Setting, arm_name, mean_over, outcomes, pools, scene_count

COLOURS = {"a": "#009e73", "b": "#d55e00", "c": "#0072b2"}
"""From the palette of Okabe and Ito, distinct under the common colour blindnesses; page.html uses the same."""

FLOOR_COLOUR = "#767676"
MARKERS = {"a": "D", "b": "o", "c": "s"}
LEVELS = {"mean-colour": ":", "visual-hull": "--", "a": "-."}
"""Line styles of the arms that take no steps."""

SIZE_INCHES = (8.0, 5.0)
DPI = 150
SHORTEST_SECONDS = 1e-3
"""Where the logarithmic time axis starts; quicker points are drawn there."""


def psnr_against_steps(records: Iterable[Record], budget: str, pool: str) -> Figure:
    """Held-out PSNR against N: thin lines are scenes, bold their mean, hollow markers means that lack scenes.

    A and the floors take no steps and are level lines.
    """
    records = list(records)
    scenes, table = pools(records)[pool], outcomes(records, "psnr")
    figure, axes = _canvas(f"Budget {budget}, {pool} ({scene_count(len(scenes))}): held-out PSNR against steps")
    shown = {setting: values for setting, values in table.items() if setting.budget in (None, budget)}
    for setting, values in shown.items():
        mean = mean_over(values, scenes).value
        if setting.budget is None and mean is not None:
            axes.axhline(
                mean,
                label=arm_name(setting.arm),
                linewidth=1.8,
                color=_colour(setting.arm),
                linestyle=LEVELS.get(setting.arm, "-"),
            )
    for arm in ("b", "c"):
        curve = {setting: values for setting, values in shown.items() if setting.arm == arm}
        if curve:
            _draw_curve(axes, arm, curve, scenes)
    ticks = sorted({setting.steps for setting in shown if setting.budget})
    positive = [steps for steps in ticks if steps > 0]
    if positive:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda steps, _: f"{steps:,.0f}"))
        axes.set_xlim(-0.08 * positive[0], positive[-1] * 1.15)
    axes.set_xlabel("N, photometric steps (0, then logarithmic)")
    return _with_legend(figure, axes)


def _draw_curve(axes: Axes, arm: str, curve: Mapping[Setting, Mapping[str, Outcome]], scenes: Sequence[str]) -> None:
    """One arm: a thin line per scene, broken where a checkpoint has no value, and the mean."""
    steps = [setting.steps for setting in curve]
    if len(scenes) > 1:
        for scene in scenes:
            found = [values.get(scene) for values in curve.values()]
            heights = [float("nan") if value is None or isinstance(value, str) else value for value in found]
            axes.plot(steps, heights, color=COLOURS[arm], linewidth=0.8, alpha=0.35)
    means = [mean_over(values, scenes) for values in curve.values()]
    heights = [float("nan") if mean.value is None else mean.value for mean in means]
    axes.plot(steps, heights, color=COLOURS[arm], linewidth=2.6, label=arm_name(arm))
    for n, height, mean in zip(steps, heights, means, strict=True):
        fill = COLOURS[arm] if mean.scenes == mean.of else "white"
        axes.plot(n, height, MARKERS[arm], color=COLOURS[arm], markerfacecolor=fill, markersize=8, markeredgewidth=1.8)


def psnr_against_seconds(records: Iterable[Record], budget: str, pool: str) -> Figure:
    """Held-out PSNR against seconds per asset, means over scenes, for every arm and N, with the Pareto front."""
    records = list(records)
    scenes = pools(records)[pool]
    points = mean_points(records, budget, scenes)
    figure, axes = _canvas(f"Budget {budget}, {pool} ({scene_count(len(scenes))}): held-out PSNR against seconds")
    front = pareto_front(points)
    if front:
        times, heights = [max(p.seconds, SHORTEST_SECONDS) for p in front], [p.psnr for p in front]
        axes.step(times, heights, where="post", color="#b8b8b8", linewidth=6, alpha=0.7, label="Pareto front", zorder=1)
    for arm in dict.fromkeys(point.setting.arm for point in points):
        _draw_points(axes, arm, [point for point in points if point.setting.arm == arm])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.margins(x=0.08, y=0.1)
    axes.set_xlabel("seconds per asset (logarithmic, compilation excluded)")
    return _with_legend(figure, axes)


def _draw_points(axes: Axes, arm: str, points: Sequence[Point]) -> None:
    colour = _colour(arm)
    times, heights = [max(p.seconds, SHORTEST_SECONDS) for p in points], [p.psnr for p in points]
    if arm not in STUDY_ARMS:
        marker = "x" if arm == "mean-colour" else "^"
        axes.plot(times, heights, marker, color=colour, markersize=9, label=arm_name(arm))
        return
    # A lies under B at N = 0: a larger marker, no label.
    size = 13 if arm == "a" else 8
    axes.plot(
        times, heights, "-", color=colour, marker=MARKERS[arm], markersize=size, linewidth=1.6, label=arm_name(arm)
    )
    # B is labelled above and C below its points: the curves often touch.
    above = arm == "b"
    for point, time in zip(points, times, strict=True):
        if point.scenes < point.of:
            axes.plot(time, point.psnr, MARKERS[arm], color=colour, markerfacecolor="white", markersize=size)
        axes.annotate(
            "" if arm == "a" else f"{point.setting.steps:,}",
            (time, point.psnr),
            xytext=(0, 9 if above else -9),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            color=colour,
            fontsize=11,
        )


def _canvas(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=13, loc="left")
    axes.set_ylabel("PSNR, dB", fontsize=12)
    axes.xaxis.label.set_fontsize(12)
    axes.tick_params(labelsize=11)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=11)
    return figure


def _colour(arm: str) -> str:
    return COLOURS.get(arm, FLOOR_COLOUR)
