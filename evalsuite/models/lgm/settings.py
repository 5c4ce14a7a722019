"""What a training run is asked to do. Needs no torch: a command line is refused before that is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalsuite.core.errors import MissingDataError, OptionError


@dataclass(frozen=True)
class TrainSettings:
    """All that shapes a run, but the data.

    Attributes:
        model: an entry of `TRAINABLE`.
        steps: length of the run and of its learning-rate schedule.
        batch: samples per step, over all processes.
        learning_rate: peak; linear warm-up over ``warm_up`` steps (a tenth of a short run), then cosine to 0.
        alpha_weight: weight of 1 - IoU of soft silhouettes, beside the squared error in colour.
        ssim_weight: weight of 1 - SSIM.
        surface_weight: weight of the mean distance between splats and the surface their pixels see, LGM units.
        ema: decay of the averaged weights, which are the result.
        checkpoint_every: steps between checkpoints, each of which is also scored on the held-out objects.
        device: ``cpu`` or ``cuda``; both compute the network in bfloat16 and the renders in float32.
    """

    model: str = "lgm-mini"
    steps: int = 4000
    batch: int = 4
    learning_rate: float = 2e-3
    warm_up: int = 50
    weight_decay: float = 0.05
    clip: float = 1.0
    alpha_weight: float = 0.5
    ssim_weight: float = 0.2
    surface_weight: float = 0.5
    ema: float = 0.995
    checkpoint_every: int = 250
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.checkpoint_every) < 1:
            raise OptionError(
                f"{self.steps} steps of {self.batch} samples, a checkpoint every {self.checkpoint_every}; "
                "expected at least 1 of each"
            )


@dataclass(frozen=True)
class TrainingData:
    """What to train on.

    Attributes:
        meshes: folder of ``*.glb`` scans.
        cache: folder of their ray-traced views; filled where it lacks some.
        procedural: how many procedural objects to train on beside the scans; the held-out ones come on top.
    """

    meshes: Path
    cache: Path
    procedural: int


def training_scans(meshes: Path) -> list[Path]:
    """The scans in a folder, by name.

    Raises:
        MissingDataError: there are none.
    """
    scans = sorted(meshes.glob("*.glb"))
    if not scans:
        raise MissingDataError(f"no *.glb in {meshes}; expected the training scans: point --data at train_meshes/")
    return scans
