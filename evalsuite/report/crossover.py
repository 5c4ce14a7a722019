"""What a warm start is worth: crossover, penalty, exchange rate, Pareto front and cost per asset.

Everything is taken per scene first, then averaged; an interval is a 95 % percentile bootstrap over scenes.
C's *final* checkpoint is the last of its ladder under that budget. If a scene lacks it, the scene gives no value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from scipy.stats import bootstrap

from evalsuite.core.cases import BUDGETS
from evalsuite.core.errors import OptionError
from evalsuite.records.schema import Record
from evalsuite.report.tables import NOT_RUN, STUDY_ARMS, Mean, Outcome, Setting, mean_over, outcomes, pools

RATE_STEPS = (200, 1000)
"""The two N between which the exchange rate is the slope of B (DESIGN.md section 3)."""

VOLUMES = (100, 1_000, 10_000, 100_000)
"""Assets over which training is spread in the cost table."""

MIN_SCENES = 3
"""Fewer scenes get no interval."""


@dataclass(frozen=True)
class Checkpoint:
    """One point of a trajectory: N, held-out PSNR in dB, cumulative seconds."""

    steps: int
    psnr: float
    seconds: float


@dataclass(frozen=True)
class WarmStart:
    """Where B reaches the final PSNR of C, and what that saves. Negative savings are a loss.

    Attributes:
        status: ``missing`` if C's final checkpoint, or one of B's up to the crossing, has no value.
        ladder_steps: smallest N of the ladder at which B is there.
        steps: the same between the points of the ladder, PSNR taken linear in log(1 + N).
        seconds_saved: B's seconds taken linear in N between the points of the ladder.
    """

    status: Literal["reached", "not reached", "missing"]
    ladder_steps: int | None = None
    steps: float | None = None
    steps_saved: float | None = None
    seconds_saved: float | None = None


def warm_start(b: Sequence[Checkpoint | None], c_final: Checkpoint | None) -> WarmStart:
    """Crossover of one scene. ``b`` is B's ladder in the order of N, None where a checkpoint has no value."""
    if c_final is None or not b:
        return WarmStart("missing")
    before: Checkpoint | None = None
    for point in b:
        if point is None:
            return WarmStart("missing")
        if point.psnr >= c_final.psnr:
            steps, seconds = _crossing(before, point, c_final.psnr)
            return WarmStart("reached", point.steps, steps, c_final.steps - steps, c_final.seconds - seconds)
        before = point
    return WarmStart("not reached")


def _crossing(before: Checkpoint | None, after: Checkpoint, psnr: float) -> tuple[float, float]:
    """N and seconds at which the line between two checkpoints has ``psnr``; log1p because the ladder starts at 0."""
    if before is None:
        return float(after.steps), after.seconds
    ends = (math.log1p(before.steps), math.log1p(after.steps))
    steps = math.expm1(float(np.interp(psnr, (before.psnr, after.psnr), ends)))
    seconds = float(np.interp(steps, (before.steps, after.steps), (before.seconds, after.seconds)))
    return steps, seconds


@dataclass(frozen=True)
class SceneTrade:
    """The trade-off in one scene under one budget; None where a checkpoint it needs has no value.

    Attributes:
        penalty_db: PSNR of C's final checkpoint minus that of A.
        db_per_1000_steps, db_per_second: slope of B between `RATE_STEPS`.
    """

    scene: str
    stratum: str
    budget: str
    final_steps: int
    warm_start: WarmStart
    penalty_db: float | None
    db_per_1000_steps: float | None
    db_per_second: float | None


