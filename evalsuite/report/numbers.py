"""The study's numbers in small files that git diffs and DVC shows: means by arm, budget and N, and the Pareto curve.

``metrics/<pool>/<case>.json`` holds the means of one arm, budget and N over the scenes of a pool, so that
``dvc metrics show`` prints a row per case; ``pareto.csv`` is what ``dvc plots show`` draws.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from evalsuite.core.cases import BUDGETS
from evalsuite.records.schema import Record
from evalsuite.report.crossover import mean_points, pareto_front
from evalsuite.report.plots import SHORTEST_SECONDS
from evalsuite.report.tables import Setting, arm_name, main_pools, mean_over, outcomes

COLUMNS = ("pool", "budget", "arm", "n", "seconds", "psnr", "front")
"""Of ``pareto.csv``; ``front`` is ``yes`` where no other point of the same pool and budget is as fast and as good."""


def write_numbers(records: Iterable[Record], folder: Path, expected: Sequence[str] = ()) -> None:
    """Write ``metrics/`` anew, and ``pareto.csv``, in a folder; the same records give the same bytes.

    Args:
        records: of one suite.
        folder: made if need be.
        expected: ids of the cases there should be; those without a record lower the count of scenes.

    Raises:
        NotComparableError: see `evalsuite.report.tables.check_comparable`.
    """
    records = list(records)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "metrics", ignore_errors=True)  # an N that left the ladder must not stay
    for (pool, setting), values in _means(records, expected).items():
        path = folder / "metrics" / pool / f"{_name(setting)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    with (folder / "pareto.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *_curve(records)])


def _means(records: Sequence[Record], expected: Sequence[str]) -> dict[tuple[str, Setting], dict[str, float]]:
    """By pool and setting: every metric that has a value, seconds, Gaussians, and over how many scenes PSNR is."""
    quantities = [*sorted({name for record in records for name in record.metrics}), "seconds", "gaussians"]
    found: dict[tuple[str, Setting], dict[str, float]] = {}
    for quantity in quantities:
        for setting, by_scene in outcomes(records, quantity, expected).items():
            for pool, scenes in main_pools(records).items():
                mean = mean_over(by_scene, scenes)
                values = found.setdefault((pool, setting), {})
                if mean.value is not None:
                    values[quantity] = _rounded(mean.value)
                if quantity == "psnr":
                    values["scenes"] = mean.scenes
    return found


def _curve(records: Sequence[Record]) -> Iterable[tuple[str | int | float, ...]]:
    for pool, scenes in main_pools(records).items():
        for budget in BUDGETS:
            points = mean_points(records, budget, scenes)
            front = pareto_front(points)
            for point in points:
                place = _rounded(max(point.seconds, SHORTEST_SECONDS)), _rounded(point.psnr)
                marked = "yes" if point in front else "no"
                yield pool, budget, arm_name(point.setting.arm), point.setting.steps, *place, marked


def _name(setting: Setting) -> str:
    """A case's name without scene and seed: ``b-capture-n50``, ``a``."""
    return f"{setting.arm}-{setting.budget}-n{setting.steps}" if setting.budget else setting.arm


def _rounded(value: float) -> float:
    """Five significant digits: finer ones are noise in a diff."""
    return float(f"{value:.5g}")
