"""The phases of a case's time, and which of them an asset costs. Free of torch, so gates and report can read it."""

from __future__ import annotations

from typing import Literal, get_args

Phase = Literal["load", "prepare", "sfm", "compile", "forward", "optimise", "render", "evaluate"]
"""Where the time of a case goes:

``load``      weights from disk to device (the process that first needs a network pays; later cases show 0)
``prepare``   input views into what the network reads
``sfm``       structure from motion, up to the initial Gaussians
``compile``   kernels compiled and warmed (paid once per process, as ``load``)
``forward``   the network's pass, or a floor's construction
``optimise``  photometric steps with density control, set-up included
``render``    the held-out views of the protocol
``evaluate``  metrics, without those renders
"""

PHASES: tuple[Phase, ...] = get_args(Phase)

COST_PHASES: tuple[Phase, ...] = ("prepare", "sfm", "forward", "optimise")
"""What one more asset costs. Weights are loaded and kernels compiled once for any number of assets; rendering and
metrics belong to the study, not to the asset."""
