"""Figures of the CPU engine, by name.

    python -m benchmarks.engine [--json FILE] [--plot FILE]

Each time is the median of repeats after a warm-up. What is compared with each other is measured in turns. Run it on an
otherwise idle machine; a mirror (EVALSUITE_MIRROR) adds the step on a real capture.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from matplotlib.figure import Figure
from numba import njit
from rich.console import Console
from rich.table import Table
from torch.nn import Parameter

from benchmarks import torch_splatting
from benchmarks.workloads import (
    FIXED,
    WHITE,
    Listed,
    ball,
    capture,
    listed,
    orbit,
    photographs,
    random_weights,
    steps,
)  # fmt: skip
from evalsuite.core.errors import MissingDataError
from evalsuite.core.memory import peak_bytes, reset_peak
from evalsuite.core.types import Gaussians
from evalsuite.execution.local import fix_threads
from evalsuite.splats.cpu import compositor
from evalsuite.splats.cpu.simd import LANES, fma, load, splat, store
from evalsuite.splats.loss import loss_torch
from evalsuite.splats.optimise import Optimisation, Start
from evalsuite.splats.rasterise import rasterise

REPEATS = 15
OPENSPLAT_BEER_MS = 124.0
"""OpenSplat 1.1.5 built for CPU: a training step on `beer`, 180 x 320, its 4,414 SfM points, two cores, SSIM weight
0.2, degree 0; measured beside this project once, not by this script."""

FLOPS_PER_VISIT = 32
"""Forward pass, per pixel and Gaussian: additions and multiplications (a fused pair counts two), no comparisons."""

FIELDS = ("means", "quats", "scales", "opacities", "sh")


def median_ms(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median milliseconds of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def compositing(scene: Listed) -> tuple[Callable[[], None], Callable[[], None]]:
    """The forward pass of the compositor alone, and its backward pass (with the sum over tile entries)."""
    size, (starts, entries, spans, slots, offsets) = scene.size, scene.lists
    background = np.ones(3, np.float32)
    rgb, alpha, depth = (np.empty(shape, np.float32) for shape in ((size, size, 3), (size, size), (size, size)))
    v_rgb, v_alpha, v_depth = (random_weights(a.shape).numpy() for a in (rgb, alpha, depth))
    by_tile = np.zeros((len(starts) - 1, 3), np.float32)
    v_splats, v_absolute = np.zeros_like(scene.splats), np.zeros((len(scene.splats), 2), np.float32)

    def forward() -> None:
        compositor.composite_forward(0, starts, entries, spans, scene.splats, background, size, size, rgb, alpha, depth)

    def backward() -> None:
        table = np.empty((len(entries), compositor.SUMS), np.float32)
        compositor.composite_backward(
            0, starts, entries, spans, slots, scene.splats, background, size, size,
            rgb, alpha, depth, v_rgb, v_alpha, v_depth, False, table, by_tile,
        )  # fmt: skip
        compositor.reduce_table(offsets, table, scene.splats, v_splats, v_absolute)

    return forward, backward


@njit
def _multiply_add(rounds: int, out: np.ndarray) -> None:
    start, factor = load(out, 0), splat(np.float32(0.999))
    a = b = c = d = e = f = g = h = start
    for _ in range(rounds):
        a, b, c, d = fma(a, factor, start), fma(b, factor, start), fma(c, factor, start), fma(d, factor, start)
        e, f, g, h = fma(e, factor, start), fma(f, factor, start), fma(g, factor, start), fma(h, factor, start)
    store(out, 0, a + b + c + d + e + f + g + h)


def peak_flops() -> float:
    """Operations per second of one core that does nothing but independent multiply-adds in registers."""
    rounds, out = 1_000_000, np.ones(LANES, np.float32)
    return 8 * LANES * 2 * rounds / (1e-3 * median_ms(lambda: _multiply_add(rounds, out)))


def compositor_figures() -> dict[str, float]:
    """Nanoseconds per pair on one core; and, where no pixel stops early, the share of the core's peak."""
    figures: dict[str, float] = {}
    fix_threads(1)
    for count, size in ((4096, 128), (65536, 256)):
        scene, name = listed(ball(count), size), f"{count // 1024}k_{size}"
        forward, backward = (median_ms(work) for work in compositing(scene))
        figures |= {
            f"pairs_per_pixel_{name}": scene.pairs / size**2,
            f"forward_ns_per_pair_{name}": 1e6 * forward / scene.pairs,
            f"forward_backward_ns_per_pair_{name}": 1e6 * (forward + backward) / scene.pairs,
        }
    faint = ball(4096)
    scene = listed(replace(faint, opacities=0.03 * faint.opacities), 128)
    forward, backward = (median_ms(work) for work in compositing(scene))
    peak = peak_flops()
    return figures | {
        "forward_ns_per_visit": 1e6 * forward / scene.visited,
        "backward_ns_per_visit": 1e6 * backward / scene.visited,
        "core_peak_gflops": 1e-9 * peak,
        "forward_peak_share": FLOPS_PER_VISIT * scene.visited / (1e-3 * forward) / peak,
    }


