"""What approval writes, and what it refuses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import CASE, golden, record

from evalsuite.core.errors import EvalsuiteError, OptionError
from evalsuite.gates.approval import approve, moderated
from evalsuite.gates.golden import GoldenStore, compare
from evalsuite.records.schema import Reading
from evalsuite.records.store import RecordStore

A, B, C = "smoke.chair/a", CASE, "smoke.chair/c-capture-n50"


def run(records: RecordStore, values: Mapping[str, float], **overrides: Any) -> None:
    for case, psnr in values.items():
        records.write(record({"psnr": psnr}, case, **overrides))


def contents(goldens: GoldenStore) -> dict[str, bytes]:
    return {case: goldens.path(case).read_bytes() for case in goldens.cases()}


def test_the_first_approval_writes_every_golden(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0})
    changed = approve(records, [A, B], goldens)
    assert [(c.case, c.verdict) for c in changed] == [(A, "no-golden"), (B, "no-golden")]
    assert goldens.read(B) == golden({"psnr": 25.0})
    assert goldens.read(A) == golden({"psnr": 20.0}, case=A)
    assert all(compare(case, records.read(case), goldens.read(case)).verdict == "same" for case in (A, B))


def test_approval_rewrites_only_what_changed(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0, C: 27.0})
    approve(records, [A, B, C], goldens)
    before = contents(goldens)
    run(records, {A: 20.04, B: 26.0, C: 24.0})
    changed = approve(records, [A, B, C], goldens)
    assert [(c.case, c.verdict) for c in changed] == [(B, "better"), (C, "worse")]
    after = contents(goldens)
    assert after[A] == before[A], "a value within tolerance does not creep into the golden"
    assert after[B] != before[B]
    assert approve(records, [A, B, C], goldens) == []


def test_what_lacks_data_is_approved_by_nobody(records: RecordStore, goldens: GoldenStore) -> None:
    lacking = {"psnr": Reading(20.0, (20.0,), 1), "lpips-vgg": Reading(None, (), 1, "missing-data", "no weights")}
    records.write(record(case=A, metrics=lacking))
    approve(records, [A], goldens)
    assert goldens.read(A) == golden({"psnr": 20.0}, case=A)
    assert compare(A, records.read(A), goldens.read(A)).verdict == "same"


def test_approval_mends_what_is_stale(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0})
    goldens.write(golden({"psnr": 20.0}, case=A, protocol_hash="ba9876543210"))
    assert [c.verdict for c in approve(records, [A], goldens)] == ["stale"]
    assert goldens.read(A) == golden({"psnr": 20.0}, case=A)


@pytest.mark.parametrize("kind", ["absent", "crashed", "missing-data"])
def test_a_run_that_is_not_whole_is_refused_whole(records: RecordStore, goldens: GoldenStore, kind: str) -> None:
    run(records, {A: 20.0})
    if kind != "absent":
        run(records, {B: 25.0}, status=kind)
    with pytest.raises(OptionError, match=rf"1 of 2 cases have no good record \(first: {B}\)"):
        approve(records, [A, B], goldens)
    assert goldens.cases() == ()


def test_only_expected_cases_are_approved(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0})
    approve(records, [A], goldens)
    assert goldens.cases() == (A,)


def test_noise_is_the_spread_over_seeds(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0, f"{B}-s1": 25.3, f"{B}-s2": 24.7})
    approve(records, [B], goldens, seeds=(1, 2))
    found = goldens.read(B)
    assert found is not None
    # deviations 0, +0.3, -0.3: variance 0.18 / 2
    assert found.noise["psnr"] == pytest.approx(0.3)
    assert found.values["psnr"] == 25.0, "the value stays that of seed 0"
    assert found.seeds == 3
    assert compare(B, record({"psnr": 23.81}), found).verdict == "same"
    assert compare(B, record({"psnr": 23.79}), found).verdict == "worse"


def test_repeats_may_lie_in_a_folder_of_their_own(records: RecordStore, goldens: GoldenStore, tmp_path: Path) -> None:
    run(records, {B: 25.0})
    others = RecordStore(tmp_path / "noise")
    run(others, {f"{B}-s1": 25.3})
    approve(records, [B], goldens, seeds=(1,), repeats=others)
    found = goldens.read(B)
    assert found is not None
    assert found.noise["psnr"] == pytest.approx(statistics.stdev([25.0, 25.3]), abs=1e-6)


def test_noise_is_kept_by_an_approval_without_seeds(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0, f"{B}-s1": 25.3})
    approve(records, [B], goldens, seeds=(1,))
    run(records, {B: 29.0})
    approve(records, [B], goldens)
    found = goldens.read(B)
    assert found is not None
    assert found.values["psnr"] == 29.0
    assert found.noise["psnr"] == pytest.approx(statistics.stdev([25.0, 25.3]), abs=1e-6)
    assert found.seeds == 2


def test_an_arm_that_optimises_nothing_has_no_noise(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0, f"{B}-s1": 25.3})
    approve(records, [A, B], goldens, seeds=(1,))
    found = goldens.read(A)
    assert found is not None
    assert (found.noise["psnr"], found.seeds) == (0.0, 1)


def test_measuring_noise_does_not_move_what_has_none(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0, f"{B}-s1": 25.3})
    approve(records, [A, B], goldens)
    before = contents(goldens)
    run(records, {A: 20.04})
    approve(records, [A, B], goldens, seeds=(1,))
    assert contents(goldens)[A] == before[A], "its verdict is `same`, and no noise was measured"


@pytest.mark.parametrize("kind", ["absent", "crashed", "other-protocol"])
def test_a_missing_seed_is_refused(records: RecordStore, goldens: GoldenStore, kind: str) -> None:
    run(records, {B: 25.0})
    if kind == "crashed":
        run(records, {f"{B}-s1": 25.3}, status="crashed")
    if kind == "other-protocol":
        run(records, {f"{B}-s1": 25.3}, protocol_hash="ba9876543210")
    with pytest.raises(OptionError, match=f"{B} has no good record with seed 1"):
        approve(records, [B], goldens, seeds=(1,))
    assert goldens.cases() == ()


def test_a_missing_seed_is_refused_whole(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0, f"{B}-s1": 25.3, C: 27.0})
    with pytest.raises(OptionError, match=f"{C} has no good record with seed 1"):
        approve(records, [B, C], goldens, seeds=(1,))
    assert goldens.cases() == (), "half an approval is no approval"


def test_a_metric_that_one_seed_lacks(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0})
    records.write(record({"ssim": 0.9}, f"{B}-s1"))
    with pytest.raises(EvalsuiteError):
        approve(records, [B], goldens, seeds=(1,))


def test_a_spread_is_moderated_by_the_same_case_of_other_scenes() -> None:
    found = moderated({"x/b-n50": {"psnr": 0.0}, "y/b-n50": {"psnr": 0.4}, "y/c-n50": {"psnr": 0.1}})
    # mean variance of b-n50 is 0.08: (0 + 0.08) / 2 and (0.16 + 0.08) / 2; c-n50 stands alone
    assert found["x/b-n50"]["psnr"] == pytest.approx(math.sqrt(0.04), abs=1e-6)
    assert found["y/b-n50"]["psnr"] == pytest.approx(math.sqrt(0.12), abs=1e-6)
    assert found["y/c-n50"]["psnr"] == pytest.approx(0.1)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=8))
def test_moderation_keeps_the_mean_variance(spreads: list[float]) -> None:
    found = moderated({f"scene-{i}/b-n50": {"psnr": s} for i, s in enumerate(spreads)})
    after = statistics.fmean(metrics["psnr"] ** 2 for metrics in found.values())
    assert after == pytest.approx(statistics.fmean(s**2 for s in spreads), abs=1e-4)
