"""What measuring costs, and how well it repeats: anchor, rendering, metrics, memory.

    python -m benchmarks.cost [--wall] [--repeats N]

By default the clock counts processor time of one thread, which says what an idle machine would take also while others
have this one; ``--wall`` counts as the study does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evalsuite.core.cases import Trajectory
from evalsuite.core.clock import Clock
from evalsuite.execution.anchor import Anchor
from evalsuite.execution.local import fix_threads
from evalsuite.execution.selection import select
from evalsuite.execution.speed import TimedRenderable, frames_per_second
from evalsuite.execution.trajectory import load_scene, run_trajectory, warm_up
from evalsuite.metrics.evaluate import evaluate
from evalsuite.records.store import RecordStore
from evalsuite.splats.field import GaussianField
from evalsuite.splats.ply import load_ply

SCENE = "smoke.blob"


def anchor_line(now: Callable[[], float]) -> str:
    """Median and spread of the anchor."""
    anchor = Anchor("cpu", Clock(now))
    for _ in range(8):
        anchor.sample()
    spread = statistics.stdev(anchor._seconds) / anchor.seconds
    return (
        f"anchor: {1e3 * anchor.seconds:.1f} ms, standard deviation {spread:.0%} of 24 runs, share {anchor.share:.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=main.__doc__)
    parser.add_argument("--wall", action="store_true", help="count seconds of the wall")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each trajectory in one process")
    options = parser.parse_args(arguments)
    now = time.perf_counter if options.wall else time.process_time
    fix_threads(1)
    warm_up("cpu")
    console = Console()
    console.print(anchor_line(now))
    suite = select("smoke").suite
    scene, _, truth = load_scene(SCENE, suite, "cpu")
    table = Table("trajectory", "Gaussians", "frames / s", "render, s", "evaluate, s", "peak MiB by repeat")
    with tempfile.TemporaryDirectory() as folder:
        store = RecordStore(Path(folder))
        peaks: dict[str, list[str]] = {}
        trajectories = [Trajectory(SCENE, "a", None, (0,))]
        trajectories += [replace(t, steps=(200,)) for t in select("smoke", [SCENE], ["b", "c"]).trajectories]
        for _ in range(options.repeats):
            for trajectory in trajectories:
                run_trajectory(trajectory, suite, store, "cpu")
                record = store.read(trajectory.cases[0].id)
                assert record is not None
                assert record.peak_host_bytes is not None
                peaks.setdefault(trajectory.id, []).append(f"{record.peak_host_bytes / 2**20:.0f}")
        for trajectory in trajectories:
            field = GaussianField(load_ply(store.root / f"{trajectory.cases[0].id}.ply"))
            clock = Clock(now)
            with clock.phase("evaluate"):
                evaluate(TimedRenderable(field, clock), truth.heldout)
            fps = frames_per_second(field, scene.heldout.cameras, scene.background, Clock(now))
            seconds = clock.snapshot()
            table.add_row(
                trajectory.id, f"{field.primitives:,}", f"{fps:.0f}", f"{seconds['render']:.3f}",
                f"{seconds['evaluate']:.3f}", " ".join(peaks[trajectory.id]),
            )  # fmt: skip
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
