"""Run one trajectory and leave a record for every one of its cases."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evalsuite.arms.arm import Arm, ArmSettings, Checkpoint
from evalsuite.arms.catalogue import ARMS, NETWORK_ARMS
from evalsuite.core.cases import Trajectory
from evalsuite.core.clock import Clock
from evalsuite.core.conventions import look_at, orbit_position
from evalsuite.core.errors import EvalsuiteError, Status
from evalsuite.core.machine import commit, fingerprint, libraries, source_hash
from evalsuite.core.memory import device_peak_bytes, host_peak_bytes, peak_bytes, reset_peak
from evalsuite.core.suites import Suite
from evalsuite.core.types import Cameras, Gaussians, Mesh, Renderable, Scene, Views
from evalsuite.execution.anchor import Anchor
from evalsuite.execution.evaluation import measured
from evalsuite.execution.geometry import geometry_floor
from evalsuite.execution.truth import Truth, truth_of
from evalsuite.metrics.perceptual import refuse_wrong_backbones
from evalsuite.models.lgm.files import weights_digest, weights_path
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore
from evalsuite.scenes.catalogue import SCENES
from evalsuite.scenes.contents import content_hash
from evalsuite.splats.field import GaussianField
from evalsuite.splats.optimise import optimise
from evalsuite.splats.ply import save_ply
from evalsuite.splats.recipes import RECIPES
from evalsuite.splats.surface import save_surface

STRUCTURES = ".sfm"
"""Folder below a store's root where structures from motion are kept for all of its trajectories."""

STRIP_VIEWS = 6
"""Held-out views shown in a record's image strip, spread evenly over all of them."""


def run_trajectory(trajectory: Trajectory, suite: Suite, store: RecordStore, device: str) -> None:
    """Reconstruct, evaluate every checkpoint and write its record; a failure becomes the record of what is left.

    Raises:
        UnknownNameError: a scene, arm or recipe that does not exist: a mistake in the suite, not a failed case.
    """
    arm, recipe, suite = ARMS[trajectory.arm], RECIPES[suite.recipe], suite.of(trajectory.scene)
    blank = blank_record(trajectory, suite, device)
    pending = {case.steps: replace(blank, case=case.id, steps=case.steps) for case in trajectory.cases}
    clock = Clock()
    try:
        refuse_wrong_backbones()
        if trajectory.arm in NETWORK_ARMS:
            digest = _weights_hash(suite.model, suite.weights)
            pending = {steps: replace(record, weights=digest) for steps, record in pending.items()}
        scene, held, truth = load_scene(trajectory.scene, suite, device)
        pending = {n: replace(r, scene_hash=held, scene_source=scene.source) for n, r in pending.items()}
        _write_strip(scene.heldout.over(scene.background), store, f"{scene.id}/truth.png")
        with clock.phase("compile"):
            warm_up(device)
        settings = ArmSettings(
            suite.model, recipe, trajectory.steps, trajectory.stream, suite.weights, store.root / STRUCTURES
        )
        anchor = Anchor(device)
        anchor.sample()
        host = on_device = 0
        base = reset_peak()
        for checkpoint in _checkpoints(arm, scene, trajectory, settings, clock):
            host, on_device = max(host, host_peak_bytes()), max(on_device, device_peak_bytes())
            record = replace(pending[checkpoint.steps], base_host_bytes=base, peak_host_bytes=host)
            anchor.sample()
            record = replace(
                record, peak_device_bytes=on_device, anchor_seconds=anchor.seconds, anchor_share=anchor.share
            )
            evaluated, surface = _evaluated(record, checkpoint, scene, truth, suite, store)
            store.write(evaluated)
            if checkpoint.steps == trajectory.steps[-1]:
                _export(checkpoint.result, surface, store.root / record.case)
            del pending[checkpoint.steps]
            reset_peak()  # what evaluation took is not the arm's
    except Exception as error:  # the record is where it goes: nothing is swallowed
        status, reason = _diagnosis(error)
        for record in pending.values():
            store.write(replace(record, status=status, reason=reason, seconds=clock.snapshot()))


def finished(trajectory: Trajectory, suite: Suite, store: RecordStore, device: str) -> bool:
    """Whether every case has an ``ok`` record of exactly what would run now (`identity`)."""
    wanted = blank_record(trajectory, suite, device)
    try:
        if trajectory.arm in NETWORK_ARMS:
            wanted = replace(wanted, weights=_weights_hash(suite.model, suite.weights))
        source = SCENES[trajectory.scene].source(suite.of(trajectory.scene).protocol)
    except EvalsuiteError:  # becomes the record's reason when the trajectory runs
        return False
    wanted = replace(wanted, scene_source=source)
    records = [store.read(case.id) for case in trajectory.cases]
    return all(r is not None and r.status == "ok" and identity(r) == identity(wanted) for r in records)


def identity(record: Record) -> dict[str, object]:
    """All that decides a result: two records that agree in it, and in the case, hold the same numbers.

    Protocol, recipe, files of the scene, weights, sources of this package and of the arm, installed libraries, class of
    device. What the scene holds (`Record.scene_hash`) follows from these.
    """
    names = ("suite", "protocol_hash", "recipe_hash", "scene_source", "weights", "source")
    said = {name: getattr(record, name) for name in names}
    return {**said, "libraries": dict(record.libraries), "device_class": record.machine.get("device_class")}


