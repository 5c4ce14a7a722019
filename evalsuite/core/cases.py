"""Trajectories, cases and their ids: the names of tests, records and goldens.

A case id is ``<scene>/<arm>[-<budget>-n<steps>][-s<seed>]``: ``gso.dino-3/b-capture-n200``, ``smoke.chair/a``.
Only ``[a-z0-9.-]`` and one ``/``, so it is a file name, a test id and a DVC key without escaping.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from evalsuite.core.errors import OptionError
from evalsuite.core.protocol import Protocol

Budget = Literal["inputs", "capture"]
Stratum = Literal["thin", "blocky", "organic", "unbounded"]

BUDGETS: tuple[Budget, ...] = ("capture", "inputs")
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Trajectory:
    """One run of one arm: its checkpoints are the cases.

    Attributes:
        arm: registered arm name (``a``, ``b``, ``c``, ``mean-colour``, ``visual-hull``).
        budget: which views supervise; None for arms that optimise nothing.
        steps: checkpoints of N; (0,) for arms that take no steps.
    """

    scene: str
    arm: str
    budget: Budget | None
    steps: tuple[int, ...]
    seed: int = 0

    @property
    def id(self) -> str:
        """Id without the step: ``gso.dino-3/b-capture``."""
        parts = [self.arm, *([self.budget] if self.budget else []), *([f"s{self.seed}"] if self.seed else [])]
        return f"{self.scene}/{'-'.join(parts)}"

    @property
    def stream(self) -> int:
        """Start of every random generator of this run, a function of scene and seed.

        Scenes of one seed draw independently, so that the error of their mean shrinks with their number. Arms and
        budgets of a scene and seed share their draws, which makes them pairs.
        """
        return zlib.crc32(f"{self.scene} {self.seed}".encode())

    @property
    def cases(self) -> tuple[Case, ...]:
        """One case per checkpoint, in the order of the steps."""
        return tuple(Case(self, n) for n in self.steps)


@dataclass(frozen=True)
class Case:
    """One checkpoint of a trajectory: the unit of test, record and golden."""

    trajectory: Trajectory
    steps: int

    @property
    def id(self) -> str:
        """The case id (see the module's docstring)."""
        t = self.trajectory
        parts = [t.arm]
        if t.budget:
            parts += [t.budget, f"n{self.steps}"]
        if t.seed:
            parts.append(f"s{t.seed}")
        case_id = f"{t.scene}/{'-'.join(parts)}"
        if not ID_PATTERN.fullmatch(case_id):
            raise OptionError(f"case id {case_id!r} has characters outside [a-z0-9.-]; rename the scene or arm")
        return case_id

    def __str__(self) -> str:
        return self.id


def matrix(scenes: Iterable[str], protocol: Protocol, floors: Iterable[str]) -> tuple[Trajectory, ...]:
    """Every trajectory of a suite: floors, A, then B and C under both budgets, for every scene and seed."""
    return tuple(
        trajectory
        for scene in scenes
        for seed in protocol.seeds
        for trajectory in (
            *(Trajectory(scene, floor, None, (0,), seed) for floor in floors),
            Trajectory(scene, "a", None, (0,), seed),
            *(Trajectory(scene, "b", budget, protocol.steps_b, seed) for budget in BUDGETS),
            *(Trajectory(scene, "c", budget, protocol.steps_c, seed) for budget in BUDGETS),
        )
    )
