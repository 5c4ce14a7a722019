"""What a run lacks, found before it starts."""

from __future__ import annotations

import torch

from evalsuite.core.errors import MissingDataError, OptionError
from evalsuite.core.mirror import places
from evalsuite.execution.selection import Selection
from evalsuite.execution.trajectory import NETWORK_ARMS
from evalsuite.models.lgm.weights import weights_path
from evalsuite.scenes.catalogue import PREPARED, SCENES


def require_ready(selection: Selection, device: str) -> None:
    """Refuse a run that could not give a single number; a scene that lacks its data among others is ``not-run``.

    Raises:
        OptionError: the device is not there.
        MissingDataError: no scene has its data, or the network has no weights.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("device cuda was asked for, torch sees none: run on a GPU machine, or on the CPU")
    lacks = [_lack(scene, selection) for scene in dict.fromkeys(t.scene for t in selection.trajectories)]
    if lacks and all(lacks):
        raise MissingDataError(f"none of the {len(lacks)} scenes is at hand; the first: {lacks[0]}")
    if any(t.arm in NETWORK_ARMS for t in selection.trajectories):
        weights_path(selection.suite.model, selection.suite.weights)


def _lack(scene: str, selection: Selection) -> str:
    """What a scene lacks; empty if it can be loaded."""
    entry, protocol = SCENES[scene], selection.suite.of(scene).protocol
    try:
        entry.files()
    except MissingDataError as error:
        prepared = places(PREPARED / protocol.name / scene)
        return "" if any(folder.is_dir() for folder in prepared) else str(error)
    return ""
