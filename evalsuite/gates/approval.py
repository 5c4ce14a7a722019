"""Making records the goldens: what moved beyond tolerance, and how much each case varies with the seed.

A spread from three seeds is itself noisy: by chance some cases would show almost none, and cry wolf on the next
machine. So a case's variance is averaged half and half with the mean variance of the same arm, budget and N over all
scenes (shrinkage with equal weights, after Smyth 2004, "Linear models and empirical Bayes methods").
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalsuite.core.errors import OptionError
from evalsuite.gates.golden import Comparison, Golden, GoldenStore, compare
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore

Spreads = Mapping[str, Mapping[str, float]]
"""Standard deviation by case id and metric id."""


def approve(
    records: RecordStore,
    expected: Sequence[str],
    goldens: GoldenStore,
    seeds: Sequence[int] = (),
    repeats: RecordStore | None = None,
) -> list[Comparison]:
    """Write goldens from records; returns what changed and why.

    A case whose verdict is ``same`` keeps its values; with ``seeds`` only its spread is measured anew. Everything is
    checked before the first file is written.

    Args:
        expected: ids of every case of the suite; a run that lacks one is refused whole.
        seeds: further seeds that `evalsuite noise` has run, from which the spread of every optimised case is measured.
        repeats: where its records are, if not among ``records``.

    Raises:
        OptionError: a case is missing or failed, or was not run with one of the seeds.
    """
    found = _complete(records, expected)
    spreads = moderated(
        {r.case: _spread(r, _repeats(r, repeats or records, seeds)) for r in found if r.budget and seeds}
    )
    fresh: list[tuple[Golden, Comparison]] = []
    for record in found:
        old = goldens.read(record.case)
        comparison = compare(record.case, record, old)
        golden = _golden_of(record, old, spreads.get(record.case), 1 + len(seeds))
        if comparison.verdict == "same" and old is not None:
            if golden.noise == old.noise:
                continue
            golden = replace(golden, values=old.values)
        fresh.append((golden, comparison))
    for golden, _ in fresh:
        goldens.write(golden)
    return [comparison for _, comparison in fresh]


def moderated(spreads: Spreads) -> Spreads:
    """Average each case's variance with the mean over scenes of the same arm, budget and N."""
    pools: dict[tuple[str, str], list[float]] = {}
    for case, metrics in spreads.items():
        for metric, spread in metrics.items():
            pools.setdefault((case.split("/")[1], metric), []).append(spread**2)
    return {
        case: {
            metric: round(math.sqrt((spread**2 + statistics.fmean(pools[case.split("/")[1], metric])) / 2), 6)
            for metric, spread in metrics.items()
        }
        for case, metrics in spreads.items()
    }


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


def _repeats(record: Record, records: RecordStore, seeds: Sequence[int]) -> list[Record]:
    """The same case with other seeds, made by the same code, protocol, recipe and weights."""

    def maker(r: Record) -> tuple[str, ...]:
        return r.protocol_hash, r.recipe_hash, r.weights, r.source

    repeats = []
    for seed in seeds:
        repeat = records.read(f"{record.case}-s{seed}")
        if repeat is None or repeat.status != "ok" or maker(repeat) != maker(record):
            raise OptionError(
                f"{record.case} has no good record with seed {seed} made by the same code, protocol and recipe; "
                f"run `evalsuite noise --seeds {seed}`"
            )
        repeats.append(repeat)
    return repeats


def _spread(record: Record, repeats: Sequence[Record]) -> dict[str, float]:
    """Sample standard deviation of every metric over seeds."""
    spreads = {}
    for metric in _values(record):
        values = [value for r in (record, *repeats) if (value := r.value(metric)) is not None]
        if len(values) <= len(repeats):
            raise OptionError(
                f"{metric} of {record.case} has a value for {len(values)} of {1 + len(repeats)} seeds; "
                "run `evalsuite noise`"
            )
        spreads[metric] = statistics.stdev(values)
    return spreads


def _values(record: Record) -> dict[str, float]:
    return {name: r.value for name, r in record.metrics.items() if r.status == "ok" and r.value is not None}


def _golden_of(record: Record, old: Golden | None, spread: Mapping[str, float] | None, seeds: int) -> Golden:
    values = _values(record)
    kept = {name: old.noise.get(name, 0.0) if old else 0.0 for name in values}
    return Golden(
        case=record.case,
        protocol_hash=record.protocol_hash,
        metric_versions={name: record.metrics[name].version for name in values},
        values=values,
        noise=spread if spread is not None else kept,
        seeds=seeds if spread is not None else (old.seeds if old else 1),
    )
