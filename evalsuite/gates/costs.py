"""Costs against their goldens: what counts as a change of time or memory.

What is judged is one quantity of one setting (``optimise`` of ``c-capture-n1000``) by its median change over scenes: a
regression affects every scene, a neighbour on the machine one. A change counts when it exceeds a percentage, an
absolute floor and `K_SIGMA` x the spread. That spread has two parts: how much whole runs differ (from the golden's
repeats) and how much scenes differ within this run. Both are shrunk towards what was measured for the quantity
(Smyth 2004, as `evalsuite.gates.noise` does), since a handful of repeats says little about their own spread.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evalsuite.core.errors import SchemaError
from evalsuite.core.phases import COST_PHASES
from evalsuite.records.schema import Record

K_SIGMA = 4.0

_PRIOR_WEIGHT = 2
"""Degrees of freedom that the prior spreads count as."""

_DIGITS = 5  # significant ones in the file: finer than any spread
MIB = 2.0**20

Verdict = Literal["same", "better", "worse", "inconclusive"]
Values = Mapping[str, Mapping[str, tuple[float, ...]]]
"""By case id and quantity, one value per run."""


@dataclass(frozen=True)
class Quantity:
    """One cost, and when a change of it counts. Lower is better.

    Attributes:
        percent: smallest relative change that counts.
        floor: smallest absolute change that counts: seconds or bytes.
        run_spread, scene_spread: prior standard deviations of the logarithm, over runs and over scenes of one run.
        timed: seconds in units of the anchor; else bytes.
        start: added before the logarithm (Tukey's started one), so that noise of small values counts in bytes.
    """

    id: str
    percent: float
    floor: float
    run_spread: float
    scene_spread: float
    timed: bool = True
    start: float = 0.0


QUANTITIES: Mapping[str, Quantity] = {
    quantity.id: quantity
    for quantity in (
        *(Quantity(phase, 0.10, 0.05, 0.03, 0.05) for phase in COST_PHASES),
        Quantity("frame", 0.10, 0.0005, 0.03, 0.05),
        Quantity("growth-host", 0.10, 64 * MIB, 0.05, 0.10, timed=False, start=64 * MIB),
        Quantity("peak-host", 0.25, 128 * MIB, 0.05, 0.05, timed=False),
        Quantity("peak-device", 0.03, MIB, 0.001, 0.005, timed=False),
    )
}
"""``frame``: one held-out view rendered; ``growth-host``: what the arm added to its process, ``peak-host``: the whole
process. Prior spreads: docs/design/timing.md."""


@dataclass(frozen=True)
class CostResult:
    """Verdict on one quantity of one setting.

    Attributes:
        setting: case name without the scene, such as ``c-capture-n1000``; empty where nothing could be compared.
        scenes: scenes that record and golden share.
        change: median relative change over scenes, +0.1 means 10 % more; None if nothing was compared.
        limit: smallest change that the spread lets anybody see.
        size: seconds or bytes that ``change`` and ``limit`` are shares of: the golden's median over scenes.
    """

    setting: str
    quantity: str
    verdict: Verdict
    scenes: int = 0
    change: float | None = None
    limit: float | None = None
    size: float = 0.0
    reason: str = ""

    @property
    def blocks(self) -> bool:
        """Whether this result fails a gate."""
        return self.verdict == "worse"

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.setting, self.quantity)))
        if self.change is None or self.limit is None:
            return f"{self.verdict:12} {what}: {self.reason}"
        if QUANTITIES[self.quantity].timed:
            moved, limit = f"{self.change:+.1%} ({self.change * self.size:+.4f} s)", f"{self.limit:.1%}"
        else:
            moved = f"{self.change * self.size / MIB:+.1f} MiB"
            limit = f"{self.limit * self.size / MIB:.1f} MiB"
        return (
            f"{self.verdict:12} {what}: {moved} over {self.scenes} scenes; {K_SIGMA:g} sigma are {limit}"
            f"{'; ' + self.reason if self.reason else ''}"
        )


def judge_costs(
    records: Iterable[Record],
    costs: Callable[[Record], Mapping[str, float]],
    golden: Values,
    unit: float = 1.0,
    busy: Callable[[Record], bool] = lambda record: False,
) -> tuple[CostResult, ...]:
    """One result per setting and quantity of the records.

    Args:
        costs: quantities of a record, in the golden's unit.
        unit: seconds or bytes of one unit.
        busy: whether others had the machine, so that a change of this record proves nothing.
    """
    settings: dict[tuple[str, str], list[tuple[str, float, bool]]] = {}
    for record in records:
        case = base_case(record)
        for name, value in costs(record).items():
            settings.setdefault((setting_of(case), name), []).append((case, value, busy(record)))
    return tuple(
        _judge(setting, QUANTITIES[name], found, golden, unit) for (setting, name), found in sorted(settings.items())
    )


def _judge(
    setting: str, quantity: Quantity, found: Sequence[tuple[str, float, bool]], golden: Values, unit: float
) -> CostResult:
    known = {case: values[quantity.id] for case, values in golden.items() if quantity.id in values}
    found = [one for one in found if one[0] in known]
    if not found:
        return CostResult(setting, quantity.id, "inconclusive", reason="no golden")
    start = quantity.start / unit
    before = [[math.log(value + start) for value in known[case]] for case, _, _ in found]
    centres = [statistics.median(runs) for runs in before]
    moves = [math.log(value + start) - centre for (_, value, _), centre in zip(found, centres, strict=True)]
    effect = statistics.median(moves)
    limit = K_SIGMA * _spread(quantity, before, centres, moves)
    size = math.exp(statistics.median(centres)) * unit
    change = math.expm1(effect)
    result = CostResult(setting, quantity.id, "same", len(found), change, math.expm1(limit), size)
    if abs(change) <= quantity.percent or abs(change * size) <= quantity.floor:
        return result
    busy = sum(disturbed for _, _, disturbed in found)
    if 2 * busy >= len(found):
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


def collected(
    runs: Iterable[Iterable[Record]], costs: Callable[[Record], Mapping[str, float]]
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Values of a golden: those of every run, in order."""
    values: dict[str, dict[str, tuple[float, ...]]] = {}
    for run in runs:
        for record in run:
            known = values.setdefault(base_case(record), {})
            for quantity, value in costs(record).items():
                known[quantity] = (*known.get(quantity, ()), value)
    return {case: known for case, known in values.items() if known}


def unmoved_kept(values: Values, old: Values, results: Iterable[CostResult]) -> dict[str, dict[str, tuple[float, ...]]]:
    """The values, but the old ones where the results say that nothing moved: a golden does not creep."""
    moved = {(result.setting, result.quantity) for result in results if result.verdict in ("better", "worse")}
    return {
        case: {
            name: runs if (setting_of(case), name) in moved else old.get(case, {}).get(name, runs)
            for name, runs in quantities.items()
        }
        for case, quantities in values.items()
    }


def read_values(path: Path, what: str, newest: int) -> tuple[dict[str, Any], Values] | None:
    """The tree of a golden's file and its values, None if there is no file.

    Args:
        what: the kind of golden, for messages.
        newest: schema that is read.

    Raises:
        SchemaError: the file is malformed or of a newer schema.
    """
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["schema"] > newest:
            raise SchemaError(f"{path} has schema {tree['schema']}, this evalsuite reads up to {newest}; upgrade it")
        values = {
            case: {name: tuple(float(value) for value in runs) for name, runs in quantities.items()}
            for case, quantities in tree["cases"].items()
        }
        for quantities in values.values():
            for name, runs in quantities.items():
                least = 0.0 if QUANTITIES[name].start else math.ulp(0.0)
                if not runs or not all(least <= value < math.inf for value in runs):
                    raise ValueError(f"{name} is not positive and finite")
        if not isinstance(tree["protocol_hash"], str):
            raise TypeError(f"protocol_hash is {tree['protocol_hash']}")
        return tree, values
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise malformed(path, what, error) from None


def malformed(path: Path, what: str, error: Exception) -> SchemaError:
    """What to say of a file that is no golden."""
    return SchemaError(f"{path} is not a golden of {what} ({error}); restore it from git")


def write_values(path: Path, tree: Mapping[str, Any], values: Values) -> None:
    """Write a golden: sorted keys, one line per number, `_DIGITS` significant digits."""
    cases = {
        case: {name: [rounded(value) for value in runs] for name, runs in quantities.items()}
        for case, quantities in values.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**tree, "cases": cases}, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def rounded(value: float) -> float:
    """A number as a golden's file holds it."""
    return float(f"{value:.{_DIGITS}g}")


def setting_of(case: str) -> str:
    """Case name without the scene."""
    return case.split("/")[1]


def base_case(record: Record) -> str:
    """Case id of the suite's own seed."""
    return record.case.removesuffix(f"-s{record.seed}")
