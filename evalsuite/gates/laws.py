"""Laws of the study: what must be equal to the bit, whatever its value."""

from __future__ import annotations

from evalsuite.records.schema import Record


def start_is_feedforward(start: Record | None, feedforward: Record | None) -> str:
    """Why B at N = 0 is not A, bit for bit; empty if it is.

    Args:
        start: record of B at N = 0; None if it has none.
        feedforward: record of A in the same scene.
    """
    for name, record in (("A", feedforward), ("B at N = 0", start)):
        if record is None or record.status != "ok":
            return f"{name} has no result to compare ({'no record' if record is None else record.status})"
    assert start is not None
    assert feedforward is not None
    if start.gaussians != feedforward.gaussians:
        return f"{start.gaussians} Gaussians, A has {feedforward.gaussians}"
    for metric in sorted(set(start.metrics) | set(feedforward.metrics)):
        ours, theirs = start.metrics.get(metric), feedforward.metrics.get(metric)
        if ours != theirs:
            shown = [repr(reading.value) if reading else "not measured" for reading in (ours, theirs)]
            per_view = " in some view" if shown[0] == shown[1] else ""
            return f"{metric} is {shown[0]}, A has {shown[1]}: they differ{per_view}"
    return ""
