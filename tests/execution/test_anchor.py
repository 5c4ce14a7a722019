"""The anchor is arithmetic of a fixed size that no part of the project can speed up or slow down."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from evalsuite.core.clock import Clock
from evalsuite.execution import anchor as subject
from evalsuite.execution.anchor import REPEATS, Anchor


class Ticks:
    """A time source whose n-th interval lasts as long as a list says."""

    def __init__(self, intervals: list[float]) -> None:
        self.intervals, self.now, self.calls = intervals, 0.0, 0

    def __call__(self) -> float:
        if self.calls % 2:
            self.now += self.intervals[self.calls // 2]
        self.calls += 1
        return self.now


def test_seconds_are_the_median_of_all_samples() -> None:
    anchor = Anchor("cpu", Clock(Ticks([0.25, 0.25, 0.5, 0.75, 1.0, 9.0])))
    anchor.sample()
    assert (REPEATS, anchor.seconds) == (3, 0.25)
    anchor.sample()
    assert anchor.seconds == 0.625


def test_the_share_of_the_processor_by_hand() -> None:
    """3 runs of 1 s and 3 of 3 s; the process had the processor for 2 s, then for 1."""
    told = iter([10.0, 12.0, 100.0, 101.0])
    anchor = Anchor("cpu", Clock(Ticks([1.0] * 3 + [3.0] * 3)), cpu=lambda: next(told))
    anchor.sample()
    assert anchor.share == pytest.approx(2 / 3)
    anchor.sample()
    assert anchor.share == pytest.approx(3 / 12)


def test_it_does_real_work() -> None:
    anchor = Anchor("cpu")
    anchor.sample()
    assert anchor.seconds > 1e-4


def test_it_uses_nothing_of_the_project_but_the_clock() -> None:
    """A regression of the code under test must not slow the anchor down with it."""
    tree = ast.parse(Path(subject.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name and name.startswith("evalsuite")} == {"evalsuite.core.clock"}


def test_it_leaves_the_generators_of_the_study_alone() -> None:
    state = torch.random.get_rng_state()
    Anchor("cpu").sample()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.gpu
def test_it_runs_on_a_device() -> None:
    anchor = Anchor("cuda")
    anchor.sample()
    assert anchor.seconds > 1e-4
