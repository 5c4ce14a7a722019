"""Two versions of the code under equal seeds: does one reconstruct worse?

Equal seeds are equal draws in base and head, so what both owe to luck cancels in the difference of a pair: under
another rounding 0.001 dB of it are left in a case, under a change that redraws the randomness all of it. That holds up
to the first density control, which turns rounding into another number of Gaussians: suite ``quality`` ends before it.

*Estimate.* Scenes are fixed and seeds are replicates: the gain is the mean over both, its variance the sum over scenes
of each scene's own variance over seeds. Scenes of one seed draw independently, so these add up. Degrees of freedom
follow Satterthwaite (1946). A variance counts as no less than that of rounding: equal results must not prove the
smallest difference.

*Verdict*, from the interval of the gain: ``worse`` if all of it is a loss beyond `TOLERATED` of the metric's floor,
``better`` likewise, ``same`` if all of it lies within the floor (0.05 dB of PSNR), else ``inconclusive``.

*Error.* `ERRORS` is the chance that any contrast of a comparison is called ``worse`` without a loss: half of it for the
first seeds, half for the seeds that are added where something is inconclusive, each split evenly over `CONTRASTS`
(Bonferroni: contrasts of a setting move together, which only makes this cautious).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri, stdtrit

from evalsuite.core.errors import NotComparableError
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Record

SETTINGS = ("b-capture-n200", "b-inputs-n200", "c-capture-n200")
CONTRASTS = tuple((setting, metric) for setting in SETTINGS for metric in ("psnr", "psnr-fg", "ssim", "flip-67"))
"""All that is tested, registered before anything runs."""

ERRORS = (0.005, 0.005)
"""Of each stage: of all seeds so far, over all contrasts."""

FIRST_SEEDS, MOST_SEEDS = 3, 17
PLANNED_POWER = 0.995

TOLERATED, ROUNDING = 0.2, 0.02
"""Shares of a metric's floor: the loss that is never called worse, and the standard deviation of a case's rounding."""

Verdict = Literal["same", "better", "worse", "inconclusive"]


@dataclass(frozen=True)
class Estimate:
    """Gains of head over base, of any number of contrasts at once.

    Attributes:
        gain: mean over scenes and seeds, > 0 is better.
        error: its standard error.
        freedom: degrees of freedom of that.
        seeds: replicates of every scene.
    """

    gain: Float[np.ndarray, "c"]
    error: Float[np.ndarray, "c"]
    freedom: Float[np.ndarray, "c"]
    seeds: int

    def half_width(self, stage: int) -> Float[np.ndarray, "c"]:
        """Of the interval that a stage (0 or 1) judges by."""
        return self.error * stdtrit(self.freedom, 1 - _level(stage))


def estimate(gains: Float[np.ndarray, "c scenes seeds"], floor: float) -> Estimate:
    """Mean gain and its error (see the module).

    Args:
        gains: head less base per scene and seed, two seeds or more.
        floor: of the metric.
    """
    scenes, seeds = gains.shape[-2:]
    variances = np.maximum(gains.var(axis=-1, ddof=1), (ROUNDING * floor) ** 2)
    total, own = variances.sum(axis=-1), seeds - 1.0
    freedom = own * total**2 / (variances**2).sum(axis=-1)
    return Estimate(
        gains.mean(axis=(-2, -1)), np.sqrt(total / seeds) / scenes, np.clip(freedom, own, own * scenes), seeds
    )


def verdicts(found: Estimate, floor: float, stage: int) -> np.ndarray:
    """A `Verdict` for each contrast of an estimate."""
    half, tolerated = found.half_width(stage), TOLERATED * floor
    return np.select(
        [found.gain + half < -tolerated, found.gain - half > tolerated, np.abs(found.gain) + half <= floor],
        ["worse", "better", "same"],
        "inconclusive",
    )


def seeds_needed(found: Estimate, floor: float) -> Int[np.ndarray, "c"]:
    """Seeds with which a loss of the floor is called worse in `PLANNED_POWER` of second stages; at most `MOST_SEEDS`.

    Noise and degrees of freedom are taken to be those of the estimate.
    """
    seeds = np.arange(found.seeds + 1, MOST_SEEDS + 1)
    freedom = found.freedom[..., None] * (seeds - 1) / (found.seeds - 1)
    error = found.error[..., None] * np.sqrt(found.seeds / seeds)
    enough = (stdtrit(freedom, 1 - _level(1)) + ndtri(PLANNED_POWER)) * error <= (1 - TOLERATED) * floor
    return np.where(enough.any(axis=-1), seeds[enough.argmax(axis=-1)], MOST_SEEDS)


def _level(stage: int) -> float:
    return ERRORS[stage] / len(CONTRASTS)


@dataclass(frozen=True)
class QualityResult:
    """What the pairs say of one contrast.

    Attributes:
        gain, low, high: mean of head less base over scenes and seeds, > 0 is better, with the interval that was judged.
        spread: standard deviation of one seed's mean over scenes, as it was measured.
        least: scene that gained least.
        needed: seeds that would decide a loss of the metric's floor.
    """

    setting: str
    metric: str
    verdict: Verdict
    gain: float
    low: float
    high: float
    spread: float
    scenes: int
    seeds: int
    least: str
    needed: int

    def __str__(self) -> str:
        unit = METRICS[self.metric].unit
        return (
            f"{self.verdict:12} {self.setting}: {self.metric} {self.gain:+.2g} {unit} "
            f"[{self.low:+.2g}, {self.high:+.2g}] over {self.scenes} scenes and {self.seeds} seeds "
            f"(spread of a seed {self.spread:.2g}; least in {self.least})"
        )


def judge_quality(
    base: Iterable[Record], head: Iterable[Record], stage: int, contrasts: Sequence[tuple[str, str]] = CONTRASTS
) -> tuple[QualityResult, ...]:
    """One result per contrast; one that no scene has a value for (no true foreground, say) has none.

    Args:
        base, head: records of all scenes and seeds so far, other settings may be among them.
        stage: 0 for the first seeds, 1 with further ones.
        contrasts: those to judge; the error is that of all `CONTRASTS` however few these are.

    Raises:
        NotComparableError: other protocols, suites, scenes, metric versions, cases or gaps on the two sides.
    """
    before, after = ({record.case: record for record in side} for side in (base, head))
    _require_comparable(before, after)
    results = []
    for setting, metric in contrasts:
        gains = _gains(setting, metric, before, after)
        if gains:
            results.append(_judged(setting, metric, gains, stage))
    return tuple(results)


def _judged(setting: str, metric: str, gains: Mapping[str, Sequence[float]], stage: int) -> QualityResult:
    floor = METRICS[metric].floor
    table = np.array([list(gains.values())])
    found = estimate(table, floor)
    gain, half = float(found.gain[0]), float(found.half_width(stage)[0])
    verdict: Verdict = str(verdicts(found, floor, stage)[0])  # type: ignore[assignment]  # of an array of strings
    return QualityResult(
        setting,
        metric,
        verdict,
        *(gain, gain - half, gain + half),
        spread=float(np.sqrt(table.var(axis=-1, ddof=1).sum()) / len(gains)),
        scenes=len(gains),
        seeds=found.seeds,
        least=min(gains, key=lambda scene: float(np.mean(gains[scene]))),
        needed=int(seeds_needed(found, floor)[0]),
    )


def _gains(setting: str, metric: str, base: Mapping[str, Record], head: Mapping[str, Record]) -> dict[str, list[float]]:
    """By scene, head's gain over base seed by seed; scenes without a value on both sides are left out."""
    spec, gains = METRICS[metric], dict[str, list[float]]()
    for case, record in sorted(base.items(), key=lambda item: item[1].seed):
        if f"{record.arm}-{record.budget}-n{record.steps}" != setting:
            continue
        before, after = record.value(metric), head[case].value(metric)
        if before is None and after is None:
            continue
        if before is None or after is None:
            raise NotComparableError(f"{case} has {metric} on one side only, expected both: see why in its record")
        gains.setdefault(record.scene, []).append(-spec.drop(before, after))
    counts = {len(values) for values in gains.values()}
    if len(counts) > 1 or counts == {1}:
        raise NotComparableError(
            f"{setting} has {' or '.join(map(str, sorted(counts)))} seeds of {metric} in a scene, expected as many in "
            "each and at least two: run the comparison again"
        )
    return gains


