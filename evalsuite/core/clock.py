"""One clock for all arms: synchronised wall-clock seconds by named phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from evalsuite.core.errors import PhaseError
from evalsuite.core.phases import PHASES, Phase


def synchronise() -> None:
    """Wait for the device: kernels run behind the host's back."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Clock:
    """Accumulates seconds per phase. At most one phase runs; time outside any phase is in nobody's account.

    Args:
        now: monotonic seconds.
        wait: waits for queued work of the device; called before every reading of the time.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, wait: Callable[[], None] = synchronise) -> None:
        self._now, self._wait = now, wait
        self._seconds: dict[str, float] = {}
        self._running: Phase | None = None
        self._since = 0.0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Charge the enclosed work to ``name``, also if it fails.

        Raises:
            PhaseError: no phase has this name, or one is running already: its seconds would count twice.
        """
        if self._running is not None:
            raise PhaseError(
                f"phase {name!r} begun within {self._running!r}, expected none running: end that one first, or use "
                "`interlude`, which stops it"
            )
        with self.interlude(name):
            yield

    @contextmanager
    def interlude(self, name: Phase) -> Iterator[None]:
        """Charge the enclosed work to ``name``; a phase that is running stands still meanwhile.

        Raises:
            PhaseError: no phase has this name.
        """
        if name not in PHASES:
            raise PhaseError(f"{name!r} is no phase, expected one of {', '.join(PHASES)}")
        outer = self._running
        self._turn_to(name)
        try:
            yield
        finally:
            self._turn_to(outer)

    def charge(self, name: Phase, seconds: float) -> None:
        """Add seconds that were measured when and where the work was done: its result was kept.

        Raises:
            PhaseError: no phase has this name.
        """
        if name not in PHASES:
            raise PhaseError(f"{name!r} is no phase, expected one of {', '.join(PHASES)}")
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def time(self, work: Callable[[], object]) -> float:
        """Seconds of one call, device included; charged to no phase."""
        self._wait()
        start = self._now()
        work()
        self._wait()
        return self._now() - start

    def snapshot(self) -> dict[str, float]:
        """Seconds by phase so far, without the phase that is still running."""
        return dict(self._seconds)

    def _turn_to(self, name: Phase | None) -> None:
        """End what runs and begin ``name``."""
        self._wait()
        now = self._now()
        if self._running is not None:
            self._seconds[self._running] = self._seconds.get(self._running, 0.0) + now - self._since
        self._running, self._since = name, now
