"""Expected orderings of arms, tested on paired differences over scenes.

A claim such as *C(3000) >= B(1000) >= A, PSNR, budget capture, margin 0.1 dB* is an order of case names, each link of
which is about the mean over scenes of the paired difference. Scenes are the independent units. A link ``holds`` when a
percentile bootstrap over scenes (Efron & Tibshirani 1993, ch. 13) lies above -margin whole, and an exact sign-flip
permutation test (ibid., ch. 15) rejects a mean of -margin or less at 5 %; ``violated`` is the mirror image; anything
else is ``inconclusive``. The bootstrap of few pairs is too narrow, the permutation test is exact for any number: it
needs five scenes to say anything. An order holds when all its links do (an intersection-union test: no correction is
due) and is violated when one is. Scenes that go against a link by more than the margin are always listed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import bootstrap, permutation_test

from evalsuite.core.errors import BadDataError, NotComparableError
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Record

MIN_PAIRS = 5
"""Fewer cannot reach 5 % in a sign-flip test: 1 / 2^4 is 6 %."""

RESAMPLES = 10_000
CONFIDENCE = 0.95

Ruling = Literal["holds", "violated", "inconclusive"]


@dataclass(frozen=True)
class Claim:
    """One expected order: each case is at least as good as the one before it, up to the margin.

    Attributes:
        order: case names without the scene, from worst to best, such as ``a``, ``b-capture-n1000``.
        metric: metric id; which way is better comes from its declaration.
        margin: what still counts as equal, in the metric's unit.
        strata: scenes the claim is about.
        required: a violated or inconclusive required claim fails the gate.
    """

    id: str
    order: tuple[str, ...]
    metric: str
    margin: float
    strata: tuple[str, ...]
    required: bool


@dataclass(frozen=True)
class Link:
    """Two neighbours of an order on the scenes that have both.

    Attributes:
        mean, low, high: by how much the better one is better, whatever the metric's direction, with the 95 % interval;
            None for fewer than `MIN_PAIRS` pairs.
        p_less, p_more: chance of a mean as low, or as high, if the true difference were -margin.
        against: scenes whose difference is below -margin.
    """

    better: str
    worse: str
    ruling: Ruling
    pairs: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_less: float | None = None
    p_more: float | None = None
    against: tuple[str, ...] = ()

    def __str__(self) -> str:
        against = f"; against it: {', '.join(self.against)}" if self.against else ""
        if self.mean is None:
            return f"{self.better} >= {self.worse} {self.ruling}, {self.pairs} scenes with both{against}"
        return (
            f"{self.better} >= {self.worse} {self.ruling}, {self.mean:+.3g} [{self.low:+.3g}, {self.high:+.3g}], "
            f"p {self.p_more:.3f} over {self.pairs} scenes{against}"
        )


@dataclass(frozen=True)
class ClaimResult:
    """What the records say of a claim, link by link.

    Attributes:
        reason: why it could not be judged at all; there are no links then.
    """

    claim: Claim
    links: tuple[Link, ...]
    reason: str = ""

    @property
    def ruling(self) -> Ruling:
        """``holds`` if every link does, ``violated`` if one is."""
        if self.reason:
            return "inconclusive"
        rulings = {link.ruling for link in self.links}
        return "violated" if "violated" in rulings else "inconclusive" if "inconclusive" in rulings else "holds"

    @property
    def blocks(self) -> bool:
        """Whether this result fails a gate."""
        return self.claim.required and self.ruling != "holds"

    @property
    def against(self) -> tuple[str, ...]:
        """Scenes that go against any link."""
        return tuple(sorted({scene for link in self.links for scene in link.against}))

    def __str__(self) -> str:
        claim = self.claim
        links = self.reason or "; ".join(str(link) for link in self.links)
        return f"{claim.id}: {self.ruling}, {claim.metric}, margin {claim.margin}: {links}"


def load_claims(path: Path) -> tuple[Claim, ...]:
    """Read ``claims.toml``: an array of tables ``[[claim]]`` with the fields of `Claim`.

    Names in ``order`` may leave the budget to the field ``budget``: ``b-n1000`` is then ``b-capture-n1000``.

    Raises:
        BadDataError: not TOML, or a field is missing, unknown or of another kind.
    """
    try:
        tables: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
        if not isinstance(tables, list):
            raise TypeError("claim is no array of tables")
        return tuple(_claim(table) for table in tables)
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadDataError(
            f"{path} does not list claims ({error}); expected [[claim]] tables, see its header"
        ) from None


def _claim(table: Mapping[str, Any]) -> Claim:
    for name in ("order", "strata"):
        if not isinstance(table[name], list):
            raise TypeError(f"{name} is not a list")
    if len(table["order"]) < 2:
        raise ValueError(f"order of {table['id']} names {len(table['order'])} cases, expected two or more")
    budget = table["budget"]
    order = tuple(_in_full(name, budget) for name in table["order"])
    fields = {name: value for name, value in table.items() if name != "budget"}
    return Claim(**{**fields, "order": order, "strata": tuple(table["strata"]), "margin": float(table["margin"])})


def _in_full(name: str, budget: str) -> str:
    arm, _, steps = name.partition("-n")
    return f"{arm}-{budget}-n{steps}" if steps.isdigit() else name


def judge(claim: Claim, records: Iterable[Record]) -> ClaimResult:
    """Test a claim on all scenes that have both cases of a link with a value.

    Raises:
        NotComparableError: records of the claim's strata were made under different protocols.
    """
    records = [record for record in records if record.stratum in claim.strata]
    hashes = sorted({record.protocol_hash for record in records})
    if len(hashes) > 1:
        raise NotComparableError(f"records of protocols {', '.join(hashes)} side by side, expected one: run all again")
    values: dict[str, dict[str, float]] = {}
    for record in records:
        value = record.value(claim.metric)
        if value is not None:
            values.setdefault(record.case.split("/")[1], {})[record.scene] = value
    return ClaimResult(claim, tuple(_link(claim, worse, better, values) for worse, better in pairwise(claim.order)))


def _link(claim: Claim, worse: str, better: str, values: Mapping[str, Mapping[str, float]]) -> Link:
    low_side, high_side = values.get(worse, {}), values.get(better, {})
    drop = METRICS[claim.metric].drop
    pairs = {scene: drop(high_side[scene], low_side[scene]) for scene in sorted(set(low_side) & set(high_side))}
    against = tuple(scene for scene, difference in pairs.items() if difference < -claim.margin)
    if len(pairs) < MIN_PAIRS:
        return Link(better, worse, "inconclusive", len(pairs), against=against)
    differences = list(pairs.values())
    low, high = _interval(differences)
    p_less, p_more = (_chance(differences, claim.margin, side) for side in ("less", "greater"))
    level = 1 - CONFIDENCE
    holds, violated = low >= -claim.margin and p_more <= level, high < -claim.margin and p_less <= level
    ruling: Ruling = "holds" if holds else "violated" if violated else "inconclusive"
    mean = float(np.mean(differences))
    return Link(better, worse, ruling, len(pairs), mean, low, high, p_less, p_more, against)


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    """Percentile bootstrap of the mean, the same for the same differences."""
    found = bootstrap(
        (np.asarray(differences),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _chance(differences: Sequence[float], margin: float, alternative: str) -> float:
    """Sign-flip test of a mean of -margin: exact up to 13 scenes, by `RESAMPLES` random flips beyond."""
    shifted = np.asarray(differences) + margin
    test = permutation_test(
        (shifted,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        alternative=alternative,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
