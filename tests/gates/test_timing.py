"""Verdicts on speed: a slower program is found, a busy machine is not taken for one."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import record

from evalsuite.core.errors import NotComparableError, OptionError, SchemaError
from evalsuite.gates.costs import CostResult
from evalsuite.gates.timing import (
    TimingGolden,
    golden_of,
    judge_timing,
    read_timing,
    times,
    timing_path,
    write_timing,
)
from evalsuite.records.schema import Record

SCENES = tuple(f"smoke.{name}" for name in ("blob", "castle", "chair", "creature", "truck", "wheel"))
MACHINE = {"cpu": "Testium 9", "cores": 2, "gpu": None, "threads": 1, "python": "3.11.7"}


def case(scene: str, seconds: float, seed: int = 0, **fields: Any) -> Record:
    """One record of C after 1000 steps, measured on a machine whose anchor takes 20 ms."""
    given_fields = {
        "budget": "capture",
        "steps": 1000,
        "seed": seed,
        "seconds": {"sfm": 2.0, "optimise": seconds, "load": 9.0, "evaluate": 3.0},
        "frames_per_second": 250.0,
        "anchor_seconds": 0.02,
        "anchor_share": 0.98,
        "machine": MACHINE,
    }
    suffix = f"-s{seed}" if seed else ""
    return record(None, f"{scene}/c-capture-n1000{suffix}", **{**given_fields, **fields})


def suite(seconds: Sequence[float] = (5.0, 6.0, 7.0, 8.0, 9.0, 10.0), **fields: Any) -> list[Record]:
    return [case(scene, s, **fields) for scene, s in zip(SCENES, seconds, strict=True)]


def verdicts(results: Sequence[CostResult]) -> dict[str, str]:
    return {result.quantity: result.verdict for result in results}


def slower(records: Sequence[Record], factor: float, phase: str = "optimise") -> list[Record]:
    """The same work in ``factor`` times the seconds."""
    return [replace(r, seconds={**r.seconds, phase: factor * r.seconds[phase]}) for r in records]


def busy(records: Sequence[Record], factor: float, **fields: Any) -> list[Record]:
    """The same program on a machine that takes ``factor`` times as long for everything."""
    return [
        replace(
            r,
            seconds={phase: factor * s for phase, s in r.seconds.items()},
            frames_per_second=(r.frames_per_second or 1.0) / factor,
            anchor_seconds=factor * (r.anchor_seconds or 1.0),
            **fields,
        )
        for r in records
    ]


GOLDEN = golden_of([suite()])


def test_equal_records_are_the_same() -> None:
    results = judge_timing(suite(), GOLDEN)
    assert verdicts(results) == dict.fromkeys(("frame", "optimise", "sfm"), "same")
    assert {(r.setting, r.scenes, r.change) for r in results} == {("c-capture-n1000", 6, 0.0)}
    assert not any(r.blocks for r in results)


@pytest.mark.parametrize("phase", ["sfm", "optimise"])
def test_a_slowdown_of_30_per_cent_blocks_and_names_its_phase(phase: str) -> None:
    results = judge_timing(slower(suite(), 1.3, phase), GOLDEN)
    assert {r.quantity for r in results if r.blocks} == {phase}
    (found,) = (r for r in results if r.blocks)
    assert found.change == pytest.approx(0.3)
    assert found.change * found.size == pytest.approx(0.3 * (2.0 if phase == "sfm" else math.sqrt(7 * 8)), rel=1e-3)
    assert f"c-capture-n1000 {phase}: +30.0% (+" in str(found)


def test_a_slower_renderer_blocks() -> None:
    results = judge_timing(suite(frames_per_second=180.0), GOLDEN)
    assert {r.quantity for r in results if r.blocks} == {"frame"}


def test_a_faster_program_is_reported_and_does_not_block() -> None:
    results = judge_timing(slower(suite(), 0.7), GOLDEN)
    assert verdicts(results)["optimise"] == "better"
    assert not any(r.blocks for r in results)


def test_a_slower_machine_is_no_slower_program() -> None:
    """Everything takes 1.7 times as long, the anchor too: without the anchor this would be a false alarm."""
    assert set(verdicts(judge_timing(busy(suite(), 1.7), GOLDEN)).values()) == {"same"}


def test_on_a_busy_machine_times_prove_nothing() -> None:
    found = verdicts(judge_timing(slower(busy(suite(), 1.7, anchor_share=0.6), 1.5), GOLDEN))
    assert found["optimise"] == "inconclusive"


def test_a_program_that_waits_is_no_busy_machine() -> None:
    """Steps that sleep leave the anchor its share: they block."""
    assert verdicts(judge_timing(slower(suite(), 1.5), GOLDEN))["optimise"] == "worse"


def test_one_scene_that_a_neighbour_slowed_is_no_regression() -> None:
    results = judge_timing(suite((5.0, 6.0, 7.0, 8.0, 9.0, 25.0)), GOLDEN)
    assert verdicts(results)["optimise"] == "same"


def test_a_small_amount_never_counts() -> None:
    """Twice 10 ms is still nothing."""
    golden = golden_of([suite([0.01] * 6)])
    assert verdicts(judge_timing(suite([0.02] * 6), golden))["optimise"] == "same"
    assert verdicts(judge_timing(suite([0.2] * 6), golden))["optimise"] == "worse"


def test_a_change_within_the_spread_is_inconclusive_and_says_what_could_be_seen() -> None:
    noisy = [suite(), slower(suite(seed=1), 1.2), slower(suite(seed=2), 0.8)]
    (found,) = (r for r in judge_timing(slower(suite(), 1.3), golden_of(noisy)) if r.quantity == "optimise")
    assert found.verdict == "inconclusive"
    assert found.limit is not None
    assert found.limit > 0.5
    assert "within the spread" in str(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"machine": {**MACHINE, "cpu": "Testium 10"}}, "not the declared machine: cpu Testium 9 -> Testium 10"),
        ({"machine": {**MACHINE, "threads": 2}}, "threads 1 -> 2"),
        ({"protocol_hash": "ba9876543210"}, "golden of protocol 0123456789ab, records of ba9876543210"),
        ({"status": "crashed"}, "no record holds seconds"),
    ],
)
def test_elsewhere_nothing_is_decided_and_that_is_said(changes: Mapping[str, Any], reason: str) -> None:
    (found,) = judge_timing(slower(suite(**changes), 3.0), GOLDEN)
    assert (found.verdict, found.blocks) == ("inconclusive", False)
    assert reason in str(found)


def test_without_a_golden_nothing_is_decided() -> None:
    (found,) = judge_timing(suite(), None)
    assert found.verdict == "inconclusive"
    assert "evalsuite approve --timing" in str(found)
    assert "evalsuite compare BASE HEAD" in str(found)


def test_another_python_is_the_same_machine() -> None:
    assert len(judge_timing(suite(machine={**MACHINE, "python": "3.12"}), GOLDEN)) == 3


def test_a_setting_without_golden_is_inconclusive_by_name() -> None:
    new = [replace(r, case=r.case.replace("1000", "3000")) for r in suite()]
    results = judge_timing([*suite(), *new], GOLDEN)
    assert {r.verdict for r in results if r.setting == "c-capture-n3000"} == {"inconclusive"}
    assert {r.verdict for r in results if r.setting == "c-capture-n1000"} == {"same"}


def test_records_of_two_machines_decide_nothing_and_are_no_golden() -> None:
    records = suite()
    records[3] = replace(records[3], machine={**MACHINE, "cores": 64})
    (result,) = judge_timing(records, GOLDEN)
    assert result.verdict == "inconclusive"
    assert "costs of 2 machines" in result.reason
    with pytest.raises(NotComparableError, match="costs of 2 machines"):
        golden_of([records], None)


def test_times_of_a_record() -> None:
    assert times(case("smoke.blob", 5.0)) == {"sfm": 100.0, "optimise": 250.0, "frame": pytest.approx(0.2)}
    assert times(case("smoke.blob", 5.0, anchor_seconds=None)) == {}


def noise(draw: random.Random, records: Sequence[Record], over_runs: float, over_scenes: float) -> list[Record]:
    run = draw.gauss(0, over_runs)
    return [slower([r], math.exp(run + draw.gauss(0, over_scenes)))[0] for r in records]


@pytest.mark.parametrize(("factor", "least", "most"), [(1.0, 0, 0), (1.3, 19, 20), (1.5, 20, 20)])
def test_alarms_in_20_runs(factor: float, least: int, most: int) -> None:
    """Runs spread by 3 %, scenes by 5 %: the priors of a quiet machine."""
    draw = random.Random(7)
    golden = golden_of([noise(draw, suite(seed=seed), 0.03, 0.05) for seed in (0, 1, 2)])
    runs = [judge_timing(noise(draw, slower(suite(), factor), 0.03, 0.05), golden) for _ in range(20)]
    assert least <= sum(any(r.blocks for r in results) for results in runs) <= most


def test_no_false_alarm_on_a_busy_machine() -> None:
    """Under contention scenes swing by 40 %: the verdict is never `worse`, even if the share did not tell."""
    draw = random.Random(7)
    golden = golden_of([noise(draw, suite(seed=seed), 0.2, 0.4) for seed in (0, 1, 2)])
    runs = [judge_timing(noise(draw, suite(), 0.2, 0.4), golden) for _ in range(20)]
    assert not any(r.blocks for results in runs for r in results)


@settings(deadline=None, max_examples=50)
@given(st.floats(1.0, 10.0), st.floats(0.1, 10.0), st.permutations(range(6)))
def test_slower_is_never_better_and_units_and_order_do_not_matter(
    factor: float, machine: float, order: list[int]
) -> None:
    records = busy(slower(suite(), factor), machine)
    results = judge_timing([records[i] for i in order], GOLDEN)
    (found,) = (r for r in results if r.quantity == "optimise")
    assert found.verdict in ("same", "worse", "inconclusive")
    assert found.change == pytest.approx(factor - 1, abs=1e-9)
    assert (found.verdict == "worse") == (factor - 1 > max(found.limit or 0.0, 0.1))


def test_a_golden_survives_its_file(tmp_path: Path) -> None:
    path = timing_path(tmp_path, "smoke", "cpu-x86-64")
    assert path == tmp_path / "smoke/cpu-x86-64/timing.json"
    assert read_timing(path) is None
    write_timing(path, GOLDEN)
    again = read_timing(path)
    assert again == GOLDEN
    text = path.read_text()
    write_timing(path, GOLDEN)
    assert path.read_text() == text
    assert json.loads(text) == json.loads(text, object_pairs_hook=lambda pairs: dict(sorted(pairs)))
    assert [p.name for p in path.parent.iterdir()] == ["timing.json"]


def test_from_records_to_a_file_to_a_verdict_that_blocks(tmp_path: Path) -> None:
    path = timing_path(tmp_path, "smoke", "cpu-x86-64")
    write_timing(path, golden_of([suite()], read_timing(path)))
    assert not any(r.blocks for r in judge_timing(suite(), read_timing(path)))
    assert [str(r).split(":")[0] for r in judge_timing(slower(suite(), 2.0), read_timing(path)) if r.blocks] == [
        "worse        c-capture-n1000 optimise"
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"schema": 2}, "has schema 2, this evalsuite reads up to 1"),
        ({"schema": "1"}, "is not a golden of timing"),
        ({"cases": {"smoke.blob/a": {"forward": [0.0]}}}, "not positive"),
        ({"cases": {"smoke.blob/a": {"forward": [math.nan]}}}, "not positive"),
        ({"cases": {"smoke.blob/a": {"forward": []}}}, "not positive"),
        ({"cases": []}, "is not a golden"),
        ({"cases": {"smoke.blob/a": {"mood": [1.0]}}}, "is not a golden"),
        ({"protocol_hash": None}, "is not a golden"),
        ({"machine": {}}, "is not a golden"),
        ({"anchor_seconds": -1.0}, "not positive"),
    ],
)
def test_what_is_no_golden_is_refused(tmp_path: Path, damage: Mapping[str, Any], message: str) -> None:
    path = tmp_path / "timing.json"
    write_timing(path, GOLDEN)
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(SchemaError, match=message):
        read_timing(path)


def test_repeats_of_other_seeds_show_the_spread() -> None:
    golden = golden_of([suite(), slower(suite(seed=1), 1.1)])
    assert golden.values["smoke.blob/c-capture-n1000"]["optimise"] == pytest.approx((250.0, 275.0))
    assert set(golden.values) == {f"{scene}/c-capture-n1000" for scene in SCENES}


def test_a_single_run_replaces_only_what_moved() -> None:
    old = golden_of([suite(), suite(seed=1)])
    moved = [replace(r, seconds={**r.seconds, "sfm": 2.05}) for r in slower(suite(), 2.0)]
    new = golden_of([moved], old)
    values = new.values["smoke.blob/c-capture-n1000"]
    assert values["sfm"] == (100.0, 100.0), "within the spread: the golden does not creep"
    assert values["optimise"] == pytest.approx((500.0,))


def test_another_machine_starts_anew() -> None:
    other = golden_of([suite(machine={**MACHINE, "cpu": "Testium 10"})], GOLDEN)
    assert other.machine["cpu"] == "Testium 10"


def test_a_busy_machine_is_not_declared() -> None:
    with pytest.raises(OptionError, match=r"busy in 6 of 6 cases.*quiet one"):
        golden_of([suite(anchor_share=0.5)])
    with pytest.raises(OptionError, match="no record holds seconds"):
        golden_of([suite(anchor_seconds=None)])


def test_a_golden_is_a_value() -> None:
    assert isinstance(GOLDEN, TimingGolden)
    assert GOLDEN.machine == {key: MACHINE[key] for key in ("cpu", "cores", "gpu", "threads")}
