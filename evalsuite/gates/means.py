"""Means over scenes of what moved: the sharp half of the gate.

A change of the engine that costs every scene a little hides in the noise of each single case. Its mean over scenes has
1 / sqrt(scenes) of that noise, and the mean over the ladders of B and C has less still. Scenes are the independent
units: they draw from streams of their own (`evalsuite.core.cases.Trajectory.stream`). Two tests:

*Against the golden's mean.* Variances over seeds add up, and their degrees of freedom follow Welch and Satterthwaite
(1946, "An approximate distribution of estimates of variance components").

*Paired*, where the golden holds a sample of the run's own seed. The run repeats that sample but for what changed, so
that most of the noise cancels, however much there is. Judged is the mean over scenes of these differences, by their own
scatter over scenes: Student's t with one degree of freedom less than there are scenes. Where a change redraws the
randomness the differences scatter by sqrt(2) of the noise, and the test is as true, but blunt. Unchanged code repeats
to rounding, whose scatter says nothing: below `DUST_SHARE` of a metric's floor nothing is a change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalsuite.gates.golden import Approved, Change, Comparison, Golden, Verdict, noisy, specification
from evalsuite.gates.noise import alarm, allowed, visible

LADDERS = "B and C"
"""Name of the mean over all optimised cases of a scene, in units of each case's own noise."""

PAIRED = ("psnr", "ssim", "flip-67")
"""Metrics whose paired means are judged: registered beforehand and few, since all that is tested shares one budget."""

DUST_SHARE = 0.4
"""Of a metric's floor: what a paired mean may move whatever its scatter (0.02 dB). Inputs off by 1e-7 move the mean of
six scenes by 0.0003 (B) and 0.0002 dB (C) at N = 200, by 0.003 and 0.014 at N = 1000."""

_FEWEST_PAIRS = 3
_UNITS_PER_FLOOR = 4.0


@dataclass(frozen=True)
class Mean:
    """Mean over scenes of one metric's drop, at one arm, budget and N, or over `LADDERS`.

    Attributes:
        setting: case name without the scene, or `LADDERS`.
        unit: of drop, tolerance and sigma: the metric's, or ``sigma`` for `LADDERS`.
        drop: > 0 means worse.
        tolerance: the largest mean drop or gain still called ``same``.
        sigma: standard deviation of ``drop`` under noise alone.
        scenes: how many scenes the mean is over.
        worst: the scene that lost most.
        paired: whether ``drop`` is from the golden's samples of the run's own seed; ``sigma`` is of its scatter then.
    """

    setting: str
    metric: str
    unit: str
    drop: float
    tolerance: float
    sigma: float
    scenes: int
    worst: str
    paired: bool = False

    @property
    def verdict(self) -> Verdict:
        """``same`` within the tolerance, else ``worse`` or ``better``."""
        if abs(self.drop) <= self.tolerance:
            return "same"
        return "worse" if self.drop > 0 else "better"

    @property
    def visible(self) -> float:
        """The mean loss that is seen in 95 % of runs."""
        return visible(self.tolerance, self.sigma)

    @property
    def noisy(self) -> bool:
        """Whether the mean has noise, rounding aside."""
        return self.sigma > 0.0 if self.setting == LADDERS else noisy(self.metric, self.sigma)

    def __str__(self) -> str:
        size = f"{self.drop / self.sigma:+.1f} sigma" if self.noisy else f"{self.drop / self.tolerance:+.1f} tolerances"
        pairs = ", each against its golden's own sample" if self.paired else ""
        return (
            f"{self.setting}: {self.metric} lost {self.drop:+.4g} {self.unit} in the mean over {self.scenes} scenes"
            f"{pairs} (tolerance {self.tolerance:.2g}, {size}; most in {self.worst})"
        )


def means(comparisons: Iterable[Comparison], goldens: Mapping[str, Golden]) -> tuple[Mean, ...]:
    """Mean drops per setting and metric over two or more scenes, and per metric over the ladders of B and C.

    Of the metrics in `PAIRED`, optimised settings of three scenes or more have a paired mean as well. Cases that were
    not compared, or whose noise nobody has measured, are left out. What is tested here shares its level's budget.

    Args:
        goldens: by case id, of every comparison that has changes.
    """
    by_setting: dict[tuple[str, str], dict[str, _Move]] = {}
    for comparison in comparisons:
        scene, setting = comparison.case.split("/")
        for change in comparison.changes:
            golden = goldens[comparison.case]
            if change.measured:
                move = _Move(change, golden.metrics[change.metric], len(golden.seeds))
                by_setting.setdefault((setting, change.metric), {})[scene] = move
    several = {key: moves for key, moves in by_setting.items() if len(moves) > 1}
    tested = sum(any(move.noisy for move in moves.values()) for moves in several.values())
    found = [_over_scenes(*key, moves, alarm("means", tested)) for key, moves in several.items()]
    pairs = {key: drops for key, moves in several.items() if (drops := _pairs(key[1], moves))}
    found += [_paired(*key, drops, alarm("pairs", len(pairs))) for key, drops in pairs.items()]
    metrics = sorted({metric for _, metric in by_setting})
    ladders = (
        _over_ladders(metric, {s: m for (s, name), m in by_setting.items() if name == metric}, len(metrics))
        for metric in metrics
    )
    return (*found, *(mean for mean in ladders if mean is not None))