def step_ms(initial: Gaussians, size: int, sh_degree: int = 0) -> float:
    """Median milliseconds of a training step."""
    recipe = FIXED if sh_degree == 0 else replace(FIXED, sh_every=1)
    return statistics.median(islice(steps(initial, photographs(len(initial), size), recipe), 2 * REPEATS))


def step_figures(cores: int) -> dict[str, float]:
    """Whole training steps, on all cores and on one, in turns."""
    figures: dict[str, float] = {}
    for count, size in ((4096, 128), (65536, 256)):
        initial, name = ball(count), f"{count // 1024}k_{size}"
        times: dict[int, list[float]] = {1: [], cores: []}
        for threads in [1, cores] * 3:
            fix_threads(threads)
            times[threads].append(step_ms(initial, size))
        one, all_cores = (statistics.median(times[threads]) for threads in (1, cores))
        figures |= {f"step_{name}_ms": all_cores, f"step_{name}_one_core_ms": one}
        figures[f"step_{name}_degree_3_ms"] = step_ms(initial, size, sh_degree=3)
        figures[f"cores_speedup_{name}"] = one / all_cores
        figures |= autograd_figures(initial, size, name)
    return figures


def autograd_figures(initial: Gaussians, size: int, name: str) -> dict[str, float]:
    """The fused step and the one with a graph through `rasterise`, on one core, step by step in turns."""
    fix_threads(1)
    start = Start(photographs(len(initial), size), WHITE, FIXED, 0)
    fused, graph = Optimisation(initial, start), Optimisation(initial, start)
    graph.fused = None
    times: dict[str, list[float]] = {"fused": [], "graph": []}
    for step in range(2 * REPEATS):
        for label, run in (("fused", fused), ("graph", graph)):
            began = time.perf_counter()
            run.step(step)
            times[label].append(time.perf_counter() - began)
    ours, theirs = (statistics.median(times[label][3:]) for label in ("fused", "graph"))
    return {f"autograd_step_{name}_one_core_ms": 1e3 * theirs, f"autograd_over_ours_{name}": theirs / ours}


def torch_step(count: int, size: int) -> Callable[[], None]:
    """The same step in plain torch (see `torch_splatting`)."""
    initial, camera, scene = ball(count), orbit(1, size), listed(ball(count), size)
    target = photographs(count, size, views=1).rgb[0]
    values = Gaussians(*(Parameter(getattr(initial, field)) for field in FIELDS))
    adam = torch.optim.Adam([getattr(values, field) for field in FIELDS], lr=1e-8, fused=True)
    with torch.no_grad():
        error = (torch_splatting.render(values, camera, scene) - rasterise(initial, camera, WHITE).rgb[0]).abs()
    assert error.max() < 5e-3, f"the peer renders another picture: {error.max():.1e}"

    def work() -> None:
        loss_torch(torch_splatting.render(values, camera, scene), target, 0.2).backward()
        adam.step()
        adam.zero_grad(set_to_none=True)

    return work


def peer_figures(cores: int) -> dict[str, float]:
    """Plain torch and, if there is a mirror, the capture that OpenSplat was timed on."""
    fix_threads(cores)
    ours, theirs = step_ms(ball(4096), 128), median_ms(torch_step(4096, 128), 3)
    figures = {"torch_step_4k_128_ms": theirs, "torch_step_over_ours": theirs / ours}
    try:
        initial, target = capture("beer")
    except MissingDataError as error:
        Console(stderr=True).print(f"no step on a capture: {error}")
        return figures
    beer = statistics.median(islice(steps(initial, target), 2 * REPEATS))
    size = f"{target.cameras.width} x {target.cameras.height}"
    Console(stderr=True).print(f"beer: {len(initial)} points, {size}")
    return figures | {"step_beer_ms": beer, "opensplat_step_over_ours": OPENSPLAT_BEER_MS / beer}


