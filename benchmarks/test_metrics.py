"""The image metrics under pytest-benchmark: ``pytest benchmarks``."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.metrics import METRICS, pair


@pytest.mark.parametrize("name", METRICS)
def test_metric(name: str, benchmark: BenchmarkFixture) -> None:
    pred, true = pair()
    assert benchmark(lambda: METRICS[name](pred, true)).isfinite().all()