def scene_trades(records: Iterable[Record], expected: Sequence[str] = ()) -> list[SceneTrade]:
    """The trade-off per budget and scene, for every budget with a checkpoint of C.

    Args:
        records: of one protocol.
        expected: ids of the cases there should be: they extend the ladders to checkpoints nobody has run.

    Raises:
        NotComparableError: see `evalsuite.report.tables.check_comparable`.
    """
    records = list(records)
    psnr, seconds = outcomes(records, "psnr", expected), outcomes(records, "seconds", expected)

    def checkpoint(setting: Setting, scene: str) -> Checkpoint | None:
        db, spent = (table.get(setting, {}).get(scene) for table in (psnr, seconds))
        if db is None or spent is None or isinstance(db, str) or isinstance(spent, str):
            return None
        return Checkpoint(setting.steps, db, spent)

    strata = {record.scene: record.stratum for record in records}
    trades = []
    for budget in BUDGETS:
        ladder = [setting for setting in psnr if setting.arm == "b" and setting.budget == budget]
        finals = [setting for setting in psnr if setting.arm == "c" and setting.budget == budget][-1:]
        for final in finals:
            for scene in sorted(strata):
                b = [checkpoint(setting, scene) for setting in ladder]
                a = checkpoint(Setting("a", None, 0), scene)
                trades.append(_trade(scene, strata[scene], final, (a, b, checkpoint(final, scene))))
    return trades


