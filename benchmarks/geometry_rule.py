"""What cheaper rules of taking a surface cost in values and in ranking: the table in benchmarks/README.md.

    python -m benchmarks.geometry_rule [--results FOLDER] [--scenes smoke.chair ...]

Results of arms A, B and C are made once (minutes) and kept as ``<scene>_<arm><N>.ply`` in the folder. Every rule then
measures all of them against a truth that is sampled by its own numbers. Seconds are those of one core per result, in
turns: rules of one result follow each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from evalsuite.arms.arm import ArmSettings
from evalsuite.arms.catalogue import ARMS
from evalsuite.core.cases import Budget
from evalsuite.core.clock import Clock
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import Scene
from evalsuite.execution.geometry import measure_geometry
from evalsuite.execution.local import fix_threads
from evalsuite.execution.trajectory import load_scene
from evalsuite.metrics.geometry import IndexedSurface, index
from evalsuite.metrics.spec import geometry_metrics
from evalsuite.scenes.catalogue import SUITES
from evalsuite.scenes.visibility import visible_samples
from evalsuite.splats.field import GaussianField
from evalsuite.splats.ply import load_ply, save_ply
from evalsuite.splats.recipes import RECIPES

SUITE = SUITES["smoke"]
MADE: tuple[tuple[str, Budget | None, tuple[int, ...]], ...] = (
    ("a", None, (0,)),
    ("b", "capture", (50, 200)),
    ("c", "capture", (50, 200, 1000)),
)
"""Arm, budget and N of the results."""

FIRST = GeometryRule(
    views=48, resolution=256, voxels=192, truncation=6.0, samples=100_000, directions=64, icp_samples=10_000,
    icp_iterations=20,
)  # fmt: skip
"""The rule before there was this table."""

RULES = {
    "first": FIRST,
    "24 views": replace(FIRST, views=24),
    "24 views, 160 voxels": replace(FIRST, views=24, voxels=160, truncation=5.0),
    "24 views, 128 voxels": replace(FIRST, views=24, voxels=128, truncation=4.0),
    "24 views, 128 voxels, 192 px": replace(FIRST, views=24, voxels=128, truncation=4.0, resolution=192),
    "50k samples": replace(FIRST, samples=50_000),
    "32 directions": replace(FIRST, directions=32),
    "ICP of 2k": replace(FIRST, icp_samples=2_000),
    "ICP of 2k, 10 steps": replace(FIRST, icp_samples=2_000, icp_iterations=10),
    "chosen": GeometryRule(),
}
QUANTITIES = ("chamfer", "chamfer.icp", "f-score-0.5", "f-score-1", "f-score-2", "normals")


def make(scene_id: str, folder: Path) -> None:
    """Results of a scene, where they are not there yet."""
    scene: Scene | None = None
    for arm, budget, steps in MADE:
        paths = {n: folder / f"{scene_id}_{arm}{n}.ply" for n in steps}
        if all(path.is_file() for path in paths.values()):
            continue
        scene = scene or load_scene(scene_id, SUITE.of(scene_id), "cpu")[0]
        settings = ArmSettings(SUITE.model, RECIPES[SUITE.recipe], steps, 0)
        for checkpoint in ARMS[arm](scene.evidence(budget or "inputs"), settings, Clock()):
            assert isinstance(checkpoint.result, GaussianField)
            save_ply(checkpoint.result.gaussians, paths[checkpoint.steps])


def truth(scene: Scene, rule: GeometryRule) -> tuple[Scene, IndexedSurface]:
    """A scene whose true surface is sampled by a rule."""
    assert scene.mesh is not None
    samples = visible_samples(scene.mesh, rule, "true")
    assert samples is not None
    return replace(scene, surface=samples), index(samples)


def measured(scene_id: str, folder: Path, repeats: int) -> dict[str, list[tuple[float, list[float]]]]:
    """By rule, seconds and the `QUANTITIES` of every result of a scene."""
    scene = load_scene(scene_id, SUITE.of(scene_id), "cpu")[0]
    truths = {name: truth(scene, rule) for name, rule in RULES.items()}
    found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in RULES}
    for path in sorted(folder.glob(f"{scene_id}_*.ply")):
        result = GaussianField(load_ply(path))
        for name, rule in RULES.items():
            seconds = []
            for _ in range(repeats):
                began = time.process_time()
                readings, _ = measure_geometry(result, truths[name][0], rule, truths[name][1])
                seconds.append(time.process_time() - began)
            values = [readings[geometry_metrics(rule)[quantity].id].value for quantity in QUANTITIES]
            found[name].append((min(seconds), [np.nan if value is None else value for value in values]))
    return found


def moved(first: np.ndarray, values: np.ndarray) -> str:
    """Median and largest change in percent, and whether the ranking within scenes and over all results is the same.

    Args:
        first, values: (scenes, results) of one quantity.
    """
    change = 100 * (values / first - 1).ravel()
    within = min(float(kendalltau(one, two)[0]) for one, two in zip(first, values, strict=True))
    overall = float(spearmanr(first.ravel(), values.ravel())[0])
    largest = change[np.abs(change).argmax()]
    return f"{statistics.median(change):+.1f} ({largest:+.1f}); {within:.2f}, {overall:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("out/geometry_rule"))
    parser.add_argument("--scenes", nargs="+", default=["smoke.chair", "smoke.castle", "smoke.creature"])
    parser.add_argument("--repeats", type=int, default=2, help="the least of so many times is taken")
    options = parser.parse_args()
    fix_threads(1)
    options.results.mkdir(parents=True, exist_ok=True)
    for scene in options.scenes:
        make(scene, options.results)
    scenes = [measured(scene, options.results, options.repeats) for scene in options.scenes]
    table = Table("rule", "seconds", *QUANTITIES, title="change, % (largest); Kendall within, Spearman over all")
    first = np.array([[values for _, values in scene["first"]] for scene in scenes])
    for name in RULES:
        values = np.array([[values for _, values in scene[name]] for scene in scenes])
        seconds = statistics.mean(seconds for scene in scenes for seconds, _ in scene[name])
        columns = [moved(first[..., k], values[..., k]) for k in range(len(QUANTITIES))]
        table.add_row(name, f"{seconds:.2f}", *columns)
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
