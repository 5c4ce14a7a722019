"""A suite whose scenes need more than one protocol: each scene under its own, none of them under the wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalsuite.core.errors import OptionError
from evalsuite.core.protocol import PROTOCOLS
from evalsuite.core.suites import Part, Suite
from evalsuite.execution.trajectory import blank_record
from evalsuite.scenes.catalogue import SCENES, SUITES

PAPER = SUITES["paper"]
ROOM, DINO = "mipnerf360.room", "gso.dino-3"


def test_a_plain_suite_is_itself_for_every_scene() -> None:
    smoke = SUITES["smoke"]
    assert all(smoke.of(scene) is smoke for scene in smoke.scenes)


def test_the_paper_has_twenty_objects_and_five_unbounded_scenes() -> None:
    assert [SCENES[scene].stratum == "unbounded" for scene in PAPER.scenes] == [False] * 20 + [True] * 5


def test_each_scene_has_the_protocol_and_the_floors_of_its_part() -> None:
    room, dino = PAPER.of(ROOM), PAPER.of(DINO)
    assert (room.protocol.capture.long_side, room.protocol.capture.heldout_every) == (None, 8)
    assert (dino.protocol.name, dino.protocol.rig.resolution) == ("object-256", 256)
    assert room.scenes + dino.scenes == PAPER.scenes[20:] + PAPER.scenes[:20]
    for part in (room, dino):
        assert (part.name, part.model, part.recipe) == ("paper", "lgm-big", "3dgs-30k")
    arms = {scene: {t.arm for t in PAPER.trajectories() if t.scene == scene} for scene in (ROOM, DINO)}
    assert arms[DINO] - arms[ROOM] == {"visual-hull"}  # photographs have no silhouettes
    assert (room.protocol.steps_b, room.protocol.steps_c) == (dino.protocol.steps_b, dino.protocol.steps_c)


def test_a_record_names_the_protocol_of_its_scene() -> None:
    by_scene = {t.scene: t for t in PAPER.trajectories()}
    for scene, protocol in ((ROOM, "capture-published"), (DINO, "object-256")):
        record = blank_record(by_scene[scene], PAPER, "cpu")
        assert (record.protocol, record.protocol_hash) == (protocol, PROTOCOLS[protocol].hash)


def test_another_network_keeps_the_parts() -> None:
    other = PAPER.with_network("lgm-mini", Path("w"))
    assert (other.name, other.of(ROOM).name, other.of(ROOM).weights) == ("paper.lgm-mini", "paper.lgm-mini", Path("w"))
    assert other.trajectories() == PAPER.trajectories()


def test_a_suite_of_two_protocols_has_no_protocol() -> None:
    suite = Suite("s", ("x", "y"), parts=(Part(("y",), "capture-published", ()),))
    with pytest.raises(OptionError, match="suite 's' has protocols object-128, capture-published, expected one: name"):
        _ = suite.protocol
    assert (suite.of("x").protocol.name, suite.of("y").protocol.name) == ("object-128", "capture-published")


def test_a_suite_may_have_some_settings_of_the_matrix_only() -> None:
    whole = Suite("s", ("x", "y"))
    some = Suite("s", ("x", "y"), settings=(("c", "inputs"), ("b", "capture")))
    assert [(t.scene, t.arm, t.budget) for t in some.trajectories()] == [
        (scene, *setting) for scene in ("x", "y") for setting in (("b", "capture"), ("c", "inputs"))
    ]
    assert set(some.trajectories()) < set(whole.trajectories())
    assert some.of("x").settings == some.settings
