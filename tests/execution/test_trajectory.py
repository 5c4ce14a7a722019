"""Trajectories end in records, whatever happens on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from safetensors import safe_open
from safetensors.torch import save_file

from evalsuite.arms.arm import ArmSettings, Checkpoint
from evalsuite.arms.catalogue import ARMS
from evalsuite.arms.floors import MeanColour
from evalsuite.core.cases import Trajectory
from evalsuite.core.clock import Clock
from evalsuite.core.errors import NonFiniteError, UnknownNameError
from evalsuite.core.machine import VERSIONED
from evalsuite.core.protocol import PROTOCOLS, GeometryRule, Protocol, Rig
from evalsuite.core.suites import Suite
from evalsuite.core.types import Cameras, Evidence, Render, Scene
from evalsuite.execution import evaluation
from evalsuite.execution import trajectory as subject
from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.trajectory import STRUCTURES, finished, run_trajectory
from evalsuite.metrics.evaluate import evaluate
from evalsuite.metrics.perceptual import BACKBONES, FOLDER
from evalsuite.metrics.spec import IMAGE_METRICS
from evalsuite.models.lgm.weights import load_lgm
from evalsuite.records.schema import Reading, Record
from evalsuite.records.store import RecordStore
from evalsuite.scenes.catalogue import SCENES, SceneEntry
from evalsuite.scenes.procedural import procedural_mesh
from evalsuite.scenes.rig import object_scene
from evalsuite.splats.ply import load_ply
from evalsuite.splats.recipes import RECIPES

TINY = Protocol(
    "tiny",
    Rig(resolution=32, capture_views=8, heldout_per_elevation=1, supersample=2),
    geometry=GeometryRule(views=8, resolution=32, voxels=24, samples=500, icp_samples=250),
    steps_b=(0, 2, 4),
    steps_c=(2, 4),
)
SUITE = Suite("tiny", ("tiny.blob",), protocol_name="tiny")
ANOTHER = procedural_mesh("blob", 2)
B = Trajectory("tiny.blob", "b", "capture", TINY.steps_b)
C = Trajectory("tiny.blob", "c", "capture", TINY.steps_c)


def _load(protocol: Protocol) -> Scene:
    return object_scene("tiny.blob", "organic", procedural_mesh("blob", 1), protocol)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordStore]:
    """A store, with one tiny scene and protocol registered for the length of the test."""
    monkeypatch.setitem(PROTOCOLS._items, "tiny", TINY)
    monkeypatch.setitem(SCENES._items, "tiny.blob", SceneEntry("tiny.blob", "organic", _load))
    subject.load_scene.cache_clear()
    evaluation._KEPT.clear()
    yield RecordStore(tmp_path / "records")
    subject.load_scene.cache_clear()


def test_every_checkpoint_becomes_a_record(store: RecordStore) -> None:
    run_trajectory(C, SUITE, store, "cpu")
    records = {case.id: store.read(case.id) for case in C.cases}
    assert list(records) == ["tiny.blob/c-capture-n2", "tiny.blob/c-capture-n4"]
    first, last = records.values()
    assert first is not None
    assert last is not None
    assert (first.status, last.status) == ("ok", "ok")
    assert first.protocol_hash == TINY.hash
    assert first.recipe_hash == RECIPES["3dgs"].hash
    assert len(last.metrics["psnr"].per_view) == 5
    assert last.seconds["optimise"] > first.seconds["optimise"] > 0
    assert last.seconds["sfm"] == first.seconds["sfm"] > 0
    assert set(last.seconds) == {"sfm", "compile", "optimise", "render", "evaluate"}
    assert last.total_seconds == last.seconds["sfm"] + last.seconds["optimise"]
    assert last.peak_host_bytes is not None
    assert first.peak_host_bytes is not None
    assert last.peak_host_bytes >= first.peak_host_bytes > 2**20
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert first.base_host_bytes is not None
        assert first.base_host_bytes == last.base_host_bytes <= first.peak_host_bytes
    assert last.peak_device_bytes == 0
    assert last.frame_px == (32, 32)
    assert last.frames_per_second is not None
    assert last.frames_per_second > 0
    assert last.anchor_seconds is not None
    assert last.anchor_seconds > 0
    assert any("points" in note for note in last.notes)
    assert (store.root / last.images[0]).is_file()
    assert (store.root / "tiny.blob/truth.png").is_file()
    assert len(load_ply(store.root / "tiny.blob/c-capture-n4.ply")) == last.gaussians


def test_geometry_is_measured_at_every_checkpoint_and_the_last_surface_can_be_opened(store: RecordStore) -> None:
    a = Trajectory("tiny.blob", "a", None, (0,))
    run_trajectory(a, SUITE, store, "cpu")
    run_trajectory(replace(a, arm="mean-colour"), SUITE, store, "cpu")
    record, floor = store.read("tiny.blob/a"), store.read("tiny.blob/mean-colour")
    assert record is not None
    assert floor is not None
    assert 0 < (record.value("chamfer.500-s0") or 0) < 0.2
    assert (record.value("f-score-2.500-s0") or 0) > 0.05
    assert record.metrics["chamfer.500-s0"].per_view == ()
    assert any("two samplings of the truth" in note for note in record.notes)
    surface = trimesh.load_mesh(store.root / "tiny.blob/a.glb")
    assert abs(surface.vertices).max() < 0.7
    assert floor.status == "ok"
    assert floor.metrics["chamfer.500-s0"] == Reading(None, (), 1, "no-surface")
    assert not (store.root / "tiny.blob/mean-colour.glb").exists()


def test_a_scene_without_mesh_has_no_geometry(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(protocol: Protocol) -> Scene:
        return replace(_load(protocol), mesh=None, surface=None)

    monkeypatch.setitem(SCENES._items, "tiny.blob", SceneEntry("tiny.blob", "organic", bare))
    run_trajectory(Trajectory("tiny.blob", "mean-colour", None, (0,)), SUITE, store, "cpu")
    record = store.read("tiny.blob/mean-colour")
    assert record is not None
    assert record.value("psnr") is not None
    assert record.metrics["f-score-1.500-s0"].status == "unsupported"
    assert not any("geometry" in note for note in record.notes)


def test_a_protocol_without_geometry_measures_images_alone(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    images = replace(SUITE.protocol, name="tiny-images", geometry=None)
    monkeypatch.setitem(PROTOCOLS._items, "tiny-images", images)
    suite = replace(SUITE, protocol_name="tiny-images")
    run_trajectory(Trajectory("tiny.blob", "a", None, (0,)), suite, store, "cpu")
    record = store.read("tiny.blob/a")
    assert record is not None
    assert (record.status, record.protocol_hash) == ("ok", images.hash)
    assert set(record.metrics) == set(IMAGE_METRICS)
    assert not any("geometry" in note for note in record.notes)
    assert not (store.root / "tiny.blob/a.glb").exists()


def test_warmstart_at_zero_is_feedforward(store: RecordStore) -> None:
    run_trajectory(Trajectory("tiny.blob", "a", None, (0,)), SUITE, store, "cpu")
    run_trajectory(B, SUITE, store, "cpu")
    a, b0, b4 = (store.read(f"tiny.blob/{name}") for name in ("a", "b-capture-n0", "b-capture-n4"))
    assert a is not None
    assert b0 is not None
    assert b4 is not None
    assert b0.metrics == a.metrics
    assert b0.weights == a.weights != ""
    assert b4.metrics != a.metrics


def test_records_name_the_network(store: RecordStore) -> None:
    run_trajectory(Trajectory("tiny.blob", "a", None, (0,)), SUITE, store, "cpu")
    run_trajectory(Trajectory("tiny.blob", "mean-colour", None, (0,)), SUITE, store, "cpu")
    a, floor = store.read("tiny.blob/a"), store.read("tiny.blob/mean-colour")
    assert a is not None
    assert floor is not None
    assert (a.model, floor.model, floor.weights) == ("lgm-mini", "", "")
    assert any("dB better than an empty page" in note for note in a.notes)


def test_every_phase_of_a_warm_start_has_its_name(store: RecordStore) -> None:
    run_trajectory(B, SUITE, store, "cpu")
    records = [store.read(case.id) for case in B.cases]
    before = {"load", "compile", "prepare", "forward", "render", "evaluate"}
    assert [set(r.seconds) for r in records if r] == [before, before | {"optimise"}, before | {"optimise"}]


def test_the_first_pass_of_a_network_warms_it_and_is_charged_to_nobody(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalsuite.arms import procedures

    passes: list[str] = []
    for name in ("predict", "infer"):
        real = getattr(procedures, name)

        def watched(*arguments: object, _name: str = name, _real: Callable[..., Any] = real, **named: object) -> Any:
            passes.append(_name)
            return _real(*arguments, **named)

        monkeypatch.setattr(procedures, name, watched)
    procedures._network.cache_clear()
    for _ in range(2):
        run_trajectory(Trajectory("tiny.blob", "a", None, (0,)), SUITE, store, "cpu")
    assert passes == ["predict", "infer", "infer"]


def test_rendering_and_metrics_are_told_apart(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renderer that takes 1 s a frame and metrics that take 100 s, on a clock of the test's own."""
    now = 0.0

    def slow(self: MeanColour, cameras: Cameras, background: torch.Tensor) -> Render:
        nonlocal now
        now += 1.0
        return shown(self, cameras, background)

    def measured(*arguments: Any) -> Any:
        nonlocal now
        now += 100.0
        return evaluated(*arguments)

    shown, evaluated = MeanColour.render, evaluation.evaluate
    monkeypatch.setattr(MeanColour, "render", slow)
    monkeypatch.setattr(evaluation, "evaluate", measured)
    for module in (subject, evaluation):
        monkeypatch.setattr(module, "Clock", partial(Clock, lambda: now))
    run_trajectory(Trajectory("tiny.blob", "mean-colour", None, (0,)), SUITE, store, "cpu")
    record = store.read("tiny.blob/mean-colour")
    assert record is not None
    assert SUITE.protocol.geometry is not None
    surface = SUITE.protocol.geometry.views  # frames that geometry asks for belong to the evaluation
    assert (record.seconds["render"], record.seconds["evaluate"]) == (
        len(record.metrics["psnr"].per_view),
        100 + surface,
    )
    assert record.total_seconds == 0.0


