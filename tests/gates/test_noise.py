"""The spread of a case: what is estimated, and how often the gate is wrong in either direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from evalsuite.gates.noise import (
    POWER,
    RUN_ALARM,
    SHARES,
    Level,
    Spread,
    alarm,
    allowed,
    freedom_lines,
    moderated,
    visible,
)

SCENES, SETTINGS, SEEDS = 6, 13, 3
Draw = Callable[[np.random.Generator, int], np.ndarray]


def case(scene: int, setting: str = "b-capture-n50") -> str:
    return f"scene-{scene}/{setting}"


def suite(values: Mapping[str, np.ndarray]) -> dict[str, dict[str, Spread]]:
    return moderated({name: {"psnr": tuple(map(float, seeds))} for name, seeds in values.items()})


def normal(sigmas: np.ndarray, seeds: int = SEEDS, seed: int = 0) -> dict[str, dict[str, Spread]]:
    rng = np.random.default_rng(seed)
    return suite({case(i): rng.normal(30, sigma, seeds) for i, sigma in enumerate(sigmas)})


# --- the estimate


def test_one_case_alone_has_its_own_spread() -> None:
    found = suite({case(0): np.array([1.0, 2.0, 3.0])})
    assert found == {case(0): {"psnr": Spread(1.0, 2.0)}}


def test_what_never_varies_has_none() -> None:
    found = suite({case(0): np.ones(3), case(1): np.ones(3)})
    assert {spread["psnr"] for spread in found.values()} == {Spread(0.0, 2.0)}


def test_alike_scenes_share_all_their_runs() -> None:
    found = normal(np.full(200, 0.3))
    sigmas = np.array([spread["psnr"].sigma for spread in found.values()])
    assert sigmas == pytest.approx(0.3, rel=0.25)
    assert min(spread["psnr"].freedom for spread in found.values()) > 20


def test_unlike_scenes_keep_to_themselves() -> None:
    rng = np.random.default_rng(1)
    found = normal(np.exp(rng.normal(0, 2, 200)))
    assert 2 < found[case(0)]["psnr"].freedom < 4, "a prior of one or two degrees of freedom"


@pytest.mark.parametrize(("freedom", "tolerance"), [(4.0, 1.0), (10.0, 4.0)])
def test_the_prior_is_found_again(freedom: float, tolerance: float) -> None:
    """Variances drawn from the model's own prior: scaled inverse chi-squared."""
    rng = np.random.default_rng(2)
    found = normal(np.sqrt(freedom / rng.chisquare(freedom, 1500)))
    assert found[case(0)]["psnr"].freedom - (SEEDS - 1) == pytest.approx(freedom, abs=tolerance)


def test_a_spread_never_borrows_from_another_setting() -> None:
    rng = np.random.default_rng(3)
    calm = {case(i, "b-capture-n50"): rng.normal(30, 0.01, SEEDS) for i in range(SCENES)}
    wild = {case(i, "c-inputs-n50"): rng.normal(30, 1.0, SEEDS) for i in range(SCENES)}
    found = suite({**calm, **wild})
    assert max(found[name]["psnr"].sigma for name in calm) < 0.1 < min(found[name]["psnr"].sigma for name in wild)


def test_no_estimate_claims_more_freedom_than_the_pool_has_runs() -> None:
    found = normal(np.full(SCENES, 0.3))
    assert max(spread["psnr"].freedom for spread in found.values()) <= SCENES * (SEEDS - 1)


@given(st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=4), min_size=1, max_size=5))
def test_whatever_the_seeds_say_the_spread_is_a_number(samples: list[list[float]]) -> None:
    for spreads in suite({case(i): np.array(values) for i, values in enumerate(samples)}).values():
        assert math.isfinite(spreads["psnr"].sigma)
        assert spreads["psnr"].sigma >= 0
        assert spreads["psnr"].freedom >= 1


