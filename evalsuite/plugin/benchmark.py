"""pytest-benchmark as a mirror of the records: seconds that the cases measured, metrics beside them, a small file."""

from __future__ import annotations

import re
from typing import Any

import pytest

from evalsuite.core.machine import fingerprint
from evalsuite.core.phases import COST_PHASES
from evalsuite.records.schema import Record

DIGITS = 6
GPU_SELECTED = re.compile(r"(?<!not )\bgpu\b")
"""A selection of marks under which a study runs on a GPU."""

_REDUNDANT = ("params", "options")
_ONE_ROUND = ("data", "q1", "q3", "iqr_outliers", "stddev_outliers", "ld15iqr", "hd15iqr", "total")
"""Statistics that no column of --benchmark-compare shows, and that one round does not have."""


class ReplayClock:
    """A timer that shows the seconds a case measured itself: pytest-benchmark's own would time a file being read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def benchmark_clock(request: pytest.FixtureRequest) -> ReplayClock:
    """Clock of the ``benchmark`` fixture; must be requested before it."""
    clock = ReplayClock()
    request.node.add_marker(pytest.mark.benchmark(timer=clock))
    return clock


def extra_info(record: Record | None, verdict: str) -> dict[str, Any]:
    """What the benchmark's JSON says of a case beside its seconds; a case without a record is in it too."""
    if record is None:
        return {"status": "not-run", "verdict": verdict}
    metrics = {name: _short(r.value) for name, r in record.metrics.items() if r.value is not None}
    return {
        "status": record.status,
        "verdict": verdict,
        "seconds": {phase: _short(record.seconds[phase]) for phase in COST_PHASES if phase in record.seconds},
        "gaussians": record.gaussians,
        "peak_bytes": record.peak_device_bytes or record.peak_host_bytes,  # the record tells them apart
        "frames_per_second": None if record.frames_per_second is None else _short(record.frames_per_second),
        "metrics": metrics,
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Our fingerprint instead of the host's name and a hundred CPU flags."""
    machine_info.pop("node", None)
    machine_info.get("cpu", {}).pop("flags", None)
    machine_info["evalsuite"] = fingerprint("cuda" if GPU_SELECTED.search(config.option.markexpr or "") else "cpu")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Keep the file small: one round needs no raw data, and the case id says all that parameters would."""
    for benchmark in output_json["benchmarks"]:
        stats = benchmark["stats"]
        for name in _REDUNDANT:
            benchmark.pop(name, None)
        for name in _ONE_ROUND if stats["rounds"] == 1 else ("data",):
            stats.pop(name, None)
        benchmark["stats"] = {
            name: _short(value) if isinstance(value, float) else value for name, value in stats.items()
        }


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
