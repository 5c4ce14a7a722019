"""Approved values of a case and the comparison of a record with them.

A golden is one small JSON file in git, ``golden/<suite>/<device class>/<case id>.json``. It holds the values, what
repeated seeds showed of their spread (`evalsuite.gates.noise`), what the values may be compared with (protocol hash,
scene, class of device, metric versions, number of views), and what made them (`Provenance`). How far a value may move
depends on what made it (`KIND_FLOORS`):

    tolerance = max(the metric's floor x share of the kind, t quantile x standard deviation of the difference)

The seeds of the samples are named, so that a run can also be held against the sample of its own seed, which it repeats
but for what changed (`Change.paired`, judged in `evalsuite.gates.means`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from evalsuite.core.errors import NonFiniteError, OutdatedError, SchemaError
from evalsuite.gates.noise import alarm, allowed, visible
from evalsuite.metrics.spec import ENGINE, METRICS, PROBES, MetricSpec
from evalsuite.records.schema import Reading, Record

SCHEMA = 4

_OF_PROBES = frozenset(PROBES)  # a registry is slow to ask, and every comparison does

Verdict = Literal["same", "better", "worse", "inconclusive", "stale", "no-golden", "not-run", "failed"]
BLOCKING: frozenset[Verdict] = frozenset({"worse", "stale", "no-golden", "not-run", "failed"})
COMPARED: frozenset[Verdict] = frozenset({"same", "better", "worse", "inconclusive"})

Kind = Literal["engine", "forward", "optimised"]
"""What made a result: one pass over a stored splat, one pass of a network or floor, or an optimisation."""

KIND_FLOORS: Mapping[Kind, float] = {"engine": 1.0, "forward": 0.4, "optimised": 1.0}
"""Share of the metric's floor that a kind's values may move without noise. One forward pass repeats but for the last
bits of the hardware: 0.02 dB. Probes of the engine declare floors of their own, which are tight as they are."""

DUST = 1e-6
"""Share of the metric's floor below which a spread is rounding: nothing is counted in it."""

UNMEASURED = 20.0
"""An optimised case whose noise nobody has measured: beyond its floor a change is ``inconclusive``, beyond so many
floors (1 dB) it is a change all the same."""

DIGITS = 8


@dataclass(frozen=True)
class Approved:
    """One metric of a golden.

    Attributes:
        value: mean over the golden's seeds, in the metric's unit.
        version: version of the metric's definition.
        sigma: moderated standard deviation of a single run.
        freedom: its degrees of freedom, 0 where nothing was measured.
        samples: what each of the golden's seeds gave, in their order; empty without repeats.
        views: length of the reading's ``per_view``.
    """

    value: float
    version: int
    sigma: float = 0.0
    freedom: float = 0.0
    samples: tuple[float, ...] = ()
    views: int | None = None


@dataclass(frozen=True)
class Provenance:
    """What made the values of a golden; empty where nobody wrote it down.

    Attributes:
        device_class, cpu: where they were made.
        commit, source: of this package.
        recipe_hash, weights, scene_hash, scene_source, libraries: as in `Record`.
    """

    device_class: str = ""
    cpu: str = ""
    commit: str = ""
    source: str = ""
    recipe_hash: str = ""
    weights: str = ""
    scene_hash: str = ""
    scene_source: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record) -> Provenance:
        """What made a record."""
        return cls(
            device_class=str(record.machine.get("device_class") or ""),
            cpu=str(record.machine.get("cpu") or ""),
            commit=str(record.git.get("commit") or record.git.get("package") or ""),
            source=record.source,
            recipe_hash=record.recipe_hash,
            weights=record.weights,
            scene_hash=record.scene_hash,
            scene_source=record.scene_source,
            libraries=dict(record.libraries),
        )

    def differences(self, now: Provenance) -> tuple[str, ...]:
        """What is known of both and differs, one line each: ``weights 3f2a81c09d11 -> 9c1b27aa0e54``."""
        names = {
            "commit": "commit",
            "source": "sources",
            "recipe_hash": "recipe",
            "weights": "weights",
            "scene_hash": "scene content",
            "scene_source": "scene files",
            "cpu": "cpu",
        }
        pairs = [(label, getattr(self, name)[:40], getattr(now, name)[:40]) for name, label in names.items()]
        if self.libraries and now.libraries:
            libraries = sorted({*self.libraries, *now.libraries})
            pairs += [(name, self.libraries.get(name, "none"), now.libraries.get(name, "none")) for name in libraries]
        return tuple(
            f"{label} {before} -> {after}" for label, before, after in pairs if before and after and before != after
        )