@dataclass(frozen=True)
class _Move:
    """A change beside what is known of its noise."""

    change: Change
    approved: Approved
    runs: int

    @property
    def floor(self) -> float:
        """The case's tolerance without noise."""
        return specification(self.change.metric).floor if self.noisy else self.change.tolerance

    @property
    def noisy(self) -> bool:
        """Whether the case has noise, rounding aside."""
        return self.change.sigmas is not None

    @property
    def freedom(self) -> float:
        """Of this case's own runs: what it borrowed from other scenes must not count once per scene."""
        return len(self.approved.samples) - 1.0 if self.approved.samples else self.approved.freedom


def _pairs(metric: str, moves: Mapping[str, _Move]) -> dict[str, float]:
    """Differences from the golden's samples, by scene; empty if they are not judged."""
    drops = {scene: move.change.paired for scene, move in moves.items() if move.change.paired is not None}
    return drops if metric in PAIRED and len(drops) >= _FEWEST_PAIRS else {}


def _paired(setting: str, metric: str, drops: Mapping[str, float], alarm: float) -> Mean:
    spec, n = specification(metric), len(drops)
    sigma = float(np.std(list(drops.values()), ddof=1)) / math.sqrt(n)
    return Mean(
        setting,
        metric,
        spec.unit,
        drop=math.fsum(drops.values()) / n,
        tolerance=max(DUST_SHARE * spec.floor, allowed(sigma, n - 1.0, alarm)),
        sigma=sigma,
        scenes=n,
        worst=max(sorted(drops), key=lambda scene: drops[scene]),
        paired=True,
    )


def _over_scenes(setting: str, metric: str, moves: Mapping[str, _Move], alarm: float) -> Mean:
    drops = {scene: move.change.drop for scene, move in moves.items()}
    variances = [move.change.sigma**2 for move in moves.values()]
    floor = max(move.floor for move in moves.values()) / math.sqrt(len(moves))
    freedoms = [move.freedom for move in moves.values()]
    return _mean((setting, metric, specification(metric).unit), drops, (variances, freedoms), floor, alarm)


def _over_ladders(metric: str, settings: Mapping[str, Mapping[str, _Move]], tested: int) -> Mean | None:
    """Mean over scenes of the mean over a scene's cases, each in units of its setting's noise.

    The noise of such a mean is that of the same mean over the seeds' samples: checkpoints of one run move together.
    """
    units = {setting: _unit(moves) for setting, moves in settings.items() if any(m.noisy for m in moves.values())}
    sampled = [m for setting in units for m in settings[setting].values()]
    seeds = {len(move.approved.samples) for move in sampled}
    scenes = sorted({scene for setting in units for scene in settings[setting]})
    if len(scenes) < 2 or len(seeds) != 1 or min(seeds) < 2:
        return None
    drops, variances = {}, []
    for scene in scenes:
        own = {setting: settings[setting][scene] for setting in units if scene in settings[setting]}
        drops[scene] = float(np.mean([move.change.drop / units[setting] for setting, move in own.items()]))
        samples = np.mean([np.array(move.approved.samples) / units[setting] for setting, move in own.items()], axis=0)
        runs = min(move.runs for move in own.values())
        variances.append(float(np.var(samples, ddof=1)) * (1 + 1 / runs))
    floors = [max(m.floor for m in settings[setting].values()) / unit for setting, unit in units.items()]
    floor = float(np.mean(floors)) / math.sqrt(len(scenes))
    freedoms = [min(seeds) - 1.0] * len(scenes)
    return _mean((LADDERS, metric, "sigma"), drops, (variances, freedoms), floor, alarm("ladders", tested))


def _unit(moves: Mapping[str, _Move]) -> float:
    """Noise of a setting, but no less than a quarter of the floor: the all but noiseless must not drown the rest."""
    pooled = math.sqrt(np.mean([move.approved.sigma**2 for move in moves.values()]))
    return max(pooled, max(move.floor for move in moves.values()) / _UNITS_PER_FLOOR)


def _mean(
    name: tuple[str, str, str],
    drops: Mapping[str, float],
    noise: tuple[Sequence[float], Sequence[float]],
    floor: float,
    alarm: float,
) -> Mean:
    variances, freedoms = noise
    total = math.fsum(variances)
    spread = math.fsum(v**2 / f for v, f in zip(variances, freedoms, strict=True) if v)
    sigma = math.sqrt(total) / len(drops)
    tolerance = max(floor, allowed(sigma, total**2 / spread, alarm)) if total else floor
    return Mean(
        *name,
        drop=math.fsum(drops.values()) / len(drops),
        tolerance=tolerance,
        sigma=sigma,
        scenes=len(drops),
        worst=max(sorted(drops), key=lambda scene: drops[scene]),
    )
