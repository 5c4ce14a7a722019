"""A suite: which scenes a study runs, under which protocol, recipe and network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from evalsuite.core.cases import Budget, Trajectory, matrix
from evalsuite.core.errors import OptionError
from evalsuite.core.protocol import PROTOCOLS, Protocol


@dataclass(frozen=True)
class Part:
    """Scenes of a suite that need a protocol of their own: their numbers are never pooled with the other scenes'.

    Attributes:
        floors: trivial arms that can run on these scenes.
    """

    scenes: tuple[str, ...]
    protocol_name: str
    floors: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """A study, by names only: listing its cases loads neither data nor torch.

    Attributes:
        scenes: scene ids, those of the parts among them.
        protocol_name, floors: of every scene that no part names.
        model: network of arms A and B.
        weights: file of the network's weights; None looks them up by the network's name.
        recipe: optimisation shared by arms B and C.
        parts: scenes under another protocol.
        settings: arm and budget of every trajectory; empty: the whole matrix.
    """

    name: str
    scenes: tuple[str, ...]
    protocol_name: str = "object-128"
    model: str = "lgm-mini"
    weights: Path | None = None
    recipe: str = "3dgs"
    floors: tuple[str, ...] = ("mean-colour", "visual-hull")
    parts: tuple[Part, ...] = ()
    settings: tuple[tuple[str, Budget], ...] = ()

    @property
    def protocol(self) -> Protocol:
        """The frozen protocol of the study.

        Raises:
            OptionError: its scenes have more than one: ask `of`.
        """
        if self.parts:
            names = ", ".join([self.protocol_name, *(part.protocol_name for part in self.parts)])
            raise OptionError(f"suite {self.name!r} has protocols {names}, expected one: name a scene")
        return PROTOCOLS[self.protocol_name]

    def of(self, scene: str) -> Suite:
        """The same study, narrowed to the scenes that share this one's protocol."""
        own = next((part for part in self.parts if scene in part.scenes), None)
        if own is not None:
            return replace(self, scenes=own.scenes, protocol_name=own.protocol_name, floors=own.floors, parts=())
        if not self.parts:
            return self
        elsewhere = {scene for part in self.parts for scene in part.scenes}
        return replace(self, scenes=tuple(name for name in self.scenes if name not in elsewhere), parts=())

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
        narrowed = ((scene, self.of(scene)) for scene in self.scenes)
        return tuple(
            t
            for scene, own in narrowed
            for t in matrix((scene,), own.protocol, own.floors)
            if not self.settings or (t.arm, t.budget) in self.settings
        )