@dataclass(frozen=True)
class Golden:
    """Approved values of one case.

    Attributes:
        seeds: of the runs that the values are the mean of.
        metrics: by metric id.
        made: what made them.
        comparisons: how many values with noise the goldens of its suite hold: they share one error budget.
    """

    case: str
    protocol_hash: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Approved] = field(default_factory=dict)
    made: Provenance = Provenance()
    comparisons: int = 0

    def sample(self, metric: str, seed: int) -> float | None:
        """What this seed gave; None if it is not among the samples."""
        samples = self.metrics[metric].samples
        return samples[self.seeds.index(seed)] if samples and seed in self.seeds else None

    def dumps(self) -> str:
        """JSON with sorted keys.

        Raises:
            NonFiniteError: a value or a spread is NaN or infinite.
        """
        for name, approved in self.metrics.items():
            numbers = (approved.value, approved.sigma, approved.freedom, *approved.samples)
            if not all(math.isfinite(number) for number in numbers):
                raise NonFiniteError(
                    f"{name} of {self.case} is {approved.value} +- {approved.sigma}, expected finite numbers; mend the "
                    "case before approving it"
                )
        tree = {
            "schema": SCHEMA,
            "case": self.case,
            "protocol_hash": self.protocol_hash,
            "seeds": list(self.seeds),
            "comparisons": self.comparisons,
            "metrics": {name: _tree(approved) for name, approved in self.metrics.items()},
            "made": asdict(self.made),
        }
        return json.dumps(tree, sort_keys=True, indent=1) + "\n"


def _tree(approved: Approved) -> dict[str, Any]:
    return {
        "value": rounded(approved.value),
        "version": approved.version,
        "sigma": rounded(approved.sigma),
        "freedom": round(approved.freedom, 2),
        "samples": [rounded(sample) for sample in approved.samples],
        "views": approved.views,
    }


def rounded(number: float) -> float:
    """As files of goldens hold it: eight digits."""
    return float(f"{number:.{DIGITS}g}")


