"""Approved values of a case and the comparison of a record with them.

A golden is one small JSON file in git, ``golden/<suite>/<device class>/<case id>.json``. It holds the values, the
spread that repeated seeds showed (`evalsuite.gates.approval`), and what the values may be compared with
(protocol hash, metric versions). Tolerance of a metric = max(the metric's floor, `K_SIGMA` x the case's spread).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalsuite.core.errors import NonFiniteError, SchemaError
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Record

SCHEMA = 1
K_SIGMA = 4.0
"""A run compares hundreds of values: at 4 sigma a false alarm is rare even so."""

Verdict = Literal["same", "better", "worse", "stale", "no-golden", "not-run", "failed"]
BLOCKING: frozenset[Verdict] = frozenset({"worse", "stale", "no-golden", "not-run", "failed"})


@dataclass(frozen=True)
class Golden:
    """Approved values of one case.

    Attributes:
        values: by metric id; noise: standard deviation over seeds by metric id, 0 where none was measured.
        seeds: how many runs the noise was measured from.
    """

    case: str
    protocol_hash: str
    metric_versions: Mapping[str, int]
    values: Mapping[str, float]
    noise: Mapping[str, float]
    seeds: int


@dataclass(frozen=True)
class Change:
    """One metric of one case beside its golden.

    Attributes:
        drop: by how much the record is worse than the golden, whatever the metric's direction.
        tolerance: the largest drop or gain still called ``same``.
    """

    metric: str
    golden: float
    value: float
    drop: float
    tolerance: float

    @property
    def verdict(self) -> Verdict:
        """``same`` within the tolerance, else ``worse`` or ``better``."""
        if abs(self.drop) <= self.tolerance:
            return "same"
        return "worse" if self.drop > 0 else "better"


@dataclass(frozen=True)
class Comparison:
    """Verdict on one case, with the numbers behind it and one line of explanation."""

    case: str
    verdict: Verdict
    changes: tuple[Change, ...] = ()
    reason: str = ""

    @property
    def blocks(self) -> bool:
        """Whether this verdict fails a gate."""
        return self.verdict in BLOCKING


class GoldenStore:
    """The goldens of one suite on one device class."""

    def __init__(self, root: Path, suite: str, device_class: str) -> None:
        self.folder = root / suite / device_class

    def path(self, case: str) -> Path:
        """Where the golden of a case lives."""
        return self.folder / f"{case}.json"

    def read(self, case: str) -> Golden | None:
        """The golden of a case, None if there is none.

        Raises:
            SchemaError: the file is malformed or of a newer schema.
        """
        path = self.path(case)
        if not path.exists():
            return None
        try:
            tree = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
            if tree["schema"] > SCHEMA:
                raise SchemaError(
                    f"{path} has schema {tree['schema']}, this evalsuite reads up to {SCHEMA}; upgrade it"
                )
            metrics = tree["metrics"]
            if tree["case"] != case:
                raise ValueError(f"it is the golden of {tree['case']}")
            return Golden(
                case=case,
                protocol_hash=tree["protocol_hash"],
                metric_versions={name: m["version"] for name, m in metrics.items()},
                values={name: m["value"] for name, m in metrics.items()},
                noise={name: m["noise"] for name, m in metrics.items()},
                seeds=tree["seeds"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SchemaError(f"{path} is not a golden of {case} ({error}); restore it from git") from None

    def write(self, golden: Golden) -> None:
        """Write one golden: sorted keys, values to 6 decimals so that a diff shows changes a reader can judge.

        Raises:
            NonFiniteError: a value or a spread is NaN or infinite.
        """
        for name in golden.values:
            if not (math.isfinite(golden.values[name]) and math.isfinite(golden.noise[name])):
                raise NonFiniteError(
                    f"{name} of {golden.case} is {golden.values[name]} +- {golden.noise[name]}, expected finite "
                    "numbers; mend the case before approving it"
                )
        tree = {
            "schema": SCHEMA,
            "case": golden.case,
            "protocol_hash": golden.protocol_hash,
            "seeds": golden.seeds,
            "metrics": {
                name: {
                    "value": round(golden.values[name], 6),
                    "noise": round(golden.noise[name], 6),
                    "version": golden.metric_versions[name],
                }
                for name in golden.values
            },
        }
        path = self.path(golden.case)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(tree, sort_keys=True, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)

    def cases(self) -> tuple[str, ...]:
        """Ids of all cases that have a golden."""
        return tuple(
            sorted(p.relative_to(self.folder).with_suffix("").as_posix() for p in self.folder.glob("*/*.json"))
        )


def compare(case: str, record: Record | None, golden: Golden | None) -> Comparison:
    """Judge one case. Values of other protocols or metric versions are ``stale``, never compared."""
    if record is None:
        return Comparison(case, "not-run", reason="no record: the case was expected and did not run")
    if record.status == "missing-data":
        return Comparison(case, "not-run", reason=record.reason)
    if record.status != "ok":
        return Comparison(case, "failed", reason=f"{record.status}: {record.reason}")
    if golden is None:
        return Comparison(
            case, "no-golden", reason="no golden: look at the record, then `evalsuite approve --reason ...`"
        )
    readings = {name: r for name, r in record.metrics.items() if r.status == "ok"}
    if golden.protocol_hash != record.protocol_hash:
        return Comparison(
            case, "stale", reason=f"golden of protocol {golden.protocol_hash}, record of {record.protocol_hash}"
        )
    if not readings:
        return Comparison(case, "failed", reason="the record holds no metric with a value: nothing was compared")
    if set(readings) != set(golden.values):
        odd = sorted(set(readings) ^ set(golden.values))
        return Comparison(case, "stale", reason=f"golden and record differ in having {', '.join(odd)}")
    for name, reading in readings.items():
        if reading.version != golden.metric_versions[name]:
            return Comparison(
                case, "stale", reason=f"{name} version {golden.metric_versions[name]} in golden, {reading.version} now"
            )
    for name, reading in readings.items():
        if reading.value is None or not math.isfinite(reading.value + golden.values[name] + golden.noise[name]):
            return Comparison(
                case,
                "failed",
                reason=f"{name} is {reading.value}, its golden {golden.values[name]}: not finite",
            )
    changes = tuple(_change(name, golden, record) for name in sorted(readings))
    verdicts = [change.verdict for change in changes]
    verdict: Verdict = "worse" if "worse" in verdicts else "better" if "better" in verdicts else "same"
    return Comparison(case, verdict, changes)


def _change(name: str, golden: Golden, record: Record) -> Change:
    spec, value = METRICS[name], record.metrics[name].value
    assert value is not None
    tolerance = max(spec.floor, K_SIGMA * golden.noise[name])
    return Change(name, golden.values[name], value, spec.drop(golden.values[name], value), tolerance)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} in place of a number")
