"""Bring every scene of a suite into its prepared form, in parallel processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch

from evalsuite.core.errors import BadDataError, EvalsuiteError
from evalsuite.core.protocol import Protocol
from evalsuite.scenes.catalogue import SCENES, SUITES
from evalsuite.scenes.prepared import write_scene


@dataclass(frozen=True)
class Preparation:
    """What became of one scene.

    Attributes:
        outcome: ``kept`` where the folder was whole and made by this very code from these very files.
        error: what the user must know of a failed one, else empty.
    """

    scene: str
    outcome: Literal["kept", "prepared", "failed"]
    seconds: float
    error: str = ""


def prepare(suite_name: str, root: Path, workers: int | None = None) -> Iterator[Preparation]:
    """Prepare the scenes of a suite below ``root``, one after another as they are finished.

    Args:
        suite_name: a registered suite; its scenes' protocols name the folders below ``root``.
        root: e.g. ``data/prepared``, where scenes are looked for.
        workers: processes; None means one per core, 1 works in this process.

    Raises:
        UnknownNameError: no such suite.
    """
    suite = SUITES[suite_name]
    tasks = [(scene, suite.of(scene).protocol, root) for scene in suite.scenes]
    workers = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if workers == 1:
        yield from (_prepare_scene(*task) for task in tasks)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for future in as_completed([pool.submit(_prepare_scene, *task) for task in tasks]):
            yield future.result()


def _prepare_scene(scene_id: str, protocol: Protocol, root: Path) -> Preparation:
    start, entry = time.perf_counter(), SCENES[scene_id]
    folder = root / protocol.name / scene_id
    try:
        try:
            if entry.prepared(folder, protocol) is not None:
                return Preparation(scene_id, "kept", time.perf_counter() - start)
        except BadDataError:
            pass  # damaged: made anew
        write_scene(entry.generate(protocol), entry.origin(protocol), folder)
    except EvalsuiteError as error:
        return Preparation(scene_id, "failed", time.perf_counter() - start, str(error))
    return Preparation(scene_id, "prepared", time.perf_counter() - start)
