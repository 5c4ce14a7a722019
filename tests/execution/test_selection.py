from __future__ import annotations

from pathlib import Path

import pytest

from evalsuite.core.errors import OptionError, UnknownNameError
from evalsuite.execution.selection import find_suite, select
from evalsuite.scenes.catalogue import SUITES


def test_whole_suite_is_what_the_suite_expects() -> None:
    selection = select("smoke")
    assert selection.whole
    assert selection.trajectories == SUITES["smoke"].trajectories()


def test_another_network_makes_another_study() -> None:
    suite = find_suite("scan", "lgm-big", Path("w.safetensors"))
    assert (suite.name, suite.model, suite.weights) == ("scan.lgm-big", "lgm-big", Path("w.safetensors"))
    assert suite.trajectories() == SUITES["scan"].trajectories()
    assert select(suite).whole
    assert find_suite("scan", "lgm-mini") == find_suite("scan") == SUITES["scan"]
    with pytest.raises(UnknownNameError, match="Did you mean 'lgm-big'"):
        find_suite("scan", "lgm-bigg")


def test_smoke_matrix_counts() -> None:
    # per scene: 2 floors, A, and 2 budgets x (4 checkpoints of B + 4 of C)
    assert len(select("smoke").cases) == 6 * (2 + 1 + 2 * (4 + 4))
    assert len(select("scan").cases) == 20 * (2 + 1 + 2 * (4 + 4))


def test_a_part_is_not_whole_and_keeps_only_what_was_asked_for() -> None:
    selection = select("smoke", ["smoke.chair"], ["b"], [0, 200])
    assert not selection.whole
    assert [case.id for case in selection.cases] == [
        "smoke.chair/b-capture-n0",
        "smoke.chair/b-capture-n200",
        "smoke.chair/b-inputs-n0",
        "smoke.chair/b-inputs-n200",
    ]


def test_cases_narrow_a_selection_to_their_checkpoints() -> None:
    whole = select("smoke")
    every = {case.id for case in whole.cases}
    assert whole.narrowed(every) == whole
    part = whole.narrowed({"smoke.chair/b-capture-n200", "smoke.chair/a", "smoke.chair/none"})
    assert not part.whole
    assert [case.id for case in part.cases] == ["smoke.chair/a", "smoke.chair/b-capture-n200"]
    assert not part.narrowed(every).whole, "what was left out does not come back"
    assert not whole.narrowed(()).cases


def test_seed_is_in_the_id_and_makes_a_part() -> None:
    selection = select("smoke", ["smoke.chair"], ["c"], [50], seed=3)
    assert [case.id for case in selection.cases] == ["smoke.chair/c-capture-n50-s3", "smoke.chair/c-inputs-n50-s3"]
    assert not select("smoke", seed=3).whole


def test_seeds_of_a_trajectory_follow_one_another_and_make_a_part() -> None:
    whole = select("quality")
    assert whole.whole
    assert whole.under([0]) == whole
    both = select("quality", steps=[200]).under([2, 0, 2])
    assert not both.whole
    assert [case.id for case in both.cases][:4] == [
        "smoke.chair/b-capture-n200-s2",
        "smoke.chair/b-capture-n200",
        "smoke.chair/b-inputs-n200-s2",
        "smoke.chair/b-inputs-n200",
    ]
    assert len(both.cases) == 2 * len(select("quality", steps=[200]).cases)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smok",), "unknown suite 'smok'.*Did you mean 'smoke'"),
        (("smoke", ["smoke.chiar"]), "unknown scene 'smoke.chiar'.*Did you mean 'smoke.chair'"),
        (("smoke", ["gso.dino-3"]), "unknown scene of suite 'smoke' 'gso.dino-3'"),
        (("smoke", [], ["warmstrat"]), "unknown arm 'warmstrat'; known: a, b, c"),
    ],
)
def test_unknown_names(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        select(*arguments)  # type: ignore[arg-type]


def test_steps_off_the_ladder() -> None:
    with pytest.raises(OptionError, match=r"N=7 is not on the ladder.*0, 50, 200, 1000, 3000"):
        select("smoke", steps=[7])


def test_a_choice_that_leaves_nothing() -> None:
    with pytest.raises(OptionError, match="nothing of suite 'smoke' is left"):
        select("smoke", arms=["b"], steps=[3000])
