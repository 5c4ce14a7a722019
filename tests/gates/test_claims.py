"""Claims on constructed records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import BadDataError, NotComparableError
from evalsuite.core.protocol import PROTOCOLS
from evalsuite.gates.claims import MIN_PAIRS, Claim, Link, judge, load_claims
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Reading, Record

BETTER, WORSE = "c-capture-n3000", "b-capture-n1000"
CLAIM = Claim("c-over-b", (WORSE, BETTER), "psnr", 0.1, ("thin", "blocky"), required=True)
TOML = """
[[claim]]
id = "c-over-b"
order = ["b-n1000", "c-n3000"]
budget = "capture"
metric = "psnr"
margin = 0.1
strata = ["thin", "blocky"]
required = true
"""


def record(scene: str, name: str, psnr: float, stratum: Stratum = "thin") -> Record:
    return Record(
        case=f"{scene}/{name}",
        scene=scene,
        stratum=stratum,
        arm=name[0],
        budget="capture",
        steps=1000,
        seed=0,
        suite="smoke",
        protocol="object-128",
        protocol_hash="0123456789ab",
        metrics={"psnr": Reading(psnr, (psnr,), 1), "ssim": Reading(psnr / 100, (psnr / 100,), 1)},
    )


def pair(scene: str, difference: float, stratum: Stratum = "thin") -> list[Record]:
    level = 20.0 + len(scene)
    return [
        record(scene, BETTER, level + difference, stratum),
        record(scene, WORSE, level, stratum),
        record(scene, "a", 99.0, stratum),
    ]


def study(differences: Sequence[float]) -> list[Record]:
    return [found for i, difference in enumerate(differences) for found in pair(f"scene-{i}", difference)]


def only(records: Sequence[Record], claim: Claim = CLAIM) -> Link:
    """The one link of a claim about two cases."""
    (link,) = judge(claim, records).links
    return link


@pytest.mark.parametrize(
    ("differences", "ruling", "blocks"),
    [
        ((1.0, 1.2, 0.8, 1.1, 0.9), "holds", False),
        ((0.0, 0.0, 0.0, 0.0, 0.0), "holds", False),
        ((-0.09, -0.05, -0.08, -0.07, -0.06), "holds", False),
        ((-0.5, -0.4, -0.6, -0.5, -0.45), "violated", True),
        ((-1.0, 1.0, -1.0, 1.0, -1.0, 1.0), "inconclusive", True),
        ((9.0, 0.1, 0.1, -0.2, 0.1, -0.2), "inconclusive", True),
    ],
    ids=["better", "equal", "within-margin", "worse", "mixed", "one-scene-carries-it"],
)
def test_rulings(differences: tuple[float, ...], ruling: str, blocks: bool) -> None:
    result = judge(CLAIM, study(differences))
    link = result.links[0]
    assert (result.ruling, result.blocks, link.ruling, link.pairs) == (ruling, blocks, ruling, len(differences))
    assert link.mean == pytest.approx(np.mean(differences))
    assert link.mean is not None
    assert link.low is not None
    assert link.high is not None
    assert link.low <= link.mean + 1e-9
    assert link.high >= link.mean - 1e-9


def test_the_permutation_test_is_exact() -> None:
    """Of the 2^5 ways to set the signs only the observed one is as high: p = 1/32; all are as low."""
    link = only(study((1.0, 2.0, 3.0, 4.0, 5.0)))
    assert link.p_more == pytest.approx(1 / 32)
    assert link.p_less == pytest.approx(1.0)


def test_a_bootstrap_alone_is_not_enough() -> None:
    """Five scenes of which one is against: the interval is all above -margin, but 2 of 32 sign flips are as high."""
    link = only(study((1.0, 1.0, 1.0, 1.0, -0.15)))
    assert link.low is not None
    assert link.low > -0.1
    assert link.p_more == pytest.approx(2 / 32)
    assert link.ruling == "inconclusive"


def chain(*levels: float) -> list[Record]:
    """Six scenes in which A and the ladder of B stand at given levels, each scene a little different."""
    names = ["a", "b-capture-n50", "b-capture-n200", "b-capture-n1000"]
    return [
        record(f"scene-{i}", name, 20 + level + 0.01 * i * k)
        for i in range(6)
        for k, (name, level) in enumerate(zip(names, levels, strict=False))
    ]


CHAIN = Claim("b-gains", ("a", "b-capture-n50", "b-capture-n200", "b-capture-n1000"), "psnr", 0.1, ("thin",), True)


@pytest.mark.parametrize(
    ("levels", "rulings", "ruling"),
    [
        ((0.0, 1.0, 2.0, 3.0), ("holds", "holds", "holds"), "holds"),
        ((0.0, 1.0, 0.95, 3.0), ("holds", "holds", "holds"), "holds"),
        ((0.0, 1.0, 0.5, 3.0), ("holds", "violated", "holds"), "violated"),
        ((0.0, 1.0, 2.0), ("holds", "holds", "inconclusive"), "inconclusive"),
        ((0.0, -1.0, 2.0), ("violated", "holds", "inconclusive"), "violated"),
    ],
    ids=["rises", "slack", "falls-once", "a-rung-missing", "falls-and-missing"],
)
def test_an_order_is_as_strong_as_its_weakest_link(
    levels: tuple[float, ...], rulings: tuple[str, ...], ruling: str
) -> None:
    result = judge(CHAIN, chain(*levels))
    assert tuple(link.ruling for link in result.links) == rulings
    assert (result.ruling, result.blocks) == (ruling, ruling != "holds")


def test_lower_is_better_where_the_metric_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS._items, "ssim", replace(METRICS["ssim"], direction="lower"))
    falling, rising = study((-50.0,) * 6), study((50.0,) * 6)
    claim = replace(CLAIM, metric="ssim")
    assert judge(claim, falling).ruling == "holds"
    assert judge(claim, rising).ruling == "violated"
    assert only(falling, claim).mean == pytest.approx(0.5)
    assert len(judge(claim, rising).against) == 6


@pytest.mark.parametrize("differences", [(-1.0,) * 5, (-1.0, 1.0, -1.0, 1.0, -1.0)])
def test_a_claim_that_is_not_required_never_blocks(differences: tuple[float, ...]) -> None:
    result = judge(replace(CLAIM, required=False), study(differences))
    assert result.ruling != "holds"
    assert not result.blocks


def test_the_margin_counts() -> None:
    records = study((-0.3, -0.2, -0.25, -0.28, -0.22))
    assert judge(CLAIM, records).ruling == "violated"
    assert judge(replace(CLAIM, margin=0.4), records).ruling == "holds"


def test_the_interval_of_a_constant_is_that_constant() -> None:
    result = only(study((0.5,) * 6))
    assert (result.mean, result.low, result.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_interval_is_that_of_a_mean() -> None:
    """For many scenes the percentile bootstrap agrees with the normal interval of the mean."""
    differences = np.random.default_rng(3).normal(0.4, 1.0, 200)
    result = only(study(differences.tolist()))
    half = norm.ppf(0.975) * differences.std() / math.sqrt(len(differences))
    assert result.low == pytest.approx(differences.mean() - half, abs=0.1 * half)
    assert result.high == pytest.approx(differences.mean() + half, abs=0.1 * half)


def test_judging_is_deterministic_whatever_the_order() -> None:
    records = study((1.0, -0.2, 0.4, 0.7, 0.1))
    np.random.seed(1)
    first = judge(CLAIM, records)
    np.random.seed(2)
    assert judge(CLAIM, records[::-1]) == first


@pytest.mark.parametrize("count", [0, 1, MIN_PAIRS - 1])
def test_too_few_scenes_say_nothing(count: int) -> None:
    result = judge(CLAIM, study((1.0,) * count))
    link = result.links[0]
    assert (result.ruling, link.pairs) == ("inconclusive", count)
    assert (link.mean, link.low, link.high) == (None, None, None)
    assert result.blocks
    assert str(result) == (
        f"c-over-b: inconclusive, psnr, margin 0.1: {BETTER} >= {WORSE} inconclusive, {count} scenes with both"
    )


def test_enough_scenes_say_something() -> None:
    assert judge(CLAIM, study((1.0,) * MIN_PAIRS)).ruling == "holds"


def test_scenes_against_are_listed_by_name() -> None:
    result = judge(CLAIM, study((2.0, -0.5, 2.0, -0.05, 2.0, -0.11)))
    assert result.against == ("scene-1", "scene-5")
    assert "against it: scene-1, scene-5" in str(result)
    assert "against" not in str(judge(CLAIM, study((2.0,) * 5)))


def test_scenes_against_are_listed_even_if_few() -> None:
    result = judge(CLAIM, study((2.0, -0.5)))
    assert result.against == ("scene-1",)
    assert "scene-1" in str(result), "the docstring says always"


def test_the_line_of_a_result() -> None:
    assert str(judge(CLAIM, study((0.5,) * 5))) == (
        f"c-over-b: holds, psnr, margin 0.1: {BETTER} >= {WORSE} holds, +0.5 [+0.5, +0.5], p 0.031 over 5 scenes"
    )


def test_only_the_strata_of_a_claim_count() -> None:
    records = study((1.0,) * 5) + pair("garden", -9.0, "unbounded") + pair("cup", -9.0, "organic")
    result = judge(CLAIM, records)
    assert (result.links[0].pairs, result.ruling, result.against) == (5, "holds", ())


def test_only_complete_pairs_count() -> None:
    records = study((1.0,) * 4)
    failed = replace(record("lost-1", BETTER, 0.0), status="crashed", metrics={})
    records += [failed, record("lost-1", WORSE, 20.0), record("lost-2", WORSE, 20.0)]
    void = replace(record("lost-3", BETTER, 0.0), metrics={"psnr": Reading(None, (), 1, "nonfinite")})
    records += [void, record("lost-3", WORSE, 20.0)]
    assert only(records).pairs == 4


def test_the_metric_of_the_claim_is_the_one_compared() -> None:
    link = only(study((1.0,) * 5), replace(CLAIM, metric="ssim", margin=0.0))
    assert link.mean == pytest.approx(0.01)


def test_other_seeds_are_other_cases() -> None:
    records = study((1.0,) * 5)
    records += [record(f"scene-{i}", f"{BETTER}-s1", -50.0) for i in range(5)]
    assert only(records).mean == pytest.approx(1.0)


def test_records_of_two_protocols_are_never_paired() -> None:
    records = study((1.0,) * 4)
    records[0] = replace(records[0], protocol_hash="ba9876543210")
    with pytest.raises(NotComparableError):
        judge(CLAIM, records)


def test_scenes_of_other_strata_may_have_another_protocol() -> None:
    rooms = [replace(r, protocol_hash="ba9876543210") for r in pair("room", -9.0, "unbounded")]
    assert judge(CLAIM, study((1.0,) * 4) + rooms) == judge(CLAIM, study((1.0,) * 4))


def test_claims_are_read(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(TOML + TOML.replace('"c-over-b"', '"again"'))
    assert load_claims(path) == (CLAIM, replace(CLAIM, id="again"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[claim",
        "[[claims]]\nid = 'x'",
        TOML.replace("[[claim]]", "[claim]"),
        TOML.replace("margin = 0.1\n", ""),
        TOML.replace('strata = ["thin", "blocky"]\n', ""),
        TOML.replace('budget = "capture"\n', ""),
        TOML.replace('["b-n1000", "c-n3000"]', '["c-n3000"]'),
        TOML.replace('["b-n1000", "c-n3000"]', '"b-n1000"'),
        TOML + "colour = 'red'\n",
        "claim = 3",
    ],
    ids=[
        "empty",
        "no-toml",
        "other-table",
        "no-array",
        "no-margin",
        "no-strata",
        "no-budget",
        "one-case",
        "no-list",
        "unknown-field",
        "number",
    ],
)
def test_what_lists_no_claims_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(text)
    with pytest.raises(BadDataError, match=r"claims\.toml does not list claims .*; expected \[\[claim\]\]"):
        load_claims(path)


def test_strata_are_a_list(tmp_path: Path) -> None:
    """Without a check, strata = "thin" would be four strata of one letter, and the claim about no scene at all."""
    path = tmp_path / "claims.toml"
    path.write_text(TOML.replace('["thin", "blocky"]', '"thin"'))
    with pytest.raises(BadDataError):
        load_claims(path)


def test_the_claims_of_this_repository_name_what_exists(pytestconfig: pytest.Config) -> None:
    claims = load_claims(pytestconfig.rootpath / "tests" / "ablation" / "claims.toml")
    protocol = PROTOCOLS["object-128"]
    names = {"a", "mean-colour", "visual-hull"}
    names |= {f"b-{budget}-n{n}" for budget in ("capture", "inputs") for n in protocol.steps_b}
    names |= {f"c-{budget}-n{n}" for budget in ("capture", "inputs") for n in protocol.steps_c}
    assert len({claim.id for claim in claims}) == len(claims) > 0
    for claim in claims:
        assert set(claim.order) <= names
        assert len(set(claim.order)) == len(claim.order) > 1
        assert METRICS[claim.metric].direction in ("higher", "lower")
        assert set(claim.strata) <= {"thin", "blocky", "organic", "unbounded"}
        assert claim.margin >= 0
    assert any(claim.required for claim in claims)
