"""The peak of a stretch of work includes what was freed before its end."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evalsuite.core import memory
from evalsuite.core.memory import device_peak_bytes, host_peak_bytes, peak_bytes, reset_peak

MIB = 2**20
RESETS = os.access("/proc/self/clear_refs", os.W_OK)


_FREED = """
import numpy as np
from evalsuite.core.memory import peak_bytes, reset_peak
reset_peak()
before = peak_bytes()
block = np.ones(64 * 2**20, np.uint8)
del block
after = peak_bytes()
reset_peak()
print(before, after, peak_bytes())
"""


@pytest.fixture(scope="module")
def peaks() -> list[int]:
    """Before a block of 64 MiB, after it is freed, and after a reset; in a process whose heap has no room to reuse."""
    done = subprocess.run([sys.executable, "-c", _FREED], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


def test_a_freed_block_stays_in_the_peak(peaks: list[int]) -> None:
    before, after, _ = peaks
    assert after - before >= (60 * MIB if RESETS else 0)
    assert after > 10 * MIB, "bytes, not kibibytes"


@pytest.mark.skipif(not RESETS, reason="the kernel has no writable /proc/self/clear_refs")
def test_a_reset_forgets_the_peak(peaks: list[int]) -> None:
    _, after, forgotten = peaks
    assert after - forgotten >= 60 * MIB


_GARBAGE = """
import gc
import numpy as np
from evalsuite.core.memory import host_peak_bytes, reset_peak
gc.disable()
reset_peak()  # what the first call itself loads
empty = reset_peak()
cycle = [np.ones(64 * 2**20, np.uint8)]
cycle.append(cycle)
held = reset_peak()
del cycle
print(empty, held, reset_peak(), host_peak_bytes())
"""


@pytest.mark.skipif(not RESETS, reason="the kernel has no writable /proc/self/clear_refs")
def test_a_stretch_starts_from_what_is_held_and_not_from_garbage() -> None:
    done = subprocess.run([sys.executable, "-c", _GARBAGE], capture_output=True, text=True, check=True)
    empty, held, dropped, peak = (int(number) for number in done.stdout.split())
    assert held - empty == pytest.approx(64 * MIB, abs=4 * MIB)
    assert abs(dropped - empty) < 4 * MIB, "a cycle that waits for the collector is not held"
    assert peak == pytest.approx(dropped, abs=4 * MIB)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kibibytes on Linux only")
def test_without_proc_the_peak_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none" / "status")
    assert reset_peak() is None, "a peak that cannot be forgotten says nothing of a stretch"
    assert peak_bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kibibytes on Linux only")
def test_a_status_without_a_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sandboxed kernels (gVisor) have the file but not its line."""
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t   100 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert reset_peak() is None
    assert peak_bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_without_a_device_its_peak_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_on_device", lambda: False)
    assert device_peak_bytes() == 0
    assert peak_bytes() == pytest.approx(host_peak_bytes(), rel=0.5)


@pytest.mark.gpu
def test_host_and_device_have_peaks_of_their_own() -> None:
    reset_peak()
    before, host = device_peak_bytes(), host_peak_bytes()
    block = torch.ones(64 * MIB, dtype=torch.uint8, device="cuda")
    del block
    assert device_peak_bytes() - before >= 60 * MIB
    assert peak_bytes() == device_peak_bytes()
    assert host > 10 * MIB
    reset_peak()
    assert device_peak_bytes() <= before