def _trade(
    scene: str,
    stratum: str,
    final: Setting,
    arms: tuple[Checkpoint | None, Sequence[Checkpoint | None], Checkpoint | None],
) -> SceneTrade:
    a, b, c_final = arms
    by_steps = {point.steps: point for point in b if point}
    low, high = (by_steps.get(steps) for steps in RATE_STEPS)
    gain = high.psnr - low.psnr if low and high else None
    spent = high.seconds - low.seconds if low and high else 0.0
    return SceneTrade(
        scene,
        stratum,
        final.budget or "",
        final.steps,
        warm_start(b, c_final),
        c_final.psnr - a.psnr if a and c_final else None,
        None if gain is None else gain * 1000 / (RATE_STEPS[1] - RATE_STEPS[0]),
        gain / spent if gain is not None and spent > 0 else None,
    )


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes with its interval.

    Attributes:
        mean: None if no scene gave a value.
        interval: 95 % bootstrap; None for fewer than `MIN_SCENES` values.
        scenes, of: scenes that gave a value, scenes asked.
    """

    mean: float | None
    interval: tuple[float, float] | None
    scenes: int
    of: int


def estimate(values: Sequence[float | None]) -> Estimate:
    """Mean and 95 % percentile bootstrap (9,999 resamples, seed 0) over scenes; None marks a scene without a value."""
    found = [value for value in values if value is not None]
    if not found:
        return Estimate(None, None, 0, len(values))
    interval = None
    if len(found) >= MIN_SCENES:
        bounds = bootstrap((found,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
        interval = (float(bounds.low), float(bounds.high))
    return Estimate(float(np.mean(found)), interval, len(found), len(values))


@dataclass(frozen=True)
class PoolTrade:
    """The trade-off of a stratum or pool under one budget.

    Attributes:
        reached, not_reached: scenes by the status of their warm start; the rest are missing.
        steps, steps_saved, seconds_saved: over the scenes that reached it, so read them with ``reached``.
    """

    pool: str
    budget: str
    final_steps: int
    reached: int
    not_reached: int
    steps: Estimate
    steps_saved: Estimate
    seconds_saved: Estimate
    penalty_db: Estimate
    db_per_1000_steps: Estimate
    db_per_second: Estimate


def pool_trades(records: Iterable[Record], expected: Sequence[str] = ()) -> list[PoolTrade]:
    """`scene_trades` averaged per budget, stratum and pool; unbounded scenes are never pooled with objects."""
    records = list(records)
    trades = scene_trades(records, expected)
    found = []
    for budget in BUDGETS:
        for pool, scenes in pools(records).items():
            members = [trade for trade in trades if trade.budget == budget and trade.scene in scenes]
            if members:
                found.append(_pool_trade(pool, members))
    return found


def _pool_trade(pool: str, members: Sequence[SceneTrade]) -> PoolTrade:
    starts = [trade.warm_start for trade in members]
    return PoolTrade(
        pool,
        members[0].budget,
        members[0].final_steps,
        sum(start.status == "reached" for start in starts),
        sum(start.status == "not reached" for start in starts),
        estimate([start.steps for start in starts]),
        estimate([start.steps_saved for start in starts]),
        estimate([start.seconds_saved for start in starts]),
        estimate([trade.penalty_db for trade in members]),
        estimate([trade.db_per_1000_steps for trade in members]),
        estimate([trade.db_per_second for trade in members]),
    )


@dataclass(frozen=True)
class Point:
    """Mean seconds and PSNR of one setting over the scenes of a pool."""

    setting: Setting
    seconds: float
    psnr: float
    scenes: int
    of: int


def mean_points(records: Iterable[Record], budget: str, scenes: Sequence[str]) -> list[Point]:
    """Every arm and N under a budget (and the arms without one) that has a value in some scene of the pool."""
    records = list(records)
    seconds = outcomes(records, "seconds")
    points = []
    for setting, by_scene in outcomes(records, "psnr").items():
        if setting.budget not in (None, budget):
            continue
        # Time and quality are averaged over the same scenes.
        valued = [scene for scene in scenes if not isinstance(by_scene.get(scene, NOT_RUN), str)]
        quality, time = mean_over(by_scene, valued), mean_over(seconds[setting], valued)
        if quality.value is not None and time.value is not None:
            points.append(Point(setting, time.value, quality.value, len(valued), len(scenes)))
    return points


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Points that no other beats (as fast and as good, and better in one of the two), by seconds; ties stay."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.seconds, -p.psnr)):
        tie = front and (point.seconds, point.psnr) == (front[-1].seconds, front[-1].psnr)
        if tie or not front or point.psnr > front[-1].psnr:
            front.append(point)
    return front


def amortised_hours(training_seconds: float, asset_seconds: float, assets: int) -> float:
    """Hours per asset when ``assets`` of them share the training: (training + n * seconds) / n.

    Raises:
        OptionError: fewer than one asset.
    """
    if assets < 1:
        raise OptionError(f"cannot spread training over {assets} assets; expected 1 or more")
    return (training_seconds + assets * asset_seconds) / assets / 3600


def break_even(training_seconds: float, asset_seconds: float, rival_seconds: float) -> int | None:
    """Smallest number of assets for which training plus assets costs no more than a rival without training.

    Returns:
        1 or more; None if it never pays. Exact in rational arithmetic.
    """
    training = Fraction(training_seconds)
    saved = Fraction(rival_seconds) - Fraction(asset_seconds)
    if saved <= 0:
        return 1 if saved == 0 and training == 0 else None
    return max(1, math.ceil(training / saved))


@dataclass(frozen=True)
class Cost:
    """Cost per asset of one arm and N.

    Attributes:
        seconds: per asset, mean over the pool's scenes.
        hours: at each of `VOLUMES`; empty without seconds, or where training is unknown. It is charged to A and B only.
        sunk_hours: with training counted as sunk; None without seconds.
        break_even: against C's final checkpoint; None if it never pays, or there is nothing to compare.
    """

    setting: Setting
    seconds: Mean
    hours: tuple[float, ...]
    sunk_hours: float | None
    break_even: int | None


def cost_table(
    records: Iterable[Record],
    budget: str,
    scenes: Sequence[str],
    training_seconds: float | None = 0.0,
    expected: Sequence[str] = (),
) -> list[Cost]:
    """Amortised cost of A, and of B and C at each N under a budget, over the scenes of a pool.

    Args:
        records: of one protocol.
        budget: of B and C; A counts under both.
        scenes: the pool.
        training_seconds: of the network; 0 counts training as sunk, None says that it is unknown.
        expected: ids of the cases there should be, so that a final checkpoint nobody has run is still the final one.
    """
    spent: Mapping[Setting, Mapping[str, Outcome]] = outcomes(records, "seconds", expected)
    means = {
        setting: mean_over(by_scene, scenes)
        for setting, by_scene in spent.items()
        if setting.arm in STUDY_ARMS and setting.budget in (None, budget)
    }
    finals = [mean.value for setting, mean in means.items() if setting.arm == "c"][-1:]
    rows = []
    for setting, mean in means.items():
        training = 0.0 if setting.arm == "c" else training_seconds
        hours: tuple[float, ...] = ()
        volume = None
        if mean.value is not None and training is not None:
            hours = tuple(amortised_hours(training, mean.value, assets) for assets in VOLUMES)
            if setting.arm != "c" and finals and finals[0] is not None:
                volume = break_even(training, mean.value, finals[0])
        sunk = None if mean.value is None else mean.value / 3600
        rows.append(Cost(setting, mean, hours, sunk, volume))
    return rows
