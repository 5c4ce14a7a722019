"""What can be known before a run starts: is the device there, is there anything to run on, can results be written?

A run records what it lacks case by case, which is right where some scenes have their data. Where nothing has, minutes
of starting processes would end in as many records that say the same.
"""

from __future__ import annotations

import os
from pathlib import Path

from evalsuite.arms.catalogue import NETWORK_ARMS
from evalsuite.core.errors import MissingDataError, OptionError
from evalsuite.core.mirror import places
from evalsuite.execution.selection import Selection
from evalsuite.models.lgm.files import weights_path
from evalsuite.scenes.catalogue import SCENES


def require_ready(selection: Selection, device: str) -> None:
    """Refuse a run that could give no result, or not the one that was asked for. Loads neither scenes nor network.

    Some scenes without their data stop nothing: their cases are recorded as ``missing-data``.

    Args:
        selection: what is to run.
        device: ``cpu`` or ``cuda``.

    Raises:
        OptionError: the device is not there.
        MissingDataError: none of the scenes has its data at hand, or the network that selected arms need has no
            weights here.
    """
    require_device(device)
    _require_scenes(selection)
    arms = sorted({t.arm for t in selection.trajectories} & set(NETWORK_ARMS))
    if arms:
        try:
            weights_path(selection.suite.model, selection.suite.weights)
        except MissingDataError as error:
            raise MissingDataError(f"arms {', '.join(arms)} cannot run: {error}; or pick other arms") from None


def require_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        OptionError: CUDA was asked for, and torch sees no GPU.
    """
    if device == "cpu":
        return
    import torch  # takes seconds, and the CPU needs no asking

    if not torch.cuda.is_available():
        raise OptionError(
            f"device {device} was asked for and torch {torch.__version__} sees no GPU; expected one with its driver: "
            "see nvidia-smi, or use the CPU"
        )


def require_folder(path: Path, option: str) -> None:
    """Refuse a path that cannot be a folder to write in. Nothing is made yet.

    Args:
        path: a folder, or where one is to be made.
        option: what the user gave it with.

    Raises:
        OptionError: the path, or a parent, is a file, or may not be written in.
    """
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise OptionError(f"{option} {path}: {nearest} is a file, expected a folder: name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OptionError(f"{option} {path}: nothing can be written in {nearest}, expected a folder of yours: name one")


def _require_scenes(selection: Selection) -> None:
    """At least one scene must have its data."""
    suite, lacking = selection.suite, []
    scenes = dict.fromkeys(t.scene for t in selection.trajectories)
    for scene in scenes:
        try:
            SCENES[scene].require_at_hand(suite.of(scene).protocol)
        except MissingDataError as error:
            lacking.append(error)
    if len(lacking) < len(scenes) or not scenes:
        return
    if len(scenes) == 1:
        raise lacking[0]
    searched = " nor in ".join(map(str, places(Path())))
    raise MissingDataError(
        f"none of the {len(scenes)} scenes to run on is in {searched}, as published or prepared; expected at least "
        f"one: run: evalsuite fetch {suite.name.split('.')[0]}, or set EVALSUITE_MIRROR to a folder that holds them"
    )
