"""One record per probe, whatever becomes of it."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from evalsuite.core.errors import EvalsuiteError
from evalsuite.core.machine import commit, fingerprint, libraries, source_hash
from evalsuite.execution.probes import density, descent, photometry, rendering, schedules
from evalsuite.execution.probes.stage import Numbers
from evalsuite.metrics.spec import ENGINE, PROBES
from evalsuite.records.schema import Reading, Record

PROTOCOL = "probe-2"
"""Rises when inputs or numbers of a probe change: older goldens are then stale."""

PROBE_CASES: Mapping[str, Callable[[str], Numbers]] = {
    f"{ENGINE}/forward": rendering.forward,
    f"{ENGINE}/backward": rendering.backward,
    f"{ENGINE}/loss": photometry.loss,
    f"{ENGINE}/slopes": descent.slopes,
    f"{ENGINE}/steps": descent.steps,
    f"{ENGINE}/late-steps": descent.late_steps,
    f"{ENGINE}/schedules": schedules.schedules,
    f"{ENGINE}/density": density.decisions,
}
"""Case id to probe."""


def probe(case: str, device: str) -> Record:
    """Run one probe; a failure becomes the record's status."""
    blank = Record(
        case=case,
        scene=ENGINE,
        stratum=ENGINE,
        arm=case.split("/")[1],
        budget=None,
        steps=0,
        seed=0,
        suite=ENGINE,
        protocol=PROTOCOL,
        protocol_hash=PROTOCOL,
        machine={**fingerprint(device), "threads": torch.get_num_threads()},
        git=commit(),
        source=source_hash(),
        libraries=libraries(),
    )
    try:
        numbers = PROBE_CASES[case](device)
    except Exception as error:  # the record is where it goes: nothing is swallowed
        if isinstance(error, EvalsuiteError):
            return replace(blank, status=error.status, reason=str(error))
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        return replace(blank, status="crashed", reason=reason)
    if not all(math.isfinite(value) for values in numbers.values() for value in values):
        bad = next(name for name, values in numbers.items() if not all(map(math.isfinite, values)))
        return replace(blank, status="nonfinite", reason=f"{bad} is {numbers[bad]}, expected finite numbers")
    readings = {
        name: Reading(math.fsum(values) / len(values), values, PROBES[name].version) for name, values in numbers.items()
    }
    return replace(blank, metrics=readings)
