"""Memory is judged on every machine of a class: growth blocks, what ran before in the process does not."""

from __future__ import annotations

import json
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
from evalsuite.gates.peaks import judge_memory, memory_of, memory_path, read_memory, sizes, write_memory
from evalsuite.records.schema import Record

MIB = 2**20
SCENES = tuple(f"smoke.{name}" for name in ("blob", "castle", "chair", "creature", "truck", "wheel"))
GROWTHS = (123, 140, 86, 100, 96, 120)
"""MiB that arm B adds to its process, by scene (docs/design/timing.md)."""


def case(scene: str, growth: float, seed: int = 0, base: float = 1040, **fields: Any) -> Record:
    """One record of B after 50 steps."""
    suffix = f"-s{seed}" if seed else ""
    peaks = {"base_host_bytes": int(base * MIB), "peak_host_bytes": int((base + growth) * MIB), "peak_device_bytes": 0}
    return record(None, f"{scene}/b-capture-n50{suffix}", **{"steps": 50, "seed": seed, **peaks, **fields})


def suite(more: float = 0.0, **fields: Any) -> list[Record]:
    """A run in which every scene's arm takes some MiB more."""
    return [case(scene, growth + more, **fields) for scene, growth in zip(SCENES, GROWTHS, strict=True)]


def verdicts(results: Sequence[CostResult]) -> dict[str, str]:
    return {result.quantity: result.verdict for result in results}


GOLDEN = memory_of([suite()])


def test_equal_records_are_the_same() -> None:
    results = judge_memory(suite(), GOLDEN)
    assert verdicts(results) == {"growth-host": "same", "peak-host": "same"}
    assert {(r.setting, r.scenes, r.change) for r in results} == {("b-capture-n50", 6, 0.0)}


@pytest.mark.parametrize("growth", [100, 300, 620])
def test_an_arm_that_takes_more_blocks(growth: float) -> None:
    results = judge_memory(suite(growth), GOLDEN)
    assert verdicts(results)["growth-host"] == "worse"
    found = next(r for r in results if r.quantity == "growth-host")
    assert found.change is not None
    assert found.change * found.size == pytest.approx(growth * MIB, rel=0.05)
    assert str(found).startswith("worse        b-capture-n50 growth-host: +")
    assert "MiB over 6 scenes; 4 sigma are " in str(found)


def test_more_by_half_blocks_whenever_it_came() -> None:
    """54 % more: by the arm, or before it began."""
    in_arm = [replace(r, peak_host_bytes=int(1.54 * (r.peak_host_bytes or 0))) for r in suite()]
    before = [replace(r, base_host_bytes=(r.base_host_bytes or 0) + 620 * MIB) for r in in_arm]
    assert verdicts(judge_memory(in_arm, GOLDEN)) == {"growth-host": "worse", "peak-host": "worse"}
    assert verdicts(judge_memory(before, GOLDEN))["peak-host"] == "worse"


def test_what_ran_before_in_the_process_is_no_growth() -> None:
    """Kernels compiled in the process take 180 MiB, scenes 30 each: peaks differ by a sixth, growth does not."""
    assert set(verdicts(judge_memory(suite(base=1220), GOLDEN)).values()) == {"same"}


def test_less_memory_is_better_and_does_not_block() -> None:
    golden = memory_of([suite(300)])
    results = judge_memory(suite(), golden)
    assert verdicts(results)["growth-host"] == "better"
    assert not any(r.blocks for r in results)


def test_one_scene_alone_is_no_regression_of_a_setting() -> None:
    records = suite()
    records[0] = case(SCENES[0], 900)
    assert set(verdicts(judge_memory(records, GOLDEN)).values()) == {"same"}


@pytest.mark.parametrize("machine", [{"cpu": "another", "cores": 64}, {}])
@pytest.mark.parametrize("share", [0.2, None])
def test_no_machine_is_declared_and_none_must_be_quiet(machine: Mapping[str, Any], share: float | None) -> None:
    grown = suite(300, machine=machine, anchor_seconds=None, anchor_share=share)
    assert verdicts(judge_memory(grown, GOLDEN))["growth-host"] == "worse"


@pytest.mark.parametrize(("growth", "verdict"), [(1.02, "same"), (1.04, "worse"), (0.9, "better")])
def test_device_memory_is_counted_to_the_byte(growth: float, verdict: str) -> None:
    golden = memory_of([suite(peak_device_bytes=2**31)])
    results = judge_memory(suite(peak_device_bytes=int(growth * 2**31)), golden)
    assert verdicts(results)["peak-device"] == verdict


def test_sizes_of_a_record() -> None:
    assert sizes(case("smoke.blob", 100)) == {"growth-host": 100 * MIB, "peak-host": 1140 * MIB}
    assert sizes(case("smoke.blob", 100, base_host_bytes=None)) == {"peak-host": 1140 * MIB}
    assert sizes(case("smoke.blob", -1))["growth-host"] == 0.0
    assert sizes(case("smoke.blob", 100, status="crashed")) == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol_hash": "ba9876543210"}, "golden of protocol 0123456789ab, records of ba9876543210"),
        ({"status": "crashed"}, "no record holds a peak"),
    ],
)
def test_what_cannot_be_compared_is_said_once(changes: Mapping[str, Any], reason: str) -> None:
    (found,) = judge_memory(suite(900, **changes), GOLDEN)
    assert (found.verdict, found.blocks) == ("inconclusive", False)
    assert f"memory: {reason}" in str(found)


