"""What approval writes, and what it refuses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import CASE, LIBRARIES, MACHINE, SOURCE, golden, record

from evalsuite.core.errors import EvalsuiteError, NonFiniteError, OptionError
from evalsuite.gates.approval import (
    Checkout,
    Repeats,
    append_change,
    approve,
    change_entry,
    prune,
    refuse_in_ci,
    refuse_unrepeatable,
)
from evalsuite.gates.golden import Approved, Comparison, Golden, GoldenStore, Provenance, compare
from evalsuite.gates.seal import contradictions
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Reading
from evalsuite.records.store import RecordStore

A, B, C = "smoke.chair/a", CASE, "smoke.chair/c-capture-n50"


def run(records: RecordStore, values: Mapping[str, float], **overrides: Any) -> None:
    for case, psnr in values.items():
        records.write(record({"psnr": psnr}, case, **overrides))


def approve_seeds(
    records: RecordStore,
    expected: Sequence[str],
    goldens: GoldenStore,
    seeds: tuple[int, ...],
    where: RecordStore | None = None,
) -> list[Comparison]:
    return approve(records, expected, goldens, Repeats(seeds, where or records))


def one_run(values: Mapping[str, float], case: str) -> Golden:
    """What an approval without seeds writes: nothing is known of the noise."""
    metrics = {m: Approved(v, 1, views=1) for m, v in values.items()}
    return Golden(case, golden().protocol_hash, (0,), metrics, Provenance.of(record(case=case)))


def contents(goldens: GoldenStore) -> dict[str, bytes]:
    return {case: goldens.path(case).read_bytes() for case in goldens.cases()}


def test_the_first_approval_writes_every_golden(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0})
    changed = approve(records, [A, B], goldens)
    assert [(c.case, c.verdict) for c in changed] == [(A, "no-golden"), (B, "no-golden")]
    assert goldens.read(B) == one_run({"psnr": 25.0}, B)
    assert goldens.read(A) == one_run({"psnr": 20.0}, A)
    assert all(compare(case, records.read(case), goldens.read(case)).verdict == "same" for case in (A, B))


def test_approval_rewrites_only_what_changed(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0, C: 27.0})
    approve(records, [A, B, C], goldens)
    before = contents(goldens)
    run(records, {A: 20.01, B: 27.0, C: 24.0})
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
    approved = goldens.read(A)
    assert approved is not None
    assert set(approved.metrics) == {"psnr"}
    assert compare(A, records.read(A), approved).verdict == "same"


def test_approval_mends_what_is_stale(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0})
    goldens.write(golden({"psnr": 20.0}, case=A, protocol_hash="ba9876543210"))
    assert [c.verdict for c in approve(records, [A], goldens)] == ["stale"]
    assert goldens.read(A) == one_run({"psnr": 20.0}, A)


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
    run(records, {B: 25.1, f"{B}-s1": 25.4, f"{B}-s2": 24.8})
    approve_seeds(records, [B], goldens, (1, 2))
    # deviations 0, +0.3, -0.3: variance 0.18 / 2; a single scene has nobody to borrow from
    found = goldens.read(B)
    assert found is not None
    assert found.metrics == {"psnr": Approved(25.1, 1, 0.3, 2.0, (25.1, 25.4, 24.8), 1)}
    assert (found.seeds, found.made, found.comparisons) == ((0, 1, 2), Provenance.of(record()), 1)


def test_the_golden_is_the_mean_over_seeds(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0, f"{B}-s1": 25.3, f"{B}-s2": 25.6})
    approve_seeds(records, [B], goldens, (1, 2))
    found = goldens.read(B)
    assert found is not None
    assert (found.metrics["psnr"].value, found.seeds) == (25.3, (0, 1, 2))
    assert compare(B, records.read(B), found).verdict == "same"


def test_a_spread_is_that_of_the_samples_in_the_file(records: RecordStore, goldens: GoldenStore) -> None:
    """Eight digits: a spread of rounding dust is not what all digits would give."""
    run(records, {B: 25.000000499, f"{B}-s1": 25.000001501, f"{B}-s2": 25.000003499})
    approve_seeds(records, [B], goldens, (1, 2))
    found = goldens.read(B)
    assert found is not None
    assert found.metrics["psnr"].samples == (25.0, 25.000002, 25.000003)
    assert contradictions([found]) == ()


def test_scenes_lend_each_other_their_noise(records: RecordStore, goldens: GoldenStore) -> None:
    calm, wild = B, B.replace("chair", "truck")
    for case, step in ((calm, 0.01), (wild, 1.0)):
        run(records, {case: 25.0, f"{case}-s1": 25.0 + step, f"{case}-s2": 25.0 - step})
    approve_seeds(records, [calm, wild], goldens, (1, 2))
    found = [goldens.read(case) for case in (calm, wild)]
    sigmas = [g.metrics["psnr"].sigma for g in found if g]
    assert 0.01 < sigmas[0] < sigmas[1]


def test_repeats_may_lie_in_a_folder_of_their_own(records: RecordStore, goldens: GoldenStore, tmp_path: Path) -> None:
    run(records, {B: 25.0})
    others = RecordStore(tmp_path / "noise")
    run(others, {f"{B}-s1": 25.3})
    approve_seeds(records, [B], goldens, (1,), others)
    found = goldens.read(B)
    assert found is not None
    assert found.metrics["psnr"].sigma == pytest.approx(statistics.stdev([25.0, 25.3]))


def test_what_moved_without_new_repeats_is_refused(records: RecordStore, goldens: GoldenStore) -> None:
    """Its spread would be that of the code before, and its value no mean of its samples."""
    run(records, {A: 20.0, B: 25.0, f"{B}-s1": 25.3, f"{B}-s2": 25.1})
    approve_seeds(records, [A, B], goldens, (1, 2))
    before = contents(goldens)
    run(records, {A: 22.0, B: 529.0})
    with pytest.raises(
        OptionError, match=rf"{B} moved, .* measured on 3 runs .*: run `evalsuite noise --seeds 1 2 3 4`"
    ):
        approve(records, [A, B], goldens)
    assert contents(goldens) == before, "half an approval is no approval"


def test_noise_of_another_protocol_is_forgotten(records: RecordStore, goldens: GoldenStore) -> None:
    goldens.write(golden(sigma=0.5, protocol_hash="ba9876543210"))
    run(records, {B: 25.0})
    assert [c.verdict for c in approve(records, [B], goldens)] == ["stale"]
    assert goldens.read(B) == one_run({"psnr": 25.0}, B)


def test_repeats_write_every_optimised_case_from_themselves(records: RecordStore, goldens: GoldenStore) -> None:
    """Also one whose verdict is `same`: else its value would be of the runs before, beside samples of these."""
    run(records, {B: 25.0, f"{B}-s1": 25.04, f"{B}-s2": 25.02})
    approve_seeds(records, [B], goldens, (1, 2))
    run(records, {B: 25.03, f"{B}-s1": 25.05, f"{B}-s2": 25.04})
    assert [c.verdict for c in approve_seeds(records, [B], goldens, (1, 2))] == ["same"]
    found = goldens.read(B)
    assert found is not None
    assert found.metrics["psnr"].samples == (25.03, 25.05, 25.04)
    assert found.metrics["psnr"].value == pytest.approx(25.04)


def test_goldens_of_an_older_schema_are_made_anew(records: RecordStore, goldens: GoldenStore) -> None:
    """Nothing of them is read, so that nobody has to delete them first."""
    for case in (A, B):
        goldens.path(case).parent.mkdir(parents=True, exist_ok=True)
        goldens.path(case).write_text('{"schema": 3}')
    run(records, {A: 20.0, B: 25.0, f"{B}-s1": 25.3})
    changed = approve_seeds(records, [A, B], goldens, (1,))
    assert [(c.case, c.verdict) for c in changed] == [(A, "stale"), (B, "stale")]
    assert "has schema 3, this evalsuite reads 4" in changed[0].reason
    found = goldens.read(B)
    assert found is not None
    assert (found.seeds, found.metrics["psnr"].samples) == ((0, 1), (25.0, 25.3))
    assert goldens.read(A) == one_run({"psnr": 20.0}, A)


def test_goldens_know_how_many_values_with_noise_there_are(records: RecordStore, goldens: GoldenStore) -> None:
    """They share one error budget; a value that no seed moves has no part in it."""
    for seed, suffix in enumerate(("", "-s1", "-s2")):
        records.write(record({"psnr": 25.0 + seed, "ssim": 0.5}, B + suffix))
        records.write(record({"psnr": 24.0 + seed, "ssim": 0.5 + 0.1 * seed}, C + suffix))
    run(records, {A: 20.0})
    approve_seeds(records, [A, B, C], goldens, (1, 2))
    assert [g.comparisons for case in (A, B, C) if (g := goldens.read(case))] == [0, 3, 3]
    assert contradictions(g for case in (A, B, C) if (g := goldens.read(case))) == ()


def test_a_seed_named_twice_is_refused(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0, f"{B}-s1": 25.3})
    with pytest.raises(OptionError, match="seeds 1 1 name one twice"):
        approve_seeds(records, [B], goldens, (1, 1))
    assert goldens.cases() == ()


def test_what_this_machine_cannot_measure_leaves_no_samples_of_other_runs(
    records: RecordStore, goldens: GoldenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS._items, "ssim", replace(METRICS["ssim"], optional=True))
    for seed, suffix in enumerate(("", "-s1")):
        records.write(record({"psnr": 25.0 + seed, "ssim": 0.5 + 0.1 * seed}, B + suffix))
    approve_seeds(records, [B], goldens, (1,))
    for seed, suffix in enumerate(("", "-s1", "-s2")):
        poorer = record({"psnr": 22.0 + seed}, B + suffix)
        void = {"ssim": Reading(None, (), 1, "missing-data")}
        records.write(replace(poorer, metrics={**poorer.metrics, **void}))
    approve_seeds(records, [B], goldens, (1, 2))
    found = goldens.read(B)
    assert found is not None
    assert found.metrics["psnr"].samples == (22.0, 23.0, 24.0)
    assert found.metrics["ssim"] == Approved(0.55, 1, views=1)
    assert contradictions([found]) == ()


def test_an_arm_that_optimises_nothing_has_no_noise(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0, f"{B}-s1": 25.3})
    approve_seeds(records, [A, B], goldens, (1,))
    assert goldens.read(A) == one_run({"psnr": 20.0}, A)


def test_measuring_noise_does_not_move_what_has_none(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0, f"{B}-s1": 25.3})
    approve(records, [A, B], goldens)
    before = contents(goldens)
    run(records, {A: 20.01})
    approve_seeds(records, [A, B], goldens, (1,))
    assert contents(goldens)[A] == before[A], "its verdict is `same`, and no noise was measured"


def test_approving_the_same_run_again_touches_no_file(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0 + 1 / 3, f"{B}-s1": 25.3, f"{B}-s2": 25.1})
    approve_seeds(records, [A, B], goldens, (1, 2))
    assert approve_seeds(records, [A, B], goldens, (1, 2)) == []
    assert approve(records, [A, B], goldens) == []


def test_an_optional_metric_this_machine_cannot_measure_stays_approved(
    records: RecordStore, goldens: GoldenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS._items, "ssim", replace(METRICS["ssim"], optional=True))
    records.write(record({"psnr": 20.0, "ssim": 0.5}, A))
    approve(records, [A], goldens)
    poorer = record({"psnr": 22.0}, A)
    records.write(replace(poorer, metrics={**poorer.metrics, "ssim": Reading(None, (), 1, "missing-data")}))
    approve(records, [A], goldens)
    assert goldens.read(A) == one_run({"psnr": 22.0, "ssim": 0.5}, A)


@pytest.mark.parametrize("kind", ["absent", "crashed", "other-protocol", "other-scene", "other-libraries"])
def test_a_missing_seed_is_refused(records: RecordStore, goldens: GoldenStore, kind: str) -> None:
    run(records, {B: 25.0})
    if kind == "crashed":
        run(records, {f"{B}-s1": 25.3}, status="crashed")
    if kind == "other-protocol":
        run(records, {f"{B}-s1": 25.3}, protocol_hash="ba9876543210")
    if kind == "other-scene":
        run(records, {f"{B}-s1": 25.3}, scene_hash="ba9876543210")
    if kind == "other-libraries":
        run(records, {f"{B}-s1": 25.3}, libraries={**LIBRARIES, "torch": "1.0 00000000"})
    with pytest.raises(OptionError, match=f"{B} has no good record with seed 1"):
        approve_seeds(records, [B], goldens, (1,))
    assert goldens.cases() == ()


def test_a_missing_seed_is_refused_whole(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0, f"{B}-s1": 25.3, C: 27.0})
    with pytest.raises(OptionError, match=f"{C} has no good record with seed 1"):
        approve_seeds(records, [B, C], goldens, (1,))
    assert goldens.cases() == (), "half an approval is no approval"


def test_a_metric_that_one_seed_lacks(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {B: 25.0})
    records.write(record({"ssim": 0.9}, f"{B}-s1"))
    with pytest.raises(EvalsuiteError):
        approve_seeds(records, [B], goldens, (1,))


def test_a_non_finite_value_is_refused_before_anything_is_written(
    records: RecordStore, goldens: GoldenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(records, {A: 20.0, B: 25.0})
    bad = record({"psnr": math.inf})
    monkeypatch.setattr(RecordStore, "read", lambda _, case: bad if case == B else record({"psnr": 20.0}, case))
    with pytest.raises(NonFiniteError):
        approve(records, [A, B], goldens)
    assert goldens.cases() == ()


def test_only_pruning_deletes_and_only_what_has_no_case(records: RecordStore, goldens: GoldenStore) -> None:
    run(records, {A: 20.0, B: 25.0})
    approve(records, [A, B], goldens)
    approve(records, [A], goldens)
    assert goldens.cases() == (A, B)
    assert prune(goldens, [A]) == (B,)
    assert goldens.cases() == (A,)
    assert prune(goldens, [A]) == ()


# --- what is refused


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_never_in_ci(value: str) -> None:
    with pytest.raises(OptionError, match="CI is set"):
        refuse_in_ci({"CI": value})


@pytest.mark.parametrize("environment", [{}, {"CI": ""}, {"CI": "0"}, {"CI": "false"}])
def test_elsewhere_it_may_run(environment: dict[str, str]) -> None:
    refuse_in_ci(environment)


HERE = Checkout(SOURCE, (), MACHINE, LIBRARIES)


def test_a_clean_run_on_this_machine_may_be_approved() -> None:
    refuse_unrepeatable([record(), record(case=A)], HERE, None)
    refuse_unrepeatable([record()], HERE, {**MACHINE, "versions": {"torch": "1.0"}})


@pytest.mark.parametrize(
    ("checkout", "approved_on", "message"),
    [
        (replace(HERE, uncommitted=("evalsuite/cli.py",)), None, r"1 files of the package are not committed .*cli\.py"),
        (replace(HERE, uncommitted=None), None, "git does not track the package"),
        (
            replace(HERE, libraries={**LIBRARIES, "gsplat": "1.5.3 f0f0f0f0"}),
            None,
            r"made with gsplat 1\.5\.3 09f1ab32, here is 1\.5\.3 f0f0f0f0: run the suite with these",
        ),
        (replace(HERE, source="0ther0000000"), None, f"made by sources {SOURCE}, these are 0ther0000000"),
        (replace(HERE, machine={**MACHINE, "cpu": "another"}), None, "made on another machine .cpu a CPU, this one"),
        (replace(HERE, machine={**MACHINE, "device_class": "cuda-sm90"}), None, "device_class cpu-x86-64"),
        (HERE, {**MACHINE, "gpu": "one"}, "approved on another machine .gpu one, this one has None.*--new-machine"),
    ],
    ids=[
        "uncommitted",
        "no-git",
        "other-libraries",
        "other-sources",
        "other-cpu",
        "other-class",
        "other-than-the-goldens",
    ],
)
def test_what_nobody_could_repeat_is_refused(checkout: Checkout, approved_on: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        refuse_unrepeatable([record()], checkout, approved_on)


# --- the change log


def test_the_change_log_says_why_and_what(records: RecordStore, goldens: GoldenStore, tmp_path: Path) -> None:
    other = B.replace("chair", "truck")
    run(records, {A: 20.0, B: 25.0, other: 27.0})
    approve(records, [A, B, other], goldens)
    run(records, {A: 20.5, B: 35.0, other: 38.0})
    changed = approve(records, [A, B, other], goldens)
    log = tmp_path / "golden" / "CHANGES.md"
    append_change(log, change_entry("smoke on a CPU", "because", changed, ["smoke.old/a"]), "2026-01-02")
    append_change(log, change_entry("smoke on a CPU", "again", []), "2026-01-03")
    text = log.read_text()
    assert text.startswith("# What was approved, and why\n\n## 2026-01-02: smoke on a CPU\n\nbecause\n")
    assert "3 cases written: 3 were better.\n1 cases removed: smoke.old/a." in text
    assert "| b-capture-n50 | psnr | 2 | 26.0000 | 36.5000 |" in text
    assert "| a | psnr | 1 | 20.0000 | 20.5000 |" in text
    assert text.index("because") < text.index("## 2026-01-03: smoke on a CPU\n\nagain")
