"""Peak memory of a stretch of work, on the device that does it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak() -> None:
    """Start a new stretch. Where the kernel cannot forget the host's peak, it stays that of the whole process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")  # resets VmHWM (man 5 proc)
    except OSError:
        return


def peak_bytes() -> int:
    """Peak since `reset_peak`: device memory allocated by torch on CUDA, else resident memory of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return _whole_process_peak()
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    return peaks[0] if peaks else _whole_process_peak()


def _whole_process_peak() -> int:
    """Peak resident memory since the process began; macOS counts in bytes, others in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
