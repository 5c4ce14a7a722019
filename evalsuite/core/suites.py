"""A suite: which scenes a study runs, under which protocol, recipe and network."""

from __future__ import annotations

from dataclasses import dataclass

from evalsuite.core.cases import Trajectory, matrix
from evalsuite.core.protocol import PROTOCOLS, Protocol


@dataclass(frozen=True)
class Suite:
    """A study, by names only: listing its cases loads neither data nor torch.

    Attributes:
        scenes: scene ids.
        model: network of arms A and B.
        recipe: optimisation shared by arms B and C.
        floors: trivial arms that can run on these scenes.
    """

    name: str
    scenes: tuple[str, ...]
    protocol_name: str = "object-128"
    model: str = "lgm-mini"
    recipe: str = "3dgs"
    floors: tuple[str, ...] = ("mean-colour", "visual-hull")

    @property
    def protocol(self) -> Protocol:
        """The frozen protocol of the study."""
        return PROTOCOLS[self.protocol_name]

    def trajectories(self) -> tuple[Trajectory, ...]:
        """Everything the study expects, in order."""
        return matrix(self.scenes, self.protocol, self.floors)
