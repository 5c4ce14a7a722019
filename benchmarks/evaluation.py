"""Core-seconds that the evaluation of one result takes, by part.

    python -m benchmarks.evaluation [--scene smoke.chair]

The result is arm A's. CPU time of one thread, the median of repeats after a warm-up: other processes disturb it little.
FLIP by the authors' package is measured in turns with ours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import flip_evaluator
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from evalsuite.arms.arm import ArmSettings
from evalsuite.arms.catalogue import ARMS
from evalsuite.core.clock import Clock
from evalsuite.core.protocol import PROTOCOLS
from evalsuite.core.suites import Suite
from evalsuite.core.types import Renderable, Scene
from evalsuite.execution.geometry import measure_geometry
from evalsuite.execution.local import fix_threads
from evalsuite.execution.truth import truth_of
from evalsuite.metrics.evaluate import evaluate
from evalsuite.metrics.geometry import aligned_chamfer, neighbours
from evalsuite.metrics.image import PIXELS_PER_DEGREE, flip, psnr, ssim
from evalsuite.scenes.catalogue import SCENES, SUITES
from evalsuite.scenes.visibility import visible_samples
from evalsuite.splats.recipes import RECIPES
from evalsuite.splats.surface import Ball, extract_surface

REPEATS = 5


def seconds(*works: Callable[[], object]) -> list[float]:
    """Median CPU seconds of calls made in turns, after one of each that is not counted."""
    times: list[list[float]] = [[] for _ in works]
    for repeat in range(REPEATS + 1):
        for work, found in zip(works, times, strict=True):
            began = time.process_time()
            work()
            if repeat:
                found.append(time.process_time() - began)
    return [statistics.median(found) for found in times]


def forward(scene: Scene, suite: Suite) -> Renderable:
    """Arm A's result."""
    settings = ArmSettings(suite.model, RECIPES[suite.recipe], (0,), 0, suite.weights)
    (checkpoint,) = ARMS["a"](scene.evidence("inputs"), settings, Clock())
    return checkpoint.result


def authors_flip(pred: Tensor, true: Tensor) -> None:
    """FLIP of every view by flip-evaluator."""
    for p, t in zip(pred.numpy(), true.numpy(), strict=True):
        flip_evaluator.evaluate(t, p, "LDR", applyMagma=False, parameters={"ppd": PIXELS_PER_DEGREE})


def figures(scene: Scene, result: Renderable) -> dict[str, float]:
    """Seconds by part, and of a whole case."""
    protocol = PROTOCOLS["object-128"]
    rule, truth, background = protocol.geometry, scene.heldout, scene.background
    assert scene.mesh is not None
    assert scene.surface is not None
    diagonal, ball, known = scene.mesh.diagonal, Ball(scene.centre, scene.radius), truth_of(scene, protocol)
    assert known.surface is not None
    true_surface = known.surface
    pred, true = result.render(truth.cameras, background).rgb.clamp(0, 1), truth.over(background).clamp(0, 1)
    surface = extract_surface(result, ball, background, rule)
    assert surface is not None
    samples = visible_samples(surface, rule, "predicted")
    assert samples is not None
    ours, theirs = seconds(lambda: flip(pred, true), lambda: authors_flip(pred, true))
    parts = seconds(
        lambda: psnr(pred, true),
        lambda: ssim(pred, true),
        lambda: extract_surface(result, ball, background, rule),
        lambda: visible_samples(surface, rule, "predicted"),
        lambda: neighbours(samples, true_surface, diagonal),
        lambda: aligned_chamfer(samples, true_surface, diagonal, rule),
    )
    names = ("psnr", "ssim", "surface: depth, fusion, marching cubes", "its samples", "neighbours", "ICP")
    whole = seconds(
        lambda: evaluate(result, known.heldout), lambda: measure_geometry(result, scene, rule, known.surface)
    )
    return {
        "images: render and measure": whole[0],
        "... FLIP": ours,
        "... FLIP by its authors, over ours": theirs / ours,
        **{f"... {name}": value for name, value in zip(names[:2], parts[:2], strict=True)},
        "geometry": whole[1],
        **{f"... {name}": value for name, value in zip(names[2:], parts[2:], strict=True)},
        "a case": sum(whole),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation")
    parser.add_argument("--scene", default="smoke.chair", help="an object of suite smoke")
    options = parser.parse_args(arguments)
    fix_threads(1)
    suite = SUITES["smoke"]
    scene = SCENES[options.scene].load(suite.protocol)
    with torch.no_grad():
        found = figures(scene, forward(scene, suite))
    table = Table("part", "core-seconds")
    for name, value in found.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
