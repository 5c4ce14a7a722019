"""What an arm is: evidence in, renderable checkpoints out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from evalsuite.core.clock import Clock
from evalsuite.core.types import Evidence, Renderable
from evalsuite.splats.recipes import Recipe


@dataclass(frozen=True)
class ArmSettings:
    """What a suite fixes for every arm.

    Attributes:
        model, weights: name of the network of arms A and B, and the file to use instead of the one looked up.
        recipe: optimisation shared by arms B and C.
        seed: start of every random generator (`evalsuite.core.cases.Trajectory.stream`).
        steps: checkpoints of N; (0,) for arms that take no steps.
        structures: folder where structures from motion are kept; None: each is made anew.
    """

    model: str
    recipe: Recipe
    steps: Sequence[int]
    seed: int
    weights: Path | None = None
    structures: Path | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The state of a trajectory after ``steps`` photometric steps.

    Attributes:
        seconds: by phase, cumulative up to here.
        notes: what a reader of the record must know, for instance a declared fallback.
    """

    steps: int
    result: Renderable
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()


@runtime_checkable
class Arm(Protocol):
    """A way to reconstruct. A generator: it does not run while its consumer evaluates a checkpoint."""

    def __call__(self, evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
        """Yield one checkpoint per entry of ``settings.steps``, in increasing order."""
        ...
