"""Paired quality: a loss of 0.05 dB is called worse in 95 of 100 comparisons, pure noise in at most one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from made_up import MACHINE, record

from evalsuite.core.errors import NotComparableError
from evalsuite.execution.paired_seeds import STEPS, SUITE
from evalsuite.gates.quality import (
    CONTRASTS,
    ERRORS,
    FIRST_SEEDS,
    MOST_SEEDS,
    SETTINGS,
    QualityResult,
    estimate,
    judge_quality,
    require_one_machine,
    seeds_needed,
    verdicts,
)
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Reading, Record
from evalsuite.scenes.catalogue import SUITES
from evalsuite.splats.recipes import RECIPES

FLOOR = METRICS["psnr"].floor
SCENES = 6
EQUAL = (1.0,) * SCENES
UNEQUAL = (3.0, 1.0, 1.0, 0.5, 0.5, 0.5)
"""Spreads of scenes, relative to each other."""


def simulated(
    loss: float, spread: float, count: int, scenes: Sequence[float] = EQUAL, jumps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts after both stages, and seeds used.

    Args:
        loss: true, in dB.
        spread: standard deviation of one seed's mean over scenes.
        count: contrasts to simulate.
        scenes: shares of the noise.
        jumps: degrees of freedom of Student's t, from which the noise is drawn; None: normal.
    """
    rng, shape = np.random.default_rng(15), (count, SCENES, MOST_SEEDS)
    noise = rng.standard_normal(shape) if jumps is None else rng.standard_t(jumps, shape) / (jumps / (jumps - 2)) ** 0.5
    sigma = np.array(scenes) * spread * SCENES / np.linalg.norm(scenes)
    gains: Float[np.ndarray, "c scenes seeds"] = -loss + sigma[:, None] * noise
    first = estimate(gains[..., :FIRST_SEEDS], FLOOR)
    found = verdicts(first, FLOOR, 0)
    seeds = np.where(found == "inconclusive", seeds_needed(first, FLOOR), FIRST_SEEDS)
    for more in range(FIRST_SEEDS + 1, MOST_SEEDS + 1):
        picked = seeds == more
        found[picked] = verdicts(estimate(gains[picked, :, :more], FLOOR), FLOOR, 1)
    return found, seeds


# spreads: float jitter in a case gives 0.0004 in a mean of six; the sign of a gradient gave 0.0025 (docs/gate.md);
# what a change gives that draws other numbers lies above
@pytest.mark.parametrize("spread", [0.0004, 0.0025, 0.01, 0.02])
def test_a_loss_of_a_twentieth_of_a_decibel_is_worse(spread: float) -> None:
    found, _ = simulated(0.05, spread, 4000)
    assert (found == "worse").mean() >= 0.95
    assert (found == "same").mean() <= 0.001


@pytest.mark.parametrize("spread", [0.0004, 0.0025, 0.01, 0.02, 0.04])
@pytest.mark.parametrize(("scenes", "jumps"), [(EQUAL, None), (UNEQUAL, None), (EQUAL, 3)])
def test_noise_is_called_worse_in_one_comparison_of_a_hundred_at_most(
    spread: float, scenes: Sequence[float], jumps: int | None
) -> None:
    """As if no two contrasts shared their noise, which is when most alarms come."""
    comparisons = 1000
    found, _ = simulated(0.0, spread, comparisons * len(CONTRASTS), scenes, jumps)
    assert (found.reshape(comparisons, -1) == "worse").any(axis=1).mean() <= 0.01


def test_a_loss_at_the_very_edge_of_what_is_tolerated_keeps_the_error_too() -> None:
    comparisons = 2000
    found, _ = simulated(0.2 * FLOOR, 0.01, comparisons * len(CONTRASTS))
    assert (found.reshape(comparisons, -1) == "worse").any(axis=1).mean() <= 0.01


def test_more_seeds_are_only_asked_for_where_luck_was_drawn_anew() -> None:
    quiet, redrawn = (simulated(0.0, spread, 1000)[1] for spread in (0.0025, 0.02))
    assert quiet.max() == FIRST_SEEDS
    assert FIRST_SEEDS < np.median(redrawn) < MOST_SEEDS


