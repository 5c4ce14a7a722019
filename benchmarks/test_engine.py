"""The stages of the engine under pytest-benchmark: ``pytest benchmarks`` (and ``--benchmark-compare``)."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.engine import compositing
from benchmarks.workloads import WHITE, ball, listed, orbit, photographs, steps
from evalsuite.splats.loss import photometric_loss
from evalsuite.splats.rasterise import rasterise

SIZES = [(4096, 128), (65536, 256)]


@pytest.mark.parametrize(("count", "size"), SIZES)
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_blend(way: str, count: int, size: int, benchmark: BenchmarkFixture) -> None:
    forward, backward = compositing(listed(ball(count), size))
    forward()
    benchmark(forward if way == "forward" else backward)


@pytest.mark.parametrize(("count", "size"), SIZES)
def test_render(count: int, size: int, benchmark: BenchmarkFixture) -> None:
    cloud, camera = ball(count), orbit(1, size)
    with torch.no_grad():
        picture = benchmark(lambda: rasterise(cloud, camera, WHITE))
    assert picture.alpha.max() > 0.9


@pytest.mark.parametrize("size", [128, 256])
def test_loss(size: int, benchmark: BenchmarkFixture) -> None:
    image, target = torch.rand(2, size, size, 3)
    benchmark(lambda: torch.autograd.backward(photometric_loss(image.requires_grad_(), target, 0.2)))


@pytest.mark.parametrize(("count", "size"), SIZES)
def test_training_step(count: int, size: int, benchmark: BenchmarkFixture) -> None:
    steppings = steps(ball(count), photographs(count, size))
    benchmark.pedantic(lambda: next(steppings), rounds=20, warmup_rounds=3)