def loads(text: str, case: str, source: str) -> Golden:
    """Parse the golden of a case; ``source`` names the file in error messages.

    Raises:
        SchemaError: malformed, of another case or of a newer schema.
        OutdatedError: of an older schema.
    """
    try:
        tree = json.loads(text, parse_constant=_refuse_constant)
        schema = tree["schema"]
        if schema > SCHEMA:
            raise SchemaError(f"{source} has schema {schema}, this evalsuite reads {SCHEMA}; upgrade it")
        if schema < SCHEMA:
            raise OutdatedError(
                f"{source} has schema {schema}, this evalsuite reads {SCHEMA}: make the goldens anew (evalsuite noise, "
                "then evalsuite approve)"
            )
        if tree["case"] != case:
            raise ValueError(f"it is the golden of {tree['case']}")
        metrics = {
            name: Approved(**{**m, "freedom": float(m["freedom"]), "samples": tuple(m["samples"])})
            for name, m in tree["metrics"].items()
        }
        seeds = tuple(int(seed) for seed in tree["seeds"])
        for name, approved in metrics.items():
            if approved.samples and len(approved.samples) != len(seeds):
                raise ValueError(f"{name} has {len(approved.samples)} samples of {len(seeds)} seeds")
        made = Provenance(**tree["made"])
        return Golden(case, tree["protocol_hash"], seeds, metrics, made, int(tree["comparisons"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"{source} is not a golden of {case} ({error}); restore it from git") from None


@dataclass(frozen=True)
class Change:
    """One metric of one case beside its golden.

    Attributes:
        drop: by how much the record is worse than the golden, whatever the metric's direction.
        tolerance: the largest drop or gain still called ``same``.
        sigma: standard deviation of ``drop`` under noise alone; 0 where a value has none.
        measured: whether noise was measured, or there is none to measure.
        paired: by how much the record is worse than the golden's own sample of its seed; None without one.
    """

    metric: str
    golden: float
    value: float
    drop: float
    tolerance: float
    sigma: float = 0.0
    measured: bool = True
    paired: float | None = None

    @property
    def verdict(self) -> Verdict:
        """``same`` within the tolerance, else ``worse`` or ``better``; ``inconclusive`` if noise could explain it."""
        if abs(self.drop) <= self.tolerance:
            return "same"
        if not self.measured and abs(self.drop) <= UNMEASURED * self.tolerance:
            return "inconclusive"
        return "worse" if self.drop > 0 else "better"

    @property
    def sigmas(self) -> float | None:
        """The drop in standard deviations of noise; None for values without any, but for rounding."""
        return self.drop / self.sigma if noisy(self.metric, self.sigma) else None

    @property
    def visible(self) -> float:
        """The loss this comparison sees in 95 % of runs, in the metric's unit."""
        return visible(self.tolerance, self.sigma)


@dataclass(frozen=True)
class Comparison:
    """Verdict on one case, with the numbers behind it and one line of explanation.

    Attributes:
        left_out: optional metrics that were not compared, by metric, with why.
        differs: what else is not as it was when the golden was made, one line each.
    """

    case: str
    verdict: Verdict
    changes: tuple[Change, ...] = ()
    reason: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether this verdict fails a gate."""
        return self.verdict in BLOCKING


class GoldenStore:
    """The goldens of one suite on one device class."""

    def __init__(self, root: Path, suite: str, device_class: str) -> None:
        self.folder, self.device_class = root / suite / device_class, device_class

    def path(self, case: str) -> Path:
        """Where the golden of a case lives."""
        return self.folder / f"{case}.json"

    def read(self, case: str) -> Golden | None:
        """The golden of a case, None if there is none.

        Raises:
            SchemaError: the file is malformed or of a newer schema.
            OutdatedError: it is of an older schema.
        """
        path = self.path(case)
        if not path.exists():
            return None
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(f"{path} cannot be read ({error}); restore it from git") from None
        golden = loads(text, case, str(path))
        return replace(golden, made=replace(golden.made, device_class=golden.made.device_class or self.device_class))

    def write(self, golden: Golden) -> None:
        """Write a golden, replacing an earlier one.

        Raises:
            NonFiniteError: a value or a spread is NaN or infinite.
        """
        text, path = golden.dumps(), self.path(golden.case)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)

    @property
    def machine_path(self) -> Path:
        """File that names the machine the goldens were approved on; no case id, so no golden."""
        return self.folder / "machine.json"

    def machine(self) -> dict[str, Any] | None:
        """Fingerprint of the machine that the goldens were approved on, None if nobody has said."""
        path = self.machine_path
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise SchemaError(f"{path} is no fingerprint of a machine ({error}); restore it from git") from None

    def write_machine(self, fingerprint: Mapping[str, Any]) -> None:
        """Say which machine the goldens were approved on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.machine_path.write_text(json.dumps(fingerprint, sort_keys=True, indent=1) + "\n", encoding="utf-8")

    def cases(self) -> tuple[str, ...]:
        """Ids of all cases that have a golden."""
        return tuple(
            sorted(p.relative_to(self.folder).with_suffix("").as_posix() for p in self.folder.glob("*/*.json"))
        )


def kind_of(record: Record) -> Kind:
    """What made a record's values."""
    if record.suite == ENGINE:
        return "engine"
    return "optimised" if record.budget and record.steps else "forward"


def compare(case: str, record: Record | None, golden: Golden | None) -> Comparison:
    """Judge one case. Values of other protocols, metric versions or views are ``stale``, never compared.

    An `optional` metric that the record lacks for want of data, or that the golden does not have yet, is left out.
    """
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
    if not readings:
        return Comparison(case, "failed", reason="the record holds no metric with a value: nothing was compared")
    left_out, differs = _left_out(record, golden), golden.made.differences(Provenance.of(record))
    found = Comparison(case, "failed", left_out=left_out, differs=differs)
    stale = _stale(record, golden, left_out)
    if stale:
        return replace(found, verdict="stale", reason=stale)
    compared = sorted(set(readings) - set(left_out))
    for name in compared:
        value, approved = readings[name].value, golden.metrics[name]
        if value is None or not math.isfinite(value + approved.value + approved.sigma):
            return replace(found, reason=f"{name} is {value}, its golden {approved.value}: not finite")
    if not compared:
        return replace(found, reason=f"nothing was compared: {'; '.join(left_out.values())}")
    changes = tuple(_change(name, golden, record) for name in compared)
    verdicts = {change.verdict for change in changes}
    order: tuple[Verdict, ...] = ("worse", "inconclusive", "better", "same")
    return replace(found, verdict=next(v for v in order if v in verdicts), changes=changes)


def _left_out(record: Record, golden: Golden) -> dict[str, str]:
    """Optional metrics that one side lacks, with why; a reading that failed otherwise is not left out."""
    found = {}
    for name in sorted(set(record.metrics) | set(golden.metrics)):
        reading: Reading | None = record.metrics.get(name)
        if not specification(name).optional or reading is None:
            continue
        if reading.status == "missing-data" and name in golden.metrics:
            found[name] = f"{name} is missing-data here"
        elif reading.status == "ok" and name not in golden.metrics:
            found[name] = f"{name} is not in the golden"
    return found


def _stale(record: Record, golden: Golden, left_out: Mapping[str, str]) -> str:
    """Why a record and a golden must not be compared; empty if they may."""
    if golden.protocol_hash != record.protocol_hash:
        return f"golden of protocol {golden.protocol_hash}, record of {record.protocol_hash}"
    elsewhere = _elsewhere(golden.made, Provenance.of(record))
    if elsewhere:
        return elsewhere
    readings = {name: r for name, r in record.metrics.items() if r.status == "ok" and name not in left_out}
    odd = sorted(set(readings) ^ (set(golden.metrics) - set(left_out)))
    if odd:
        return f"golden and record differ in having {', '.join(odd)}"
    for name, reading in readings.items():
        approved = golden.metrics[name]
        if reading.version != approved.version:
            return f"{name} version {approved.version} in golden, {reading.version} now"
        if approved.views is not None and len(reading.per_view) != approved.views:
            return f"{name} over {approved.views} views in golden, {len(reading.per_view)} now"
    return ""


def _elsewhere(made: Provenance, now: Provenance) -> str:
    """Whether golden and record are of different classes of device or different scenes, in words; else empty.

    On another processor rays may round otherwise: there the files decide, and where there are none the name does.
    """

    def differ(name: str) -> bool:
        before, after = getattr(made, name), getattr(now, name)
        return bool(before and after and before != after)

    if differ("device_class"):
        return f"golden of device class {made.device_class}, record of {now.device_class}"
    if differ("scene_source"):
        return f"the scene was read from files {made.scene_source} for the golden, {now.scene_source} now"
    if differ("scene_hash") and made.cpu == now.cpu:
        return f"the scene holds {made.scene_hash} in the golden, {now.scene_hash} now"
    return ""


def _change(name: str, golden: Golden, record: Record) -> Change:
    spec, value, kind = specification(name), record.metrics[name].value, kind_of(record)
    approved = golden.metrics[name]
    assert value is not None
    # one pass has no noise, whatever a file says
    sigma = approved.sigma * math.sqrt(1 + 1 / len(golden.seeds)) if kind == "optimised" else 0.0
    own = golden.sample(name, record.seed) if kind == "optimised" else None
    noise = allowed(sigma, approved.freedom, alarm("cases", golden.comparisons))
    return Change(
        metric=name,
        golden=approved.value,
        value=value,
        drop=spec.drop(approved.value, value),
        tolerance=max(spec.floor * KIND_FLOORS[kind], noise),
        sigma=sigma,
        measured=kind != "optimised" or approved.freedom > 0,
        paired=None if own is None else spec.drop(own, value),
    )


def describe(comparison: Comparison) -> list[str]:
    """One line per metric that moved, or one with the reason."""
    if not comparison.changes:
        return [f"{comparison.verdict:12} {comparison.case}: {comparison.reason}"]
    return [
        f"{change.verdict:12} {comparison.case}: {change.metric} {change.golden:.4f} -> {change.value:.4f} "
        f"(tolerance {change.tolerance:.4f}, {_size(change)})"
        for change in comparison.changes
        if change.verdict != "same"
    ]


def _size(change: Change) -> str:
    """The move in what it is judged by: noise, or the tolerance of a value that has none but rounding."""
    if change.sigmas is None:
        return f"{-change.drop / change.tolerance:+.1f} tolerances"
    return f"{-change.sigmas:+.1f} sigma"


def noisy(metric: str, sigma: float) -> bool:
    """Whether a standard deviation is more than rounding."""
    return sigma > DUST * specification(metric).floor


def specification(metric: str) -> MetricSpec:
    """Declaration of a metric, or of a number that a probe of the engine gives."""
    return PROBES[metric] if metric in _OF_PROBES else METRICS[metric]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} in place of a number")