def test_a_gain_is_found_as_a_loss_is() -> None:
    losses, gains = (simulated(loss, 0.01, 2000)[0] for loss in (0.05, -0.05))
    assert (gains == "better").mean() == pytest.approx((losses == "worse").mean(), abs=0.01)


def test_the_error_of_a_comparison_is_one_in_a_hundred() -> None:
    assert sum(ERRORS) == pytest.approx(0.01)
    exact = estimate(np.array([[[-1.0, 0.0, 1.0]]]), FLOOR)  # one scene: t with two degrees of freedom
    assert exact.freedom.tolist() == [2.0]
    assert exact.error.tolist() == pytest.approx([3**-0.5])
    a = ERRORS[0] / len(CONTRASTS)
    quantile = (1 - 2 * a) * (2 / (4 * a * (1 - a))) ** 0.5  # closed form for two degrees of freedom
    assert exact.half_width(0).tolist() == pytest.approx([quantile * 3**-0.5])


def test_scenes_that_spread_alike_share_their_degrees_of_freedom_and_one_alone_keeps_its_own() -> None:
    alike = np.broadcast_to([-1.0, 0.0, 1.0], (SCENES, 3))
    alone = alike * np.array([1.0, *[1e-3] * (SCENES - 1)])[:, None]
    freedoms = estimate(np.stack([alike, alone]), FLOOR).freedom.tolist()
    assert freedoms == pytest.approx([2.0 * SCENES, 2.0], rel=1e-3)


def test_equal_results_do_not_prove_the_smallest_difference() -> None:
    """The same loss of rounding's size in every seed: its own spread is nil, that of rounding is not."""
    found = estimate(np.full((1, SCENES, FIRST_SEEDS), -0.001), FLOOR)
    assert found.error[0] > 0
    assert verdicts(found, FLOOR, 0).tolist() == ["same"]


# -- records


def side(gain: float = 0.0, seeds: int = 3, **fields: Any) -> list[Record]:
    """Records of two scenes; FLIP falls where the others rise."""
    values = {"psnr": 25.0 + gain, "psnr-fg": 19.0 + gain, "ssim": 0.9 + gain / 50, "flip-67": 0.1 - gain / 50}
    names = [
        f"smoke.{scene}/{setting}{f'-s{seed}' if seed else ''}"
        for scene in ("blob", "chair")
        for setting in SETTINGS
        for seed in range(seeds)
    ]
    return [record(values, name, suite=SUITE, **fields) for name in names]


@pytest.mark.parametrize(("gain", "verdict"), [(0.0, "same"), (-0.2, "worse"), (0.2, "better"), (0.005, "same")])
def test_every_contrast_is_judged(gain: float, verdict: str) -> None:
    results = judge_quality(side(), side(gain), 0)
    assert [(r.setting, r.metric) for r in results] == list(CONTRASTS)
    assert {r.verdict for r in results} == {verdict}
    psnr = results[0]
    assert (psnr.scenes, psnr.seeds, psnr.spread) == (2, 3, pytest.approx(0.0, abs=1e-12))
    assert psnr.gain == pytest.approx(gain, abs=1e-12)
    assert psnr.low < psnr.gain < psnr.high


def moved(records: Sequence[Record], case: str, psnr: float) -> list[Record]:
    return [
        replace(r, metrics={**r.metrics, "psnr": Reading(psnr, (psnr,), 1)}) if r.case == case else r for r in records
    ]


def test_one_pair_that_jumps_is_inconclusive_and_asks_for_more() -> None:
    head = moved(side(), "smoke.chair/b-capture-n200-s1", 24.0)
    found = next(r for r in judge_quality(side(), head, 0) if r.metric == "psnr")
    assert (found.verdict, found.least, found.needed) == ("inconclusive", "smoke.chair", MOST_SEEDS)
    assert found.spread == pytest.approx((1 / 3) ** 0.5 / 2)  # one of three seeds of one of two scenes lies 1 dB off


