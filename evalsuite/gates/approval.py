"""Making records the goldens: only what moved beyond tolerance, and only from a run that anybody could repeat.

Everything is checked before the first file is written: half an approval is no approval.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalsuite.core.errors import OptionError, OutdatedError
from evalsuite.gates.golden import (
    Approved,
    Change,
    Comparison,
    Golden,
    GoldenStore,
    Provenance,
    compare,
    kind_of,
    noisy,
    rounded,
)
from evalsuite.gates.noise import Spread, Spreads, moderated
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore

HARDWARE = ("device_class", "cpu", "gpu")
"""What a golden folder belongs to, of a machine's fingerprint."""


@dataclass(frozen=True)
class Checkout:
    """The code that asks for an approval.

    Attributes:
        source: hash of the package's sources now.
        uncommitted: files of the package that differ from the last commit, or are not in it; None outside git.
        machine: fingerprint of this machine and the device that the records ran on.
        libraries: version and hash of the libraries that are installed here.
    """

    source: str
    uncommitted: tuple[str, ...] | None
    machine: Mapping[str, Any]
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class Repeats:
    """Runs of the same cases with other seeds.

    Attributes:
        seeds: none: the spread that the goldens have is kept.
        records: where they are.
    """

    seeds: tuple[int, ...]
    records: RecordStore


def refuse_in_ci(environment: Mapping[str, str] = os.environ) -> None:
    """Goldens are approved by people.

    Raises:
        OptionError: the variable CI is set.
    """
    if environment.get("CI", "") not in ("", "0", "false"):
        raise OptionError(
            "CI is set: goldens are never approved there; run `evalsuite approve` on a machine of this class and "
            "commit the diff"
        )


def refuse_unrepeatable(records: Iterable[Record], checkout: Checkout, approved_on: Mapping[str, Any] | None) -> None:
    """Refuse records that this code and this kind of machine would not make again.

    Args:
        approved_on: fingerprint of the machine that the goldens were approved on; None if there are none yet.

    Raises:
        OptionError: uncommitted sources, records of other sources or libraries, of several machines, or of another one.
    """
    if checkout.uncommitted is None:
        raise OptionError(
            "git does not track the package that runs here (installed, outside a repository, or no git): nobody could "
            "review new goldens; run from a clone"
        )
    if checkout.uncommitted:
        raise OptionError(
            f"{len(checkout.uncommitted)} files of the package are not committed (first: {checkout.uncommitted[0]}): "
            "commit them, run the suite, then approve"
        )
    for record in records:
        if record.source != checkout.source:
            raise OptionError(
                f"{record.case} was made by sources {record.source or 'unknown'}, these are {checkout.source}: run the "
                "suite with this code, then approve"
            )
        if record.libraries != checkout.libraries:
            name = min(n for n, here in checkout.libraries.items() if record.libraries.get(n) != here)
            raise OptionError(
                f"{record.case} was made with {name} {record.libraries.get(name, 'unknown')}, here is "
                f"{checkout.libraries[name]}: run the suite with these libraries, then approve"
            )
        for name in HARDWARE:
            found, here = record.machine.get(name), checkout.machine.get(name)
            if found != here:
                raise OptionError(
                    f"{record.case} was made on another machine ({name} {found}, this one has {here}): approve where "
                    "it ran"
                )
    for name in HARDWARE if approved_on else ():
        before, here = (approved_on or {}).get(name), checkout.machine.get(name)
        if before != here:
            raise OptionError(
                f"these goldens were approved on another machine ({name} {before}, this one has {here}): approve "
                "there, or move the whole class with --new-machine"
            )


