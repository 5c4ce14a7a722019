"""Peak memory against its goldens, on every machine of a device class.

Bytes repeat where seconds do not, so no machine has to be declared or quiet: `evalsuite approve` always writes
``golden/<suite>/<device class>/memory.json``, and every run of that class is judged by the rules of
`evalsuite.gates.costs`. The host has two quantities: what the arm added to its process (``growth-host``), which
does not depend on what ran there before, and the whole process (``peak-host``), which does and is held coarsely: that
finds what grows before an arm begins. How well they repeat: docs/design/timing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.gates.costs import CostResult, Values, collected, judge_costs, read_values, unmoved_kept, write_values
from evalsuite.records.schema import Record

SCHEMA = 1


@dataclass(frozen=True)
class MemoryGolden:
    """What memory a suite took on a device class, in bytes."""

    protocol_hash: str
    values: Values


def sizes(record: Record) -> dict[str, float]:
    """Bytes of one record by quantity; what was not measured is left out."""
    if record.status != "ok":
        return {}
    host, base, device = record.peak_host_bytes, record.base_host_bytes, record.peak_device_bytes
    found = {"peak-host": host, "peak-device": device}
    growth = {} if host is None or base is None else {"growth-host": float(max(0, host - base))}
    return {**growth, **{name: float(peak) for name, peak in found.items() if peak}}


def judge_memory(records: Iterable[Record], golden: MemoryGolden | None) -> tuple[CostResult, ...]:
    """One result per setting and quantity of the records; one in all where no comparison is possible."""
    records = [record for record in records if sizes(record)]
    if not records:
        return (_undecided("no record holds a peak"),)
    if golden is None:
        return (_undecided('no golden for this class yet: `evalsuite approve --reason "..."` of a whole run makes it'),)
    protocols = sorted({record.protocol_hash for record in records})
    if protocols != [golden.protocol_hash]:
        return (_undecided(f"golden of protocol {golden.protocol_hash}, records of {' and '.join(protocols)}"),)
    return judge_costs(records, sizes, golden.values)


def memory_of(runs: Sequence[Iterable[Record]], old: MemoryGolden | None = None) -> MemoryGolden:
    """The golden of one or more runs of a suite; a single run replaces only what moved beyond ``old``'s spread.

    Args:
        runs: records of each run; the first is the suite's own, others (of other seeds) show the spread.

    Raises:
        OptionError: the first run holds no peak.
        NotComparableError: the records come from several protocols.
    """
    told = [[record for record in run if sizes(record)] for run in runs]
    if not told[0]:
        raise OptionError("no record holds peak memory, expected all: run the suite again")
    protocols = {record.protocol_hash for run in told for record in run}
    if len(protocols) > 1:
        raise NotComparableError(f"memory of {len(protocols)} protocols side by side, expected one: run all anew")
    fresh = MemoryGolden(protocols.pop(), collected(told, sizes))
    if old is None or len(told) > 1 or old.protocol_hash != fresh.protocol_hash:
        return fresh
    return replace(fresh, values=unmoved_kept(fresh.values, old.values, judge_memory(told[0], old)))


def memory_path(root: Path, suite: str, device_class: str) -> Path:
    """Where the golden lies."""
    return root / suite / device_class / "memory.json"


def read_memory(path: Path) -> MemoryGolden | None:
    """The golden in a file, None if there is no file.

    Raises:
        SchemaError: the file is malformed or of a newer schema.
    """
    found = read_values(path, "memory", SCHEMA)
    return None if found is None else MemoryGolden(found[0]["protocol_hash"], found[1])


def write_memory(path: Path, golden: MemoryGolden) -> None:
    """Write a golden."""
    write_values(path, {"schema": SCHEMA, "protocol_hash": golden.protocol_hash}, golden.values)


def _undecided(reason: str) -> CostResult:
    return CostResult("", "memory", "inconclusive", reason=reason)
