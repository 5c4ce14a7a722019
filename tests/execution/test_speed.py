"""Frames per second count rendering, warm, and nothing else."""

from __future__ import annotations

import statistics

import pytest
import torch

from evalsuite.core.clock import Clock
from evalsuite.core.conventions import look_at, orbit_position
from evalsuite.core.types import Cameras, Render, Renderable
from evalsuite.execution.speed import TIMED_FRAMES, WARM_FRAMES, TimedRenderable, frames_per_second

WHITE = torch.ones(3)


def cameras(count: int) -> Cameras:
    poses = torch.stack([look_at(orbit_position(30.0 * i, 20.0, 1.5)) for i in range(count)])
    return Cameras(poses, torch.full((count, 2), 8.0), torch.full((count, 2), 4.0), 8, 6)


class Slow:
    """Renders in seconds that a list tells, on a clock of its own, and remembers who asked."""

    primitives, bytes = 7, 11

    def __init__(self, seconds: list[float]) -> None:
        self.seconds, self.now = seconds, 0.0
        self.asked: list[torch.Tensor] = []

    def render(self, cameras: Cameras, background: torch.Tensor) -> Render:
        assert len(cameras) == 1
        self.now += self.seconds[len(self.asked) % len(self.seconds)]
        self.asked.append(cameras.positions[0])
        size = (1, cameras.height, cameras.width)
        return Render(background.expand(*size, 3), torch.zeros(size), torch.zeros(size))

    def tell(self) -> float:
        return self.now


def test_the_median_frame_counts_and_cold_frames_do_not() -> None:
    seconds = [1000.0] * WARM_FRAMES + [0.25] * (TIMED_FRAMES - 3) + [90.0, 0.01, 0.02]
    slow = Slow(seconds)
    assert frames_per_second(slow, cameras(5), WHITE, Clock(slow.tell)) == pytest.approx(4.0)
    assert statistics.fmean(seconds) > 100, "a mean would say something else"
    assert len(slow.asked) == WARM_FRAMES + TIMED_FRAMES


def test_every_camera_takes_its_turn() -> None:
    slow = Slow([1.0])
    views = cameras(5)
    frames_per_second(slow, views, WHITE, Clock(slow.tell))
    for index, position in enumerate(slow.asked):
        assert torch.equal(position, views.positions[index % 5])


def test_a_device_that_works_behind_the_hosts_back_is_waited_for() -> None:
    slow, queue = Slow([0.5]), [0.0]

    def wait() -> None:
        queue[0], slow.now = slow.now, max(queue[0], slow.now)

    fake = Clock(lambda: queue[0], wait)
    assert frames_per_second(slow, cameras(1), WHITE, fake) == pytest.approx(2.0)


def test_a_timed_result_is_the_result() -> None:
    slow = Slow([2.0])
    clock = Clock(slow.tell)
    timed = TimedRenderable(slow, clock)
    assert isinstance(timed, Renderable)
    assert (timed.primitives, timed.bytes) == (7, 11)
    with clock.phase("evaluate"):
        assert timed.render(cameras(1), WHITE).rgb.shape == (1, 6, 8, 3)
        slow.now += 0.5
    timed.render(cameras(1), WHITE)
    assert clock.snapshot() == {"render": 4.0, "evaluate": 0.5}
