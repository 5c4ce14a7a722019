"""The peak of a stretch of work includes what was freed before its end."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from evalsuite.core import memory
from evalsuite.core.memory import peak_bytes, reset_peak

MIB = 2**20
RESETS = os.access("/proc/self/clear_refs", os.W_OK)


def test_a_freed_block_stays_in_the_peak() -> None:
    reset_peak()
    before = peak_bytes()
    block = np.ones(64 * MIB, np.uint8)
    del block
    assert peak_bytes() - before >= (60 * MIB if RESETS else 0)
    assert peak_bytes() > 10 * MIB, "bytes, not kibibytes"


@pytest.mark.skipif(not RESETS, reason="the kernel has no writable /proc/self/clear_refs")
def test_a_reset_forgets_the_peak() -> None:
    block = np.ones(64 * MIB, np.uint8)
    high = peak_bytes()
    del block
    reset_peak()
    assert high - peak_bytes() >= 60 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kibibytes on Linux only")
def test_without_proc_the_peak_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none" / "status")
    reset_peak()
    assert peak_bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kibibytes on Linux only")
def test_a_status_without_a_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sandboxed kernels (gVisor) have the file but not its line."""
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t   100 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert peak_bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
