"""The clock charges what lies inside a phase, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from evalsuite.core import clock as clock_module
from evalsuite.core.clock import Clock


class FakeTime:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    time = FakeTime()
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(perf_counter=time.perf_counter))
    return time


def test_phases_accumulate_and_time_between_them_is_free(fake: FakeTime) -> None:
    clock = Clock()
    assert clock.snapshot() == {}
    fake.now += 7
    with clock.phase("forward"):
        fake.now += 2
    fake.now += 1000
    with clock.phase("optimise"):
        fake.now += 3
    with clock.phase("forward"):
        fake.now += 0.5
    assert clock.snapshot() == {"forward": 2.5, "optimise": 3.0}


def test_a_snapshot_is_a_copy(fake: FakeTime) -> None:
    clock = Clock()
    with clock.phase("sfm"):
        fake.now += 1
    early = clock.snapshot()
    with clock.phase("sfm"):
        fake.now += 1
    assert early == {"sfm": 1.0}
    early["sfm"] = 9.0
    assert clock.snapshot() == {"sfm": 2.0}


def test_a_phase_that_fails_is_charged_until_it_fails(fake: FakeTime) -> None:
    clock = Clock()

    def broken() -> None:
        with clock.phase("render"):
            fake.now += 4
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        broken()
    assert clock.snapshot() == {"render": 4.0}


def test_the_device_is_waited_for_at_both_ends(fake: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work queued before a phase is not charged to it; work queued inside is."""
    queued = [5.0]

    def synchronise() -> None:
        fake.now += queued.pop() if queued else 0.0

    monkeypatch.setattr(clock_module, "_synchronise", synchronise)
    clock = Clock()
    with clock.phase("forward"):
        queued.append(2.0)
    assert clock.snapshot() == {"forward": 2.0}
