"""The study itself: every case against its golden, the law that ties B to A, and the expected orderings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evalsuite.gates.claims import Claim, judge
from evalsuite.plugin.summary import describe

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from evalsuite.core.cases import Case, Trajectory
    from evalsuite.plugin.hooks import ReplayClock
    from evalsuite.plugin.study import Study

pytestmark = pytest.mark.timeout(0)  # the first test runs the whole study


def test_case(case: Case, study: Study, benchmark_clock: ReplayClock, benchmark: BenchmarkFixture) -> None:
    """The case ran, and no metric is worse than its golden beyond the tolerance."""
    record = study.record(case)
    if record is not None:
        benchmark.extra_info.update(
            status=record.status,
            seconds=dict(record.seconds),
            gaussians=record.gaussians,
            peak_host_bytes=record.peak_host_bytes,
            peak_device_bytes=record.peak_device_bytes,
            frames_per_second=record.frames_per_second,
            metrics={name: reading.value for name, reading in record.metrics.items()},
        )
        benchmark.pedantic(benchmark_clock.advance, args=(record.total_seconds,), rounds=1)
    comparison = study.compare(case)
    if comparison.blocks:
        pytest.fail("\n".join(describe(comparison)), pytrace=False)


def test_warmstart_at_zero_is_feedforward(warmstart: Trajectory, study: Study) -> None:
    """B at N = 0 is A, bit for bit."""
    a, b = (
        next(c for c in study.selection.cases if c.id == case_id)
        for case_id in (f"{warmstart.scene}/a", f"{warmstart.id}-n0")
    )
    feedforward, start = study.record(a), study.record(b)
    if feedforward is None or start is None or {feedforward.status, start.status} != {"ok"}:
        pytest.fail("A or B has no result to compare; see its case", pytrace=False)
    assert start.metrics == feedforward.metrics
    assert start.gaussians == feedforward.gaussians


def test_claim(claim: Claim, study: Study) -> None:
    """An expected ordering of arms, on paired differences over scenes."""
    if not study.selection.whole:
        pytest.skip("a claim is about the whole suite; this run is a part of it")
    result = judge(claim, study.records())
    if result.blocks:
        pytest.fail(str(result), pytrace=False)


def test_speed_and_memory(study: Study) -> None:
    """Nothing became slower or larger, as far as this machine can tell."""
    worse = [str(result) for result in study.timing() if result.blocks]
    if worse:
        pytest.fail("\n".join(worse), pytrace=False)


def test_complete(study: Study) -> None:
    """Every expected case has a record and a verdict; a golden without a case is a renamed case."""
    judged = {case.id for case in study.selection.cases if study.compare(case) is not None}
    assert judged == set(study.expected)
    assert judged, "no case was compared"
    if study.selection.whole:
        orphans = set(study.goldens.cases()) - judged
        assert not orphans, f"goldens without a case (renamed or removed?): {', '.join(sorted(orphans))}"