def _require_comparable(base: Mapping[str, Record], head: Mapping[str, Record]) -> None:
    if base.keys() != head.keys() or not base:
        odd = sorted(base.keys() ^ head.keys())
        raise NotComparableError(
            f"base has {len(base)} cases, head {len(head)}, expected the same (first on one side only: "
            f"{odd[0] if odd else 'none'}): run the comparison again"
        )
    for case, record in base.items():
        for name in ("suite", "protocol_hash", "scene_hash", "status"):
            found = [str(getattr(side[case], name)) for side in (base, head)]
            if found[0] != found[1] or (name == "status" and found[0] != "ok"):
                raise NotComparableError(
                    f"{case} has {name.replace('_', ' ')} {found[0]} in base and {found[1]} in head, expected one "
                    "that is comparable: their work differs, not their quality"
                )
        for metric in record.metrics.keys() & head[case].metrics.keys():
            versions = [side[case].metrics[metric].version for side in (base, head)]
            if versions[0] != versions[1]:
                raise NotComparableError(
                    f"{metric} is version {versions[0]} in base and {versions[1]} in head, expected one: approve new "
                    "goldens instead (evalsuite approve)"
                )


def require_one_machine(records: Iterable[Record], here: Mapping[str, Any]) -> None:
    """Refuse to go on with what another machine has run.

    Args:
        records: of an earlier run that is resumed.
        here: fingerprint of this machine.

    Raises:
        NotComparableError: a record of another class of device, CPU or GPU.
    """
    names = ("device_class", "cpu", "gpu")
    own = [here.get(name) for name in names]
    for record in records:
        found = [record.machine.get(name) for name in names]
        if found != own:
            raise NotComparableError(
                f"{record.case} was run on {_said(found)}, this machine is {_said(own)}; expected one: name another "
                "folder as --out"
            )


def _said(machine: Sequence[Any]) -> str:
    return ", ".join(str(part) for part in machine if part)