@given(st.floats(0.5, 2.0), st.integers(0, 5))
def test_the_unit_does_not_matter(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {case(i): rng.normal(0, 0.1 + i, SEEDS) for i in range(4)}
    before, after = suite(values), suite({name: seeds * scale for name, seeds in values.items()})
    for name in values:
        assert after[name]["psnr"].sigma == pytest.approx(scale * before[name]["psnr"].sigma)
        assert after[name]["psnr"].freedom == pytest.approx(before[name]["psnr"].freedom, rel=1e-6)


def test_a_wild_ladder_drags_no_other() -> None:
    """Scenes of C under four views differ wildly; those of B under the whole capture are alike and stay sharp."""
    rng = np.random.default_rng(3)
    calm = {case(i, f"b-capture-n{n}"): rng.normal(30, 0.01, SEEDS) for i in range(SCENES) for n in (50, 200)}
    unruly = {
        case(i, f"c-inputs-n{n}"): rng.normal(30, math.exp(rng.normal(0, 2)), SEEDS)
        for i in range(SCENES)
        for n in (50, 200)
    }
    alone, beside = suite(calm), suite({**calm, **unruly})
    assert {name: beside[name] for name in calm} == alone


def test_degrees_of_freedom_are_told_per_arm_and_budget() -> None:
    spreads = {
        "a/b-capture-n50": {"psnr": Spread(0.1, 12.0), "ssim": Spread(0.0, 2.0)},
        "a/b-capture-n200": {"psnr": Spread(0.1, 6.0)},
        "b/b-capture-n50": {"psnr": Spread(0.2, 9.0)},
        "a/c-inputs-n50": {"psnr": Spread(0.2, 2.5)},
        "a/visual-hull": {"psnr": Spread(0.0, 2.0)},
    }
    assert freedom_lines(spreads) == [
        "b-capture    6.0 / 9.0 / 12.0 degrees of freedom",
        "c-inputs     2.5 / 2.5 / 2.5 degrees of freedom",
    ]


@given(st.dictionaries(st.sampled_from(sorted(SHARES)), st.integers(1, 10**5)))
def test_whatever_is_compared_a_run_has_one_budget(counts: dict[Level, int]) -> None:
    spent = sum(count * alarm(level, count) for level, count in counts.items())
    assert spent <= RUN_ALARM * (1 + 1e-9)
    assert math.fsum(SHARES.values()) == pytest.approx(1.0)


# --- the tolerance


@pytest.mark.parametrize("freedom", [1.0, 4.5, 12.0, 1e6])
def test_the_tolerance_is_a_quantile_of_student(freedom: float) -> None:
    assert allowed(2.0, freedom, 1e-4) == pytest.approx(2.0 * t.isf(5e-5, freedom)), "either direction"


def test_less_is_allowed_the_more_is_known() -> None:
    limits = [allowed(1.0, freedom, 1e-4) for freedom in (2.0, 4.0, 8.0, 16.0, 1e6)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == pytest.approx(norm.isf(5e-5), rel=1e-3)


def test_the_visible_loss_is_seen_as_often_as_promised() -> None:
    rng = np.random.default_rng(4)
    tolerance = allowed(0.1, 12.0, 1e-4)
    losses = visible(tolerance, 0.1) + rng.normal(0, 0.1, 200_000)
    assert (losses > tolerance).mean() == pytest.approx(POWER, abs=0.002)


# --- false alarms and detection, simulated


EACH = alarm("cases", SCENES * SETTINGS * 13)
"""A suite of thirteen metrics: each study below is one of them."""

NAMES = [case(i, f"b-capture-n{n}") for n in range(SETTINGS) for i in range(SCENES)]


def studies(spread: Draw, seeds: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Loss by chance, estimated spread of it and tolerance, of every case, from goldens of their own seeds.

    A study is one metric of a suite: `SETTINGS` of `SCENES` each.
    """
    rng = np.random.default_rng(5)
    for _ in range(count):
        draws = spread(rng, seeds + 1)
        golden, record = draws[:, :seeds], draws[:, seeds]
        found = suite(dict(zip(NAMES, golden, strict=True)))
        sigmas = np.array([found[name]["psnr"].sigma for name in NAMES]) * math.sqrt(1 + 1 / seeds)
        limits = [allowed(s, found[name]["psnr"].freedom, EACH) for s, name in zip(sigmas, NAMES, strict=True)]
        yield golden.mean(axis=1) - record, sigmas, np.array(limits)


def worse(spread: Draw, seeds: int, count: int, loss: float = 0.0) -> float:
    """Share of cases that are called worse when changed code loses ``loss``."""
    return float(np.mean([chance + loss > limits for chance, _, limits in studies(spread, seeds, count)]))


def alike(rng: np.random.Generator, runs: int) -> np.ndarray:
    return rng.normal(0, 1, (SETTINGS * SCENES, runs))


def unlike(rng: np.random.Generator, runs: int) -> np.ndarray:
    sigmas = np.exp(rng.normal(0, 0.6, (SETTINGS * SCENES, 1)))
    return rng.normal(0, sigmas, (SETTINGS * SCENES, runs))


def two_modes(rng: np.random.Generator, runs: int) -> np.ndarray:
    """Half of the scenes hop between two values ten sigmas apart, one run in five: what alpha IoU of a blob does."""
    cases = np.arange(SETTINGS * SCENES)[:, None]
    hops = (cases % 2 == 0) & (rng.random((len(cases), runs)) < 0.2)
    return rng.normal(0, 1, (len(cases), runs)) - 10.0 * hops


def flat(spread: Draw, count: int) -> float:
    """The same share for a flat four sample standard deviations of the case itself, which borrows nothing."""
    rng = np.random.default_rng(5)
    draws = np.stack([spread(rng, SEEDS + 1) for _ in range(count)])
    golden, record = draws[..., :SEEDS], draws[..., SEEDS]
    limit = 4 * golden.std(axis=-1, ddof=1) * math.sqrt(1 + 1 / SEEDS)
    return float((golden.mean(axis=-1) - record > limit).mean())


@pytest.mark.parametrize(("spread", "most"), [(alike, 2e-4), (unlike, 1e-3), (two_modes, 0.005)])
def test_false_alarms_are_rare_even_from_three_seeds(spread: Draw, most: float) -> None:
    """Of Gaussian noise next to none; of two modes, of which three seeds may have seen one, few."""
    found = worse(spread, SEEDS, 100)
    assert found <= most
    assert found < 0.1 * flat(spread, 100), "four sigma of three seeds cries wolf"


def test_more_seeds_see_more() -> None:
    seen = [worse(alike, seeds, 25, loss=8.0) for seeds in (3, 5, 10)]
    assert seen == sorted(seen)
    assert seen[0] < 0.9 < seen[2]


def test_the_loss_a_gate_says_it_sees_is_seen() -> None:
    """The number that is printed comes from the estimated spread, and holds for the true one."""
    seen = []
    for chance, sigmas, limits in studies(alike, SEEDS, 50):
        losses = [visible(limit, sigma) for limit, sigma in zip(limits, sigmas, strict=True)]
        seen.append(chance + np.array(losses) > limits)
    assert np.mean(seen) == pytest.approx(POWER, abs=0.03)
