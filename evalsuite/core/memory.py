"""Peak memory of a stretch of work, on host and device."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc's; other C libraries have no such thing."""


def reset_peak() -> int | None:
    """Start a new stretch; returns the resident bytes it starts from, None where the kernel cannot forget a peak.

    There the host's peak stays that of the whole process. What was freed before goes back to the system first, cycles
    that wait for Python's collector included: a peak should not tell what ran earlier in the process.
    """
    if _on_device():
        torch.cuda.reset_peak_memory_stats()
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)
    try:
        _CLEAR.write_text("5")  # resets VmHWM (man 5 proc)
        peaked = _status("VmHWM")
    except OSError:
        return None
    return _status("VmRSS") if peaked else None


def peak_bytes() -> int:
    """Peak since `reset_peak` on the device that does the work: `device_peak_bytes` on CUDA, else `host_peak_bytes`."""
    return device_peak_bytes() if _on_device() else host_peak_bytes()


def device_peak_bytes() -> int:
    """Peak of the device memory that torch allocated since `reset_peak`, without what CUDA itself takes; 0 on CPU."""
    return int(torch.cuda.max_memory_allocated()) if _on_device() else 0


def host_peak_bytes() -> int:
    """Peak of the process's resident memory since `reset_peak`, libraries and everything loaded before included."""
    try:
        peak = _status("VmHWM")
    except OSError:
        peak = None
    return peak or _whole_process_peak()


def _status(name: str) -> int | None:
    """Bytes that the kernel counts under a name, None if it does not."""
    found = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None


def _on_device() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _whole_process_peak() -> int:
    """Peak resident memory since the process began; macOS counts in bytes, others in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
