"""Which part of a suite to run: names checked before anything starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalsuite.arms.catalogue import ARMS
from evalsuite.core.cases import Case, Trajectory
from evalsuite.core.errors import OptionError, UnknownNameError
from evalsuite.core.suites import Suite
from evalsuite.models.lgm.config import CONFIGS
from evalsuite.scenes.catalogue import SCENES, SUITES


@dataclass(frozen=True)
class Selection:
    """A suite, or a part of it.

    Attributes:
        trajectories: what is to run.
        whole: whether that is all the suite expects; claims are only judged then.
    """

    suite: Suite
    trajectories: tuple[Trajectory, ...]
    whole: bool

    @property
    def cases(self) -> tuple[Case, ...]:
        """Every case of the selection, in order."""
        return tuple(case for trajectory in self.trajectories for case in trajectory.cases)

    def narrowed(self, cases: Collection[str]) -> Selection:
        """The part that has these cases: their trajectories, with no other checkpoint."""
        kept = tuple(
            replace(t, steps=steps)
            for t in self.trajectories
            if (steps := tuple(case.steps for case in t.cases if case.id in cases))
        )
        return replace(self, trajectories=kept, whole=self.whole and kept == self.trajectories)

    def under(self, seeds: Sequence[int]) -> Selection:
        """Every trajectory under each of these seeds, one after another: they share a scene that has been loaded."""
        repeated = tuple(replace(t, seed=seed) for t in self.trajectories for seed in dict.fromkeys(seeds))
        return replace(self, trajectories=repeated, whole=self.whole and repeated == self.trajectories)


def find_suite(name: str, model: str | None = None, weights: Path | None = None) -> Suite:
    """A registered suite, with another network or another file of weights if asked for.

    Raises:
        UnknownNameError: no such suite or network.
    """
    if model is not None:
        CONFIGS.require(model)
    return SUITES[name].with_network(model, weights)


def select(
    suite: str | Suite, scenes: Sequence[str] = (), arms: Sequence[str] = (), steps: Sequence[int] = (), seed: int = 0
) -> Selection:
    """Narrow a suite down to some scenes, arms and checkpoints; empty sequences mean all.

    Raises:
        UnknownNameError: a suite, scene or arm that does not exist.
        OptionError: a scene outside the suite, or a number of steps that is not on the ladder.
    """
    chosen = SUITES[suite] if isinstance(suite, str) else suite
    for scene in scenes:
        SCENES.require(scene)
        if scene not in chosen.scenes:
            raise UnknownNameError(f"scene of suite {chosen.name!r}", scene, chosen.scenes)
    for arm in arms:
        ARMS.require(arm)
    expected = chosen.trajectories()
    ladder = sorted({n for t in expected if t.budget for n in t.steps})
    odd = [n for n in steps if n not in ladder]
    if odd:
        raise OptionError(
            f"N={odd[0]} is not on the ladder of suite {chosen.name!r}; choose from {', '.join(map(str, ladder))}"
        )
    picked = [
        replace(t, steps=kept, seed=seed)
        for t in expected
        if (not scenes or t.scene in scenes)
        and (not arms or t.arm in arms)
        and (kept := tuple(n for n in t.steps if not steps or n in steps))
    ]
    if not picked:
        raise OptionError(f"nothing of suite {chosen.name!r} is left by these scenes, arms and steps; choose more")
    return Selection(chosen, tuple(picked), whole=tuple(picked) == expected)
