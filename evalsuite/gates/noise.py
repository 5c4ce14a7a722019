"""What repeated seeds say of a case's spread, and how far a value may move before it is a change.

A gate that takes the standard deviation of three runs for the truth and allows k of them cries wolf: with two degrees
of freedom one case in a hundred shows a tenth of its spread, and values that hop between two modes may show one of
them only. Three answers, in this order:

1. *Borrow.* The variance of a case is shrunk towards that of the same arm, budget and N in the other scenes, by as much
   as the scenes are alike (`moderated`; Smyth 2004, "Linear models and empirical Bayes methods for assessing
   differential expression in microarray experiments", section 6.2). How alike they are is the prior's degrees of
   freedom, estimated per metric, arm and budget: where spreads differ from scene to scene, as those of a mode-hopping
   metric do, they are few; one wild setting says nothing of the others.
2. *Student, not Gauss.* The tolerance is a quantile of Student's t at the prior's and the case's own degrees of freedom
   (ibid., section 4: the moderated t). Few degrees of freedom give heavy tails: what is poorly known gates widely.
3. *One budget for a run.* Of a hundred runs whose randomness is redrawn and whose quality is unchanged about one is
   called changed, however many values it holds: levels have shares of that (`SHARES`), comparisons of a level share
   alike (Bonferroni; `alarm`).
4. *Say what that costs.* `visible` is the loss that a gate so wide still sees in 19 of 20 runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, ndtri, polygamma, stdtrit

RUN_ALARM = 0.01
"""Chance that a run of unchanged code has any value that noise alone makes ``worse`` or ``better``."""

Level = Literal["cases", "means", "pairs", "ladders"]
"""What is compared: single cases, means over scenes, paired means over scenes, means over the ladders of B and C."""

SHARES: Mapping[Level, float] = {"cases": 0.2, "means": 0.2, "pairs": 0.5, "ladders": 0.1}
"""Of `RUN_ALARM`. Pairs are few and see most: they have half of it."""

POWER = 0.95

_LEAST = 1e-4
_PRIOR_RANGE = (0.1, 1e4)


@dataclass(frozen=True)
class Spread:
    """How much one metric of one case varies from run to run.

    Attributes:
        sigma: standard deviation of a single run, in the metric's unit.
        freedom: degrees of freedom of that estimate; 0 if it was never measured.
    """

    sigma: float
    freedom: float


Spreads = Mapping[str, Mapping[str, Spread]]
"""By case id and metric id."""


def alarm(level: Level, comparisons: int) -> float:
    """Chance of a false alarm, in either direction, that each of so many comparisons of a level may have."""
    return RUN_ALARM * SHARES[level] / max(comparisons, 1)


def allowed(sigma: float, freedom: float, alarm: float) -> float:
    """The largest deviation, in either direction, that is still taken for noise.

    Args:
        sigma: estimated standard deviation of the deviation.
        freedom: degrees of freedom of the estimate; at least 1 where sigma > 0.
        alarm: chance that noise alone deviates further.
    """
    return float(-sigma * stdtrit(max(freedom, 1.0), alarm / 2))


def visible(tolerance: float, sigma: float) -> float:
    """The loss that exceeds a tolerance in `POWER` of all runs when deviations have this standard deviation."""
    return float(tolerance + ndtri(POWER) * sigma)


def moderated(samples: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, Spread]]:
    """Spread of every case and metric, each shrunk towards its pool: the same arm, budget and N in all scenes.

    Args:
        samples: values of repeated seeds, by case id and metric id; two or more each.
    """
    found: dict[str, dict[str, Spread]] = {case: {} for case in samples}
    for metric in sorted({metric for metrics in samples.values() for metric in metrics}):
        pools = _pools({case: metrics[metric] for case, metrics in samples.items() if metric in metrics})
        for _, alike in groupby(pools, key=lambda pool: ladder_of(pool.cases[0])):
            ladder = list(alike)
            prior = _prior_freedom(ladder)
            for pool in ladder:
                for case, spread in zip(pool.cases, pool.shrunk(prior), strict=True):
                    found[case][metric] = spread
    return found


def ladder_of(case: str) -> str:
    """Arm and budget of a case: ``b-capture`` of ``smoke.chair/b-capture-n200``."""
    return case.split("/")[1].split("-n")[0]


def freedom_lines(spreads: Spreads) -> list[str]:
    """Degrees of freedom per arm and budget: the least, the median and the most over its cases and metrics."""
    freedoms: dict[str, list[float]] = {}
    for case, metrics in spreads.items():
        freedoms.setdefault(ladder_of(case), []).extend(s.freedom for s in metrics.values() if s.sigma > 0)
    return [
        f"{ladder:12} {min(found):.1f} / {np.median(found):.1f} / {max(found):.1f} degrees of freedom"
        for ladder, found in sorted(freedoms.items())
        if found
    ]


@dataclass(frozen=True)
class _Pool:
    """Variances of one metric under one arm, budget and N, over scenes; ``freedom`` of the sample variances."""

    cases: tuple[str, ...]
    variances: np.ndarray
    freedom: np.ndarray

    @property
    def logs(self) -> np.ndarray:
        """Unbiased for the log of the true variance; runs that happen to agree count as 1e-4 of the median."""
        least = _LEAST * np.median(self.variances[self.variances > 0])
        half = self.freedom / 2
        return np.log(np.maximum(self.variances, least)) - digamma(half) + np.log(half)

    def shrunk(self, prior: float) -> list[Spread]:
        if not self.variances.any():
            return [Spread(0.0, float(own)) for own in self.freedom]
        if len(self.cases) == 1:
            return [Spread(math.sqrt(self.variances[0]), float(self.freedom[0]))]
        centre = math.exp(float(np.mean(self.logs)) + float(digamma(prior / 2)) - math.log(prior / 2))
        total = prior + self.freedom
        sigmas = np.sqrt((prior * centre + self.freedom * self.variances) / total)
        # the centre itself is known from no more than the pool's runs
        return [Spread(float(s), float(f)) for s, f in zip(sigmas, np.minimum(total, self.freedom.sum()), strict=True)]


def _pools(samples: Mapping[str, Sequence[float]]) -> list[_Pool]:
    def setting(case: str) -> str:
        return case.split("/")[1]

    pools = []
    for _, members in groupby(sorted(samples, key=lambda case: (setting(case), case)), key=setting):
        cases = tuple(members)
        variances = np.array([np.var(samples[case], ddof=1) for case in cases])
        pools.append(_Pool(cases, variances, np.array([len(samples[case]) - 1.0 for case in cases])))
    return pools


def _prior_freedom(pools: Sequence[_Pool]) -> float:
    """Smyth 2004, section 6.2: log variances scatter by trigamma(own / 2) + trigamma(prior / 2)."""
    scatter = own = 0.0
    spare = 0
    for pool in pools:
        if len(pool.cases) > 1 and pool.variances.any():
            scatter += float(((pool.logs - pool.logs.mean()) ** 2).sum())
            own += float(polygamma(1, pool.freedom / 2).mean()) * (len(pool.cases) - 1)
            spare += len(pool.cases) - 1
    low, high = _PRIOR_RANGE
    if not spare or scatter - own <= spare * float(polygamma(1, high / 2)):
        return high
    excess = min((scatter - own) / spare, 0.999 * float(polygamma(1, low / 2)))
    return float(brentq(lambda prior: float(polygamma(1, prior / 2)) - excess, low, high))
