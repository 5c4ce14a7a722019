"""Synthetic studies: records with known curves, and stores with picture strips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evalsuite.core.cases import BUDGETS, Trajectory
from evalsuite.records.schema import Reading, Record
from evalsuite.records.store import RecordStore

STEPS_B = (0, 50, 200, 1000)
STEPS_C = (50, 200, 1000, 3000)
PSNR = {
    ("b", "capture"): (22.2, 24.6, 29.0, 31.9),
    ("c", "capture"): (21.3, 27.9, 31.2, 31.6),
    ("b", "inputs"): (22.2, 24.2, 23.7, 21.9),
    ("c", "inputs"): (16.3, 19.4, 20.5, 20.1),
}
FLOORS = {"mean-colour": 12.0, "visual-hull": 17.5}
MACHINE = {"device_class": "cpu-x86-64", "cpu": "Testium 9", "gpu": None, "versions": {"torch": "2.11.0"}}


def record(
    scene: str = "smoke.chair",
    arm: str = "a",
    budget: str | None = None,
    steps: int = 0,
    psnr: float | None = 22.2,
    **overrides: Any,
) -> Record:
    """One record; ``overrides`` are fields of `Record`."""
    trajectory = Trajectory(scene, arm, budget, (steps,), overrides.get("seed", 0))  # type: ignore[arg-type]
    metrics = {} if psnr is None else {"psnr": Reading(psnr, (psnr,), 1), "ssim": Reading(psnr / 40, (psnr / 40,), 1)}
    fields: dict[str, Any] = {
        "case": trajectory.cases[0].id,
        "scene": scene,
        "stratum": "thin",
        "arm": arm,
        "budget": budget,
        "steps": steps,
        "seed": 0,
        "suite": "smoke",
        "protocol": "object-128",
        "protocol_hash": "0123456789ab",
        "metrics": metrics,
        "seconds": {"compile": 7.0, "optimise": 0.05 * steps, "forward": 1.0},
        "gaussians": 4096 + steps,
        "recipe": "3dgs" if budget else "",
        "recipe_hash": "fedcba987654" if budget else "",
        "machine": MACHINE,
        "git": {"commit": "c0ffee", "dirty": False},
    }
    return Record(**{**fields, **overrides})


def scene_records(scene: str, stratum: str = "thin", shift: float = 0.0) -> list[Record]:
    """A whole scene: floors, A, B and C under both budgets, every PSNR shifted alike."""
    found = [record(scene, floor, psnr=db + shift, stratum=stratum) for floor, db in FLOORS.items()]
    found.append(record(scene, "a", psnr=22.2 + shift, stratum=stratum))
    for (arm, budget), curve in PSNR.items():
        for steps, db in zip(STEPS_B if arm == "b" else STEPS_C, curve, strict=True):
            found.append(record(scene, arm, budget, steps, db + shift, stratum=stratum))
    return found


def study(strata: Mapping[str, str]) -> list[Record]:
    """`scene_records` of several scenes (id to stratum), the i-th shifted by i / 2 dB."""
    return [r for i, (scene, stratum) in enumerate(strata.items()) for r in scene_records(scene, stratum, i / 2)]


def expected_cases(scene: str) -> list[str]:
    """Ids of the cases of `scene_records`."""
    trajectories = [Trajectory(scene, arm, None, (0,)) for arm in (*FLOORS, "a")]
    trajectories += [Trajectory(scene, "b", budget, STEPS_B) for budget in BUDGETS]
    trajectories += [Trajectory(scene, "c", budget, STEPS_C) for budget in BUDGETS]
    return [case.id for trajectory in trajectories for case in trajectory.cases]


def write_strip(path: Path, seed: int, views: int = 12, side: int = 128) -> None:
    """A contact strip of coloured discs, one per view."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    tiles = [np.where((x**2 + y**2 < 0.12)[..., None], draw.integers(0, 200, 3), 255) for _ in range(views)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(tiles, axis=1).astype(np.uint8)).save(path)


def write_store(root: Path, records: list[Record]) -> RecordStore:
    """Write records, the strips they name, and one truth strip per scene."""
    store = RecordStore(root)
    for index, found in enumerate(records):
        store.write(found)
        for image in found.images:
            write_strip(root / image, index)
    for scene in {found.scene for found in records}:
        write_strip(root / scene / "truth.png", 99)
    return store