def curve(cores: int) -> list[dict[str, float]]:
    """Cost over Gaussians at 256 x 256, and over pixels at 16,384 Gaussians; each in a process of its own."""
    points = [(count, 256) for count in (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20)]
    points += [(1 << 14, size) for size in (64, 128, 512, 1024)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return [pool.submit(_curve_point, count, size, cores).result() for count, size in points]


def _curve_point(count: int, size: int, cores: int) -> dict[str, float]:
    fix_threads(cores)

    def rasterising(cloud: Gaussians, size: int) -> Callable[[], None]:
        values, camera = Gaussians(*(Parameter(getattr(cloud, field)) for field in FIELDS)), orbit(1, size)
        weights = random_weights((1, size, size, 3))
        return lambda: torch.autograd.backward((rasterise(values, camera, WHITE).rgb * weights).sum())

    rasterising(ball(64), 64)()
    cloud = ball(count)
    work = rasterising(cloud, size)
    reset_peak()
    before = peak_bytes()
    work()
    peak = peak_bytes() - before
    whole, scene = median_ms(work, 7), listed(cloud, size)
    forward, backward = (median_ms(work, 7) for work in compositing(scene))
    return {
        "gaussians": count,
        "size": size,
        "pairs": scene.pairs,
        "rasterise_ms": whole,
        "rasterise_ns_per_pair": 1e6 * cores * whole / scene.pairs,
        "blend_ns_per_pair": 1e6 * cores * (forward + backward) / scene.pairs,
        "peak_mb": peak / 1e6,
    }


_RENDER = """
import torch
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.splats.rasterise import rasterise
one = torch.ones(1)
g = Gaussians(torch.zeros(1, 3), torch.ones(1, 4), torch.ones(1, 3), one, torch.ones(1, 1, 3))
pose = torch.eye(4)
pose[2, 3] = 5
rasterise(g, Cameras(pose[None], torch.ones(1, 2), torch.ones(1, 2), 64, 64), torch.ones(3))
"""


def start_figures() -> dict[str, float]:
    """Seconds from nothing to a first picture, without and with compiled kernels; of which torch takes its own."""
    figures = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for name, code in (("cold_start_s", _RENDER), ("warm_start_s", _RENDER), ("import_torch_s", "import torch")):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            figures[name] = time.perf_counter() - began
    return figures


def plot(points: Sequence[dict[str, float]], file: Path) -> None:
    """Time and memory over the number of pairs, and time per pair."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for label, chosen in (
        ("1k to 1M Gaussians, 256 px", [p for p in points if p["size"] == 256]),
        ("64 to 1024 px, 16k Gaussians", sorted((p for p in points if p["gaussians"] == 1 << 14), key=_size)),
    ):
        pairs = [p["pairs"] for p in chosen]
        panels[0].loglog(pairs, [p["rasterise_ms"] for p in chosen], "o-", label=label)
        panels[1].semilogx(pairs, [p["rasterise_ns_per_pair"] for p in chosen], "o-", label=label)
        panels[2].loglog(pairs, [p["peak_mb"] for p in chosen], "o-", label=label)
    for panel, title in zip(
        panels, ("rasterise, forward + backward, ms", "ns per pair and core", "peak MB"), strict=True
    ):
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("pairs (pixel, listed Gaussian)")
        panel.grid(alpha=0.3)
    panels[1].set_ylim(bottom=0)
    panels[0].legend(fontsize=8)
    figure.savefig(file, dpi=120)


def _size(point: dict[str, float]) -> float:
    return point["size"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, print it, and write it where told."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=main.__doc__)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, help="PNG of the curves")
    options = parser.parse_args(arguments)
    cores = min(len(os.sched_getaffinity(0)), numba.config.NUMBA_NUM_THREADS)
    figures: dict[str, Any] = {"cores": cores, **start_figures(), **compositor_figures(), **step_figures(cores)}
    figures |= peer_figures(cores) | {"curve": curve(cores)}
    table = Table("figure", "value")
    for name, value in figures.items():
        if name != "curve":
            table.add_row(name, f"{value:.4g}")
    console = Console()
    console.print(table)
    rows = Table(*figures["curve"][0])
    for point in figures["curve"]:
        rows.add_row(*(f"{value:.4g}" if isinstance(value, float) else f"{value:,}" for value in point.values()))
    console.print(rows)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        plot(figures["curve"], options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
