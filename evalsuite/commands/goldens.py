"""``approve``: records become goldens, with a reason."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from evalsuite.commands.chosen import chosen_store, chosen_suite
from evalsuite.core.errors import OptionError
from evalsuite.core.machine import device_class, fingerprint, source_hash, uncommitted
from evalsuite.execution.preflight import require_folder
from evalsuite.gates.approval import (
    Checkout,
    Repeats,
    append_change,
    approve,
    change_entry,
    prune,
    refuse_in_ci,
    refuse_unrepeatable,
)
from evalsuite.gates.golden import Comparison, GoldenStore
from evalsuite.gates.timing import golden_of, read_timing, timing_path, write_timing
from evalsuite.metrics.spec import ENGINE
from evalsuite.records.store import RecordStore


def check_and_approve(options: argparse.Namespace) -> int:
    """Approve, once it is clear without torch that there is something to approve."""
    refuse_in_ci()
    require_folder(options.golden, "--golden")
    store, suite = chosen_store(options), chosen_suite(options)
    refuse_unrepeatable((), Checkout(source_hash(), uncommitted(), {}), None)  # the checkout alone; records follow
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    if not any(store.path(case).exists() for case in expected):
        raise OptionError(
            f"{len(expected)} of {len(expected)} cases have no good record in {store.root}, expected all: run the "
            "suite, or name the folder of its records with --out"
        )
    return _approve(options)


def _approve(options: argparse.Namespace) -> int:
    from evalsuite.execution.probes import PROBE_CASES

    suite, device = chosen_suite(options), device_class()
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    store, goldens = chosen_store(options), GoldenStore(options.golden, suite.name, device)
    checkout = Checkout(source_hash(), uncommitted(), fingerprint())
    records = [record for case in expected if (record := store.read(case)) is not None]
    refuse_unrepeatable(records, checkout, None if options.new_machine else goldens.machine())
    repeats = Repeats(tuple(options.seeds), RecordStore((options.noise or options.out) / "records" / suite.name))
    changed = approve(store, expected, goldens, repeats)
    pruned = prune(goldens, expected) if options.prune else ()
    changed += _approve_engine(options, device)
    for comparison in changed:
        print(_line(comparison))
    for case in pruned:
        print(f"{'pruned':12} {case}")
    if options.timing:
        path = timing_path(options.golden, suite.name, device)
        runs = [
            [record for case in expected if (record := source.read(f"{case}{seed}")) is not None]
            for source, seed in ((store, ""), *((repeats.records, f"-s{seed}") for seed in options.seeds))
        ]
        write_timing(path, golden_of(runs, read_timing(path)))
    if changed or pruned:
        goldens.write_machine(fingerprint())
        entry = change_entry(f"{suite.name} on {device}", options.reason, changed, pruned)
        append_change(options.golden / "CHANGES.md", entry, datetime.now(UTC).date().isoformat())
    print(f"{len(changed)} goldens of {len(expected)} cases and {len(PROBE_CASES)} probes written in {options.golden}")
    return 0


def _approve_engine(options: argparse.Namespace, device: str) -> list[Comparison]:
    """The engine's probes take a second: they are run here rather than trusted to be there."""
    goldens, store = GoldenStore(options.golden, ENGINE, device), RecordStore(options.out / "records" / ENGINE)
    from evalsuite.execution.probes import PROBE_CASES, probe

    for case in PROBE_CASES:
        store.write(probe(case, "cuda" if device.startswith("cuda") else "cpu"))
    changed = approve(store, tuple(PROBE_CASES), goldens)
    if changed:
        goldens.write_machine(fingerprint())
    return changed


def _line(comparison: Comparison) -> str:
    moves = ", ".join(f"{c.metric} {c.golden:.4f} -> {c.value:.4f}" for c in comparison.changes if c.verdict != "same")
    return f"{comparison.verdict:12} {comparison.case} {moves or comparison.reason or 'spread measured anew'}".rstrip()
