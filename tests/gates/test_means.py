"""Means over scenes: a loss that hides in every single case."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up import golden, record
from scipy.stats import binom, t

from evalsuite.gates.approval import Repeats, approve
from evalsuite.gates.golden import Approved, Comparison, Golden, GoldenStore, compare
from evalsuite.gates.means import LADDERS, PAIRED, Mean, means
from evalsuite.gates.noise import RUN_ALARM, alarm, moderated
from evalsuite.metrics.spec import METRICS
from evalsuite.records.store import RecordStore

SCENES = tuple(f"smoke.s{i}" for i in range(6))
SETTINGS = ("b-capture-n50", "b-capture-n200", "c-capture-n50", "c-capture-n200")
SIGMA = 0.2


def judged(goldens: dict[str, Golden], values: dict[str, float]) -> list[Mean]:
    comparisons = [compare(case, record({"psnr": value}, case), goldens[case]) for case, value in values.items()]
    return list(means(comparisons, goldens))


def sampled(seed: int = 0) -> dict[str, Golden]:
    """Goldens of three seeds, with samples and the pooled spread."""
    rng = np.random.default_rng(seed)
    found = {}
    for scene in SCENES:
        for setting in SETTINGS:
            samples = tuple(float(x) for x in rng.normal(30, SIGMA, 3))
            approved = {"psnr": Approved(float(np.mean(samples)), 1, SIGMA, 12.0, samples, 1)}
            found[f"{scene}/{setting}"] = golden(case=f"{scene}/{setting}", metrics=approved)
    return found


def lost(goldens: dict[str, Golden], loss: float, settings: tuple[str, ...] = SETTINGS) -> dict[str, float]:
    return {
        case: g.metrics["psnr"].value - (loss if case.split("/")[1] in settings else 0.0) for case, g in goldens.items()
    }


def by_name(found: list[Mean], paired: bool = False) -> dict[str, Mean]:
    return {mean.setting: mean for mean in found if mean.paired == paired}


def test_one_mean_per_setting_and_one_over_the_ladders() -> None:
    goldens = sampled()
    found = judged(goldens, lost(goldens, 0.0))
    assert {mean.setting for mean in found} == {*SETTINGS, LADDERS}
    assert {mean.verdict for mean in found} == {"same"}


def test_a_loss_that_hides_in_every_case_shows_in_the_mean() -> None:
    goldens = sampled()
    values = lost(goldens, 0.8)
    cases = [compare(case, record({"psnr": value}, case), goldens[case]) for case, value in values.items()]
    assert {comparison.verdict for comparison in cases} == {"same"}
    found = by_name(judged(goldens, values))
    assert {found[setting].verdict for setting in SETTINGS} == {"worse"}
    assert {mean.verdict for mean in judged(goldens, lost(goldens, -0.8))} == {"better"}


def test_a_loss_that_hides_in_every_mean_shows_over_the_ladders() -> None:
    goldens = sampled()
    found = by_name(judged(goldens, lost(goldens, 0.4)))
    assert {found[setting].verdict for setting in SETTINGS} == {"same"}
    assert found[LADDERS].verdict == "worse"


def test_the_tolerance_of_a_mean_is_that_of_its_own_runs() -> None:
    """Six scenes of three seeds know their common spread with twelve degrees of freedom, not with six times twelve."""
    goldens = sampled()
    found = by_name(judged(goldens, lost(goldens, 0.1)))["b-capture-n50"]
    sigma = SIGMA * math.sqrt(4 / 3) / math.sqrt(6)
    assert found.sigma == pytest.approx(sigma)
    assert found.tolerance == pytest.approx(t.isf(alarm("means", len(SETTINGS)) / 2, 12) * sigma)
    assert found.drop == pytest.approx(0.1)
    assert found.visible > found.tolerance


def test_one_noisy_scene_leaves_few_degrees_of_freedom() -> None:
    goldens = sampled()
    wild = goldens[f"{SCENES[0]}/b-capture-n50"]
    loud = Approved(30.0, 1, 50 * SIGMA, 2.0, (20.0, 30.0, 40.0), 1)
    goldens[wild.case] = golden(case=wild.case, metrics={"psnr": loud})
    found = by_name(judged(goldens, lost(goldens, 0.0)))["b-capture-n50"]
    assert found.tolerance / found.sigma > 0.9 * t.isf(alarm("means", len(SETTINGS)) / 2, 2)


def test_without_noise_the_floor_shrinks_with_the_scenes() -> None:
    cases = [f"{scene}/a" for scene in SCENES]
    goldens = {case: golden(case=case, metrics={"psnr": Approved(30.0, 1, views=1)}) for case in cases}
    (mean,) = judged(goldens, dict.fromkeys(cases, 29.985))
    assert (mean.tolerance, mean.verdict) == (pytest.approx(0.02 / math.sqrt(6)), "worse")
    assert mean.unit == "dB"


def test_one_scene_is_no_mean_and_unmeasured_noise_no_evidence() -> None:
    goldens = sampled()
    alone = {case: value for case, value in lost(goldens, 5.0).items() if case.startswith(SCENES[0])}
    assert judged(goldens, alone) == []
    bare = {case: golden(case=case, metrics={"psnr": Approved(30.0, 1, views=1)}) for case in goldens}
    assert judged(bare, dict.fromkeys(bare, 29.5)) == []


def test_rounding_is_no_spread_to_count_in() -> None:
    dust = Mean("b-capture-n0", "psnr", "dB", 1.0, 0.01, 1e-17, 6, "smoke.s0")
    assert "(tolerance 0.01, +100.0 tolerances; most in smoke.s0)" in str(dust)
    assert "+10.0 sigma" in str(replace(dust, sigma=0.1))
    assert "+2.0 sigma" in str(replace(dust, setting=LADDERS, unit="sigma", sigma=0.5))


def test_rounding_makes_no_tolerance_wider() -> None:
    """Where seeds agree but for the last bit, a mean is held as tightly as where they agree wholly."""
    tolerances = []
    for spread in (0.0, 1e-16):
        cases = [f"{scene}/b-capture-n0" for scene in SCENES]
        goldens = {
            case: golden(case=case, metrics={"psnr": Approved(30.0, 1, spread, 12.0, (30.0,) * 3, 1)}) for case in cases
        }
        comparisons = [compare(case, replace(record({"psnr": 30.0}, case), steps=0), goldens[case]) for case in cases]
        found = means(comparisons, goldens)
        assert [mean.setting for mean in found] == ["b-capture-n0"]
        tolerances.append(found[0].tolerance)
    assert tolerances[0] == pytest.approx(tolerances[1])


# --- pairs


def repeated(goldens: dict[str, Golden], drops: np.ndarray, seed: int = 0) -> list[Mean]:
    """Paired means of a run that repeats the samples of its seed, but for what it lost per scene."""
    own = dict(zip(SCENES, drops, strict=True))
    comparisons = []
    for case, approved in goldens.items():
        sample = approved.sample("psnr", seed)
        value = (25.0 if sample is None else sample) - own[case.split("/")[0]]
        comparisons.append(compare(case, record({"psnr": float(value)}, case, seed=seed), approved))
    return [mean for mean in means(comparisons, goldens) if mean.paired]


def test_unchanged_code_is_the_same_by_pairs_too() -> None:
    """To the bit, and to rounding: its scatter over scenes says nothing, however consistent it is."""
    found = repeated(sampled(), np.zeros(6))
    assert [mean.setting for mean in found] == list(SETTINGS)
    assert {(mean.verdict, mean.tolerance) for mean in found} == {("same", 0.4 * 0.05)}
    dust = repeated(sampled(), np.full(6, 1e-4))
    assert {mean.verdict for mean in dust} == {"same"}
    assert "+0.0 tolerances; most in" in str(dust[0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pairs_see_what_the_noise_of_seeds_hides(seed: int) -> None:
    """0.05 dB in the mean, where the seeds scatter by 0.2 dB in every scene."""
    goldens = sampled()
    drops = 0.05 + 0.006 * np.array([-1.0, 1.0, -0.5, 0.5, 0.8, -0.8])
    found = repeated(goldens, drops, seed)
    assert {mean.verdict for mean in found} == {"worse"}
    assert {mean.verdict for mean in repeated(goldens, -drops, seed)} == {"better"}
    assert "lost +0.05 dB in the mean over 6 scenes, each against its golden's own sample" in str(found[0])
    values = lost(goldens, 0.05)
    assert {mean.verdict for mean in judged(goldens, values) if not mean.paired} == {"same"}


def test_a_loss_that_scatters_over_scenes_is_no_proof() -> None:
    """What a change gives that draws the randomness anew."""
    found = repeated(sampled(), 0.05 + 0.2 * np.array([-1.0, 1.0, -0.5, 0.5, 0.8, -0.8]))
    assert {mean.verdict for mean in found} == {"same"}
    assert found[0].tolerance > 5 * found[0].sigma


def test_another_seed_than_the_samples_has_no_pairs() -> None:
    assert repeated(sampled(), np.zeros(6), seed=3) == []


def test_two_scenes_and_unregistered_metrics_have_no_pairs() -> None:
    goldens = sampled()
    two = {case: g for case, g in goldens.items() if case.split("/")[0] in SCENES[:2]}
    assert not any(mean.paired for mean in judged(two, lost(two, 0.0)))
    shape = {
        case: golden(case=case, metrics={"alpha-iou": Approved(0.9, 1, 0.01, 12.0, (0.9, 0.89, 0.91), 1)})
        for case in goldens
    }
    comparisons = [compare(case, record({"alpha-iou": 0.9}, case), g) for case, g in shape.items()]
    found = means(comparisons, shape)
    assert found
    assert not any(mean.paired for mean in found)


def test_what_was_not_compared_is_left_out() -> None:
    goldens = sampled()
    comparisons = [
        Comparison(case, "not-run") if case.startswith(SCENES[0]) else compare(case, record({"psnr": 30.0}, case), g)
        for case, g in goldens.items()
    ]
    assert {mean.scenes for mean in means(comparisons, goldens)} == {5}


def test_the_line_names_the_scene_that_lost_most() -> None:
    goldens = sampled()
    values = lost(goldens, 0.8)
    values[f"{SCENES[3]}/b-capture-n50"] -= 1.0
    line = str(by_name(judged(goldens, values))["b-capture-n50"])
    assert line.startswith("b-capture-n50: psnr lost +0.9667 dB in the mean over 6 scenes (tolerance ")
    assert line.endswith(f"sigma; most in {SCENES[3]})")


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_null_runs_pass_whether_or_not_checkpoints_move_together(
    correlation: float, records: RecordStore, goldens: GoldenStore
) -> None:
    """Twenty runs with other seeds against goldens of three: no mean calls one worse. They have no pairs."""
    rng = np.random.default_rng(6)
    cases = [f"{scene}/{setting}" for scene in SCENES for setting in SETTINGS]

    def run() -> dict[str, float]:
        found = {}
        for scene in SCENES:
            common = rng.normal()
            for setting in SETTINGS:
                own = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * rng.normal()
                found[f"{scene}/{setting}"] = 30 + SIGMA * own
        return found

    for suffix in ("", "-s1", "-s2"):
        for case, value in run().items():
            records.write(record({"psnr": value}, case + suffix))
    approve(records, cases, goldens, Repeats((1, 2), records))
    approved = {case: g for case in cases if (g := goldens.read(case))}
    comparisons = [
        [compare(case, record({"psnr": value}, case, seed=9), approved[case]) for case, value in run().items()]
        for _ in range(20)
    ]
    verdicts = [mean.verdict for found in comparisons for mean in means(found, approved)]
    assert verdicts == ["same"] * 20 * 5


def test_what_is_paired_is_registered_and_has_a_direction() -> None:
    assert {METRICS[name].direction for name in PAIRED} <= {"higher", "lower"}


# --- a run as a whole

METRICS_SHOWN = ("psnr", "ssim", "flip-67")
LEVELS = {"psnr": 30.0, "ssim": 0.9, "flip-67": 0.1}
NOISE = {"psnr": 0.2, "ssim": 0.003, "flip-67": 0.004}
SEEDS = 5
PAIRED_NOISE = 0.0025
"""Standard deviation of the paired mean of six scenes in dB, with the sign of one gradient turned."""


class Code:
    """Draws values of a whole study, as one version of the code makes them: scenes of their own, checkpoints alike."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.scale = {(scene, setting): math.exp(rng.normal(0, 0.5)) for scene in SCENES for setting in SETTINGS}

    def run(self) -> dict[str, dict[str, float]]:
        found = {}
        for scene in SCENES:
            common = self.rng.normal(size=len(METRICS_SHOWN))
            for setting in SETTINGS:
                own = (0.7 * common + 0.7 * self.rng.normal(size=len(METRICS_SHOWN))) * self.scale[scene, setting]
                found[f"{scene}/{setting}"] = {
                    metric: LEVELS[metric] + NOISE[metric] * float(own[i]) for i, metric in enumerate(METRICS_SHOWN)
                }
        return found

    def goldens(self) -> dict[str, Golden]:
        """What `approve` would write of five seeds, without its files."""
        runs = [self.run() for _ in range(SEEDS)]
        samples = {case: {m: tuple(run[case][m] for run in runs) for m in METRICS_SHOWN} for case in runs[0]}
        spreads = moderated(samples)
        return {
            case: golden(
                case=case,
                seeds=tuple(range(SEEDS)),
                comparisons=len(samples) * len(METRICS_SHOWN),
                metrics={
                    m: Approved(float(np.mean(s)), 1, spreads[case][m].sigma, spreads[case][m].freedom, s, 1)
                    for m, s in own.items()
                },
            )
            for case, own in samples.items()
        }


