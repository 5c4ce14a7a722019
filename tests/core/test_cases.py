"""Case ids are file names, test ids and keys: unique, and of one alphabet."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.core.cases import BUDGETS, ID_PATTERN, Budget, Case, Trajectory, matrix
from evalsuite.core.errors import OptionError, UnknownNameError
from evalsuite.core.protocol import PROTOCOLS, Protocol
from evalsuite.core.suites import Suite
from evalsuite.scenes.catalogue import SUITES

WORDS = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}", fullmatch=True)
FLOORS = ("mean-colour", "visual-hull")


@pytest.mark.parametrize(
    ("trajectory", "ids"),
    [
        (Trajectory("smoke.chair", "a", None, (0,)), ["smoke.chair/a"]),
        (Trajectory("gso.dino-3", "b", "capture", (0, 200)), ["gso.dino-3/b-capture-n0", "gso.dino-3/b-capture-n200"]),
        (Trajectory("gso.dino-3", "c", "inputs", (50,), seed=2), ["gso.dino-3/c-inputs-n50-s2"]),
        (Trajectory("x", "mean-colour", None, (0,), seed=1), ["x/mean-colour-s1"]),
    ],
)
def test_ids_by_hand(trajectory: Trajectory, ids: list[str]) -> None:
    assert [case.id for case in trajectory.cases] == ids
    assert [str(case) for case in trajectory.cases] == ids


def test_the_id_of_a_trajectory_is_without_the_step() -> None:
    assert Trajectory("gso.dino-3", "b", "capture", (0, 200)).id == "gso.dino-3/b-capture"
    assert Trajectory("gso.dino-3", "b", "capture", (0, 200), seed=4).id == "gso.dino-3/b-capture-s4"
    assert Trajectory("gso.dino-3", "a", None, (0,)).id == "gso.dino-3/a"


def test_scenes_and_seeds_have_streams_of_their_own() -> None:
    """No two of all scenes that there are and a hundred seeds share one."""
    scenes = sorted({scene for name in SUITES for scene in SUITES[name].scenes})
    streams = {Trajectory(scene, "b", "capture", (50,), seed).stream for scene in scenes for seed in range(100)}
    assert len(streams) == 100 * len(scenes)
    assert all(0 <= stream < 2**32 for stream in streams)


def test_arms_and_budgets_of_a_scene_share_a_stream_in_every_process() -> None:
    assert Trajectory("smoke.chair", "b", "capture", (50,)).stream == 4130965459
    assert Trajectory("smoke.chair", "c", "inputs", (0, 200)).stream == 4130965459
    assert Trajectory("smoke.chair", "c", "inputs", (0, 200), seed=1).stream != 4130965459


@settings(deadline=None, max_examples=40)
@given(WORDS, WORDS, st.sampled_from([None, *BUDGETS]), st.integers(0, 10**6), st.integers(0, 99))
def test_ids_keep_to_the_alphabet(scene: str, arm: str, budget: Budget | None, steps: int, seed: int) -> None:
    (case,) = Trajectory(scene, arm, budget, (steps,), seed).cases
    assert re.fullmatch(r"[a-z0-9.-]+/[a-z0-9.-]+", case.id)
    assert ID_PATTERN.fullmatch(case.id)


@pytest.mark.parametrize(
    ("scene", "arm"),
    [("Chair", "a"), ("a b", "a"), ("a/b", "a"), ("chair", "B"), ("", "a"), ("..", "a"), ("chair_2", "a"), ("ä", "a")],
)
def test_other_characters_are_refused(scene: str, arm: str) -> None:
    (case,) = Trajectory(scene, arm, None, (0,)).cases
    with pytest.raises(OptionError, match="rename the scene or arm"):
        _ = case.id


def test_the_matrix_of_one_scene() -> None:
    found = matrix(["x"], Protocol("p", steps_b=(0, 5), steps_c=(5, 9)), FLOORS)
    assert [(t.arm, t.budget, t.steps) for t in found] == [
        ("mean-colour", None, (0,)),
        ("visual-hull", None, (0,)),
        ("a", None, (0,)),
        ("b", "capture", (0, 5)),
        ("b", "inputs", (0, 5)),
        ("c", "capture", (5, 9)),
        ("c", "inputs", (5, 9)),
    ]


def test_the_matrix_is_scenes_times_seeds() -> None:
    found = matrix(["x", "y"], Protocol("p", seeds=(0, 3)), ())
    assert len(found) == 2 * 2 * 5
    assert {(t.scene, t.seed) for t in found} == {("x", 0), ("x", 3), ("y", 0), ("y", 3)}
    ids = [case.id for t in found for case in t.cases]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", list(SUITES))
def test_the_ids_of_a_suite_are_unique(name: str) -> None:
    suite = SUITES[name]
    ids = [case.id for trajectory in suite.trajectories() for case in trajectory.cases]
    assert len(ids) == len(set(ids))
    protocols = [(suite.of(scene).protocol, suite.of(scene).floors) for scene in suite.scenes]
    whole = sum(len(f) + 1 + 2 * len(p.steps_b) + 2 * len(p.steps_c) for p, f in protocols)
    assert len(ids) == whole if not suite.settings else 0 < len(ids) < whole
    assert all(ID_PATTERN.fullmatch(case_id) for case_id in ids)
    lowered = {t.id for t in suite.trajectories()}
    assert len(lowered) == len(suite.trajectories())


def test_a_suite_names_its_protocol() -> None:
    assert Suite("s", ()).protocol is PROTOCOLS["object-128"]
    with pytest.raises(UnknownNameError, match="protocol"):
        _ = Suite("s", (), protocol_name="object-129").protocol


def test_cases_are_values() -> None:
    first, second = (Trajectory("x", "b", "inputs", (0, 5)) for _ in range(2))
    assert first.cases == second.cases
    assert len({*first.cases, *second.cases}) == 2
    assert first.cases[1] == Case(second, 5)
