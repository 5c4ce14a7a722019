"""Speed against its goldens: verdicts only where they can be right.

A time is judged as its ratio to the anchor workload of the same run (`Record.anchor_seconds`), by the rules of
`evalsuite.gates.costs`. The golden is one file per suite and device class: ``golden/<suite>/<class>/timing.json``. It
names the machine that it was measured on; on any other machine, and on a busy one, the verdict is ``inconclusive``.
Where no machine is declared, `evalsuite.gates.paired` judges two versions in turns.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.gates.costs import (
    CostResult,
    Values,
    collected,
    judge_costs,
    malformed,
    read_values,
    rounded,
    unmoved_kept,
    write_values,
)
from evalsuite.records.schema import Record

SCHEMA = 1
MIN_SHARE = 0.85
"""Processor seconds per second of the anchor: with less, others had the machine, and times prove nothing."""

_MACHINE = ("cpu", "cores", "gpu", "threads")


@dataclass(frozen=True)
class TimingGolden:
    """What a suite cost on the machine that was declared for it.

    Attributes:
        machine: processor, cores, GPU and threads; no other machine is compared with it.
        anchor_seconds: median of the runs, to say ratios in seconds.
        values: ratios to the anchor.
    """

    machine: Mapping[str, Any]
    protocol_hash: str
    anchor_seconds: float
    values: Values


def times(record: Record) -> dict[str, float]:
    """Times of one record, in units of its anchor; empty where either was not measured."""
    anchor = record.anchor_seconds
    if record.status != "ok" or not anchor:
        return {}
    return {name: seconds / anchor for name, seconds in record.costs.items()}


def judge_timing(records: Iterable[Record], golden: TimingGolden | None) -> tuple[CostResult, ...]:
    """One result per setting and quantity of the records; one in all where no comparison is possible."""
    records = [record for record in records if times(record)]
    if not records:
        return (_undecided("no record holds seconds and those of the anchor"),)
    try:
        machine, protocol = _origin(records)
    except NotComparableError as error:
        return (_undecided(str(error)),)
    if golden is None:
        return (
            _undecided(
                "no machine is declared for this suite: `evalsuite approve --timing` on a quiet one, or judge two "
                "versions in turns: `evalsuite compare BASE HEAD`"
            ),
        )
    if machine != golden.machine:
        differing = [key for key in _MACHINE if machine[key] != golden.machine[key]]
        names = ", ".join(f"{key} {golden.machine[key]} -> {machine[key]}" for key in differing)
        return (_undecided(f"not the declared machine: {names}"),)
    if protocol != golden.protocol_hash:
        return (_undecided(f"golden of protocol {golden.protocol_hash}, records of {protocol}"),)
    return judge_costs(records, times, golden.values, golden.anchor_seconds, timed_busy)


def golden_of(runs: Sequence[Iterable[Record]], old: TimingGolden | None = None) -> TimingGolden:
    """The golden of one or more runs of a suite; a single run replaces only what moved beyond ``old``'s spread.

    Args:
        runs: records of each run; the first is the suite's own, others (of other seeds) show the spread.

    Raises:
        OptionError: the first run holds no cost, or was made on a busy machine.
        NotComparableError: the records come from several machines or protocols.
    """
    told = [[record for record in run if times(record)] for run in runs]
    if not told[0]:
        raise OptionError("no record holds seconds and those of the anchor, expected both: run the suite again")
    disturbed = sum(timed_busy(record) for record in told[0])
    if 2 * disturbed >= len(told[0]):
        raise OptionError(
            f"the machine was busy in {disturbed} of {len(told[0])} cases (the anchor got less than {MIN_SHARE:.0%} of "
            "a core), expected a quiet one: stop what else runs, run the suite again, then approve its timing"
        )
    machine, protocol = _origin([record for run in told for record in run])
    anchor = statistics.median(record.anchor_seconds for run in told for record in run if record.anchor_seconds)
    fresh = TimingGolden(machine, protocol, anchor, collected(told, times))
    if old is None or len(told) > 1 or (old.machine, old.protocol_hash) != (machine, protocol):
        return fresh
    kept = unmoved_kept(fresh.values, old.values, judge_timing(told[0], old))
    return replace(fresh, values=kept, anchor_seconds=old.anchor_seconds)


def timing_path(root: Path, suite: str, device_class: str) -> Path:
    """Where the golden lies."""
    return root / suite / device_class / "timing.json"


def read_timing(path: Path) -> TimingGolden | None:
    """The golden in a file, None if there is no file.

    Raises:
        SchemaError: the file is malformed or of a newer schema.
    """
    found = read_values(path, "timing", SCHEMA)
    if found is None:
        return None
    tree, values = found
    try:
        if not 0 < tree["anchor_seconds"] < math.inf:
            raise ValueError("anchor_seconds is not positive and finite")
        machine = {key: tree["machine"][key] for key in _MACHINE}
    except (ValueError, KeyError, TypeError) as error:
        raise malformed(path, "timing", error) from None
    return TimingGolden(machine, tree["protocol_hash"], tree["anchor_seconds"], values)


def write_timing(path: Path, golden: TimingGolden) -> None:
    """Write a golden."""
    tree = {
        "schema": SCHEMA,
        "machine": dict(golden.machine),
        "protocol_hash": golden.protocol_hash,
        "anchor_seconds": rounded(golden.anchor_seconds),
    }
    write_values(path, tree, golden.values)


def _origin(records: Sequence[Record]) -> tuple[dict[str, Any], str]:
    machines = {json.dumps({key: r.machine.get(key) for key in _MACHINE}, sort_keys=True) for r in records}
    protocols = {record.protocol_hash for record in records}
    if len(machines) > 1 or len(protocols) > 1:
        raise NotComparableError(
            f"costs of {len(machines)} machines and {len(protocols)} protocols side by side, expected one: run all anew"
        )
    return json.loads(machines.pop()), protocols.pop()


def timed_busy(record: Record) -> bool:
    """Whether others had the machine while a record's seconds were taken."""
    return record.anchor_share is not None and record.anchor_share < MIN_SHARE


def _undecided(reason: str) -> CostResult:
    return CostResult("", "time", "inconclusive", reason=reason)
