"""One clock for all arms: wall-clock seconds by named phase, synchronised with the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Phase = Literal["prepare", "sfm", "compile", "forward", "optimise", "render"]


class Clock:
    """Accumulates seconds per phase. Time outside any phase (evaluation, say) is in nobody's account."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Charge the enclosed work to ``name``."""
        _synchronise()
        start = time.perf_counter()
        try:
            yield
        finally:
            _synchronise()
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def snapshot(self) -> dict[str, float]:
        """Seconds by phase so far."""
        return dict(self._seconds)


def _synchronise() -> None:
    """Wait for the device: kernels run behind the host's back."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
