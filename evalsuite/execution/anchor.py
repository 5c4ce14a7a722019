"""A fixed piece of arithmetic, timed beside the work: it slows down with the machine and never with this project.

Seconds of a case divided by seconds of the anchor, both of the same minute, compare across hours and neighbours. The
parts are those a photometric step consists of, in torch's own operators: dense arithmetic, a sort, many small calls.
Wide memory traffic is left out: under contention it swings three times as much as the steps do (docs/design/timing.md).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from evalsuite.core.clock import Clock

REPEATS = 3
"""Runs per sample."""

_MATRIX, _PRODUCTS = {"cpu": 192, "cuda": 2048}, 12
_SORTED = {"cpu": 1 << 15, "cuda": 1 << 20}
_SMALL, _CALLS = 64, 500


class Anchor:
    """The workload on one device, and what it took so far. About 10 ms a run on a core of 2024.

    Args:
        clock: for tests; one of its own by default.
        cpu: seconds of processor time of this process.
    """

    def __init__(self, device: str, clock: Clock | None = None, cpu: Callable[[], float] = time.process_time) -> None:
        self._clock, self._cpu = clock or Clock(), cpu
        self._seconds: list[float] = []
        self._cpu_seconds = 0.0
        kind = torch.device(device).type
        draw = torch.Generator().manual_seed(0)
        side = _MATRIX[kind]
        self._matrix = (torch.randn(side, side, generator=draw) / side**0.5).to(device)
        self._numbers = torch.randn(_SORTED[kind], generator=draw).to(device)
        self._small = torch.randn(_SMALL, generator=draw).to(device)
        self._work()

    def sample(self) -> None:
        """Run it `REPEATS` times, now."""
        before = self._cpu()
        self._seconds += [self._clock.time(self._work) for _ in range(REPEATS)]
        self._cpu_seconds += self._cpu() - before

    @property
    def seconds(self) -> float:
        """Median seconds of a run, over all samples."""
        return statistics.median(self._seconds)

    @property
    def share(self) -> float:
        """Processor seconds per second over all samples: 1 or more, unless others had the machine meanwhile.

        The anchor never waits, whatever the code under test does, so a regression cannot pass for a busy machine.
        """
        return self._cpu_seconds / sum(self._seconds)

    @torch.no_grad()
    def _work(self) -> None:
        product = self._matrix
        for _ in range(_PRODUCTS):
            product = torch.tanh(product @ self._matrix)
        self._numbers.sort()
        small = self._small
        for _ in range(_CALLS):
            small = small * 0.999 + 0.001
