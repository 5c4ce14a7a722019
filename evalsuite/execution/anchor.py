"""A fixed piece of arithmetic, timed beside the work: it slows down with the machine and never with this project.

Seconds of a case divided by seconds of the anchor, both of the same minute, compare across hours and neighbours. The
parts are those a photometric step consists of, in torch's own operators: dense arithmetic, a sort, many small calls.
Wide memory traffic is left out: under contention it swings three times as much as the steps do (docs/design/timing.md).
"""

from __future__ import annotations

import statistics

import numpy as np
import torch

from evalsuite.core.clock import Clock

REPEATS = 3
"""Runs per sample."""

_MATRIX, _PRODUCTS = {"cpu": 192, "cuda": 2048}, 6
_SORTED = {"cpu": 1 << 15, "cuda": 1 << 20}
_SMALL, _CALLS = 64, 250


class Anchor:
    """The workload on one device, and what it took so far. About 15 ms a run on a core of 2024.

    Args:
        clock: for tests; one of its own by default.
    """

    def __init__(self, device: str, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._seconds: list[float] = []
        kind = torch.device(device).type
        draw = torch.Generator().manual_seed(0)
        side = _MATRIX[kind]
        self._matrix = (torch.randn(side, side, generator=draw) / side**0.5).to(device)
        self._numbers = torch.randn(_SORTED[kind], generator=draw).to(device)
        self._small = torch.randn(_SMALL, generator=draw).to(device)
        self._work()

    def sample(self) -> None:
        """Run it `REPEATS` times, now."""
        self._seconds += [self._clock.time(self._work) for _ in range(REPEATS)]

    @property
    def seconds(self) -> float:
        """Median seconds of a run, over all samples."""
        return statistics.median(self._seconds)

    @property
    def spread(self) -> float:
        """Interquartile range over all samples, relative to the median: how unquiet the machine was."""
        low, high = np.quantile(self._seconds, [0.25, 0.75])
        return float(high - low) / self.seconds

    @torch.no_grad()
    def _work(self) -> None:
        product = self._matrix
        for _ in range(_PRODUCTS):
            product = torch.tanh(product @ self._matrix)
        self._numbers.sort()
        small = self._small
        for _ in range(_CALLS):
            small = small * 0.999 + 0.001
