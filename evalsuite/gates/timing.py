"""Speed and memory against their goldens: verdicts only where they can be right.

A time is judged as its ratio to the anchor workload of the same run (`Record.anchor_seconds`), a peak in bytes. What is
judged is one quantity of one setting (``optimise`` of ``c-capture-n1000``) by its median change over scenes: a
regression slows every scene, a neighbour on the machine slows one. A change counts when it exceeds a percentage, an
absolute floor and `K_SIGMA` x the spread. That spread has two parts: how much whole runs differ (from the golden's
repeats) and how much scenes differ within this run. Both are shrunk towards what was measured for the quantity
(Smyth 2004, as `evalsuite.gates.approval` does), since a handful of repeats says little about their own spread.

The golden is one file per suite and device class, ``golden/<suite>/<device class>/timing.json``. It names the machine
that it was measured on; on any other machine, and on a busy one, the verdict is ``inconclusive``.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evalsuite.core.errors import NotComparableError, OptionError, SchemaError
from evalsuite.core.phases import COST_PHASES
from evalsuite.records.schema import Record

SCHEMA = 1
K_SIGMA = 4.0
MIN_SHARE = 0.85
"""Processor seconds per second of the anchor: with less, others had the machine, and times prove nothing."""

_PRIOR_WEIGHT = 2
"""Degrees of freedom that the prior spreads count as."""

_MACHINE = ("cpu", "cores", "gpu", "threads")
_DIGITS = 5  # significant ones in the file: finer than any spread

Verdict = Literal["same", "better", "worse", "inconclusive"]


@dataclass(frozen=True)
class Quantity:
    """One cost, and when a change of it counts. Lower is better.

    Attributes:
        percent: smallest relative change that counts.
        floor: smallest absolute change that counts: seconds or bytes.
        run_spread, scene_spread: prior standard deviations of the logarithm, over runs and over scenes of one run.
        timed: seconds in units of the anchor; else bytes.
    """

    id: str
    percent: float
    floor: float
    run_spread: float
    scene_spread: float
    timed: bool = True


QUANTITIES: Mapping[str, Quantity] = {
    quantity.id: quantity
    for quantity in (
        *(Quantity(phase, 0.10, 0.05, 0.03, 0.05) for phase in COST_PHASES),
        Quantity("frame", 0.10, 0.0005, 0.03, 0.05),
        Quantity("peak-host", 0.03, 32.0 * 2**20, 0.01, 0.02, timed=False),
        Quantity("peak-device", 0.03, 1.0 * 2**20, 0.001, 0.005, timed=False),
    )
}
"""``frame``: one held-out view rendered. Prior spreads: docs/design/timing.md."""


@dataclass(frozen=True)
class TimingGolden:
    """What a suite cost on the machine that was declared for it.

    Attributes:
        machine: processor, cores, GPU and threads; no other machine is compared with it.
        anchor_seconds: median of the runs, to say ratios in seconds.
        values: by case id and quantity, one value per run: ratio to the anchor, or bytes.
    """

    machine: Mapping[str, Any]
    protocol_hash: str
    anchor_seconds: float
    values: Mapping[str, Mapping[str, tuple[float, ...]]]


@dataclass(frozen=True)
class TimingResult:
    """Verdict on one quantity of one setting.

    Attributes:
        setting: case name without the scene, such as ``c-capture-n1000``.
        scenes: scenes that record and golden share.
        change: median relative change over scenes, +0.1 means 10 % more; None if nothing was compared.
        limit: smallest change that the spread lets anybody see.
        amount: the change in seconds or bytes, at the golden's size.
    """

    setting: str
    quantity: str
    verdict: Verdict
    scenes: int
    change: float | None = None
    limit: float | None = None
    amount: float | None = None
    reason: str = ""

    @property
    def blocks(self) -> bool:
        """Whether this result fails a gate."""
        return self.verdict == "worse"

    def __str__(self) -> str:
        if self.change is None or self.limit is None or self.amount is None:
            return f"{self.verdict:12} {self.setting} {self.quantity}: {self.reason}"
        unit = f"{self.amount:+.4f} s" if QUANTITIES[self.quantity].timed else f"{self.amount / 2**20:+.1f} MiB"
        return (
            f"{self.verdict:12} {self.setting} {self.quantity}: {self.change:+.1%} ({unit}) over {self.scenes} scenes; "
            f"{K_SIGMA:g} sigma are {self.limit:.1%}{'; ' + self.reason if self.reason else ''}"
        )


def costs(record: Record) -> dict[str, float]:
    """Quantities of one record: ratios to its anchor, and bytes; what was not measured is left out."""
    if record.status != "ok":
        return {}
    anchor = record.anchor_seconds
    peaks = {"peak-host": record.peak_host_bytes, "peak-device": record.peak_device_bytes}
    return {
        **({name: seconds / anchor for name, seconds in record.costs.items()} if anchor else {}),
        **{name: float(peak) for name, peak in peaks.items() if peak},
    }


def judge_timing(records: Iterable[Record], golden: TimingGolden | None) -> tuple[TimingResult, ...]:
    """One result per setting and quantity of the records; one in all where no comparison is possible."""
    records = [record for record in records if costs(record)]
    if not records:
        return (_undecided("no record holds a cost"),)
    try:
        machine, protocol = _origin(records)
    except NotComparableError as error:
        return (_undecided(str(error)),)
    if golden is None:
        return (_undecided("no machine is declared for this suite: `evalsuite approve --timing` on a quiet one"),)
    if machine != golden.machine:
        differing = [key for key in _MACHINE if machine[key] != golden.machine[key]]
        names = ", ".join(f"{key} {golden.machine[key]} -> {machine[key]}" for key in differing)
        return (_undecided(f"not the declared machine: {names}"),)
    if protocol != golden.protocol_hash:
        return (_undecided(f"golden of protocol {golden.protocol_hash}, records of {protocol}"),)
    settings: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        for quantity in costs(record):
            settings.setdefault((_setting(_base(record)), quantity), []).append(record)
    return tuple(
        _judge(setting, QUANTITIES[quantity], found, golden) for (setting, quantity), found in sorted(settings.items())
    )


def _judge(setting: str, quantity: Quantity, records: Sequence[Record], golden: TimingGolden) -> TimingResult:
    known = {case: values[quantity.id] for case, values in golden.values.items() if quantity.id in values}
    records = [record for record in records if _base(record) in known]
    if not records:
        return replace(_undecided("no golden"), setting=setting, quantity=quantity.id)
    busy = sum(_busy(record) for record in records)
    before = [[math.log(value) for value in known[_base(record)]] for record in records]
    centres = [statistics.median(runs) for runs in before]
    moves = [math.log(costs(r)[quantity.id]) - centre for r, centre in zip(records, centres, strict=True)]
    effect = statistics.median(moves)
    limit = K_SIGMA * _spread(quantity, before, centres, moves)
    size = math.exp(statistics.median(centres)) * (golden.anchor_seconds if quantity.timed else 1.0)
    change = math.expm1(effect)
    result = TimingResult(setting, quantity.id, "same", len(records), change, math.expm1(limit), change * size)
    if abs(change) <= quantity.percent or abs(change * size) <= quantity.floor:
        return result
    if quantity.timed and 2 * busy >= len(records):
        return replace(result, verdict="inconclusive", reason=f"the machine was busy in {busy} of them")
    if abs(effect) <= limit:
        return replace(result, verdict="inconclusive", reason="within the spread")
    return replace(result, verdict="worse" if effect > 0 else "better")


def _spread(
    quantity: Quantity, before: Sequence[Sequence[float]], centres: Sequence[float], moves: Sequence[float]
) -> float:
    """Standard deviation of the median move under equal code.

    Args:
        before: logarithms by scene and run; centres: their medians over runs; moves: of this run from the centres.
    """
    runs = min(len(values) for values in before)
    shifts = [
        statistics.median(values[run] - centre for values, centre in zip(before, centres, strict=True))
        for run in range(runs)
    ]
    effect = statistics.median(moves)
    over_runs = _shrunk(quantity.run_spread, [shift**2 for shift in shifts])
    over_scenes = _shrunk(quantity.scene_spread, [(move - effect) ** 2 for move in moves])
    # the variance of a median is pi / 2 times that of a mean
    return math.sqrt(over_runs * (1 + 1 / runs) + over_scenes * math.pi / 2 / len(moves))


def _shrunk(prior: float, squares: Sequence[float]) -> float:
    """Variance from squared deviations, with the prior as `_PRIOR_WEIGHT` further degrees of freedom."""
    return (_PRIOR_WEIGHT * prior**2 + sum(squares)) / (_PRIOR_WEIGHT + len(squares) - 1)


def golden_of(runs: Sequence[Iterable[Record]], old: TimingGolden | None = None) -> TimingGolden:
    """The golden of one or more runs of a suite; a single run replaces only what moved beyond ``old``'s spread.

    Args:
        runs: records of each run; the first is the suite's own, others (of other seeds) show the spread.

    Raises:
        OptionError: the first run holds no cost, or was made on a busy machine.
        NotComparableError: the records come from several machines or protocols.
    """
    told = [[record for record in run if costs(record) and record.anchor_seconds] for run in runs]
    if not told[0]:
        raise OptionError("no record holds seconds and those of the anchor, expected both: run the suite again")
    busy = sum(_busy(record) for record in told[0])
    if 2 * busy >= len(told[0]):
        raise OptionError(
            f"the machine was busy in {busy} of {len(told[0])} cases (the anchor got less than {MIN_SHARE:.0%} of a "
            "core), expected a quiet one: stop what else runs, run the suite again, then approve its timing"
        )
    machine, protocol = _origin([record for run in told for record in run])
    values: dict[str, dict[str, tuple[float, ...]]] = {}
    for run in told:
        for record in run:
            known = values.setdefault(_base(record), {})
            for quantity, value in costs(record).items():
                known[quantity] = (*known.get(quantity, ()), value)
    anchor = statistics.median(record.anchor_seconds for run in told for record in run if record.anchor_seconds)
    fresh = TimingGolden(machine, protocol, anchor, values)
    if old is None or len(told) > 1 or (old.machine, old.protocol_hash) != (machine, protocol):
        return fresh
    moved = {(r.setting, r.quantity) for r in judge_timing(told[0], old) if r.verdict in ("better", "worse")}
    for case, quantities in values.items():
        for name, before in old.values.get(case, {}).items():
            if name in quantities and (_setting(case), name) not in moved:
                quantities[name] = before
    return replace(fresh, anchor_seconds=old.anchor_seconds)


def timing_path(root: Path, suite: str, device_class: str) -> Path:
    """Where the golden lies."""
    return root / suite / device_class / "timing.json"


def read_timing(path: Path) -> TimingGolden | None:
    """The golden in a file, None if there is no file.

    Raises:
        SchemaError: the file is malformed or of a newer schema.
    """
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["schema"] > SCHEMA:
            raise SchemaError(f"{path} has schema {tree['schema']}, this evalsuite reads up to {SCHEMA}; upgrade it")
        values = {
            case: {name: tuple(float(value) for value in runs) for name, runs in quantities.items()}
            for case, quantities in tree["cases"].items()
        }
        flat = [value for quantities in values.values() for runs in quantities.values() for value in (runs or (0.0,))]
        if not all(0 < value < math.inf for value in (*flat, tree["anchor_seconds"])):
            raise ValueError("a cost is not positive and finite")
        machine = {key: tree["machine"][key] for key in _MACHINE}
        return TimingGolden(machine, tree["protocol_hash"], tree["anchor_seconds"], values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"{path} is not a golden of timing ({error}); restore it from git") from None


def write_timing(path: Path, golden: TimingGolden) -> None:
    """Write a golden: sorted keys, one line per quantity, `_DIGITS` significant digits."""
    tree = {
        "schema": SCHEMA,
        "machine": dict(golden.machine),
        "protocol_hash": golden.protocol_hash,
        "anchor_seconds": float(f"{golden.anchor_seconds:.{_DIGITS}g}"),
        "cases": {
            case: {name: [float(f"{value:.{_DIGITS}g}") for value in runs] for name, runs in quantities.items()}
            for case, quantities in golden.values.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(tree, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _origin(records: Sequence[Record]) -> tuple[dict[str, Any], str]:
    machines = {json.dumps({key: r.machine.get(key) for key in _MACHINE}, sort_keys=True) for r in records}
    protocols = {record.protocol_hash for record in records}
    if len(machines) > 1 or len(protocols) > 1:
        raise NotComparableError(
            f"costs of {len(machines)} machines and {len(protocols)} protocols side by side, expected one: run all anew"
        )
    return json.loads(machines.pop()), protocols.pop()


def _busy(record: Record) -> bool:
    return record.anchor_share is not None and record.anchor_share < MIN_SHARE


def _setting(case: str) -> str:
    return case.split("/")[1]


def _base(record: Record) -> str:
    """Case id of the suite's own seed."""
    return record.case.removesuffix(f"-s{record.seed}")


def _undecided(reason: str) -> TimingResult:
    return TimingResult("*", "*", "inconclusive", 0, reason=reason)
