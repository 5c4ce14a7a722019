"""A record survives its file, and no other file passes for one."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.core.cases import BUDGETS, Budget, Case, Trajectory
from evalsuite.core.errors import NonFiniteError, SchemaError, Status
from evalsuite.core.phases import PHASES
from evalsuite.records.schema import SCHEMA, Reading, Record, loads

TEXT = st.text(max_size=3)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**62)
VALUES = st.tuples(
    st.none() | FINITE, st.lists(FINITE, max_size=2).map(tuple), COUNTS, st.sampled_from(get_args(Status))
)
MACHINES = st.dictionaries(TEXT, st.none() | st.booleans() | COUNTS | FINITE | TEXT | st.lists(TEXT, max_size=1))


NEW_IN_3 = (
    "peak_host_bytes",
    "peak_device_bytes",
    "frames_per_second",
    "frame_px",
    "anchor_seconds",
    "anchor_share",
)


def record(**overrides: Any) -> Record:
    given_fields: dict[str, Any] = {
        "case": "smoke.chair/b-capture-n50",
        "scene": "smoke.chair",
        "stratum": "thin",
        "arm": "b",
        "budget": "capture",
        "steps": 50,
        "seed": 0,
        "suite": "smoke",
        "protocol": "object-128",
        "protocol_hash": "0123456789ab",
        "metrics": {"psnr": Reading(25.5, (25.0, 26.0), 1), "lpips": Reading(None, (), 1, "missing-data")},
        "seconds": {"optimise": 2.5, "forward": 0.25},
        "peak_host_bytes": 800_000_000,
        "peak_device_bytes": 0,
        "frames_per_second": 450.5,
        "frame_px": (128, 96),
        "anchor_seconds": 0.015,
        "anchor_share": 0.97,
    }
    return Record(**{**given_fields, **overrides})


def damaged(**changes: Any) -> str:
    """The JSON of a good record with some of its fields replaced, or removed where the new value is ``...``."""
    tree = {**json.loads(record().dumps()), **changes}
    return json.dumps({name: value for name, value in tree.items() if value is not ...})


@settings(deadline=None, max_examples=50)
@given(TEXT, COUNTS, st.sampled_from([None, *BUDGETS]), st.dictionaries(TEXT, VALUES, max_size=2), MACHINES)
def test_round_trip(
    text: str, count: int, budget: Budget | None, values: dict[str, tuple[Any, ...]], machine: dict[str, Any]
) -> None:
    metrics = {name: Reading(*fields) for name, fields in values.items()}
    case = Case(Trajectory("smoke.chair", "b", budget, (), seed=count % 3), count if budget else 0)
    identity = {"case": case.id, "steps": case.steps, "budget": budget, "seed": count % 3}
    more = {"reason": text, "notes": (text,), "libraries": {text: text}, "gaussians": count}
    written = record(**identity, **more, metrics=metrics, machine=machine)
    assert loads(written.dumps(), "memory") == written


@pytest.mark.parametrize(
    ("field", "value"),
    [("scene", "smoke.blob"), ("arm", "c"), ("budget", "inputs"), ("steps", 200), ("seed", 1), ("budget", "all")],
)
def test_what_contradicts_the_id_is_neither_written_nor_read(field: str, value: Any) -> None:
    with pytest.raises(SchemaError, match=rf"{value}|budget 'all'"):
        record(**{field: value}).dumps()
    with pytest.raises(SchemaError, match=r"^file\.json (says case|has budget)"):
        loads(damaged(**{field: value}), "file.json")


@settings(deadline=None)
@given(FINITE)
def test_every_finite_float_comes_back(value: float) -> None:
    found = loads(record(seconds={"sfm": value}, metrics={"psnr": Reading(value, (value,), 1)}).dumps(), "memory")
    assert (found.seconds["sfm"], found.value("psnr"), found.metrics["psnr"].per_view) == (value, value, (value,))


def test_keys_are_sorted_at_every_level() -> None:
    ordered: list[list[str]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        ordered.append([key for key, _ in pairs])
        return dict(pairs)

    json.loads(record().dumps(), object_pairs_hook=note)
    assert len(ordered) > 3
    assert all(keys == sorted(keys) for keys in ordered)
    assert record(seconds={"a": 1.0, "b": 2.0}).dumps() == record(seconds={"b": 2.0, "a": 1.0}).dumps()


def test_every_field_is_in_the_file() -> None:
    text = record().dumps()
    assert set(json.loads(text)) == {field.name for field in fields(Record)}
    assert json.loads(text)["schema"] == SCHEMA
    assert text.endswith("}\n")


def test_a_float_is_the_shortest_that_comes_back() -> None:
    assert '"optimise": 0.1\n' in record(seconds={"optimise": 0.1}).dumps()


def old(schema: int, **fields: Any) -> str:
    """The JSON of the record as schema 1 or 2 had it."""
    tree = json.loads(record().dumps())
    for name in (*NEW_IN_3, *(("model",) if schema == 1 else ())):
        del tree[name]
    return json.dumps({**tree, "peak_bytes": 0, **fields, "schema": schema})


@pytest.mark.parametrize("schema", [1, 2])
def test_an_old_record_is_read_without_what_nobody_measured(schema: int) -> None:
    unknown: dict[str, Any] = {**dict.fromkeys(NEW_IN_3), "peak_device_bytes": 0}
    found = loads(old(schema, peak_bytes=700), "old.json")
    assert found == record(**{**unknown, "peak_host_bytes": 700})


@pytest.mark.parametrize(
    ("device_class", "peak", "host", "device"),
    [
        ("cpu-x86-64", 700, 700, 0),
        ("cuda-sm90", 700, None, 700),
        ("cpu-x86-64", 0, None, 0),
        ("cuda-sm90", 0, None, None),
    ],
    ids=["cpu", "cuda", "cpu-failed", "cuda-failed"],
)
def test_the_one_peak_of_schema_2_was_that_of_the_device(
    device_class: str, peak: int, host: int | None, device: int | None
) -> None:
    found = loads(old(2, peak_bytes=peak, machine={"device_class": device_class}), "old.json")
    assert (found.peak_host_bytes, found.peak_device_bytes) == (host, device)


def test_a_record_of_schema_3_names_neither_scene_nor_libraries() -> None:
    tree = json.loads(record(scene_hash="5ce9e", libraries={"torch": "2.11.0 5ca1ab1e"}).dumps())
    for name in ("scene_hash", "scene_source", "libraries", "base_host_bytes"):
        del tree[name]
    assert loads(json.dumps({**tree, "schema": 3}), "old.json") == record()


@pytest.mark.parametrize("missing", ["peak_bytes", "machine"])
def test_an_old_record_without_its_own_fields_is_malformed(missing: str) -> None:
    tree = json.loads(old(2))
    del tree[missing]
    with pytest.raises(SchemaError, match=r"old\.json is a malformed record"):
        loads(json.dumps(tree), "old.json")


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(SchemaError, match=rf"b\.json has schema {SCHEMA + 1}.*reads up to {SCHEMA}; upgrade"):
        loads(damaged(schema=SCHEMA + 1), "b.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        damaged(schema=...),
        damaged(schema="1"),
        damaged(schema=None),
        damaged(schema=0),
        damaged(case=...),
        damaged(metrics=...),
        damaged(metrics=[]),
        damaged(metrics={"psnr": 3}),
        damaged(metrics={"psnr": {"value": 3.0, "version": 1}}),
        damaged(metrics={"psnr": {"value": 3.0, "version": 1, "per_view": [], "mood": "good"}}),
        damaged(notes=None),
        damaged(frame_px=...),
        damaged(frame_px=[128]),
        damaged(frame_px=128),
        damaged(colour="red"),
    ],
    ids=[
        "empty",
        "truncated",
        "list",
        "number",
        "null",
        "no-field",
        "no-schema",
        "schema-text",
        "schema-null",
        "schema-zero",
        "no-case",
        "no-metrics",
        "metrics-list",
        "reading-number",
        "reading-short",
        "reading-long",
        "notes-null",
        "no-frame",
        "frame-short",
        "frame-number",
        "unknown-field",
    ],
)
def test_what_is_no_record_is_refused_by_name(text: str) -> None:
    with pytest.raises(SchemaError, match=r"^out/chair/a\.json .*; ") as caught:
        loads(text, "out/chair/a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_file_with_a_non_finite_number_is_refused(word: str) -> None:
    """JSON has no such literal, but Python's parser takes it; a gate would then compare with NaN."""
    text = record().dumps().replace("25.5", word)
    assert word in text
    with pytest.raises(SchemaError, match=r"a\.json"):
        loads(text, "a.json")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("changes", "path"),
    [
        (lambda bad: {"metrics": {"psnr": Reading(bad, (), 1)}}, "metrics.psnr.value"),
        (lambda bad: {"metrics": {"psnr": Reading(1.0, (1.0, bad), 1)}}, "metrics.psnr.per_view"),
        (lambda bad: {"seconds": {"optimise": bad}}, "seconds.optimise"),
        (lambda bad: {"machine": {"clock": {"hz": [bad]}}}, "machine.clock.hz"),
    ],
    ids=["value", "per-view", "seconds", "nested"],
)
def test_a_non_finite_number_is_refused_with_its_path(changes: Any, path: str, bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"expected a finite number") as caught:
        record(**changes(bad)).dumps()
    assert str(caught.value).startswith(f"smoke.chair/b-capture-n50.{path} is {bad}")


def test_the_value_of_a_metric() -> None:
    found = record()
    assert found.value("psnr") == 25.5
    assert found.value("lpips") is None
    assert found.value("ssim") is None
    void = replace(found, metrics={"psnr": Reading(25.5, (), 1, "nonfinite")})
    assert void.value("psnr") is None


def test_the_cost_of_an_asset_leaves_out_what_is_paid_once_or_for_the_study() -> None:
    seconds = {phase: 2.0**power for power, phase in enumerate(PHASES)}
    cost = record(seconds=seconds).total_seconds
    left_out = {phase for phase, value in seconds.items() if not int(cost) & int(value)}
    assert left_out == {"load", "compile", "render", "evaluate"}
    assert record().total_seconds == 2.75
    assert record(seconds={}).total_seconds == 0


def test_costs_are_those_of_an_asset_and_of_a_frame() -> None:
    assert record(frames_per_second=4.0).costs == {"forward": 0.25, "optimise": 2.5, "frame": 0.25}
    assert record(frames_per_second=None, seconds={"load": 3.0, "sfm": 0.0}).costs == {}