def test_the_second_stage_is_judged_by_its_own_half_of_the_error() -> None:
    head = moved(side(), "smoke.chair/b-capture-n200-s1", 24.0)
    one, other = (judge_quality(side(), head, stage, CONTRASTS[:1])[0] for stage in (0, 1))
    assert (one.low, one.high) == (other.low, other.high)  # halves are equal


def test_a_metric_that_no_side_has_in_a_scene_leaves_the_scene_out() -> None:
    def without(records: Sequence[Record], scene: str, status: Any = "unsupported") -> list[Record]:
        gap = Reading(None, (), 1, status)
        return [replace(r, metrics={**r.metrics, "psnr-fg": gap}) if r.scene == scene else r for r in records]

    blob = without(side(), "smoke.blob")
    found = {(r.setting, r.metric): r.scenes for r in judge_quality(blob, blob, 0)}
    assert (found[SETTINGS[0], "psnr"], found[SETTINGS[0], "psnr-fg"]) == (2, 1)
    neither = without(blob, "smoke.chair")
    assert "psnr-fg" not in {r.metric for r in judge_quality(neither, neither, 0)}
    with pytest.raises(NotComparableError, match=r"smoke\.blob/b-capture-n200 has psnr-fg on one side only"):
        judge_quality(side(), blob, 0)


def test_a_result_reads_as_a_line() -> None:
    result = QualityResult("b-capture-n200", "psnr", "worse", -0.0712, -0.081, -0.0614, 0.0025, 6, 3, "smoke.truck", 3)
    assert str(result) == (
        "worse        b-capture-n200: psnr -0.071 dB [-0.081, -0.061] over 6 scenes and 3 seeds "
        "(spread of a seed 0.0025; least in smoke.truck)"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol_hash": "ba9876543210"}, "protocol hash 0123456789ab in base and ba9876543210 in head"),
        ({"scene_hash": "5ce0e5ce0e5c"}, "scene hash .* in base and 5ce0e5ce0e5c in head"),
        ({"suite": "scan"}, "suite quality in base and scan in head"),
        ({"status": "nonfinite", "metrics": {}}, "status ok in base and nonfinite in head"),
    ],
)
def test_sides_that_did_other_work_are_refused(fields: dict[str, Any], message: str) -> None:
    head = [replace(r, **fields) for r in side()]
    with pytest.raises(NotComparableError, match=message) as caught:
        judge_quality(side(), head, 0)
    assert "\n" not in str(caught.value)


def test_other_cases_or_another_metric_are_refused() -> None:
    with pytest.raises(NotComparableError, match="base has 18 cases, head 12"):
        judge_quality(side(), side(seeds=2), 0)
    with pytest.raises(NotComparableError, match="base has 0 cases, head 0"):
        judge_quality([], [], 0)
    with pytest.raises(NotComparableError, match="b-capture-n200 has 1 seeds of psnr in a scene"):
        judge_quality(side(seeds=1), side(seeds=1), 0)
    newer = [replace(r, metrics={**r.metrics, "psnr": Reading(25.0, (25.0,), 2)}) for r in side()]
    with pytest.raises(NotComparableError, match="psnr is version 1 in base and 2 in head"):
        judge_quality(side(), newer, 0)


def test_what_another_machine_has_run_is_refused() -> None:
    require_one_machine(side(), {**MACHINE, "cores": 64, "versions": {"torch": "3"}})
    with pytest.raises(NotComparableError, match="was run on cpu-x86-64, a CPU, this machine is cpu-x86-64, another"):
        require_one_machine(side(), {**MACHINE, "cpu": "another CPU"})


# -- the suite


def test_the_contrasts_are_those_of_the_suite() -> None:
    cases = {case.id.split("/")[1] for t in SUITES[SUITE].trajectories() for case in t.cases if case.steps == STEPS}
    assert cases == set(SETTINGS)
    assert SUITES[SUITE].scenes == SUITES["smoke"].scenes


def test_the_suite_ends_before_density_control_begins() -> None:
    """Rounding becomes another number of Gaussians there, and common random numbers are common no more."""
    suite = SUITES[SUITE]
    assert suite.recipe == SUITES["smoke"].recipe
    assert max(n for t in suite.trajectories() for n in t.steps) == STEPS < RECIPES[suite.recipe].refine_start
