"""What a session's study came to: judged as a whole at the session's end, whichever tests were picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from evalsuite.gates.golden import COMPARED
from evalsuite.plugin.study import Study

NO_VERDICT = 6
"""Exit code of a part of a suite in which nothing is wrong: claims and the rest of the cases were not judged."""

Outcome = Literal["passes", "fails", "no verdict"]


@dataclass(frozen=True)
class Counts:
    """How many cases there are of every kind; ``verdicts`` by name."""

    expected: int
    recorded: int
    verdicts: Mapping[str, int]

    @property
    def compared(self) -> int:
        """Cases that were held against a golden."""
        return sum(count for verdict, count in self.verdicts.items() if verdict in COMPARED)

    def __str__(self) -> str:
        first = ("same", "better", "worse", "inconclusive")
        shown = [f"{self.verdicts.get(verdict, 0)} {verdict}" for verdict in first]
        shown += [f"{count} {verdict}" for verdict, count in sorted(self.verdicts.items()) if verdict not in first]
        return f"{self.expected} cases expected, {self.recorded} recorded, {self.compared} compared: {', '.join(shown)}"


def counts(study: Study) -> Counts:
    """Counts over everything expected."""
    comparisons = study.comparisons()
    recorded = sum(c.verdict != "not-run" for c in comparisons)
    return Counts(len(study.expected), recorded, Counter(c.verdict for c in comparisons))


def failures(study: Study) -> list[str]:
    """Why this study does not pass, whatever tests were picked; empty if nothing that was computed is wrong."""
    if not study.selected:
        return []
    if not study.ran:
        return [f"0 of {len(study.expected)} cases were compared: nothing is known to be as good as it was"]
    lines = _of_cases(study)
    worse = [mean for mean in study.means() if mean.verdict == "worse"]
    if worse:
        lines.append(f"{len(worse)} means over scenes are worse (first: {worse[0]})")
    breaches = study.breaches()
    if breaches:
        lines.append(f"{len(breaches)} warm starts do not begin at A (first: {breaches[0]})")
    lines += [f"claim {result.claim.id} does not hold" for result in study.rulings() if result.blocks]
    slower = [result for result in study.timing() if result.blocks]
    if slower:
        lines.append(f"{len(slower)} quantities of time or memory are worse")
    orphans = study.orphans()
    if orphans:
        lines.append(f"{len(orphans)} goldens without a case (first: {orphans[0]})")
    if study.settings.require_approved:
        lines += [*gains(study), *by_hand(study)]
    return lines


def _of_cases(study: Study) -> list[str]:
    missing = study.missing_class()
    if missing:
        return [missing]
    lines = []
    cases = {case.id for case in study.selection.cases}
    alone = not study.selection.trajectories  # the probes are all there is
    if not any(c.verdict in COMPARED for c in study.comparisons() if alone or c.case in cases):
        expected = len(study.probes if alone else cases)
        lines.append(f"0 of {expected} cases were compared: nothing is known to be as good as it was")
    blocking = sum(comparison.blocks for comparison in study.comparisons())
    if blocking:
        lines.append(f"{blocking} of {len(study.expected)} cases block")
    lost = study.lost()
    if lost:
        lines.append(f"{len(lost)} cases of the suite have no verdict (first: {lost[0]})")
    return lines


def gains(study: Study) -> list[str]:
    """What is better than its golden: nobody has said why, so it asks for approval; one line, or none."""
    cases = [comparison.case for comparison in study.comparisons() if comparison.verdict == "better"]
    settings = [f"{mean.setting} {mean.metric}" for mean in study.means() if mean.verdict == "better"]
    if not cases and not settings:
        return []
    return [
        f"{len(cases)} cases and {len(settings)} means over scenes are better than approved (first: "
        f'{(cases or settings)[0]}): evalsuite approve --reason "why"'
    ]


def by_hand(study: Study) -> list[str]:
    """Goldens and claims that somebody changed without an approval; one line, or none."""
    edits = study.edits()
    if not edits:
        return []
    return [f'{len(edits)} changes by hand (first: {edits[0]}): evalsuite approve --reason "why", or restore from git']


def outcome(study: Study) -> Outcome:
    """The verdict in a word."""
    if study.interrupted:
        return "no verdict"
    if failures(study):
        return "fails"
    return "passes" if study.selection.whole else "no verdict"


def exit_code(study: Study) -> int:
    """What the session exits with if all of its tests passed."""
    codes = {"passes": pytest.ExitCode.OK, "fails": pytest.ExitCode.TESTS_FAILED, "no verdict": NO_VERDICT}
    return int(codes[outcome(study)])


def restriction(study: Study) -> list[str]:
    """What keeps this session from a verdict on the whole suite; one line, or none."""
    whole = len(study.definition)
    if study.interrupted:
        recorded = sum(study.recorded(case) for case in study.expected) if study.ran else 0
        return [f"interrupted: no verdict, {recorded} of {len(study.expected)} cases recorded; --resume goes on"]
    if study.selection.whole:
        return []
    return [f"partial: {len(study.expected)} of {whole} cases, claims not judged: {outcome(study)}"]