def test_weights_of_the_users_own_are_in_the_record(store: RecordStore, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    state = {key: value.contiguous() for key, value in load_lgm("lgm-mini").state_dict().items()}
    save_file(state, own)
    a = Trajectory("tiny.blob", "a", None, (0,))
    run_trajectory(a, SUITE, store, "cpu")
    before = store.read("tiny.blob/a")
    suite = SUITE.with_network(None, own)
    assert not finished(a, suite, store, "cpu")
    run_trajectory(a, suite, store, "cpu")
    after = store.read("tiny.blob/a")
    assert before is not None
    assert after is not None
    assert after.metrics == before.metrics  # the same values in float32, another file
    assert "" != after.weights != before.weights


@pytest.mark.parametrize("arm", ["a", "b"])
def test_poses_that_contradict_the_images_give_no_number(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    """The same images with OpenGL's camera axes."""

    def twisted(protocol: Protocol) -> Scene:
        scene = _load(protocol)
        cameras = scene.inputs.cameras
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        views = replace(scene.inputs, cameras=replace(cameras, cam_from_world=flip @ cameras.cam_from_world))
        return replace(scene, inputs=views)

    monkeypatch.setitem(SCENES._items, "tiny.blob", SceneEntry("tiny.blob", "organic", twisted))
    trajectory = Trajectory("tiny.blob", "a", None, (0,)) if arm == "a" else B
    run_trajectory(trajectory, SUITE, store, "cpu")
    for case in trajectory.cases:
        record = store.read(case.id)
        assert record is not None
        assert (record.status, record.metrics) == ("misaligned", {})
        assert "OpenCV axes" in record.reason
        assert "\n" not in record.reason


def test_same_seed_same_record_other_seed_other_record(store: RecordStore, tmp_path: Path) -> None:
    again = RecordStore(tmp_path / "again")
    run_trajectory(C, SUITE, store, "cpu")
    run_trajectory(C, SUITE, again, "cpu")
    run_trajectory(replace(C, seed=1), SUITE, store, "cpu")
    one, two, other = (
        s.read(f"tiny.blob/c-capture-n4{suffix}") for s, suffix in ((store, ""), (again, ""), (store, "-s1"))
    )
    assert one is not None
    assert two is not None
    assert other is not None
    assert one.metrics == two.metrics
    assert one.metrics != other.metrics


def test_scenes_of_one_seed_take_their_views_in_different_orders(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same scene and seed in the same order, whichever arm."""
    monkeypatch.setitem(SCENES._items, "tiny.other", SceneEntry("tiny.other", "organic", _load))
    seen: list[tuple[int, ...]] = []

    def shuffled(count: int, *, generator: torch.Generator) -> torch.Tensor:
        order = real(count, generator=generator)
        seen.append(tuple(order.tolist()))
        return order

    def orders(trajectory: Trajectory) -> tuple[tuple[int, ...], ...]:
        seen.clear()
        run_trajectory(replace(trajectory, steps=(12,)), replace(SUITE, scenes=(trajectory.scene,)), store, "cpu")
        return tuple(seen)

    subject.warm_up("cpu")  # draws an order of its own
    real = torch.randperm
    monkeypatch.setattr(torch, "randperm", shuffled)
    found, again, warm, other, seeded = map(orders, (C, C, B, replace(C, scene="tiny.other"), replace(C, seed=1)))
    assert found == again == warm
    assert len({found, other, seeded}) == 3
    assert all(len(order) == 8 for order in found)


def test_seeds_share_a_structure_and_its_seconds(store: RecordStore) -> None:
    """It is in the store before the second seed runs, and nothing makes another."""
    run_trajectory(C, SUITE, store, "cpu")
    (kept,) = (store.root / STRUCTURES).iterdir()
    before = kept.stat().st_mtime_ns
    run_trajectory(replace(C, seed=1), SUITE, store, "cpu")
    assert [file.name for file in (store.root / STRUCTURES).iterdir()] == [kept.name]
    assert kept.stat().st_mtime_ns == before
    first, other = (store.read(f"tiny.blob/c-capture-n4{suffix}") for suffix in ("", "-s1"))
    assert first is not None
    assert other is not None
    with safe_open(kept, framework="pt") as file:
        making = float(file.metadata()["seconds"])
    assert first.seconds["sfm"] >= making
    assert other.seconds["sfm"] >= making
    assert [record.case for record in store] == [
        f"tiny.blob/c-capture-n{n}{suffix}" for n in (2, 4) for suffix in ("", "-s1")
    ], "a kept structure is no record"
    run_trajectory(replace(C, budget="inputs"), SUITE, store, "cpu")
    assert len(list((store.root / STRUCTURES).iterdir())) == 2, "four views are not eight"


def _failing(error: Exception) -> object:
    def arm(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
        yield Checkpoint(2, MeanColour.of(evidence.inputs, evidence.background), clock.snapshot())
        raise error

    return arm


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (NonFiniteError("the loss became nan at step 3"), "nonfinite", "the loss became nan at step 3"),
        (MemoryError("no more"), "oom", "out of memory with a peak of .* MiB: no more"),
        (torch.OutOfMemoryError("card full"), "oom", "card full"),
        (ZeroDivisionError("by zero"), "crashed", r"ZeroDivisionError: by zero \(test_trajectory.py:\d+\)"),
    ],
)
def test_a_failure_keeps_what_was_finished_and_names_what_was_not(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, reason: str
) -> None:
    monkeypatch.setitem(ARMS._items, "c", _failing(error))
    run_trajectory(C, SUITE, store, "cpu")
    first, last = (store.read(case.id) for case in C.cases)
    assert first is not None
    assert last is not None
    assert first.status == "ok"
    assert first.metrics
    assert last.status == status
    assert not last.metrics
    assert re.search(reason, last.reason)


def test_missing_data_is_a_record_with_the_way_out(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    suite = Suite("tiny", ("gso.dino-3",), protocol_name="tiny")
    run_trajectory(Trajectory("gso.dino-3", "a", None, (0,)), suite, store, "cpu")
    record = store.read("gso.dino-3/a")
    assert record is not None
    assert record.status == "missing-data"
    assert "set EVALSUITE_MIRROR" in record.reason


def test_an_unknown_arm_is_the_suites_mistake(store: RecordStore) -> None:
    with pytest.raises(UnknownNameError, match="unknown arm 'd'"):
        run_trajectory(replace(C, arm="d"), SUITE, store, "cpu")


@pytest.fixture
def ran(store: RecordStore) -> Record:
    """The last record of a trajectory that has run."""
    run_trajectory(C, SUITE, store, "cpu")
    record = store.read("tiny.blob/c-capture-n4")
    assert record is not None
    return record


def test_a_finished_trajectory_is_kept(store: RecordStore) -> None:
    assert not finished(C, SUITE, store, "cpu")
    run_trajectory(C, SUITE, store, "cpu")
    assert finished(C, SUITE, store, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"source": "other"},
        {"protocol_hash": "other"},
        {"recipe_hash": "other"},
        {"scene_source": "other"},
        {"libraries": {"gsplat": "0.0.1 00000000"}},
        {"machine": {"device_class": "cuda-sm90"}},
        {"status": "oom"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_record_of_anything_else_is_not_what_would_run(store: RecordStore, ran: Record, change: Any) -> None:
    store.write(replace(ran, **change))
    assert not finished(C, SUITE, store, "cpu")


def test_a_later_version_of_a_library_runs_anew(
    store: RecordStore, ran: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "libraries", lambda: {**ran.libraries, "gsplat": "1.5.3 f0f0f0f0"})
    assert not finished(C, SUITE, store, "cpu")


def test_other_sources_run_anew(store: RecordStore, ran: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "source_hash", lambda *outside: "edited")
    assert not finished(C, SUITE, store, "cpu")


def test_a_record_says_what_its_scene_held(store: RecordStore, ran: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another object under a known name is another scene."""
    other = SceneEntry("tiny.blob", "organic", lambda p: object_scene("tiny.blob", "organic", ANOTHER, p))
    monkeypatch.setitem(SCENES._items, "tiny.blob", other)
    subject.load_scene.cache_clear()
    run_trajectory(C, SUITE, store, "cpu")
    again = store.read(ran.case)
    assert again is not None
    assert re.fullmatch("[0-9a-f]{12}", ran.scene_hash)
    assert again.scene_hash != ran.scene_hash
    assert set(ran.libraries) == set(VERSIONED)


def test_missing_weights_are_the_cases_reason_not_the_end_of_a_resumed_run(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    a, suite = Trajectory("tiny.blob", "a", None, (0,)), SUITE.with_network("lgm-big", None)
    assert not finished(a, suite, store, "cpu")
    run_trajectory(a, suite, store, "cpu")
    record = store.read("tiny.blob/a")
    assert record is not None
    assert record.status == "missing-data"
    assert "evalsuite fetch lgm" in record.reason


def test_resume_keeps_finished_cases_and_a_fresh_run_does_not(store: RecordStore) -> None:
    run_trajectory(C, SUITE, store, "cpu")
    stamp = store.path("tiny.blob/c-capture-n4").stat().st_mtime_ns
    resumed = LocalExecutor(SUITE, store, workers=1, resume=True)
    resumed.start([C])
    assert resumed.progress == (0, 0)
    assert resumed.done(C, 0.0)
    assert store.path("tiny.blob/c-capture-n4").stat().st_mtime_ns == stamp
    fresh = LocalExecutor(SUITE, store, workers=1)
    fresh.start([C])
    assert store.read("tiny.blob/c-capture-n4") is None
    assert fresh.done(C, 0.0)
    assert store.read("tiny.blob/c-capture-n4") is not None


def test_arms_never_see_heldout_views(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Evidence] = []

    def spy(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
        seen.append(evidence)
        for steps in settings.steps:
            yield Checkpoint(steps, MeanColour.of(evidence.inputs, evidence.background), clock.snapshot())

    monkeypatch.setitem(ARMS._items, "c", spy)
    for budget, count in (("capture", 8), ("inputs", 4)):
        run_trajectory(replace(C, budget=budget), SUITE, store, "cpu")  # type: ignore[arg-type]
        assert len(seen[-1].supervision) == count
    heldout = subject.load_scene("tiny.blob", SUITE, "cpu")[0].heldout.cameras.positions
    for evidence in seen:
        for views in (evidence.inputs, evidence.supervision):
            assert torch.cdist(views.cameras.positions, heldout).min() > 1e-3


def test_what_evaluation_took_is_not_the_arms_memory(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a meter of its own: every step of the arm takes 100 bytes, every evaluation 900."""
    peak = 0

    def take(size: int) -> None:
        nonlocal peak
        peak = max(peak, size)

    def forget() -> None:
        nonlocal peak
        peak = 0

    def thrifty(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
        for steps in settings.steps:
            take(100)
            yield Checkpoint(steps, MeanColour.of(evidence.inputs, evidence.background), clock.snapshot())

    def lavish(*arguments: Any) -> Any:
        take(900)
        return evaluate(*arguments)

    monkeypatch.setitem(ARMS._items, "c", thrifty)
    monkeypatch.setattr(evaluation, "evaluate", lavish)
    monkeypatch.setattr(subject, "reset_peak", forget)
    for name in ("host_peak_bytes", "device_peak_bytes"):
        monkeypatch.setattr(subject, name, lambda: peak)
    take(900)  # loading the scene is not the arm's either
    run_trajectory(C, SUITE, store, "cpu")
    records = [store.read(case.id) for case in C.cases]
    assert [(r.status, r.peak_host_bytes, r.peak_device_bytes) for r in records if r] == [("ok", 100, 100)] * 2


def test_a_wrong_backbone_ends_a_trajectory_before_its_arm_runs(
    store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def spy(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
        ran.append(settings.steps)
        yield Checkpoint(2, MeanColour.of(evidence.inputs, evidence.background), clock.snapshot())

    monkeypatch.setitem(ARMS._items, "c", spy)
    file = tmp_path / "mirror" / FOLDER / BACKBONES["lpips-vgg"].file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"another network")
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "mirror"))
    run_trajectory(C, SUITE, store, "cpu")
    assert not ran
    for case in C.cases:
        record = store.read(case.id)
        assert record is not None
        assert record.status == "crashed"
        assert f"{file.name}" in record.reason
        assert "sha256 is" in record.reason
