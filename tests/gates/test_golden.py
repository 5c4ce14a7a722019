"""The verdict on a case, and the file of a golden."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import CASE, HASH, golden, record

from evalsuite.core.errors import EvalsuiteError, SchemaError
from evalsuite.gates import golden as golden_module
from evalsuite.gates.golden import BLOCKING, K_SIGMA, Change, Golden, GoldenStore, compare
from evalsuite.metrics.spec import METRICS, MetricSpec
from evalsuite.records.schema import Reading, Record

SPECS = {
    "psnr": METRICS["psnr"],
    "ssim": METRICS["ssim"],
    "error": MetricSpec("error", "1", "lower", 1, 0.25, "made up: lower is better"),
}


@pytest.fixture(autouse=True)
def _specs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One metric of the other direction: the suite has none yet."""
    monkeypatch.setattr(golden_module, "METRICS", SPECS)


# --- compare


@pytest.mark.parametrize(
    ("metric", "before", "after", "noise", "verdict"),
    [
        ("psnr", 25.0, 25.0, 0.0, "same"),
        ("psnr", 25.0, 25.049, 0.0, "same"),
        ("psnr", 25.0, 24.951, 0.0, "same"),
        ("psnr", 25.0, 25.051, 0.0, "better"),
        ("psnr", 25.0, 24.949, 0.0, "worse"),
        ("psnr", 25.0, 24.61, 0.1, "same"),
        ("psnr", 25.0, 24.59, 0.1, "worse"),
        ("psnr", 25.0, 25.41, 0.1, "better"),
        ("psnr", 25.0, 24.96, 0.001, "same"),
        ("error", 1.0, 1.25, 0.0, "same"),
        ("error", 1.0, 0.75, 0.0, "same"),
        ("error", 1.0, 1.26, 0.0, "worse"),
        ("error", 1.0, 0.74, 0.0, "better"),
        ("error", 1.0, 3.0, 0.5, "same"),
        ("error", 1.0, 3.1, 0.5, "worse"),
    ],
)
def test_one_metric(metric: str, before: float, after: float, noise: float, verdict: str) -> None:
    result = compare(CASE, record({metric: after}), golden({metric: before}, noise))
    assert result.verdict == verdict
    (change,) = result.changes
    assert change.tolerance == max(SPECS[metric].floor, K_SIGMA * noise)
    assert change.drop == pytest.approx(before - after if metric == "psnr" else after - before)
    assert (change.golden, change.value) == (before, after)


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
        (record(), golden(metric_versions={"psnr": 2}), "stale", "psnr version 2 in golden, 1 now"),
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
    ],
)
def test_what_cannot_be_compared(found: Record | None, approved: Golden | None, verdict: str, reason: str) -> None:
    result = compare(CASE, found, approved)
    assert (result.case, result.verdict, result.changes) == (CASE, verdict, ())
    assert reason in result.reason
    assert result.blocks


@pytest.mark.parametrize("field", ["protocol_hash", "metric_versions"])
def test_stale_values_are_not_compared_even_if_equal(field: str) -> None:
    other: Any = "ba9876543210" if field == "protocol_hash" else {"psnr": 7}
    assert compare(CASE, record(), replace(golden(), **{field: other})).verdict == "stale"


def test_a_reading_without_a_value_is_not_compared() -> None:
    found = record()
    void = {"alpha-iou": Reading(None, (), 1, "unsupported")}
    assert compare(CASE, replace(found, metrics={**found.metrics, **void}), golden()).verdict == "same"


def test_what_blocks() -> None:
    assert frozenset({"worse", "stale", "no-golden", "not-run", "failed"}) == BLOCKING
    assert not compare(CASE, record({"psnr": 30.0}), golden()).blocks
    assert compare(CASE, record({"psnr": 20.0}), golden()).blocks


@pytest.mark.parametrize(("after", "before"), [(math.nan, 25.0), (25.0, math.nan)], ids=["record", "golden"])
def test_nan_is_never_better_nor_same(after: float, before: float) -> None:
    assert compare(CASE, record({"psnr": after}), golden({"psnr": before})).blocks


def test_nothing_compared_blocks() -> None:
    assert compare(CASE, record({}), golden({})).blocks


# --- files


def test_a_golden_comes_back(goldens: GoldenStore) -> None:
    written = golden({"psnr": 25.125, "ssim": 0.75}, noise=0.5, seeds=3)
    goldens.write(written)
    assert goldens.read(CASE) == written
    assert goldens.path(CASE).relative_to(goldens.folder.parents[1]).as_posix() == (
        "smoke/cpu-x86-64/smoke.chair/b-capture-n50.json"
    )


def test_the_file_of_a_golden_is_sorted_and_short(goldens: GoldenStore) -> None:
    goldens.write(golden({"ssim": 1 / 3, "psnr": 25.0}))
    text = goldens.path(CASE).read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
    assert json.loads(text)["metrics"]["ssim"]["value"] == 0.333333
    assert [path.suffix for path in goldens.path(CASE).parent.iterdir()] == [".json"]


def test_no_golden_is_none(goldens: GoldenStore) -> None:
    assert goldens.read(CASE) is None
    assert goldens.cases() == ()


def test_cases_list_orphans_too(goldens: GoldenStore) -> None:
    ids = ["smoke.chair/a", "smoke.chair/a-s1", "gso.v1.2/b-capture-n0", "smoke.renamed/a"]
    for case in ids:
        goldens.write(golden(case=case))
    assert goldens.cases() == tuple(sorted(ids))
    other = GoldenStore(goldens.folder.parents[1], "smoke", "cuda-sm90")
    assert other.cases() == ()


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
        lambda tree: json.dumps({**tree, "metrics": {"psnr": {"value": math.nan, "noise": 0.0, "version": 1}}}),
        lambda tree: json.dumps({**tree, "case": "smoke.table/a"}),
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
    with pytest.raises(SchemaError, match=r"n50\.json has schema 2, this evalsuite reads up to 1; upgrade"):
        goldens.read(CASE)


def test_a_non_finite_golden_is_never_written(goldens: GoldenStore) -> None:
    with pytest.raises(EvalsuiteError):
        goldens.write(golden({"psnr": math.nan}))
    assert goldens.cases() == ()
