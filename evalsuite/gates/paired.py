"""Two versions of the code measured in turns: is one slower?

Laps come in pairs that share a minute of the machine, so drift and neighbours cancel in the ratio of a pair. A verdict
needs three things at once: a median ratio beyond a threshold, an absolute floor, and a Wilcoxon signed-rank test
(Wilcoxon 1945; `scipy.stats.wilcoxon`) at `ALPHA` divided by the number of quantities (Bonferroni). Quantities are
few, phases summed over the cases of a lap: every further one would raise the bar for all. `same` is a claim
too: the whole bootstrap interval lies within the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.core.phases import COST_PHASES
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Record

ALPHA = 0.01
CONFIDENCE = 0.95
RESAMPLES = 2_000
FLOOR_SECONDS = {"frame": 0.0002}
_FLOOR_SECONDS = 0.02
"""Smallest change of a median that counts, for phases; frames have their own."""

MIN_PAIRS = 1 + math.ceil(math.log2((len(COST_PHASES) + 1) / ALPHA))
"""With n pairs the smallest p there is, all ratios on one side, is 2^(1 - n): fewer could reach no verdict."""

Verdict = Literal["same", "faster", "slower", "inconclusive"]
Lap = Sequence[Record]


@dataclass(frozen=True)
class PairedResult:
    """What the laps say of one quantity.

    Attributes:
        quantity: phase, or ``frame``: seconds of one frame of every case.
        base, head: median seconds.
        ratio, low, high: median of head / base over pairs, with its bootstrap interval.
        p: of the signed-rank test, two-sided, not corrected.
    """

    quantity: str
    verdict: Verdict
    pairs: int
    base: float
    head: float
    ratio: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return (
            f"{self.verdict:12} {self.quantity}: {self.base:.4f} -> {self.head:.4f} s, ratio {self.ratio:.3f} "
            f"[{self.low:.3f}, {self.high:.3f}] over {self.pairs} pairs, p = {self.p:.2g}"
        )


def judge_pairs(laps: Sequence[tuple[Lap, Lap]], threshold: float) -> tuple[PairedResult, ...]:
    """One result per quantity that both sides have in every lap.

    Args:
        laps: pairs of (base, head) records.
        threshold: smallest relative change that counts, 0.05 for 5 %.

    Raises:
        OptionError: fewer than `MIN_PAIRS` pairs, or a case of a lap failed.
        NotComparableError: the sides ran different protocols, or share no quantity.
    """
    if len(laps) < MIN_PAIRS:
        raise OptionError(f"{len(laps)} pairs of laps, expected at least {MIN_PAIRS}: no test could pass with fewer")
    _require_comparable([record for pair in laps for lap in pair for record in lap])
    costs = [(lap_costs(base), lap_costs(head)) for base, head in laps]
    shared = set.intersection(*(set(side) for pair in costs for side in pair))
    if not shared:
        raise NotComparableError("base and head share no case with a cost; expected the same cases: compare newer code")
    return tuple(
        judge_quantity(
            name, [base[name] for base, _ in costs], [head[name] for _, head in costs], threshold, ALPHA / len(shared)
        )
        for name in sorted(shared)
    )


def judge_quantity(
    name: str, base: Sequence[float], head: Sequence[float], threshold: float, alpha: float
) -> PairedResult:
    """Judge seconds of pairs, at a level already corrected for the number of quantities."""
    from scipy.stats import bootstrap, wilcoxon  # a second, which no refused command line should take

    logs = np.log(np.asarray(head) / np.asarray(base))
    p = float(wilcoxon(logs).pvalue) if logs.any() else 1.0
    interval = bootstrap(
        (logs,),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    effect, band = float(np.median(logs)), math.log1p(threshold)
    before, after = float(np.median(base)), float(np.median(head))
    small = before * abs(math.expm1(effect)) <= FLOOR_SECONDS.get(name, _FLOOR_SECONDS)
    verdict: Verdict = "inconclusive"
    if small or (-band <= interval.low and interval.high <= band):
        verdict = "same"
    elif abs(effect) > band and p <= alpha:
        verdict = "slower" if effect > 0 else "faster"
    ratio, low, high = (math.exp(float(value)) for value in (effect, interval.low, interval.high))
    return PairedResult(name, verdict, len(logs), before, after, ratio, low, high, p)


def lap_costs(lap: Lap) -> dict[str, float]:
    """Seconds by phase and per frame, each summed over the last checkpoints of all trajectories."""
    last: dict[tuple[str, str, str | None], Record] = {}
    for record in sorted(lap, key=lambda r: r.steps):
        last[record.scene, record.arm, record.budget] = record
    found: dict[str, float] = {}
    for record in last.values():
        for name, seconds in record.costs.items():
            found[name] = found.get(name, 0.0) + seconds
    return found


def metric_differences(laps: Sequence[tuple[Lap, Lap]]) -> Mapping[str, tuple[float, str]]:
    """By metric, the largest gain or loss of head against base (> 0 is better) and the case that shows it.

    Goldens judge quality, with the noise of every case; this says whether a speed-up computes something else.
    """
    worst: dict[str, tuple[float, str]] = {}
    base, head = ({record.case: record for record in side} for side in laps[-1])
    for case in sorted(set(base) & set(head)):
        for name in sorted(set(base[case].metrics) & set(head[case].metrics) & set(METRICS)):
            before, after = base[case].value(name), head[case].value(name)
            if before is not None and after is not None:
                gain = -METRICS[name].drop(before, after)
                if name not in worst or abs(gain) > abs(worst[name][0]):
                    worst[name] = (gain, case)
    return worst


def _require_comparable(records: Sequence[Record]) -> None:
    failed = [record for record in records if record.status != "ok"]
    if failed:
        raise OptionError(f"{failed[0].case} ended as {failed[0].status} ({failed[0].reason}): mend it, then compare")
    hashes = sorted({record.protocol_hash for record in records})
    if len(hashes) > 1:
        raise NotComparableError(
            f"base and head follow protocols {' and '.join(hashes)}, expected one: their work differs, not their speed"
        )
