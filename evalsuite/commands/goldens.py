"""``approve`` and ``diff``: records become goldens, with a reason, or are shown beside them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from evalsuite.commands.chosen import chosen_store, chosen_suite
from evalsuite.core.errors import OptionError
from evalsuite.core.machine import device_class, fingerprint, libraries, source_hash, uncommitted
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
from evalsuite.gates.noise import Spread, Spreads, freedom_lines
from evalsuite.gates.peaks import memory_of, memory_path, read_memory, write_memory
from evalsuite.gates.timing import golden_of, read_timing, timing_path, write_timing
from evalsuite.metrics.spec import ENGINE
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore

if TYPE_CHECKING:
    from evalsuite.gates.claims import Claim

CLAIMS = Path("tests/ablation/claims.toml")
"""Where the claims lie, from the root of a checkout."""


def diff(options: argparse.Namespace) -> int:
    """Show what moved; always 0."""
    from evalsuite.report.difference import difference_lines

    suite = chosen_suite(options)
    goldens = GoldenStore(options.golden, suite.name, device_class(options.device))
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    print(*difference_lines(chosen_store(options), goldens, expected), sep="\n")
    return 0


def check_and_approve(options: argparse.Namespace) -> int:
    """Approve, once it is clear without torch that there is something to approve."""
    refuse_in_ci()
    require_folder(options.golden, "--golden")
    store, suite = chosen_store(options), chosen_suite(options)
    refuse_unrepeatable((), Checkout(source_hash(), uncommitted(), {}, {}), None)  # the checkout alone; records follow
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    if not any(store.path(case).exists() for case in expected):
        raise OptionError(
            f"{len(expected)} of {len(expected)} cases have no good record in {store.root}, expected all: run the "
            "suite, or name the folder of its records with --out"
        )
    return _approve(options)


def _approve(options: argparse.Namespace) -> int:
    from evalsuite.execution.probes import PROBE_CASES
    from evalsuite.gates.seal import edits, seal

    suite, store = chosen_suite(options), chosen_store(options)
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    records = [record for case in expected if (record := store.read(case)) is not None]
    device = _device_of(records)
    goldens = GoldenStore(options.golden, suite.name, device_class(device))
    engine = GoldenStore(options.golden, ENGINE, goldens.device_class)
    checkout = Checkout(source_hash(), uncommitted(), fingerprint(device), libraries())
    refuse_unrepeatable(records, checkout, None if options.new_machine else goldens.machine())
    claims = _claims(options.claims)
    by_hand = (*edits(goldens, claims), *edits(engine, ()))
    repeats = Repeats(tuple(options.seeds), RecordStore((options.noise or options.out) / "records" / suite.name))
    changed = approve(store, expected, goldens, repeats)
    pruned = prune(goldens, expected) if options.prune else ()
    changed += _approve_engine(options, engine, device)
    for line in (*map(_line, changed), *(f"{'pruned':12} {case}" for case in pruned)):
        print(line)
    runs = [
        [record for case in expected if (record := source.read(f"{case}{seed}")) is not None]
        for source, seed in ((store, ""), *((repeats.records, f"-s{seed}") for seed in options.seeds))
    ]
    _approve_costs(options, runs, goldens)
    seal(goldens, claims)
    if changed or pruned or by_hand:
        goldens.write_machine(checkout.machine)
        entry = change_entry(f"{suite.name} on {goldens.device_class}", options.reason, changed, pruned, by_hand)
        append_change(options.golden / "CHANGES.md", entry, datetime.now(UTC).date().isoformat())
    print(*freedom_lines(_spreads(goldens)), sep="\n")
    print(f"{len(changed)} goldens of {len(expected)} cases and {len(PROBE_CASES)} probes written in {options.golden}")
    return 0


def _spreads(goldens: GoldenStore) -> Spreads:
    """Of every approved case."""
    found = [golden for case in goldens.cases() if (golden := goldens.read(case)) is not None]
    return {g.case: {name: Spread(a.sigma, a.freedom) for name, a in g.metrics.items()} for g in found}


def _device_of(records: list[Record]) -> str:
    """What ran, not what the machine has; records of both are refused later."""
    return "cuda" if any(str(r.machine.get("device_class")).startswith("cuda") for r in records) else "cpu"


def _claims(named: Path | None) -> tuple[Claim, ...]:
    from evalsuite.gates.claims import load_claims

    return load_claims(named or CLAIMS) if named or CLAIMS.is_file() else ()


def _approve_costs(options: argparse.Namespace, runs: list[list[Record]], goldens: GoldenStore) -> None:
    """Memory always, speed where this machine is to be declared."""
    place = options.golden, chosen_suite(options).name, goldens.device_class
    memory = memory_path(*place)
    write_memory(memory, memory_of(runs, read_memory(memory)))
    if options.timing:
        timing = timing_path(*place)
        write_timing(timing, golden_of(runs, read_timing(timing)))


def _approve_engine(options: argparse.Namespace, goldens: GoldenStore, device: str) -> list[Comparison]:
    """The engine's probes take a second: they are run here rather than trusted to be there."""
    from evalsuite.execution.probes import PROBE_CASES, probe
    from evalsuite.gates.seal import seal

    store = RecordStore(options.out / "records" / ENGINE)
    for case in PROBE_CASES:
        store.write(probe(case, device))
    changed = approve(store, tuple(PROBE_CASES), goldens)
    if changed:
        goldens.write_machine(fingerprint(device))
    seal(goldens, ())
    return changed


def _line(comparison: Comparison) -> str:
    moves = ", ".join(f"{c.metric} {c.golden:.4f} -> {c.value:.4f}" for c in comparison.changes if c.verdict != "same")
    return f"{comparison.verdict:12} {comparison.case} {moves or comparison.reason or 'spread measured anew'}".rstrip()
