"""Peak memory of a stretch of work, on the device that does it."""

from __future__ import annotations

import resource
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
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
