"""`evalsuite compare`: stages of quality, exit codes, the summary. Sides are made up; nothing is reconstructed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evalsuite.commands import comparison
from evalsuite.core.errors import NotComparableError
from evalsuite.core.machine import fingerprint
from evalsuite.execution.checkouts import Checkout
from evalsuite.execution.paired_seeds import Sides
from evalsuite.gates.quality import CONTRASTS, MOST_SEEDS, SETTINGS
from evalsuite.records.schema import Reading, Record
from evalsuite.records.store import RecordStore

MACHINE = fingerprint("cpu")


def record(setting: str, seed: int, psnr: float, **fields: Any) -> Record:
    arm, budget, steps = setting.split("-")
    made = {
        "case": f"smoke.blob/{setting}{f'-s{seed}' if seed else ''}",
        "scene": "smoke.blob",
        "stratum": "organic",
        "arm": arm,
        "budget": budget,
        "steps": int(steps[1:]),
        "seed": seed,
        "suite": "quality",
        "protocol": "object-128-images",
        "protocol_hash": "0123456789ab",
        "machine": MACHINE,
        "metrics": {"psnr": Reading(psnr, (psnr,), 1)},
        "seconds": {"optimise": 2.0},
    }
    return Record(**{**made, **fields})


class Runs:
    """What the sides would give, and what they were asked for.

    Attributes:
        gains: of head, by setting and then seed; 0 where nothing is said.
        slower: head's seconds over base's.
    """

    def __init__(self) -> None:
        self.gains: dict[str, Sequence[float]] = {}
        self.slower = 1.0
        self.asked: list[tuple[list[int], list[str]]] = []

    def seeds(self, sides: Sides, seeds: Sequence[int], settings: Sequence[str], tell: Any) -> Any:
        self.asked.append((list(seeds), list(settings)))
        sides.folder.mkdir(parents=True, exist_ok=True)
        pairs = [(setting, seed) for setting in settings for seed in seeds]
        base = [record(setting, seed, 25.0) for setting, seed in pairs]
        return base, [record(s, k, 25.0 + [*self.gains.get(s, ()), *[0.0] * MOST_SEEDS][k]) for s, k in pairs]

    def laps(self, base: Any, head: Any, pairs: int, folder: Path, device: str) -> Any:
        lap = [record(SETTINGS[0], 0, 25.0)]
        slow = [record(SETTINGS[0], 0, 25.0, seconds={"optimise": 2.0 * self.slower})]
        return [(lap, slow)] * pairs


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()

    @contextmanager
    def checkout(name: str, scratch: Path) -> Iterator[Checkout]:
        yield Checkout(name, scratch, scratch, f"commit of {name}")

    monkeypatch.setattr(comparison, "checkout", checkout)
    monkeypatch.setattr(comparison, "fingerprint", lambda side: f"print-{side.name}")
    monkeypatch.setattr(comparison, "require_one_suite", lambda base, head: None)
    monkeypatch.setattr(comparison, "run_seeds", found.seeds)
    monkeypatch.setattr(comparison, "laps", found.laps)
    return found


def compare(out: Path, only: str | None = None) -> int:
    options = {"base": "old", "head": "new", "pairs": 12, "threshold": 0.05, "device": "cpu", "only": only, "out": out}
    return comparison.compare(argparse.Namespace(**options))


def test_equal_sides_are_the_same_after_the_first_seeds(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(tmp_path) == 0
    assert runs.asked == [([0, 1, 2], sorted(SETTINGS))]
    printed = capsys.readouterr().out
    assert printed.count("same         ") == len(SETTINGS) + 1  # and one phase
    summary = (tmp_path / "compare/print-old-print-new-cpu/summary.md").read_text()
    assert "# new (commit of ne) against old (commit of ol)" in summary
    assert "| b-capture-n200 | psnr | same | +0 dB |" in summary
    assert "| optimise | same | 1.000 | 1.000 to 1.000 | 12 |" in summary


def test_a_loss_is_worse_at_once_and_the_exit_code_says_so(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.gains = {SETTINGS[0]: [-0.1, -0.101, -0.099]}
    assert compare(tmp_path, "quality") == 1
    assert len(runs.asked) == 1
    assert "worse        b-capture-n200: psnr -0.1 dB" in capsys.readouterr().out
    runs.slower = 2.0
    assert compare(tmp_path, "time") == 1
    assert len(runs.asked) == 1


def test_a_gain_is_no_failure(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.gains = {SETTINGS[0]: [0.1, 0.101, 0.099]}
    assert compare(tmp_path, "quality") == 0
    assert "better       b-capture-n200: psnr +0.1 dB" in capsys.readouterr().out


def test_what_three_seeds_leave_open_gets_more_of_them(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only in the setting concerned, and the first seeds are among them."""
    runs.gains = {SETTINGS[1]: [-0.01, 0.01, 0.0, 0.01, -0.01]}
    assert compare(tmp_path, "quality") == 0
    (_, first), (seeds, second) = runs.asked
    assert (sorted(first), second) == (sorted(SETTINGS), [SETTINGS[1]])
    assert seeds == list(range(len(seeds)))
    assert 3 < len(seeds) <= MOST_SEEDS
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if " psnr " in line]
    assert [setting in line for setting, line in zip(SETTINGS, lines, strict=True)] == [True] * 3
    assert [f"{n} seeds" in line for n, line in zip((3, len(seeds), 3), lines, strict=True)] == [True] * 3
    assert lines[1].startswith("same")


def test_results_of_another_machine_are_not_gone_on_from(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "compare/print-old-print-new-cpu"
    stores = Sides(*[Checkout("x", tmp_path, tmp_path, "c")] * 2, folder).stores()
    stores[1].write(record(SETTINGS[0], 0, 25.0, machine={**MACHINE, "cpu": "another CPU"}))
    with pytest.raises(NotComparableError, match=r"was run on .*another CPU, this machine is") as caught:
        compare(tmp_path)
    assert "\n" not in str(caught.value)
    assert not runs.asked


def test_timed_laps_of_another_machine_are_not_gone_on_from(runs: Runs, tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "compare/print-old-print-new-cpu/time/pair-0/1/records/smoke")
    store.write(record(SETTINGS[0], 0, 25.0, machine={**MACHINE, "cpu": "another CPU"}))
    with pytest.raises(NotComparableError, match=r"was run on .*another CPU"):
        compare(tmp_path, "time")


def test_every_contrast_has_a_place_in_the_order_of_lines() -> None:
    assert [setting for setting, metric in CONTRASTS if metric == "psnr"] == list(SETTINGS)
