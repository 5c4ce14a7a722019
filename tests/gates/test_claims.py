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
from evalsuite.gates.claims import MIN_PAIRS, Claim, judge, load_claims
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Reading, Record

CLAIM = Claim("c-over-b", "c-capture-n3000", "b-capture-n1000", "psnr", 0.1, ("thin", "blocky"), required=True)
TOML = """
[[claim]]
id = "c-over-b"
better = "c-capture-n3000"
worse = "b-capture-n1000"
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
        record(scene, CLAIM.better, level + difference, stratum),
        record(scene, CLAIM.worse, level, stratum),
        record(scene, "a", 99.0, stratum),
    ]


def study(differences: Sequence[float]) -> list[Record]:
    return [found for i, difference in enumerate(differences) for found in pair(f"scene-{i}", difference)]


@pytest.mark.parametrize(
    ("differences", "ruling", "blocks"),
    [
        ((1.0, 1.2, 0.8, 1.1), "holds", False),
        ((0.0, 0.0, 0.0, 0.0), "holds", False),
        ((-0.09, -0.05, -0.08, -0.07), "holds", False),
        ((-0.5, -0.4, -0.6, -0.5), "violated", True),
        ((-1.0, 1.0, -1.0, 1.0), "inconclusive", True),
    ],
    ids=["better", "equal", "within-margin", "worse", "mixed"],
)
def test_rulings(differences: tuple[float, ...], ruling: str, blocks: bool) -> None:
    result = judge(CLAIM, study(differences))
    assert (result.ruling, result.blocks, result.pairs) == (ruling, blocks, 4)
    assert result.mean == pytest.approx(np.mean(differences))
    assert result.mean is not None
    assert result.low is not None
    assert result.high is not None
    assert result.low <= result.mean + 1e-9
    assert result.high >= result.mean - 1e-9


@pytest.mark.parametrize("differences", [(-1.0, -1.0, -1.0, -1.0), (-1.0, 1.0, -1.0, 1.0)])
def test_a_claim_that_is_not_required_never_blocks(differences: tuple[float, ...]) -> None:
    result = judge(replace(CLAIM, required=False), study(differences))
    assert result.ruling != "holds"
    assert not result.blocks


def test_the_margin_counts() -> None:
    records = study((-0.3, -0.2, -0.25, -0.28))
    assert judge(CLAIM, records).ruling == "violated"
    assert judge(replace(CLAIM, margin=0.4), records).ruling == "holds"


def test_the_interval_of_a_constant_is_that_constant() -> None:
    result = judge(CLAIM, study((0.5,) * 6))
    assert (result.mean, result.low, result.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_interval_is_that_of_a_mean() -> None:
    """For many scenes the percentile bootstrap agrees with the normal interval of the mean."""
    differences = np.random.default_rng(3).normal(0.4, 1.0, 200)
    result = judge(CLAIM, study(differences.tolist()))
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
    assert (result.ruling, result.pairs) == ("inconclusive", count)
    assert (result.mean, result.low, result.high) == (None, None, None)
    assert result.blocks
    assert str(result) == f"c-over-b: inconclusive, {count} scenes with both cases"


def test_enough_scenes_say_something() -> None:
    assert judge(CLAIM, study((1.0,) * MIN_PAIRS)).ruling == "holds"


def test_scenes_against_are_listed_by_name() -> None:
    result = judge(CLAIM, study((2.0, -0.5, 2.0, -0.05, 2.0, -0.11)))
    assert result.against == ("scene-1", "scene-5")
    assert "against it: scene-1, scene-5" in str(result)
    assert "against" not in str(judge(CLAIM, study((2.0,) * 4)))


def test_scenes_against_are_listed_even_if_few() -> None:
    result = judge(CLAIM, study((2.0, -0.5)))
    assert result.against == ("scene-1",)
    assert "scene-1" in str(result), "the docstring says always"


def test_the_line_of_a_result() -> None:
    assert str(judge(CLAIM, study((0.5,) * 4))) == (
        "c-over-b: holds, psnr +0.50 [+0.50, +0.50] over 4 scenes, margin 0.1"
    )


def test_only_the_strata_of_a_claim_count() -> None:
    records = study((1.0,) * 4) + pair("garden", -9.0, "unbounded") + pair("cup", -9.0, "organic")
    result = judge(CLAIM, records)
    assert (result.pairs, result.ruling, result.against) == (4, "holds", ())


def test_only_complete_pairs_count() -> None:
    records = study((1.0,) * 4)
    failed = replace(record("lost-1", CLAIM.better, 0.0), status="crashed", metrics={})
    records += [failed, record("lost-1", CLAIM.worse, 20.0), record("lost-2", CLAIM.worse, 20.0)]
    void = replace(record("lost-3", CLAIM.better, 0.0), metrics={"psnr": Reading(None, (), 1, "nonfinite")})
    records += [void, record("lost-3", CLAIM.worse, 20.0)]
    assert judge(CLAIM, records).pairs == 4


def test_the_metric_of_the_claim_is_the_one_compared() -> None:
    result = judge(replace(CLAIM, metric="ssim", margin=0.0), study((1.0,) * 4))
    assert result.mean == pytest.approx(0.01)


def test_other_seeds_are_other_cases() -> None:
    records = study((1.0,) * 4)
    records += [record(f"scene-{i}", f"{CLAIM.better}-s1", -50.0) for i in range(4)]
    assert judge(CLAIM, records).mean == pytest.approx(1.0)


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
        TOML + "colour = 'red'\n",
        "claim = 3",
    ],
    ids=["empty", "no-toml", "other-table", "no-array", "no-margin", "no-strata", "unknown-field", "number"],
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
        assert {claim.better, claim.worse} <= names
        assert claim.better != claim.worse
        assert METRICS[claim.metric].direction == "higher", "judge() takes higher for better"
        assert set(claim.strata) <= {"thin", "blocky", "organic", "unbounded"}
        assert claim.margin >= 0
