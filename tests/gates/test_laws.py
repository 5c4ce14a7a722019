"""B at N = 0 is A: to the bit, in every metric and view, and in the number of Gaussians."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalsuite.gates.laws import start_is_feedforward
from evalsuite.records.schema import Reading, Record


def record(value: float = 20.0, **changes: object) -> Record:
    metrics = {"psnr": Reading(value, (value, value), 1), "ssim": Reading(0.5, (0.5, 0.5), 1)}
    plain = Record("s/a", "s", "thin", "a", None, 0, 0, "smoke", "p", "h", metrics=metrics, gaussians=100)
    return replace(plain, **changes)  # type: ignore[arg-type]


@given(st.floats(-100, 100))
def test_equal_results_keep_the_law(value: float) -> None:
    assert start_is_feedforward(record(value, case="s/b-capture-n0"), record(value)) == ""


@given(st.floats(1e-3, 100))
def test_the_last_bit_breaks_it(value: float) -> None:
    reason = start_is_feedforward(record(math.nextafter(value, math.inf)), record(value))
    assert reason.startswith("psnr is ")
    assert repr(value) in reason


@pytest.mark.parametrize(
    ("start", "feedforward", "reason"),
    [
        (None, record(), "B at N = 0 has no result to compare (no record)"),
        (record(), None, "A has no result to compare (no record)"),
        (record(), record(status="oom"), "A has no result to compare (oom)"),
        (record(gaussians=99), record(), "99 Gaussians, A has 100"),
        (record(metrics={"psnr": Reading(20.0, (20.0, 20.0), 1)}), record(), "ssim is not measured, A has 0.5"),
        (
            record(metrics={**record().metrics, "psnr": Reading(20.0, (19.0, 21.0), 1)}),
            record(),
            "psnr is 20.0, A has 20.0: they differ in some view",
        ),
    ],
    ids=["no-b", "no-a", "failed-a", "gaussians", "metric", "view"],
)
def test_what_breaks_it_is_named(start: Record | None, feedforward: Record | None, reason: str) -> None:
    assert start_is_feedforward(start, feedforward).startswith(reason)
