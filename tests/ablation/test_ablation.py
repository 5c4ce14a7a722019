"""The study itself: every case against its golden, the law that ties B to A, and the expected orderings.

All of it is judged once more at the session's end, whichever of these tests were picked; here it can be read by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evalsuite.core.errors import SchemaError
from evalsuite.gates.claims import Claim
from evalsuite.gates.golden import describe
from evalsuite.plugin.advice import advice, command
from evalsuite.plugin.benchmark import extra_info
from evalsuite.plugin.summary import properties

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture
    from syrupy.assertion import SnapshotAssertion

    from evalsuite.core.cases import Case, Trajectory
    from evalsuite.gates.golden import Comparison
    from evalsuite.plugin.benchmark import ReplayClock
    from evalsuite.plugin.study import Study

pytestmark = pytest.mark.timeout(0)  # the first test runs the whole study


def test_case(
    case: Case,
    study: Study,
    golden: SnapshotAssertion,
    benchmark_clock: ReplayClock,
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
) -> None:
    """The case ran, and no metric is worse than its golden beyond the tolerance."""
    comparison = study.compare(case)
    try:
        record = study.record(case)
    except SchemaError:  # the comparison says so
        record = None
    benchmark.extra_info.update(extra_info(record, comparison.verdict))
    benchmark.pedantic(benchmark_clock.advance, args=(record.total_seconds if record else 0.0,), rounds=1)
    request.node.user_properties.extend(properties(comparison))  # into --junitxml
    if record is None or golden != record:
        _fail(comparison, study)


def test_engine(probe: str, study: Study) -> None:
    """Renderer, its gradients and the first steps of the optimiser do to a small splat what they did."""
    comparison = study.compare(probe)
    if comparison.blocks:
        _fail(comparison, study)


def test_warmstart_at_zero_is_feedforward(warmstart: Trajectory, study: Study) -> None:
    """B at N = 0 is A, bit for bit."""
    breach = study.breach(warmstart)
    if breach:
        pytest.fail(breach, pytrace=False)


def test_claim(claim: Claim, study: Study) -> None:
    """An expected ordering of arms, on paired differences over scenes."""
    result = study.judge(claim)
    if result.blocks:
        pytest.fail(str(result), pytrace=False)


def test_speed_and_memory(study: Study) -> None:
    """Nothing became slower or larger, as far as this machine can tell."""
    worse = [str(result) for result in study.timing() if result.blocks]
    if worse:
        pytest.fail("\n".join(worse), pytrace=False)


def test_means_over_scenes(study: Study) -> None:
    """No arm has lost in the mean over scenes, which is far less noisy than a case."""
    worse = [str(mean) for mean in study.means() if mean.verdict == "worse"]
    if worse:
        pytest.fail("\n".join(worse), pytrace=False)


def test_complete(study: Study) -> None:
    """Every case of the suite's definition has a verdict; a golden without a case is a renamed case."""
    lost = study.lost()
    assert not lost, f"cases of the suite without a verdict: {', '.join(lost)}"
    orphans = study.orphans()
    assert not orphans, f"goldens without a case (renamed or removed?): {', '.join(orphans)}"


def _fail(comparison: Comparison, study: Study) -> None:
    how = command(study.selection.suite, study.settings.device)
    pytest.fail("\n".join([*describe(comparison), *advice(comparison, how)]), pytrace=False)
