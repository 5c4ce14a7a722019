"""Paired laps: equal code is never called slower, a slowdown of 30 % always."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import record

from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.core.phases import COST_PHASES
from evalsuite.gates.paired import MIN_PAIRS, Lap, judge_pairs, judge_quantity, lap_costs, metric_differences
from evalsuite.records.schema import Record

PAIRS = 12
LEVEL = 0.002

# Ratios of 100 photographic steps to the anchor in one process, 40 laps beside other work on two shared cores: the
# logarithms of laps spread by 0.1 (docs/design/timing.md).
NOISE = 0.1


def lap(optimise: float = 2.0, sfm: float = 1.0, psnr: float = 25.0, **fields: Any) -> list[Record]:
    given_fields = {"seconds": {"sfm": sfm, "optimise": optimise, "load": 7.0}, "frames_per_second": 200.0}
    case = "smoke.blob/c-capture-n200"
    return [record({"psnr": psnr}, case, **{"budget": "capture", "steps": 200, **given_fields, **fields})]


def pairs(base: Sequence[float], head: Sequence[float]) -> list[tuple[Lap, Lap]]:
    return [(lap(b), lap(h)) for b, h in zip(base, head, strict=True)]


def noisy(draw: random.Random, seconds: float, noise: float = NOISE, count: int = PAIRS) -> list[float]:
    return [seconds * draw.lognormvariate(0, noise) for _ in range(count)]


@pytest.mark.parametrize(("factor", "verdict"), [(1.3, "slower"), (0.7, "faster"), (1.0, "same"), (1.01, "same")])
def test_quiet_laps(factor: float, verdict: str) -> None:
    draw = random.Random(1)
    results = judge_pairs(pairs(noisy(draw, 2.0, 0.01), noisy(draw, 2.0 * factor, 0.01)), 0.05)
    assert {r.quantity: r.verdict for r in results} == {"frame": "same", "optimise": verdict, "sfm": "same"}


def test_a_slowdown_of_30_per_cent_is_found_in_noise() -> None:
    found = [
        judge_quantity("optimise", noisy(draw, 2.0), noisy(draw, 2.6), 0.05, LEVEL).verdict
        for draw in map(random.Random, range(20))
    ]
    assert found.count("slower") >= 18
    assert "faster" not in found


def test_equal_code_is_no_false_alarm_in_20_comparisons() -> None:
    draw = random.Random(0)
    comparisons = [judge_pairs(pairs(noisy(draw, 2.0), noisy(draw, 2.0)), 0.05) for _ in range(20)]
    assert not [r for results in comparisons for r in results if r.verdict in ("slower", "faster")]


def test_a_machine_that_slows_down_in_mid_run_is_cancelled_by_pairs() -> None:
    """Drift by a factor of 3: unpaired medians would differ, ratios do not."""
    drift = [1 + 2 * i / PAIRS for i in range(PAIRS)]
    (found,) = (r for r in judge_pairs(pairs(drift, drift), 0.05) if r.quantity == "optimise")
    assert (found.verdict, found.ratio, found.p) == ("same", 1.0, 1.0)


def test_beyond_the_threshold_but_not_beyond_chance_is_inconclusive() -> None:
    head = [2.0 * factor for factor in (1.5, 0.7) * (PAIRS // 2)]
    found = judge_quantity("optimise", [2.0] * PAIRS, head, 0.05, LEVEL)
    assert found.verdict == "inconclusive"
    assert found.low < 1 < found.high


def test_beyond_chance_but_not_beyond_the_threshold_is_the_same() -> None:
    found = judge_quantity("optimise", [2.0] * PAIRS, [2.06] * PAIRS, 0.05, LEVEL)
    assert found.p < LEVEL
    assert found.verdict == "same"


@pytest.mark.parametrize(("name", "verdict"), [("prepare", "same"), ("frame", "slower")])
def test_milliseconds_count_for_frames_only(name: str, verdict: str) -> None:
    assert judge_quantity(name, [0.005] * PAIRS, [0.01] * PAIRS, 0.05, LEVEL).verdict == verdict


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(0.5, 2.0), min_size=10, max_size=12), st.floats(0.01, 100.0))
def test_swapping_sides_swaps_the_verdict(ratios: list[float], unit: float) -> None:
    base, head = [10.0 * unit] * len(ratios), [10.0 * unit * ratio for ratio in ratios]
    one = judge_quantity("optimise", base, head, 0.05, LEVEL)
    other = judge_quantity("optimise", head, base, 0.05, LEVEL)
    mirror = {"slower": "faster", "faster": "slower"}
    assert one.ratio == pytest.approx(1 / other.ratio)
    assert one.p == pytest.approx(other.p)
    decided = {one.verdict, other.verdict} & set(mirror)
    assert not decided or mirror.get(one.verdict) == other.verdict


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(OptionError, match="9 pairs of laps, expected at least 10"):
        judge_pairs(pairs([2.0] * 9, [2.0] * 9), 0.05)


def test_as_few_pairs_as_are_taken_can_reach_a_verdict_on_every_phase_at_once() -> None:
    seconds = dict.fromkeys(COST_PHASES, 2.0)
    base, head = lap(seconds=seconds), lap(seconds=dict.fromkeys(COST_PHASES, 3.0), frames_per_second=20.0)
    results = judge_pairs([(base, head)] * MIN_PAIRS, 0.05)
    assert [r.verdict for r in results] == ["slower"] * (len(COST_PHASES) + 1)


def test_a_failed_lap_is_named() -> None:
    laps = pairs([2.0] * PAIRS, [2.0] * PAIRS)
    laps[5] = (lap(), lap(status="oom", reason="no more"))
    with pytest.raises(OptionError, match=r"smoke.blob/c-capture-n200 ended as oom \(no more\)"):
        judge_pairs(laps, 0.05)


def test_another_protocol_is_other_work() -> None:
    laps: list[tuple[Lap, Lap]] = [(lap(), lap(protocol_hash="ba9876543210"))] * PAIRS
    with pytest.raises(NotComparableError, match="protocols 0123456789ab and ba9876543210"):
        judge_pairs(laps, 0.05)


def test_nothing_in_common_is_refused() -> None:
    laps: list[tuple[Lap, Lap]] = [(lap(), [])] * PAIRS
    with pytest.raises(NotComparableError, match="share no case"):
        judge_pairs(laps, 0.05)


def test_costs_of_a_lap_are_summed_over_last_checkpoints() -> None:
    early = record(None, "smoke.blob/c-capture-n50", steps=50, budget="capture", seconds={"optimise": 0.5})
    other = record(None, "smoke.blob/c-inputs-n200", steps=200, budget="inputs", seconds={"optimise": 3.0})
    assert lap_costs([*lap(), early, other]) == {"sfm": 1.0, "optimise": 5.0, "frame": 0.005}


def test_the_largest_difference_of_a_metric_is_signed_by_what_is_better() -> None:
    laps: list[tuple[Lap, Lap]] = [(lap(psnr=25.0), lap(psnr=24.25))]
    assert metric_differences(laps) == {"psnr": (-0.75, "smoke.blob/c-capture-n200")}


def test_a_result_reads_as_a_line() -> None:
    text = str(judge_quantity("optimise", [2.0] * PAIRS, [2.6] * PAIRS, 0.05, LEVEL))
    assert text.startswith("slower       optimise: 2.0000 -> 2.6000 s, ratio 1.300 [1.300, 1.300] over 12 pairs")