def test_without_a_golden_the_command_that_makes_it_is_said_once() -> None:
    (found,) = judge_memory(suite(), None)
    assert found.verdict == "inconclusive"
    assert "memory: no golden for this class yet: `evalsuite approve" in str(found)


def test_false_alarms_and_sight_under_the_measured_noise() -> None:
    """Runs spread by 10 MiB, scenes of a run by 20: what the worst setting showed."""
    draw = random.Random(5)

    def noisy(more: float) -> list[Record]:
        run = draw.gauss(0, 10)
        return [case(s, g + more + run + draw.gauss(0, 20)) for s, g in zip(SCENES, GROWTHS, strict=True)]

    golden = memory_of([noisy(0)])
    assert not any(r.blocks for _ in range(40) for r in judge_memory(noisy(0), golden))
    assert sum(any(r.blocks for r in judge_memory(noisy(150), golden)) for _ in range(40)) >= 38


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 2000), st.floats(500, 1500), st.permutations(range(6)))
def test_more_is_never_better_and_order_and_base_do_not_matter(more: float, base: float, order: list[int]) -> None:
    records = suite(more, base=base)
    found = next(r for r in judge_memory([records[i] for i in order], GOLDEN) if r.quantity == "growth-host")
    assert found.change is not None
    assert found.limit is not None
    assert found.change * found.size == pytest.approx(more * MIB, rel=0.2, abs=2 * MIB)
    assert found.verdict in ("same", "worse", "inconclusive")
    assert (found.verdict == "worse") == (found.change * found.size > max(64 * MIB, found.limit * found.size))


def test_from_records_to_a_file_to_a_verdict_that_blocks(tmp_path: Path) -> None:
    path = memory_path(tmp_path, "smoke", "cpu-x86-64")
    assert path == tmp_path / "smoke/cpu-x86-64/memory.json"
    assert read_memory(path) is None
    write_memory(path, memory_of([suite()], read_memory(path)))
    assert read_memory(path) is not None
    assert not any(r.blocks for r in judge_memory(suite(), read_memory(path)))
    assert {r.quantity for r in judge_memory(suite(620), read_memory(path)) if r.blocks} == {"growth-host", "peak-host"}
    assert [p.name for p in path.parent.iterdir()] == ["memory.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"schema": 2}, "has schema 2, this evalsuite reads up to 1"),
        ({"cases": {"smoke.blob/a": {"peak-host": [0.0]}}}, "not positive"),
        ({"cases": {"smoke.blob/a": {"growth-host": [-1.0]}}}, "not positive"),
        ({"cases": {"smoke.blob/a": {"growth-host": []}}}, "not positive"),
        ({"cases": []}, "is not a golden of memory"),
    ],
)
def test_what_is_no_golden_is_refused(tmp_path: Path, damage: Mapping[str, Any], message: str) -> None:
    path = tmp_path / "memory.json"
    write_memory(path, GOLDEN)
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(SchemaError, match=message):
        read_memory(path)


def test_nothing_grown_is_a_value(tmp_path: Path) -> None:
    write_memory(tmp_path / "memory.json", memory_of([[case("smoke.blob", 0)]]))
    golden = read_memory(tmp_path / "memory.json")
    assert verdicts(judge_memory([case("smoke.blob", 400)], golden))["growth-host"] == "worse"


def test_repeats_of_other_seeds_show_the_spread() -> None:
    golden = memory_of([suite(), suite(50, seed=1)])
    assert golden.values["smoke.blob/b-capture-n50"]["growth-host"] == (123 * MIB, 173 * MIB)
    assert set(golden.values) == {f"{scene}/b-capture-n50" for scene in SCENES}
    limits = [r.limit for g in (GOLDEN, golden) for r in judge_memory(suite(), g) if r.quantity == "growth-host"]
    assert (limits[1] or 0) > 1.2 * (limits[0] or 0)


def test_a_single_run_replaces_only_what_moved() -> None:
    assert memory_of([suite(10)], GOLDEN) == GOLDEN
    new = memory_of([suite(200)], GOLDEN).values["smoke.blob/b-capture-n50"]
    assert new["growth-host"] == (323 * MIB,)
    assert new["peak-host"] == GOLDEN.values["smoke.blob/b-capture-n50"]["peak-host"]


def test_what_is_no_run_is_no_golden() -> None:
    with pytest.raises(OptionError, match="no record holds peak memory"):
        memory_of([suite(status="crashed")])
    with pytest.raises(NotComparableError, match="memory of 2 protocols"):
        memory_of([[*suite()[1:], case(SCENES[0], 1, protocol_hash="ba9876543210")]])
