"""How fast a result renders: frames per second with nothing but the rendering in the clock."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from evalsuite.core.clock import Clock
from evalsuite.core.types import Cameras, Render, Renderable

WARM_FRAMES = 3
TIMED_FRAMES = 20
"""Frames rendered before the clock counts, and frames it counts: the same for every result."""


@torch.no_grad()
def frames_per_second(
    result: Renderable, cameras: Cameras, background: Float[Tensor, "3"], clock: Clock | None = None
) -> float:
    """Render one camera after the other, in turns over all of them; 1 / median seconds of a frame.

    The median, because a frame that the machine interrupts says nothing about the result. The device is waited for
    after every frame: this is the rate of a viewer that shows each frame before it asks for the next.

    Args:
        cameras: held-out cameras at the protocol's resolution, at least one.
        clock: for tests; one of its own by default.
    """
    clock = clock or Clock()
    seconds = [
        clock.time(partial(result.render, cameras[[index % len(cameras)]], background))
        for index in range(WARM_FRAMES + TIMED_FRAMES)
    ]
    return 1 / statistics.median(seconds[WARM_FRAMES:])


@dataclass(frozen=True)
class TimedRenderable:
    """A result whose rendering is charged to ``render``, also within another phase.

    Attributes:
        result: what is rendered.
        clock: what is charged.
    """

    result: Renderable
    clock: Clock

    def render(self, cameras: Cameras, background: Float[Tensor, "3"]) -> Render:
        """`Renderable.render`, timed."""
        with self.clock.interlude("render"):
            return self.result.render(cameras, background)

    @property
    def primitives(self) -> int:
        """Those of the result."""
        return self.result.primitives

    @property
    def bytes(self) -> int:
        """Those of the result."""
        return self.result.bytes
