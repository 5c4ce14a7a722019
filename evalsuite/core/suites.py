"""A suite: which scenes a study runs, under which protocol, recipe and network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from evalsuite.core.cases import Trajectory, matrix
from evalsuite.core.protocol import PROTOCOLS, Protocol


@dataclass(frozen=True)
class Suite:
    """A study, by names only: listing its cases loads neither data nor torch.

    Attributes:
        scenes: scene ids.
        model: network of arms A and B.
        weights: file of the network's weights; None looks them up by the network's name.
        recipe: optimisation shared by arms B and C.
        floors: trivial arms that can run on these scenes.
    """

    name: str
    scenes: tuple[str, ...]
    protocol_name: str = "object-128"
    model: str = "lgm-mini"
    weights: Path | None = None
    recipe: str = "3dgs"
    floors: tuple[str, ...] = ("mean-colour", "visual-hull")

    @property
    def protocol(self) -> Protocol:
        """The frozen protocol of the study."""
        return PROTOCOLS[self.protocol_name]

    def with_network(self, model: str | None, weights: Path | None) -> Suite:
        """The same study of another network, under a name of its own: its records and goldens lie apart.

        Args:
            model: registered network; None keeps the suite's.
            weights: file of its weights; None looks them up.
        """
        own = model in (None, self.model)
        name = self.name if own else f"{self.name}.{model}"
        return replace(self, name=name, model=model or self.model, weights=weights)

    def trajectories(self) -> tuple[Trajectory, ...]:
        """Everything the study expects, in order."""
        return matrix(self.scenes, self.protocol, self.floors)
