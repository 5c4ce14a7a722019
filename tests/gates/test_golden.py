"""The verdict on a case, and the file of a golden."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import CASE, HASH, LIBRARIES, SOURCE, golden, record
from scipy.stats import t

from evalsuite.core.errors import EvalsuiteError, OutdatedError, SchemaError
from evalsuite.gates import golden as golden_module
from evalsuite.gates.golden import (
    BLOCKING,
    COMPARED,
    KIND_FLOORS,
    Approved,
    Change,
    Comparison,
    Golden,
    GoldenStore,
    Provenance,
    compare,
    describe,
    kind_of,
)
from evalsuite.gates.noise import alarm
from evalsuite.metrics.spec import ENGINE, METRICS, PROBES, MetricSpec
from evalsuite.records.schema import Reading, Record

SPECS = {
    "psnr": METRICS["psnr"],
    "ssim": METRICS["ssim"],
    "error": MetricSpec("error", "1", "lower", 1, 0.25, "made up: lower is better"),
    "count": MetricSpec("count", "1", "none", 1, 0.5, "made up: any change is for the worse"),
    "extra": MetricSpec("extra", "1", "lower", 1, 0.1, "made up: needs weights", optional=True),
}
A = "smoke.chair/a"
MADE = Provenance("cpu-x86-64", "a CPU", "c0ffee", SOURCE, "5ec1be", "3e19b75", "5ce9e", "f11e5", LIBRARIES)


@pytest.fixture(autouse=True)
def _specs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_module, "METRICS", SPECS)


def times(freedom: float) -> float:
    """How many standard deviations of one run a golden of three runs allows, whose suite compares one value."""
    return float(t.isf(alarm("cases", 1) / 2, freedom)) * math.sqrt(4 / 3)


def with_extra(found: Record, status: Any = "ok", value: float | None = 0.5) -> Record:
    reading = Reading(value if status == "ok" else None, (value,) if value and status == "ok" else (), 1, status)
    return replace(found, metrics={**found.metrics, "extra": reading})


# --- compare


@pytest.mark.parametrize(
    ("metric", "before", "after", "verdict"),
    [
        ("psnr", 25.0, 25.0, "same"),
        ("psnr", 25.0, 25.049, "same"),
        ("psnr", 25.0, 24.951, "same"),
        ("psnr", 25.0, 25.051, "better"),
        ("psnr", 25.0, 24.949, "worse"),
        ("error", 1.0, 1.25, "same"),
        ("error", 1.0, 0.75, "same"),
        ("error", 1.0, 1.26, "worse"),
        ("error", 1.0, 0.74, "better"),
        ("count", 1.0, 1.5, "same"),
        ("count", 1.0, 1.6, "worse"),
        ("count", 1.0, 0.4, "worse"),
    ],
)
def test_without_noise_the_floor_decides(metric: str, before: float, after: float, verdict: str) -> None:
    result = compare(CASE, record({metric: after}), golden({metric: before}))
    assert result.verdict == verdict
    (change,) = result.changes
    assert change.tolerance == SPECS[metric].floor
    assert (change.golden, change.value, change.sigmas) == (before, after, None)


@pytest.mark.parametrize("freedom", [2.0, 9.5, 1000.0])
@pytest.mark.parametrize(("metric", "sign"), [("psnr", -1), ("error", 1)])
def test_with_noise_students_t_decides(metric: str, sign: int, freedom: float) -> None:
    sigma = SPECS[metric].floor
    limit = times(freedom) * sigma
    for share, verdict in ((0.999, "same"), (1.001, "worse"), (-0.999, "same"), (-1.001, "better")):
        result = compare(CASE, record({metric: 500 + sign * share * limit}), golden({metric: 500.0}, sigma, freedom))
        assert result.verdict == verdict
        assert result.changes[0].tolerance == pytest.approx(limit)
        assert result.changes[0].sigmas == pytest.approx(share * times(freedom) / math.sqrt(4 / 3))


def test_noise_below_the_floor_leaves_the_floor() -> None:
    result = compare(CASE, record({"psnr": 24.96}), golden(sigma=0.0001))
    assert (result.verdict, result.changes[0].tolerance) == ("same", 0.05)


def test_a_golden_of_one_run_is_a_noisier_reference_than_one_of_many() -> None:
    few, many = (compare(CASE, record(), golden(sigma=0.1, seeds=tuple(range(runs)))).changes[0] for runs in (1, 1000))
    assert few.sigma == pytest.approx(0.1 * math.sqrt(2))
    assert many.sigma == pytest.approx(0.1, rel=1e-3)
    assert few.visible > few.tolerance > many.tolerance


def test_a_run_is_held_against_the_sample_of_its_own_seed_too() -> None:
    approved = golden(metrics={"psnr": Approved(25.2, 1, 0.2, 12.0, (25.0, 25.2, 25.4), 1)})
    for seed, paired in ((0, 0.3), (1, 0.5), (2, 0.7), (3, None)):
        found = record({"psnr": 24.7}, seed=seed)
        (change,) = compare(CASE, found, approved).changes
        assert change.drop == pytest.approx(0.5), "a single case is judged against the mean"
        assert change.paired == (None if paired is None else pytest.approx(paired))


def test_without_samples_and_without_steps_there_is_no_pair() -> None:
    (change,) = compare(CASE, record(), golden()).changes
    assert change.paired is None
    sampled = golden(case=A, metrics={"psnr": Approved(25.0, 1, samples=(25.0, 25.0, 25.0), views=1)})
    (change,) = compare(A, record(case=A), sampled).changes
    assert change.paired is None


def test_the_more_is_compared_the_more_is_allowed_each() -> None:
    limits = [compare(CASE, record(), golden(sigma=0.1, comparisons=n)).changes[0].tolerance for n in (1, 100, 10_000)]
    assert limits == sorted(limits)
    assert limits[1] == pytest.approx(0.1 * math.sqrt(4 / 3) * float(t.isf(alarm("cases", 100) / 2, 12)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("device_class", "cuda-sm90", "golden of device class cpu-x86-64, record of cuda-sm90"),
        ("scene_source", "0ther0000000", "read from files f11e5 for the golden, 0ther0000000 now"),
        ("scene_hash", "0ther0000000", "the scene holds 5ce9e in the golden, 0ther0000000 now"),
    ],
)
def test_another_device_or_another_scene_is_stale_however_close(field: str, value: str, message: str) -> None:
    made, swap = MADE, {field: value}
    found = record(scene_hash="5ce9e", scene_source="f11e5")
    assert compare(CASE, found, golden(made=made)).verdict == "same"
    changed = replace(found, machine={**found.machine, **swap}) if field == "device_class" else replace(found, **swap)
    result = compare(CASE, changed, golden(made=made))
    assert (result.verdict, result.blocks) == ("stale", True)
    assert message in result.reason
    assert compare(CASE, changed, golden(made=replace(made, **{field: ""}))).verdict == "same", "nobody knows"


def test_on_another_processor_the_files_decide_what_a_scene_is() -> None:
    """Rays round otherwise there: the same object may differ in a few pixels."""
    elsewhere = {**record().machine, "cpu": "another"}
    found = record(scene_hash="0ther0000000", scene_source="f11e5", machine=elsewhere)
    result = compare(CASE, found, golden(made=MADE))
    assert result.verdict == "same"
    assert "scene content 5ce9e -> 0ther0000000" in result.differs
    assert "cpu a CPU -> another" in result.differs


def test_what_else_differs_is_said_beside_the_verdict() -> None:
    libraries = {**LIBRARIES, "gsplat": "1.5.3 f0f0f0f0"}
    found = record({"psnr": 20.0}, weights="9c1b", recipe_hash="5ec1be", libraries=libraries, git={"commit": "d1ce"})
    result = compare(CASE, found, golden(made=MADE))
    assert result.verdict == "worse"
    assert result.differs == (
        "commit c0ffee -> d1ce",
        "weights 3e19b75 -> 9c1b",
        "gsplat 1.5.3 09f1ab32 -> 1.5.3 f0f0f0f0",
    )
    assert compare(CASE, found, golden()).differs == (), "of an older golden nobody knows"


@pytest.mark.parametrize(("sigma", "verdict"), [(0.0, "worse"), (1.0, "worse")])
def test_a_forward_pass_has_no_noise_whatever_its_golden_says(sigma: float, verdict: str) -> None:
    found = replace(record({"psnr": 24.9}), case=A, budget=None, steps=0)
    assert compare(A, found, golden(case=A, sigma=sigma)).verdict == verdict


@pytest.mark.parametrize(("after", "verdict"), [(25.019, "same"), (24.979, "worse"), (25.021, "better")])
def test_one_forward_pass_is_held_tighter(after: float, verdict: str) -> None:
    found = replace(record({"psnr": after}), case=A, budget=None, steps=0)
    assert compare(A, found, golden(case=A)).verdict == verdict
    at_zero = replace(record({"psnr": after}), steps=0)
    assert compare(CASE, at_zero, golden()).verdict == verdict, "B at N = 0 is a forward pass"


def test_a_probe_of_the_engine_is_held_to_its_own_floor() -> None:
    name = "mean-red"
    found = replace(record({name: 0.5 + 2 * PROBES[name].floor}, case="engine/forward"), suite=ENGINE)
    assert kind_of(found) == "engine"
    assert compare("engine/forward", found, golden({name: 0.5}, case="engine/forward")).verdict == "worse"
    assert PROBES[name].floor * KIND_FLOORS["engine"] < METRICS["ssim"].floor * KIND_FLOORS["forward"]


@pytest.mark.parametrize(
    ("after", "verdict"), [(24.96, "same"), (24.9, "inconclusive"), (25.9, "inconclusive"), (23.9, "worse")]
)
def test_noise_that_nobody_measured_is_no_proof_of_a_small_change(after: float, verdict: str) -> None:
    result = compare(CASE, record({"psnr": after}), golden(freedom=0.0))
    assert result.verdict == verdict
    assert result.blocks == (verdict == "worse")


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 5))
def test_better_and_worse_are_mirror_images(before: float, after: float, tolerance: float) -> None:
    there = Change("psnr", before, after, before - after, tolerance).verdict
    back = Change("psnr", after, before, after - before, tolerance).verdict
    assert back == {"same": "same", "better": "worse", "worse": "better"}[there]


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ({"psnr": 26.0, "ssim": 0.8}, "worse"),
        ({"psnr": 26.0, "ssim": 0.9}, "better"),
        ({"psnr": 25.0, "ssim": 0.9}, "same"),
    ],
    ids=["one-worse", "one-better", "none"],
)
def test_the_worst_metric_decides(after: dict[str, float], verdict: str) -> None:
    result = compare(CASE, record(after), golden({"psnr": 25.0, "ssim": 0.9}))
    assert result.verdict == verdict
    assert [change.metric for change in result.changes] == ["psnr", "ssim"]


@pytest.mark.parametrize(
    ("found", "approved", "verdict", "reason"),
    [
        (None, golden(), "not-run", "no record"),
        (None, None, "not-run", "no record"),
        (record({}, status="missing-data", reason="fetch it"), golden(), "not-run", "fetch it"),
        (record({}, status="crashed", reason="KeyError"), golden(), "failed", "crashed: KeyError"),
        (record({}, status="oom", reason="too big"), None, "failed", "oom: too big"),
        (record(), None, "no-golden", "evalsuite approve"),
        (record(), golden(protocol_hash="ba9876543210"), "stale", "golden of protocol ba9876543210, record of " + HASH),
        (record({"psnr": 25.0, "ssim": 0.9}), golden(), "stale", "ssim"),
        (record(), golden({"psnr": 25.0, "ssim": 0.9}), "stale", "ssim"),
        (record(), golden(metrics={"psnr": Approved(25.0, 2)}), "stale", "psnr version 2 in golden, 1 now"),
        (record(), golden(metrics={"psnr": Approved(25.0, 1, views=2)}), "stale", "psnr over 2 views in golden, 1 now"),
    ],
    ids=[
        "absent",
        "absent-no-golden",
        "missing-data",
        "crashed",
        "oom-no-golden",
        "no-golden",
        "protocol",
        "more-metrics",
        "fewer-metrics",
        "version",
        "a-view-dropped",
    ],
)
def test_what_cannot_be_compared(found: Record | None, approved: Golden | None, verdict: str, reason: str) -> None:
    result = compare(CASE, found, approved)
    assert (result.case, result.verdict, result.changes) == (CASE, verdict, ())
    assert reason in result.reason
    assert result.blocks
    assert result.reason in describe(result)[0]


def test_a_reading_without_a_value_is_not_compared() -> None:
    found = record()
    void = {"ssim": Reading(None, (), 1, "unsupported")}
    assert compare(CASE, replace(found, metrics={**found.metrics, **void}), golden()).verdict == "same"


def test_an_optional_metric_may_lack_its_data_and_that_is_said() -> None:
    approved = golden({"psnr": 25.0, "extra": 0.5})
    result = compare(CASE, with_extra(record(), "missing-data"), approved)
    assert (result.verdict, result.left_out) == ("same", {"extra": "extra is missing-data here"})


def test_an_optional_metric_may_be_new_and_that_is_said() -> None:
    result = compare(CASE, with_extra(record()), golden())
    assert (result.verdict, result.left_out) == ("same", {"extra": "extra is not in the golden"})


def test_an_optional_metric_that_both_sides_have_is_compared() -> None:
    approved = golden({"psnr": 25.0, "extra": 0.5})
    assert compare(CASE, with_extra(record(), value=0.5), approved).left_out == {}
    assert compare(CASE, with_extra(record(), value=0.9), approved).verdict == "worse"


@pytest.mark.parametrize("status", ["nonfinite", "crashed", "unsupported"])
def test_an_optional_metric_that_failed_is_not_left_out(status: str) -> None:
    assert compare(CASE, with_extra(record(), status), golden({"psnr": 25.0, "extra": 0.5})).verdict == "stale"


def test_an_optional_metric_that_vanished_is_not_left_out() -> None:
    assert compare(CASE, record(), golden({"psnr": 25.0, "extra": 0.5})).verdict == "stale"


def test_an_optional_metric_alone_is_no_comparison() -> None:
    result = compare(CASE, with_extra(record({})), golden({}))
    assert (result.verdict, result.blocks) == ("failed", True)


def test_a_metric_that_is_not_optional_may_not_lack_its_data() -> None:
    found = replace(record(), metrics={**record().metrics, "ssim": Reading(None, (), 1, "missing-data")})
    assert compare(CASE, found, golden({"psnr": 25.0, "ssim": 0.9})).verdict == "stale"


def test_what_blocks() -> None:
    assert frozenset({"worse", "stale", "no-golden", "not-run", "failed"}) == BLOCKING
    assert frozenset({"same", "better", "worse", "inconclusive"}) == COMPARED
    assert not compare(CASE, record({"psnr": 30.0}), golden()).blocks
    assert compare(CASE, record({"psnr": 20.0}), golden()).blocks


@pytest.mark.parametrize(("after", "before"), [(math.nan, 25.0), (25.0, math.nan)], ids=["record", "golden"])
def test_nan_is_never_better_nor_same(after: float, before: float) -> None:
    assert compare(CASE, record({"psnr": after}), golden({"psnr": before})).blocks


def test_nothing_compared_blocks() -> None:
    assert compare(CASE, record({}), golden({})).blocks


def test_a_line_says_what_moved_and_by_how_much() -> None:
    result = compare(CASE, record({"psnr": 24.0, "ssim": 0.9}), golden({"psnr": 25.0, "ssim": 0.9}, sigma=0.01))
    (line,) = describe(result)
    assert line.startswith(f"worse        {CASE}: psnr 25.0000 -> 24.0000 (tolerance ")
    assert line.endswith(", -86.6 sigma)")


# --- files


def test_a_golden_comes_back(goldens: GoldenStore) -> None:
    approved = {"psnr": Approved(25.125, 1, 0.5, 9.5, (25.0, 25.25), 12), "ssim": Approved(0.75, 2)}
    written = golden(metrics=approved, made=MADE, seeds=(0, 7), comparisons=1234)
    goldens.write(written)
    assert goldens.read(CASE) == written
    assert goldens.path(CASE).relative_to(goldens.folder.parents[1]).as_posix() == (
        "smoke/cpu-x86-64/smoke.chair/b-capture-n50.json"
    )


def test_the_file_of_a_golden_is_sorted_and_short(goldens: GoldenStore) -> None:
    goldens.write(golden({"ssim": 1 / 3, "error": 1e-5 / 3, "psnr": 25.0}))
    text = goldens.path(CASE).read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
    assert json.loads(text)["metrics"]["ssim"]["value"] == 0.33333333
    assert json.loads(text)["metrics"]["error"]["value"] == 3.3333333e-06, "small units keep their digits"
    assert [path.suffix for path in goldens.path(CASE).parent.iterdir()] == [".json"]


def test_rounding_is_no_spread_to_count_in() -> None:
    """Equal values of three seeds once had a standard deviation of 1e-16, and a change 3e15 of them."""
    dust = Change("psnr", 20.0, 19.0, 1.0, 0.02, sigma=SPECS["psnr"].floor * 1e-7)
    assert dust.sigmas is None
    assert describe(Comparison(A, "worse", (dust,))) == [
        f"worse        {A}: psnr 20.0000 -> 19.0000 (tolerance 0.0200, -50.0 tolerances)"
    ]
    assert replace(dust, sigma=SPECS["psnr"].floor * 1e-5).sigmas == pytest.approx(1 / (SPECS["psnr"].floor * 1e-5))


def test_no_golden_is_none(goldens: GoldenStore) -> None:
    assert goldens.read(CASE) is None
    assert goldens.cases() == ()
    assert goldens.machine() is None


def test_cases_list_orphans_too_and_nothing_else(goldens: GoldenStore) -> None:
    ids = ["smoke.chair/a", "smoke.chair/a-s1", "gso.v1.2/b-capture-n0", "smoke.renamed/a"]
    for case in ids:
        goldens.write(golden(case=case))
    goldens.write_machine({"cpu": "a CPU"})
    assert goldens.cases() == tuple(sorted(ids))
    assert goldens.machine() == {"cpu": "a CPU"}
    other = GoldenStore(goldens.folder.parents[1], "smoke", "cuda-sm90")
    assert other.cases() == ()


def test_a_damaged_fingerprint_is_refused_by_name(goldens: GoldenStore) -> None:
    goldens.write_machine({})
    goldens.machine_path.write_text("{")
    with pytest.raises(SchemaError, match=r"machine\.json is no fingerprint"):
        goldens.machine()


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: "",
        lambda tree: json.dumps(tree)[:50],
        lambda tree: "[]",
        lambda tree: json.dumps({**tree, "schema": "1"}),
        lambda tree: json.dumps({key: value for key, value in tree.items() if key != "seeds"}),
        lambda tree: json.dumps({**tree, "metrics": {"psnr": {"value": 1.0}}}),
        lambda tree: json.dumps({**tree, "metrics": {"psnr": 1.0}}),
        lambda tree: json.dumps({**tree, "metrics": []}),
        lambda tree: json.dumps({**tree, "metrics": {"psnr": {**tree["metrics"]["psnr"], "value": math.nan}}}),
        lambda tree: json.dumps({**tree, "case": "smoke.table/a"}),
        lambda tree: json.dumps({**tree, "metrics": {"psnr": {**tree["metrics"]["psnr"], "samples": [1.0, 2.0]}}}),
    ],
    ids=[
        "empty",
        "truncated",
        "list",
        "schema-text",
        "no-seeds",
        "short",
        "number",
        "metrics-list",
        "nan",
        "of-another-case",
        "samples-without-seed",
    ],
)
def test_a_damaged_golden_is_refused_by_name(goldens: GoldenStore, damage: Any) -> None:
    goldens.write(golden())
    path = goldens.path(CASE)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(SchemaError) as caught:
        goldens.read(CASE)
    assert str(path) in str(caught.value)


def test_a_newer_golden_is_refused(goldens: GoldenStore) -> None:
    goldens.write(golden())
    path = goldens.path(CASE)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": golden_module.SCHEMA + 1}))
    with pytest.raises(SchemaError, match=r"n50\.json has schema 5, this evalsuite reads 4; upgrade"):
        goldens.read(CASE)


def test_a_golden_that_is_no_text_is_named(goldens: GoldenStore) -> None:
    goldens.write(golden())
    goldens.path(CASE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemaError, match=r"n50\.json cannot be read .*; restore it from git"):
        goldens.read(CASE)


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_an_older_golden_is_refused_with_the_way_out(goldens: GoldenStore, schema: int) -> None:
    goldens.write(golden())
    path = goldens.path(CASE)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema}))
    with pytest.raises(
        OutdatedError, match=rf"n50\.json has schema {schema}, this evalsuite reads 4: make the goldens "
    ):
        goldens.read(CASE)


@pytest.mark.parametrize("field", ["value", "sigma", "freedom", "samples"])
def test_a_non_finite_golden_is_never_written(goldens: GoldenStore, field: str) -> None:
    bad: Any = (math.inf,) if field == "samples" else math.nan
    with pytest.raises(EvalsuiteError):
        goldens.write(golden(metrics={"psnr": replace(Approved(25.0, 1), **{field: bad})}))
    assert goldens.cases() == ()
