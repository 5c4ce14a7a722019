"""Crossover, exchange rate, Pareto front and cost, against numbers worked out by hand and against laws."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from report_factories import record, scene_records, study

from evalsuite.core.errors import OptionError
from evalsuite.report.crossover import (
    VOLUMES,
    Checkpoint,
    Point,
    WarmStart,
    amortised_hours,
    break_even,
    cost_table,
    estimate,
    mean_points,
    pareto_front,
    pool_trades,
    scene_trades,
    warm_start,
)
from evalsuite.report.tables import Setting

FINAL = Checkpoint(3000, 30.0, 300.0)
SECONDS = st.floats(0, 1e6)


def test_crossing_between_two_checkpoints_by_hand() -> None:
    ladder = [Checkpoint(0, 20.0, 1.0), Checkpoint(99, 25.0, 100.0), Checkpoint(9999, 35.0, 10_000.0)]
    found = warm_start(ladder, FINAL)
    # log(1 + N) runs from log 100 to log 10,000 over 10 dB: half way is 1,000, so N = 999.
    assert found.ladder_steps == 9999
    assert found.steps == pytest.approx(999)
    assert found.steps_saved == pytest.approx(3000 - 999)
    # Seconds run from 100 to 10,000 over the 9,900 steps: 1 s a step.
    assert found.seconds_saved == pytest.approx(300 - 1000)


def test_the_first_crossing_counts_when_b_falls_again() -> None:
    ladder = [Checkpoint(0, 20.0, 1.0), Checkpoint(50, 31.0, 2.0), Checkpoint(200, 25.0, 3.0)]
    assert warm_start(ladder, FINAL).ladder_steps == 50


def test_a_that_is_already_there_needs_no_step() -> None:
    assert warm_start([Checkpoint(0, 30.0, 1.0)], FINAL) == WarmStart("reached", 0, 0.0, 3000.0, 299.0)


def test_not_reached_and_missing_are_told_apart() -> None:
    low, gap = Checkpoint(0, 20.0, 1.0), None
    high = Checkpoint(50, 31.0, 2.0)
    assert warm_start([low], FINAL) == WarmStart("not reached")
    assert warm_start([low, gap, high], FINAL) == WarmStart("missing")
    assert warm_start([low, high, gap], FINAL).status == "reached"
    assert warm_start([low, gap], FINAL) == WarmStart("missing")
    assert warm_start([low], None) == WarmStart("missing")
    assert warm_start([], FINAL) == WarmStart("missing")


@given(st.lists(st.floats(10, 40), min_size=2, max_size=6), st.floats(10, 40))
def test_a_crossing_lies_between_the_ladder_points_round_it(heights: list[float], target: float) -> None:
    ladder = [Checkpoint(50 * i, db, 1.0 + i) for i, db in enumerate(heights)]
    found = warm_start(ladder, Checkpoint(3000, target, 99.0))
    assert (found.status == "reached") == (max(heights) >= target)
    if found.status == "reached":
        assert found.ladder_steps is not None
        assert found.steps is not None
        assert max(found.ladder_steps - 50, 0) - 1e-6 <= found.steps <= found.ladder_steps + 1e-6


def test_trade_of_one_scene_by_hand() -> None:
    capture, inputs = scene_trades(scene_records("s.one"))
    assert (capture.budget, capture.final_steps) == ("capture", 3000)
    assert capture.penalty_db == pytest.approx(31.6 - 22.2)
    assert capture.db_per_1000_steps == pytest.approx((31.9 - 29.0) / 0.8)
    assert capture.db_per_second == pytest.approx((31.9 - 29.0) / (800 * 0.05))
    assert capture.warm_start.ladder_steps == 1000
    log_steps = math.log(201) + (31.6 - 29.0) / (31.9 - 29.0) * (math.log(1001) - math.log(201))
    assert capture.warm_start.steps == pytest.approx(math.exp(log_steps) - 1)
    assert inputs.penalty_db == pytest.approx(20.1 - 22.2)
    assert inputs.warm_start.ladder_steps == 0


def test_the_final_checkpoint_of_c_is_that_of_the_ladder_not_the_last_that_worked() -> None:
    records = [r for r in scene_records("s.one") if r.case != "s.one/c-capture-n3000"]
    failed = record("s.one", "c", "capture", 3000, None, status="timeout")
    for extra, expected in (([failed], []), ([], ["s.one/c-capture-n3000"])):
        capture = scene_trades([*records, *extra], expected)[0]
        assert capture.final_steps == 3000
        assert capture.penalty_db is None
        assert capture.warm_start.status == "missing"
        assert capture.db_per_1000_steps is not None


def test_pools_average_scenes_and_count_those_without_a_value() -> None:
    strata = {"s.one": "thin", "s.two": "thin", "s.three": "blocky", "s.room": "unbounded"}
    records = [r for r in study(strata) if r.case != "s.two/a"]
    found = {(trade.budget, trade.pool): trade for trade in pool_trades(records)}
    assert [pool for budget, pool in found if budget == "capture"] == ["thin", "blocky", "objects", "unbounded"]
    objects = found["capture", "objects"]
    assert (objects.penalty_db.scenes, objects.penalty_db.of) == (2, 3)
    assert objects.penalty_db.mean == pytest.approx(9.4)
    assert (objects.reached, objects.not_reached) == (3, 0)
    assert objects.steps.interval is not None
    assert objects.penalty_db.interval is None
    assert found["inputs", "unbounded"].penalty_db.mean == pytest.approx(-2.1)


def test_an_estimate_needs_three_scenes_for_an_interval_and_repeats_itself() -> None:
    assert estimate([None, None]).mean is None
    assert estimate([1.0, 3.0, None]).interval is None
    found = estimate([1.0, 2.0, 6.0, None])
    assert (found.mean, found.scenes, found.of) == (3.0, 3, 4)
    assert found.interval is not None
    assert 1.0 <= found.interval[0] < 3.0 < found.interval[1] <= 6.0
    assert estimate([1.0, 2.0, 6.0, None]) == found
    assert estimate([2.0, 2.0, 2.0]).interval == (2.0, 2.0)


def dominates(one: Point, other: Point) -> bool:
    no_worse = one.seconds <= other.seconds and one.psnr >= other.psnr
    return no_worse and (one.seconds, one.psnr) != (other.seconds, other.psnr)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_the_front_is_exactly_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    points = [Point(Setting("b", "capture", i), float(s), float(q), 1, 1) for i, (s, q) in enumerate(pairs)]
    front = pareto_front(points)
    assert {id(p) for p in front} == {id(p) for p in points if not any(dominates(q, p) for q in points)}
    assert [p.seconds for p in front] == sorted(p.seconds for p in front)


def test_points_average_time_and_quality_over_the_same_scenes() -> None:
    # The second scene has seconds but no PSNR: its seconds must not count.
    records = [record("s.one", seconds={"forward": 2.0}), record("s.two", psnr=None, seconds={"forward": 50.0})]
    [point] = mean_points(records, "capture", ["s.one", "s.two"])
    assert (point.seconds, point.psnr, point.scenes, point.of) == (2.0, 22.2, 1, 2)


def test_cost_per_asset_by_hand() -> None:
    assert amortised_hours(36_000.0, 36.0, 100) == pytest.approx(0.1 + 0.01)
    assert amortised_hours(0.0, 36.0, 100_000) == pytest.approx(0.01)
    with pytest.raises(OptionError, match="0 assets"):
        amortised_hours(1.0, 1.0, 0)


def test_break_even_by_hand() -> None:
    assert break_even(1000.0, 1.0, 11.0) == 100
    assert break_even(1001.0, 1.0, 11.0) == 101
    assert break_even(0.0, 1.0, 11.0) == 1
    assert break_even(0.0, 11.0, 11.0) == 1
    assert break_even(1.0, 11.0, 11.0) is None
    assert break_even(0.0, 12.0, 11.0) is None


@given(SECONDS, SECONDS, SECONDS)
def test_break_even_is_where_the_cost_curves_cross(training: float, own: float, rival: float) -> None:
    assume(abs(own - rival) > 1e-6 or own == rival)
    volume = break_even(training, own, rival)

    def dearer(assets: int) -> bool:
        return Fraction(training) + assets * Fraction(own) > assets * Fraction(rival)

    if volume is None:
        assert all(dearer(assets) for assets in (1, 10, 10**9, 10**18))
    else:
        assert not dearer(volume)
        assert volume == 1 or dearer(volume - 1)


def test_cost_table_charges_training_to_a_and_b_only() -> None:
    records = scene_records("s.one")
    costs = {cost.setting: cost for cost in cost_table(records, "capture", ["s.one"], training_seconds=3_600.0)}
    assert {setting.arm for setting in costs} == {"a", "b", "c"}
    a, c = costs[Setting("a", None, 0)], costs[Setting("c", "capture", 3000)]
    assert a.hours == pytest.approx([1 / n + 1 / 3600 for n in VOLUMES])
    assert c.hours == pytest.approx([151 / 3600] * 4)
    assert c.break_even is None
    # C's last checkpoint takes 151 s, A 1 s, B after 1,000 steps 51 s.
    assert a.break_even == 24
    assert costs[Setting("b", "capture", 1000)].break_even == 36


def test_cost_table_without_seconds_has_no_hours() -> None:
    records = [record(psnr=None, status="oom"), record("smoke.chair", "c", "capture", 50)]
    a, c = cost_table(records, "capture", ["smoke.chair"])
    assert (a.seconds.value, a.hours, a.break_even) == (None, (), None)
    assert len(c.hours) == len(VOLUMES)


def test_cost_table_does_not_take_an_earlier_checkpoint_of_c_for_the_final_one() -> None:
    records = [r for r in scene_records("s.one") if r.steps < 3000]
    assert cost_table(records, "capture", ["s.one"])[0].break_even == 1
    rows = cost_table(records, "capture", ["s.one"], expected=["s.one/c-capture-n3000"])
    assert rows[-1].setting == Setting("c", "capture", 3000)
    assert all(row.break_even is None for row in rows)