def approve(
    records: RecordStore, expected: Sequence[str], goldens: GoldenStore, repeats: Repeats | None = None
) -> list[Comparison]:
    """Write goldens from records; returns what was written and why.

    Without repeats a case whose verdict is ``same`` keeps its golden to the byte. With repeats every optimised case is
    written: its values are the mean over all runs, and its spread rests on these very runs and on those of the other
    scenes (`evalsuite.gates.seal` holds goldens to that).

    Args:
        expected: ids of every case of the suite; a run that lacks one is refused whole.

    Raises:
        OptionError: a case is missing or failed, was not run with one of the seeds, or moved although its noise was
            measured and is not measured anew; or a seed is named twice.
        NonFiniteError: a value is NaN or infinite.
    """
    found = _complete(records, expected)
    samples: dict[str, dict[str, tuple[float, ...]]] = {}
    seeds = repeats.seeds if repeats else ()
    if len(set(seeds)) < len(seeds):
        raise OptionError(f"seeds {' '.join(map(str, seeds))} name one twice: a run is no repeat of itself")
    if repeats and seeds:
        samples = {r.case: _samples(r, _repeats(r, repeats)) for r in found if kind_of(r) == "optimised"}
    spreads = moderated(samples)
    comparisons = _with_noise(spreads)
    fresh: list[tuple[Golden, Comparison]] = []
    for record in found:
        old, comparison = _beside_old(record, goldens)
        if record.case in samples:
            golden = _measured(_single(record), samples[record.case], spreads[record.case])
            golden = replace(golden, seeds=(record.seed, *seeds), comparisons=comparisons)
        elif comparison.verdict == "same":
            continue
        else:
            _refuse_lost_noise(record, old)
            golden = _single(record)
        golden = _with_what_lacks_data(golden, comparison, old)
        text = golden.dumps()  # refuses what is not finite
        if old is None or text != old.dumps():
            fresh.append((golden, comparison))
    for golden, _ in fresh:
        goldens.write(golden)
    return [comparison for _, comparison in fresh]


def _beside_old(record: Record, goldens: GoldenStore) -> tuple[Golden | None, Comparison]:
    """The golden as it is, and the record beside it; one that this evalsuite no longer reads is stale."""
    try:
        old = goldens.read(record.case)
    except OutdatedError as error:
        return None, Comparison(record.case, "stale", reason=str(error))
    return old, compare(record.case, record, old)


def _with_noise(spreads: Spreads) -> int:
    """How many values have noise: each of them is a comparison that may be a false alarm."""
    return sum(noisy(metric, s.sigma) for metrics in spreads.values() for metric, s in metrics.items())


def prune(goldens: GoldenStore, expected: Sequence[str]) -> tuple[str, ...]:
    """Delete goldens of cases that the suite does not have; returns their ids."""
    orphans = tuple(case for case in goldens.cases() if case not in set(expected))
    for case in orphans:
        goldens.path(case).unlink()
    return orphans


def change_entry(
    title: str,
    reason: str,
    changed: Sequence[Comparison],
    pruned: Sequence[str] = (),
    edits: Sequence[str] = (),
) -> str:
    """What the change log says of one approval: the reason, counts, and old -> new as means over scenes.

    Args:
        edits: what was found changed without an approval (`evalsuite.gates.seal.edits`), and is approved with this one.
    """
    counts = Counter(comparison.verdict for comparison in changed)
    tally = ", ".join(f"{count} were {verdict}" for verdict, count in sorted(counts.items()))
    lines = [title, "", reason, "", f"{len(changed)} cases written: {tally or 'none'}."]
    if pruned:
        lines.append(f"{len(pruned)} cases removed: {', '.join(pruned)}.")
    lines += [f"Changed by hand before: {edit}." for edit in edits]
    moves: dict[tuple[str, str], list[Change]] = {}
    for comparison in changed:
        for change in comparison.changes:
            if change.verdict != "same":
                moves.setdefault((comparison.case.split("/")[1], change.metric), []).append(change)
    if moves:
        lines += ["", "| case | metric | moved | old | new |", "|---|---|---:|---:|---:|"]
    for (setting, metric), found in sorted(moves.items()):
        old, new = (statistics.fmean(values) for values in ([c.golden for c in found], [c.value for c in found]))
        lines.append(f"| {setting} | {metric} | {len(found)} | {old:.4f} | {new:.4f} |")
    return "\n".join(lines) + "\n"


