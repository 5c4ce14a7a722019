"""Expected orderings of arms, tested on paired differences over scenes.

A claim such as *C(3000) >= B(1000), PSNR, budget capture, margin 0.1 dB* is about the mean over scenes of the paired
difference. Scenes are the independent units; the interval is a percentile bootstrap over them (Efron & Tibshirani
1993, ch. 13) with a fixed seed. ``holds`` when the whole interval lies above -margin, ``violated`` when it lies
below, else ``inconclusive``. Scenes that go against the claim by more than the margin are always listed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evalsuite.core.errors import BadDataError, NotComparableError
from evalsuite.records.schema import Record

MIN_PAIRS = 4
RESAMPLES = 10_000
CONFIDENCE = 0.95

Ruling = Literal["holds", "violated", "inconclusive"]


@dataclass(frozen=True)
class Claim:
    """One ordering: ``better`` is at least as good as ``worse`` up to ``margin``.

    Attributes:
        better, worse: case names without the scene, such as ``c-capture-n3000`` or ``a``.
        metric: metric id; higher is better.
        margin: in the metric's unit.
        strata: scenes the claim is about.
        required: a violated or inconclusive required claim fails the gate.
    """

    id: str
    better: str
    worse: str
    metric: str
    margin: float
    strata: tuple[str, ...]
    required: bool


@dataclass(frozen=True)
class ClaimResult:
    """What the records say of a claim.

    Attributes:
        mean, low, high: paired difference better - worse over scenes, with its 95 % interval; None without pairs.
        against: scenes whose difference is below -margin.
    """

    claim: Claim
    ruling: Ruling
    pairs: int
    mean: float | None
    low: float | None
    high: float | None
    against: tuple[str, ...]

    @property
    def blocks(self) -> bool:
        """Whether this result fails a gate."""
        return self.claim.required and self.ruling != "holds"

    def __str__(self) -> str:
        against = f"; against it: {', '.join(self.against)}" if self.against else ""
        if self.mean is None:
            return f"{self.claim.id}: inconclusive, {self.pairs} scenes with both cases{against}"
        return (
            f"{self.claim.id}: {self.ruling}, {self.claim.metric} {self.mean:+.2f} "
            f"[{self.low:+.2f}, {self.high:+.2f}] over {self.pairs} scenes, margin {self.claim.margin}{against}"
        )


def load_claims(path: Path) -> tuple[Claim, ...]:
    """Read ``claims.toml``: an array of tables ``[[claim]]`` with the fields of `Claim`.

    Raises:
        BadDataError: not TOML, or a field is missing or unknown.
    """
    try:
        tables: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
        if any(not isinstance(table["strata"], list) for table in tables):
            raise TypeError("strata is not a list")
        return tuple(
            Claim(**{**table, "strata": tuple(table["strata"]), "margin": float(table["margin"])}) for table in tables
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise BadDataError(
            f"{path} does not list claims ({error}); expected [[claim]] tables, see its header"
        ) from None


def judge(claim: Claim, records: Iterable[Record]) -> ClaimResult:
    """Test a claim on all scenes that have both cases with a value.

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
            values.setdefault(record.scene, {})[record.case.split("/")[1]] = value
    pairs = {
        scene: cases[claim.better] - cases[claim.worse]
        for scene, cases in sorted(values.items())
        if claim.better in cases and claim.worse in cases
    }
    against = tuple(scene for scene, difference in pairs.items() if difference < -claim.margin)
    if len(pairs) < MIN_PAIRS:
        return ClaimResult(claim, "inconclusive", len(pairs), None, None, None, against)
    mean, low, high = _interval(list(pairs.values()))
    ruling: Ruling = "holds" if low >= -claim.margin else "violated" if high < -claim.margin else "inconclusive"
    return ClaimResult(claim, ruling, len(pairs), mean, low, high, against)


def _interval(differences: Sequence[float]) -> tuple[float, float, float]:
    sample = np.asarray(differences)
    draws = np.random.default_rng(0).integers(0, len(sample), (RESAMPLES, len(sample)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(sample[draws].mean(axis=1), [tail, 1 - tail])
    return float(sample.mean()), float(low), float(high)
