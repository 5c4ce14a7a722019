"""What to do about a case that fails: in what it was made differently from its golden, and the next step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from evalsuite.core.suites import Suite
from evalsuite.gates.golden import Comparison, Verdict
from evalsuite.metrics.spec import ENGINE
from evalsuite.report.tables import parse_case

WHERE = "docs/gate.md"
"""Where verdicts are explained."""

_NEXT: Mapping[Verdict, str] = {
    "worse": "mend what made it worse; if the loss is meant: evalsuite noise --seeds 1 2 3 4, then evalsuite approve "
    '--seeds 1 2 3 4 --reason "why"',
    "failed": "mend what the line above names",
    "not-run": "bring what the line above names",
    "no-golden": 'look at the record; if it is good: evalsuite approve --reason "why"',
    "stale": 'evalsuite noise --seeds 1 2 3 4, then evalsuite approve --seeds 1 2 3 4 --reason "why"',
}


def command(suite: Suite, device: str) -> str:
    """How a suite is run and judged."""
    name = suite.name.removesuffix(f".{suite.model}")
    model = f" --model {suite.model}" if name != suite.name else ""
    weights = f" --weights {suite.weights}" if suite.weights else ""
    return f"pytest tests/ablation --suite {name}{model}{weights}{' -m gpu' if device == 'cuda' else ''}"


def advice(comparison: Comparison, run: str) -> list[str]:
    """Lines for one failing case: what differs, the next step, how to run it alone, where verdicts are explained.

    Args:
        run: `command` of its suite.
    """
    differs = [f"{'differs':12} {'; '.join(comparison.differs)}"] if comparison.differs else []
    return [
        *differs,
        f"{'next':12} {_NEXT[comparison.verdict]}; {WHERE}",
        f"{'alone':12} {_alone(comparison.case, run)}",
    ]


def differences(comparisons: Iterable[Comparison]) -> list[str]:
    """In what failing cases differ from their goldens: one line per set of differences, with how many share it."""
    failing = [comparison for comparison in comparisons if comparison.blocks]
    shared: dict[tuple[str, ...], list[str]] = {}
    for comparison in failing:
        if comparison.differs:
            shared.setdefault(comparison.differs, []).append(comparison.case)
    return [
        f"{'differs':12} {_who(cases, len(failing))} from the golden: {'; '.join(lines)}"
        for lines, cases in sorted(shared.items(), key=lambda entry: (-len(entry[1]), entry[1]))
    ]


def next_steps(comparisons: Iterable[Comparison], run: str) -> list[str]:
    """One next step per failing verdict, with how to run the first such case alone.

    Args:
        run: `command` of the suite.
    """
    first: dict[Verdict, Comparison] = {}
    for comparison in comparisons:
        if comparison.blocks:
            first.setdefault(comparison.verdict, comparison)
    return [
        f"{'next':12} {verdict}: {_NEXT[verdict]}; {WHERE}; one alone: {_alone(comparison.case, run)}"
        for verdict, comparison in first.items()
    ]


def _who(cases: list[str], failing: int) -> str:
    if len(cases) == failing:
        return f"all {failing} failing cases" if failing > 1 else cases[0]
    return f"{len(cases)} of {failing} failing cases (first: {cases[0]})"


def _alone(case: str, run: str) -> str:
    if case.startswith(f"{ENGINE}/"):
        return f"pytest tests/ablation --suite {ENGINE}{' -m gpu' if run.endswith(' -m gpu') else ''}"
    scene, setting, _ = parse_case(case)
    steps = f" --steps {setting.steps}" if setting.budget else ""
    return f"{run} --scene {scene} --arm {setting.arm}{steps}"