def append_change(log: Path, entry: str, day: str) -> None:
    """Add an entry to the change log of the goldens."""
    previous = log.read_text(encoding="utf-8") if log.exists() else "# What was approved, and why\n"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{previous}\n## {day}: {entry}", encoding="utf-8")


def _complete(records: RecordStore, expected: Sequence[str]) -> list[Record]:
    found = {case: records.read(case) for case in expected}
    good = [record for record in found.values() if record is not None and record.status == "ok"]
    if len(good) < len(expected):
        first = next(case for case, record in found.items() if record is None or record.status != "ok")
        raise OptionError(
            f"{len(expected) - len(good)} of {len(expected)} cases have no good record (first: {first}), expected all: "
            "run the suite to its end, then approve"
        )
    return good


def _repeats(record: Record, repeats: Repeats) -> list[Record]:
    """The same case with other seeds, made by the same code, libraries, protocol, recipe and weights of one scene."""

    def maker(r: Record) -> tuple[object, ...]:
        libraries, where = dict(r.libraries), r.machine.get("device_class")
        return r.protocol_hash, r.recipe_hash, r.scene_hash, r.weights, r.source, libraries, where

    found = []
    for seed in repeats.seeds:
        repeat = repeats.records.read(f"{record.case}-s{seed}")
        if repeat is None or repeat.status != "ok" or maker(repeat) != maker(record):
            raise OptionError(
                f"{record.case} has no good record with seed {seed} made by the same code, libraries, "
                f"protocol and recipe from the same scene; run `evalsuite noise --seeds {seed}`"
            )
        found.append(repeat)
    return found


def _samples(record: Record, repeats: Sequence[Record]) -> dict[str, tuple[float, ...]]:
    """Every metric of the first run, over all runs, as the file will hold them: spreads are to be what it says."""
    samples = {}
    for metric in _values(record):
        values = tuple(rounded(value) for r in (record, *repeats) if (value := r.value(metric)) is not None)
        if len(values) <= len(repeats):
            raise OptionError(
                f"{metric} of {record.case} has a value for {len(values)} of {1 + len(repeats)} seeds; "
                "run `evalsuite noise`"
            )
        samples[metric] = values
    return samples


def _values(record: Record) -> dict[str, float]:
    return {name: r.value for name, r in record.metrics.items() if r.status == "ok" and r.value is not None}


def _measured(single: Golden, samples: Mapping[str, tuple[float, ...]], spreads: Mapping[str, Spread]) -> Golden:
    """The golden of several runs, from that of the first."""
    metrics = {
        name: replace(
            approved,
            value=statistics.fmean(samples[name]),
            sigma=spreads[name].sigma,
            freedom=spreads[name].freedom,
            samples=samples[name],
        )
        for name, approved in single.metrics.items()
    }
    return replace(single, metrics=metrics)


def _single(record: Record) -> Golden:
    """The golden of one run: nothing is known of its noise."""
    metrics = {
        name: Approved(value, record.metrics[name].version, views=len(record.metrics[name].per_view))
        for name, value in _values(record).items()
    }
    return Golden(record.case, record.protocol_hash, (record.seed,), metrics, Provenance.of(record))


def _with_what_lacks_data(golden: Golden, comparison: Comparison, old: Golden | None) -> Golden:
    """An optional metric that this machine cannot measure keeps its value, but no samples: they are of other runs."""
    known = {} if old is None else {n: old.metrics[n] for n in comparison.left_out if n in old.metrics}
    kept = {name: replace(approved, sigma=0.0, freedom=0.0, samples=()) for name, approved in known.items()}
    return replace(golden, metrics={**kept, **golden.metrics})


def _refuse_lost_noise(record: Record, old: Golden | None) -> None:
    """A measured spread belongs to the runs it was measured on: one new run says nothing of its own."""
    if old is None or old.protocol_hash != record.protocol_hash or kind_of(record) != "optimised":
        return
    if any(approved.samples for approved in old.metrics.values()):
        raise OptionError(
            f"{record.case} moved, and its noise was measured on {len(old.seeds)} runs of what was before; expected "
            "repeats: run `evalsuite noise --seeds 1 2 3 4`, then approve with --seeds 1 2 3 4"
        )