def alarms(goldens: dict[str, Golden], values: dict[str, dict[str, float]]) -> list[str]:
    """Everything that is not the same in a run at seed 0."""
    compared = [compare(case, record(found, case), goldens[case]) for case, found in values.items()]
    changed = [f"{c.case} {change.metric}" for c in compared for change in c.changes if change.verdict != "same"]
    return changed + [str(mean) for mean in means(compared, goldens) if mean.verdict != "same"]


def test_few_runs_that_draw_their_randomness_anew_cry_wolf() -> None:
    """Unchanged quality, other last bits: about one of 100 runs has any alarm (10 of 710 with more patience).

    So few runs tell gross excess from that and no more: of runs with 8 % alarms one such test in four passes.
    """
    rng = np.random.default_rng(7)
    runs, crying = 60, 0
    for _ in range(runs // 10):
        code = Code(rng)
        goldens = code.goldens()
        crying += sum(bool(alarms(goldens, code.run())) for _ in range(10))
    assert crying <= binom.ppf(0.99, runs, RUN_ALARM)


def test_a_run_that_repeats_to_rounding_has_no_alarm() -> None:
    rng = np.random.default_rng(8)
    goldens = Code(rng).goldens()
    values = {
        case: {m: (g.sample(m, 0) or 0.0) + NOISE[m] * 1e-3 * rng.normal() for m in METRICS_SHOWN}
        for case, g in goldens.items()
    }
    assert alarms(goldens, values) == []


def test_a_loss_of_a_twentieth_of_a_decibel_is_seen() -> None:
    """In the mean over six scenes; differences scatter as one sign in one gradient makes them at N = 200."""
    rng = np.random.default_rng(9)
    goldens = Code(rng).goldens()
    seen, runs = 0, 40
    for _ in range(runs):
        values = {}
        for case, g in goldens.items():
            loss = 0.05 if case.endswith("b-capture-n200") else 0.0
            drops = {"psnr": loss + PAIRED_NOISE * math.sqrt(len(SCENES)) * rng.normal(), "ssim": 0.0, "flip-67": 0.0}
            values[case] = {m: (g.sample(m, 0) or 0.0) - drops[m] for m in METRICS_SHOWN}
        found = alarms(goldens, values)
        assert all(line.startswith("b-capture-n200: psnr lost") for line in found)
        seen += bool(found)
    assert seen >= 0.95 * runs


@pytest.mark.parametrize(("loss", "seen"), [(0.01, False), (0.03, True)])
def test_below_dust_nothing_is_a_change_however_little_it_scatters(loss: float, seen: bool) -> None:
    goldens = Code(np.random.default_rng(10)).goldens()
    values = {
        case: {
            m: (g.sample(m, 0) or 0.0) - loss * (m == "psnr" and case.endswith("b-capture-n200")) for m in METRICS_SHOWN
        }
        for case, g in goldens.items()
    }
    assert bool(alarms(goldens, values)) is seen