@lru_cache(maxsize=2)
def load_scene(scene_id: str, suite: Suite, device: str) -> tuple[Scene, str, Truth]:
    """A scene on a device, its `content_hash` and what its results are measured against.

    Two are kept: a scene's trajectories run one after the other.
    """
    scene = SCENES[scene_id].load(suite.protocol)
    held = content_hash(scene)

    def moved(views: Views) -> Views:
        alpha = None if views.alpha is None else views.alpha.to(device)
        return Views(views.rgb.to(device), alpha, views.cameras.to(device))

    ready = replace(
        scene,
        inputs=moved(scene.inputs),
        capture=moved(scene.capture),
        heldout=moved(scene.heldout),
        centre=scene.centre.to(device),
        background=scene.background.to(device),
    )
    truth = truth_of(ready, suite.protocol)
    floor = geometry_floor(ready, suite.protocol.geometry, truth.surface)
    return replace(ready, notes=(*scene.notes, floor) if floor else scene.notes), held, truth


def _checkpoints(
    arm: Arm, scene: Scene, trajectory: Trajectory, settings: ArmSettings, clock: Clock
) -> Iterator[Checkpoint]:
    evidence = scene.evidence(trajectory.budget or "inputs")
    for checkpoint in arm(evidence, settings, clock):
        yield replace(checkpoint, notes=(*scene.notes, *checkpoint.notes))


def blank_record(trajectory: Trajectory, suite: Suite, device: str) -> Record:
    """Record of a case with identity and provenance but no result; ``case`` and ``steps`` are still to be filled."""
    recipe, suite = RECIPES[suite.recipe], suite.of(trajectory.scene)
    optimised = trajectory.budget is not None
    return Record(
        case="",
        scene=trajectory.scene,
        stratum=SCENES[trajectory.scene].stratum,
        arm=trajectory.arm,
        budget=trajectory.budget,
        steps=0,
        seed=trajectory.seed,
        suite=suite.name,
        protocol=suite.protocol.name,
        protocol_hash=suite.protocol.hash,
        recipe=recipe.name if optimised else "",
        recipe_hash=recipe.hash if optimised else "",
        model=suite.model if trajectory.arm in NETWORK_ARMS else "",
        machine={**fingerprint(device), "threads": torch.get_num_threads()},
        git=commit(),
        source=source_hash(ARMS[trajectory.arm]),
        libraries=libraries(),
    )


def _evaluated(
    record: Record, checkpoint: Checkpoint, scene: Scene, truth: Truth, suite: Suite, store: RecordStore
) -> tuple[Record, Mesh | None]:
    """The record with its readings, and the surface that those of geometry were taken from."""
    done = measured(checkpoint.result, scene, truth, suite.protocol, record.scene_hash)
    cameras = scene.heldout.cameras
    strip = f"{record.case}.png"
    _save_strip(done.images, store.root / strip)
    evaluated = replace(
        record,
        metrics=done.metrics,
        seconds={**checkpoint.seconds, **done.seconds},
        frames_per_second=done.frames_per_second,
        frame_px=(cameras.width, cameras.height),
        gaussians=checkpoint.result.primitives,
        asset_bytes=checkpoint.result.bytes,
        notes=checkpoint.notes,
        images=(strip,),
    )
    return evaluated, done.surface


def _export(result: Renderable, surface: Mesh | None, stem: Path) -> None:
    """What people can open: the splats as ``<stem>.ply``, the extracted surface as ``<stem>.glb``."""
    if isinstance(result, GaussianField):
        save_ply(result.gaussians, stem.with_name(f"{stem.name}.ply"))
    if surface is not None:
        save_surface(surface, stem.with_name(f"{stem.name}.glb"))


def _write_strip(images: torch.Tensor, store: RecordStore, name: str) -> None:
    _save_strip((images.clamp(0, 1) * 255).round().byte().cpu().numpy(), store.root / name)


def _save_strip(images: np.ndarray, path: Path) -> None:
    """Save evenly spread views side by side; the file appears whole or not at all."""
    chosen = np.linspace(0, len(images) - 1, min(STRIP_VIEWS, len(images))).round().astype(int)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    Image.fromarray(np.concatenate(list(images[chosen]), axis=1)).save(temporary, format="PNG")
    temporary.replace(path)


@lru_cache(maxsize=4)
def _weights_hash(model: str, weights: Path | None) -> str:
    return weights_digest(weights_path(model, weights))[:12]


@lru_cache(maxsize=2)
def warm_up(device: str) -> None:
    """Compile every kernel once."""
    n, size = 8, 16
    generator = torch.Generator().manual_seed(0)
    gaussians = Gaussians(
        means=torch.randn(n, 3, generator=generator) * 0.1,
        quats=torch.randn(n, 4, generator=generator),
        scales=torch.full((n, 3), 0.05),
        opacities=torch.full((n,), 0.5),
        sh=torch.zeros(n, 1, 3),
    ).to(device)
    cameras = Cameras(
        look_at(orbit_position(0.0, 0.0, 1.5))[None],
        torch.full((1, 2), float(size)),
        torch.full((1, 2), size / 2),
        size,
        size,
    ).to(device)
    views = Views(torch.zeros(1, size, size, 3, device=device), None, cameras)
    short = replace(RECIPES["3dgs"], sh_every=1)
    for _ in optimise(gaussians, views, torch.ones(3, device=device), short, (4,), seed=0, clock=Clock()):
        pass


def _diagnosis(error: Exception) -> tuple[Status, str]:
    if isinstance(error, EvalsuiteError):
        return error.status, str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "oom", f"out of memory with a peak of {peak_bytes() / 2**20:.0f} MiB: {error}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "crashed", f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
