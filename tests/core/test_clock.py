"""The clock charges what lies inside a phase, and nothing else."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalsuite.core.clock import Clock
from evalsuite.core.errors import PhaseError
from evalsuite.core.phases import COST_PHASES, PHASES, Phase


class FakeTime:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeDevice:
    """Work is queued at no cost to the host and takes its time when somebody waits for it."""

    def __init__(self, host: FakeTime) -> None:
        self.host, self.queued = host, 0.0

    def wait(self) -> None:
        self.host.now += self.queued
        self.queued = 0.0


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


@pytest.fixture
def clock(fake: FakeTime) -> Clock:
    return Clock(fake)


def test_phases_accumulate_and_time_between_them_is_free(clock: Clock, fake: FakeTime) -> None:
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


@given(st.lists(st.tuples(st.sampled_from(PHASES), st.integers(0, 100), st.integers(0, 100))))
def test_all_time_is_in_one_phase_or_between_phases(stretches: list[tuple[Phase, int, int]]) -> None:
    fake = FakeTime()
    clock, began = Clock(fake), fake.now
    for name, inside, between in stretches:
        with clock.phase(name):
            fake.now += inside
        fake.now += between
    outside = sum(between for *_, between in stretches)
    assert sum(clock.snapshot().values()) + outside == fake.now - began


def test_seconds_measured_elsewhere_are_added(clock: Clock, fake: FakeTime) -> None:
    clock.charge("sfm", 9.5)
    with clock.phase("sfm"):
        fake.now += 1
        clock.charge("forward", 2.0)
    assert clock.snapshot() == {"sfm": 10.5, "forward": 2.0}


@pytest.mark.usefixtures("unchecked")
def test_seconds_of_an_unknown_phase_are_refused(clock: Clock) -> None:
    with pytest.raises(PhaseError, match="'lunch' is no phase"):
        clock.charge("lunch", 1.0)  # type: ignore[arg-type]


def test_a_snapshot_is_a_copy(clock: Clock, fake: FakeTime) -> None:
    with clock.phase("sfm"):
        fake.now += 1
    early = clock.snapshot()
    with clock.phase("sfm"):
        fake.now += 1
    assert early == {"sfm": 1.0}
    early["sfm"] = 9.0
    assert clock.snapshot() == {"sfm": 2.0}


def test_a_phase_that_fails_is_charged_until_it_fails_and_ends(clock: Clock, fake: FakeTime) -> None:
    def broken() -> None:
        with clock.phase("render"):
            fake.now += 4
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        broken()
    assert clock.snapshot() == {"render": 4.0}
    fake.now += 50
    with clock.phase("evaluate"):
        fake.now += 1
    assert clock.snapshot() == {"render": 4.0, "evaluate": 1.0}


@pytest.mark.parametrize("inner", ["forward", "render"])
def test_a_phase_within_a_phase_is_refused(clock: Clock, fake: FakeTime, inner: Phase) -> None:
    def nested() -> None:
        with clock.phase("forward"):
            fake.now += 1
            with clock.phase(inner):
                fake.now += 100

    with pytest.raises(PhaseError, match=f"phase '{inner}' begun within 'forward'"):
        nested()
    assert clock.snapshot() == {"forward": 1.0}, "what was measured is kept"


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_phase_is_refused(clock: Clock) -> None:
    with pytest.raises(PhaseError, match="'training' is no phase, expected one of load, prepare, sfm"):
        clock.phase("training").__enter__()  # type: ignore[arg-type]


def test_an_interlude_stops_the_phase_around_it(clock: Clock, fake: FakeTime) -> None:
    with clock.phase("evaluate"):
        fake.now += 1
        with clock.interlude("render"):
            fake.now += 10
        fake.now += 2
    with clock.interlude("render"):
        fake.now += 20
    assert clock.snapshot() == {"evaluate": 3.0, "render": 30.0}


def test_an_interlude_that_fails_gives_back_the_phase_around_it(clock: Clock, fake: FakeTime) -> None:
    def broken() -> None:
        with clock.interlude("render"):
            fake.now += 10
            raise RuntimeError("broken")

    with clock.phase("evaluate"):
        with pytest.raises(RuntimeError, match="broken"):
            broken()
        fake.now += 2
    assert clock.snapshot() == {"evaluate": 2.0, "render": 10.0}


def test_work_of_the_device_belongs_to_the_phase_that_queued_it(fake: FakeTime) -> None:
    """The mutant this must catch is a clock that reads the time without waiting: it would charge 0 s."""
    device = FakeDevice(fake)
    clock = Clock(fake, device.wait)
    device.queued = 5.0
    with clock.phase("forward"):
        device.queued += 2.0
    with clock.phase("evaluate"):
        device.queued += 0.25
        with clock.interlude("render"):
            device.queued += 3.0
    assert clock.snapshot() == {"forward": 2.0, "evaluate": 0.25, "render": 3.0}
    device.queued = 5.0

    def work() -> None:
        device.queued += 0.5

    assert clock.time(work) == 0.5
    assert fake.now == 100.0 + 2 * 5.0 + 5.25 + 0.5


def test_an_unsynchronised_clock_would_be_caught(fake: FakeTime) -> None:
    """The test above has teeth: without the waiting it fails."""
    device = FakeDevice(fake)
    mutant = Clock(fake, lambda: None)
    with mutant.phase("forward"):
        device.queued += 2.0
    assert mutant.snapshot() == {"forward": 0.0}


def test_the_default_clock_measures_work_of_known_length() -> None:
    """A loop of 50 ms of this thread's own CPU time takes at least that; how much more is up to others."""
    clock = Clock()

    def work() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    with clock.phase("optimise"):
        work()
    assert clock.snapshot()["optimise"] >= 0.049
    assert clock.time(work) >= 0.049


def test_the_default_clock_waits_for_a_device_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("device"))
    with Clock().phase("forward"):
        assert waits == ["device"]
    assert waits == ["device", "device"]


@pytest.mark.gpu
def test_a_kernel_launched_in_a_phase_is_waited_for() -> None:
    """Sums over products of matrices: the launch returns at once, the work takes as long as device events say."""
    x = torch.rand(4096, 4096, device="cuda")

    def work() -> None:
        y = x
        for _ in range(20):
            y = y @ x
            y = y / y.norm()

    work()
    clock = Clock()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with clock.phase("forward"):
        begin.record()
        work()
        end.record()
    events = begin.elapsed_time(end) / 1e3
    assert events > 0.005
    assert clock.snapshot()["forward"] >= events
    assert clock.time(work) > 0.5 * events


def test_what_an_asset_costs_is_a_part_of_the_phases() -> None:
    assert set(COST_PHASES) < set(PHASES)
    assert len(PHASES) == 8
