"""Peak memory of a stretch of work, on host and device."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc's; other C libraries have no such thing."""


def reset_peak() -> None:
    """Start a new stretch. Where the kernel cannot forget the host's peak, it stays that of the whole process.

    What was freed before goes back to the system first, as far as the C library can: a peak should not tell what ran
    earlier in the process.
    """
    if _on_device():
        torch.cuda.reset_peak_memory_stats()
    if _TRIM is not None:
        _TRIM(0)
    try:
        _CLEAR.write_text("5")  # resets VmHWM (man 5 proc)
    except OSError:
        return


def peak_bytes() -> int:
    """Peak since `reset_peak` on the device that does the work: `device_peak_bytes` on CUDA, else `host_peak_bytes`."""
    return device_peak_bytes() if _on_device() else host_peak_bytes()


def device_peak_bytes() -> int:
    """Peak of the device memory that torch allocated since `reset_peak`, without what CUDA itself takes; 0 on CPU."""
    return int(torch.cuda.max_memory_allocated()) if _on_device() else 0


def host_peak_bytes() -> int:
    """Peak of the process's resident memory since `reset_peak`, libraries and everything loaded before included."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return _whole_process_peak()
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    return peaks[0] if peaks else _whole_process_peak()


def _on_device() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _whole_process_peak() -> int:
    """Peak resident memory since the process began; macOS counts in bytes, others in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
