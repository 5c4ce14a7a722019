"""Command line of evalsuite: doctor, data, runs, noise, approval, comparison, report, training."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from evalsuite.core.errors import EvalsuiteError, OptionError
from evalsuite.core.machine import device_class, fingerprint, libraries, source_hash, uncommitted
from evalsuite.core.mirror import DATA, mirror
from evalsuite.core.protocol import Protocol
from evalsuite.core.suites import Suite
from evalsuite.doctor import data_lines, lpips_acceptance, machine_lines
from evalsuite.execution.checkouts import checkout, laps
from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.probes import PROBE_CASES, probe
from evalsuite.execution.progress import run_selection
from evalsuite.execution.selection import Selection, find_suite, select
from evalsuite.fetch.fetching import Outcome, Source, fetch
from evalsuite.fetch.listing import listing, size_text
from evalsuite.fetch.manifest import Item, load_manifest
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
from evalsuite.gates.claims import Claim, load_claims
from evalsuite.gates.golden import Comparison, GoldenStore
from evalsuite.gates.paired import MIN_PAIRS, judge_pairs, metric_differences
from evalsuite.gates.peaks import memory_of, memory_path, read_memory, write_memory
from evalsuite.gates.seal import edits, seal
from evalsuite.gates.timing import golden_of, read_timing, timing_path, write_timing
from evalsuite.metrics.spec import ENGINE
from evalsuite.models.lgm.card import export
from evalsuite.models.lgm.config import TRAINABLE
from evalsuite.models.lgm.training import TrainingData, TrainSettings, load_objects, train_on
from evalsuite.models.lgm.weights import MINI_PATH, weights_path
from evalsuite.records.store import RecordStore
from evalsuite.report.difference import difference_lines
from evalsuite.report.numbers import write_numbers
from evalsuite.report.page import write_page
from evalsuite.report.tables import case_table, means_tables, stratum_table
from evalsuite.scenes.catalogue import PREPARED, SCENES
from evalsuite.scenes.contents import content_hash
from evalsuite.scenes.preparation import prepare

CLAIMS = Path("tests/ablation/claims.toml")
TABLE_WIDTH = 120
"""Tables are printed at least this wide: a wrapped number is no number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. User errors are one line on stderr and code 2."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except EvalsuiteError as error:
        print(f"evalsuite: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evalsuite", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        sub.add_argument("--suite", default="smoke", help="default: smoke")
        sub.add_argument("--model", help="network of arms A and B instead of the suite's, e.g. lgm-big")
        sub.add_argument("--out", default="out", type=Path, help="folder of records and page (default: out)")
        return sub

    _add_doctor(commands)
    _add_fetch(commands)
    run = command("run", _run, "run a suite and write its records, without judging them")
    run.add_argument("--scene", action="append", default=[])
    run.add_argument("--arm", action="append", default=[])
    run.add_argument("--steps", action="append", default=[], type=int)
    noise = command("noise", _noise, "repeat the optimised arms with other seeds")
    noise.add_argument("--seeds", nargs="*", type=int, default=[1, 2], help="none: do nothing (default: 1 2)")
    for sub in (run, noise):
        sub.add_argument("--workers", type=int, help="processes (default: one per core)")
        sub.add_argument("--weights", type=Path, help="file of the network's weights (default: the mirror's, or data/)")
        sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        sub.add_argument("--resume", action="store_true", help="keep cases that this very code has finished")
    approval = command("approve", _approve, "make the records the goldens, where they moved beyond tolerance")
    approval.add_argument("--reason", required=True, help="goes into golden/CHANGES.md")
    approval.add_argument("--seeds", nargs="*", type=int, default=[], help="seeds that `noise` has run")
    approval.add_argument("--noise", type=Path, help="folder that `noise` had as --out (default: that of --out)")
    approval.add_argument("--golden", default="golden", type=Path)
    approval.add_argument(
        "--claims", type=Path, help=f"file of the claims whose terms are sealed (default: {CLAIMS}, if it is there)"
    )
    approval.add_argument("--prune", action="store_true", help="delete goldens of cases that the suite does not have")
    approval.add_argument(
        "--new-machine", action="store_true", help="this machine takes the place of the one the goldens came from"
    )
    approval.add_argument("--timing", action="store_true", help="also declare this machine: its speed becomes a golden")
    difference = command("diff", _diff, "show what moved against the goldens; judges and writes nothing")
    difference.add_argument("--golden", default="golden", type=Path, help="folder of goldens (default: golden)")
    difference.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the records (default: cpu)")
    report = command("report", _report, "print the tables and write the page from records")
    report.add_argument("--numbers", type=Path, help="folder for means and Pareto curve, in files that DVC shows")
    preparation = commands.add_parser("prepare", help="bring every scene of a suite into its prepared form")
    preparation.set_defaults(command=_prepare)
    preparation.add_argument("suite", help="smoke, scan, captures, ...")
    preparation.add_argument("--out", default=Path("data") / PREPARED, type=Path, help="default: data/prepared")
    preparation.add_argument("--workers", type=int, help="processes (default: one per core)")
    command("scenes", _scenes, "load every scene of a suite and write what it holds to scenes.json")
    command("weights", _weights, "write the hash of the suite's network weights to weights.json")
    machine = command("machine", _machine, "write this machine's fingerprint to machine.json")
    machine.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where arms run (default: cpu)")
    _add_compare(commands)
    _add_train(commands)
    return parser


def _add_compare(commands: Any) -> None:
    text = "is HEAD slower than BASE? Runs both in turns and judges paired ratios; exit code 1 if it is"
    comparison = commands.add_parser("compare", help=text, description=text)
    comparison.set_defaults(command=_compare)
    comparison.add_argument("base", help="folder of a checkout, or a git revision")
    comparison.add_argument("head", help="folder of a checkout, or a git revision")
    comparison.add_argument("--pairs", type=int, default=12, help=f"laps of each, at least {MIN_PAIRS} (default: 12)")
    comparison.add_argument("--threshold", type=float, default=0.05, help="change that counts (default: 0.05, 5 %%)")
    comparison.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def _compare(options: argparse.Namespace) -> int:
    if options.pairs < MIN_PAIRS or options.threshold <= 0:
        raise OptionError(
            f"{options.pairs} pairs and a threshold of {options.threshold}, expected >= {MIN_PAIRS} and > 0"
        )
    console = Console(stderr=True)
    measured = []
    with tempfile.TemporaryDirectory(prefix="evalsuite-compare-") as folder:
        scratch = Path(folder)
        with checkout(options.base, scratch) as base, checkout(options.head, scratch) as head:
            print(f"base {base.name} {base.commit[:12]}, head {head.name} {head.commit[:12]}")
            for pair in laps(base, head, options.pairs, scratch, options.device):
                measured.append(pair)
                console.print(f"pair {len(measured)} of {options.pairs}")
    results = judge_pairs(measured, options.threshold)
    print(*results, sep="\n")
    for metric, (gain, case) in metric_differences(measured).items():
        print(f"largest difference in {metric}: {gain:+.6f} ({case}; > 0 means that head is better)")
    return 1 if any(result.verdict == "slower" for result in results) else 0


def _add_train(commands: Any) -> None:  # argparse names no public type for sub-parsers
    text = "train lgm-mini on ray-traced views of meshes; started again, a run goes on from its checkpoint"
    train = commands.add_parser("train", help=text, description=text)
    train.set_defaults(command=_train)
    train.add_argument("--data", type=Path, required=True, help="folder of *.glb scans (the mirror's train_meshes)")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument("--cache", type=Path, help="folder of ray-traced views (default: cache/ in the run's folder)")
    train.add_argument("--model", choices=tuple(TRAINABLE), default=TrainSettings.model)
    train.add_argument("--steps", type=int, default=TrainSettings.steps, help="length of the run and its schedule")
    train.add_argument("--procedural", type=int, default=500, help="procedural objects beside the scans")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.add_argument("--export", type=Path, nargs="?", const=MINI_PATH, help="no training: write weights and card")
    train.add_argument("--ablation", type=Path, action="append", default=[], help="run to compare in the card")


def _train(options: argparse.Namespace) -> int:
    data = TrainingData(options.data, options.cache or options.out / "cache", options.procedural)
    if options.export:
        export(options.out, load_objects(data)[1], options.export, options.ablation)
        print(f"weights, curves and card written to {options.export.parent}")
    else:
        settings = TrainSettings(model=options.model, steps=options.steps, device=options.device)
        run = train_on(data, settings, options.out)
        print(f"{run.done.samples} samples seen; checkpoint, log and curves are in {options.out}")
    return 0


def _add_doctor(commands: Any) -> None:
    text = "say what this machine has: versions, threads, data and weights with the state of their hash"
    doctor = commands.add_parser("doctor", help=text, description=text)
    doctor.set_defaults(command=_doctor)
    doctor.add_argument("--lpips", action="store_true", help="hold LPIPS against a value documented elsewhere, instead")


def _doctor(options: argparse.Namespace) -> int:
    if options.lpips:
        values = lpips_acceptance()
        print(f"LPIPS is right: {', '.join(f'{value:.4f}' for value in values)} for the documented pairs")
        return 0
    for line in machine_lines():
        print(line)
    found = list(data_lines(load_manifest(), Source(DATA, mirror(), offline=True)))
    for line, _ in found:
        print(line)
    return 0 if all(good for _, good in found) else 1


def _add_fetch(commands: Any) -> None:
    text = "bring data that is not in the repository: from $EVALSUITE_MIRROR, else from its publisher"
    fetching = commands.add_parser("fetch", help=text, description=text)
    fetching.set_defaults(command=_fetch)
    fetching.add_argument("what", nargs="*", help="suites, groups or items, as --list names them")
    fetching.add_argument("--list", action="store_true", help="say what there is, its licence, and whether it is here")
    fetching.add_argument("--offline", action="store_true", help="open no connection (also: EVALSUITE_OFFLINE=1)")


def _fetch(options: argparse.Namespace) -> int:
    manifest = load_manifest()
    offline = options.offline or os.environ.get("EVALSUITE_OFFLINE", "") not in ("", "0")
    if options.list:
        console = Console()
        console.width = max(console.width, TABLE_WIDTH)
        items = manifest.select(options.what) if options.what else tuple(manifest.items.values())
        console.print(listing(items, Source(DATA, mirror(), offline)))
        return 0
    if not options.what:
        raise OptionError("nothing to fetch was named; expected suites, groups or items: see evalsuite fetch --list")
    items = manifest.select(options.what)
    if not items:
        print(f"nothing to fetch: {', '.join(options.what)} needs no data")
        return 0
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("download", total=None)
        source = Source(DATA, mirror(), offline, lambda done, total: bar.update(task, completed=done, total=total))
        results = fetch(items, source, _tell, lambda: errors.print("another fetch is at work here: waiting for it"))
    done = [result for result in results.values() if isinstance(result, Outcome)]
    lines = [line for outcome in done if (line := outcome.manifest_line())]
    if lines:
        print("hashes that the manifest does not know yet; to hold them for everybody, add:", *lines, sep="\n  ")
    print(f"{len(done)} of {len(items)} items are in {DATA}")
    return 0 if len(done) == len(items) else 1


def _tell(item: Item, result: Outcome | EvalsuiteError) -> None:
    if isinstance(result, EvalsuiteError):
        print(f"evalsuite: {result}", file=sys.stderr)
        return
    content = result.entry.content
    come = "present" if result.origin == "present" else f"from the {result.origin}"
    digest = (result.entry.source_sha256 or content.sha256)[:12]
    print(f"{item.id}: {come}, {size_text(content.bytes)} in {content.files} files; sha256 {digest} {result.rule}")


def _run(options: argparse.Namespace) -> int:
    selection = select(_suite(options), options.scene, options.arm, options.steps)
    return _execute(selection, options)


def _noise(options: argparse.Namespace) -> int:
    own = sorted(set(options.seeds) & {t.seed for t in _suite(options).trajectories()})
    if own:
        raise OptionError(f"seed {own[0]} is the one the suite itself runs; choose others to measure its spread")
    _store(options).root.mkdir(parents=True, exist_ok=True)
    codes = [_execute(select(_suite(options), arms=("b", "c"), seed=seed), options) for seed in options.seeds]
    return max(codes, default=0)


def _execute(selection: Selection, options: argparse.Namespace) -> int:
    store = _store(options)
    executor = LocalExecutor(
        selection.suite, store, device=options.device, workers=options.workers, resume=options.resume
    )
    run_selection(selection, executor, Console(stderr=True))
    records = [store.read(case.id) for case in selection.cases]
    failed = [r for r in records if r is None or r.status != "ok"]
    for record in failed:
        if record is not None:
            print(f"{record.status}: {record.case}: {record.reason}", file=sys.stderr)
    print(f"{len(records) - len(failed)} of {len(records)} cases of {selection.suite.name} recorded in {store.root}")
    return 1 if failed else 0


def _approve(options: argparse.Namespace) -> int:
    refuse_in_ci()
    suite, store = _suite(options), _store(options)
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    records = [record for case in expected if (record := store.read(case)) is not None]
    on_gpu = any(str(record.machine.get("device_class")).startswith("cuda") for record in records)
    device = device_class("cuda" if on_gpu else "cpu")  # of what ran, not of what the machine has
    here, claims = fingerprint("cuda" if on_gpu else "cpu"), _claims(options.claims)
    goldens = GoldenStore(options.golden, suite.name, device)
    checkout = Checkout(source_hash(), uncommitted(), here, libraries())
    refuse_unrepeatable(records, checkout, None if options.new_machine else goldens.machine())
    by_hand = (*edits(goldens, claims), *edits(GoldenStore(options.golden, ENGINE, device), ()))
    repeats = Repeats(tuple(options.seeds), RecordStore((options.noise or options.out) / "records" / suite.name))
    changed = approve(store, expected, goldens, repeats)
    pruned = prune(goldens, expected) if options.prune else ()
    changed += _approve_engine(options, device)
    for comparison in changed:
        print(_line(comparison))
    for case in pruned:
        print(f"{'pruned':12} {case}")
    runs = [
        [record for case in expected if (record := source.read(f"{case}{seed}")) is not None]
        for source, seed in ((store, ""), *((repeats.records, f"-s{seed}") for seed in options.seeds))
    ]
    memory = memory_path(options.golden, suite.name, device)
    write_memory(memory, memory_of(runs, read_memory(memory)))
    if options.timing:
        path = timing_path(options.golden, suite.name, device)
        write_timing(path, golden_of(runs, read_timing(path)))
    seal(goldens, claims)
    if changed or pruned or by_hand:
        goldens.write_machine(here)
        entry = change_entry(f"{suite.name} on {device}", options.reason, changed, pruned, by_hand)
        append_change(options.golden / "CHANGES.md", entry, datetime.now(UTC).date().isoformat())
    print(f"{len(changed)} goldens of {len(expected)} cases and {len(PROBE_CASES)} probes written in {options.golden}")
    return 0


def _claims(named: Path | None) -> tuple[Claim, ...]:
    return load_claims(named or CLAIMS) if named or CLAIMS.is_file() else ()


def _approve_engine(options: argparse.Namespace, device: str) -> list[Comparison]:
    """The engine's probes take a second: they are run here rather than trusted to be there."""
    goldens, store = GoldenStore(options.golden, ENGINE, device), RecordStore(options.out / "records" / ENGINE)
    for case in PROBE_CASES:
        store.write(probe(case, "cuda" if device.startswith("cuda") else "cpu"))
    changed = approve(store, tuple(PROBE_CASES), goldens)
    seal(goldens, ())
    if changed:
        goldens.write_machine(fingerprint("cuda" if device.startswith("cuda") else "cpu"))
    return changed


def _line(comparison: Comparison) -> str:
    moves = ", ".join(f"{c.metric} {c.golden:.4f} -> {c.value:.4f}" for c in comparison.changes if c.verdict != "same")
    return f"{comparison.verdict:12} {comparison.case} {moves or comparison.reason or 'spread measured anew'}".rstrip()


def _diff(options: argparse.Namespace) -> int:
    suite = _suite(options)
    goldens = GoldenStore(options.golden, suite.name, device_class(options.device))
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    print(*difference_lines(_store(options), goldens, expected), sep="\n")
    return 0


def _report(options: argparse.Namespace) -> int:
    suite = _suite(options)
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    store = _store(options)
    records = [record for case in expected if (record := store.read(case)) is not None]
    if not records:
        raise OptionError(f"no records in {store.root}; run `evalsuite run --suite {options.suite}` first")
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(case_table(records))
    console.print(stratum_table(records), *means_tables(records))
    print(write_page(store.root, options.out / "report", expected))
    if options.numbers:
        write_numbers(records, options.numbers, expected)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    failed = False
    for scene in prepare(options.suite, options.out, options.workers):
        print(f"{scene.scene}: {scene.outcome} in {scene.seconds:.1f} s", flush=True)
        if scene.error:
            failed = True
            print(f"evalsuite: {scene.error}", file=sys.stderr)
    return 2 if failed else 0


def _scenes(options: argparse.Namespace) -> int:
    suite = _suite(options)
    held = {name: _contents(name, suite.of(name).protocol) for name in suite.scenes}
    _write_json(options.out / "scenes.json", held)
    for name, contents in held.items():
        notes = "".join(f"; {note}" for note in contents["notes"])
        print(f"{name}: {contents['capture']} capture and {contents['heldout']} held-out views{notes}")
    return 0


def _contents(name: str, protocol: Protocol) -> dict[str, Any]:
    scene = SCENES[name].load(protocol)
    return {
        "protocol_hash": protocol.hash,
        "stratum": scene.stratum,
        "capture": len(scene.capture),
        "heldout": len(scene.heldout),
        "notes": list(scene.notes),
        "hash": content_hash(scene),
        "source": scene.source,
    }


def _weights(options: argparse.Namespace) -> int:
    model = _suite(options).model
    with weights_path(model).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _write_json(options.out / "weights.json", {"model": model, "sha256": digest})
    return 0


def _machine(options: argparse.Namespace) -> int:
    _write_json(options.out / "machine.json", {**fingerprint(options.device), "libraries": libraries()})
    return 0


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def _store(options: argparse.Namespace) -> RecordStore:
    return RecordStore(options.out / "records" / _suite(options).name)


def _suite(options: argparse.Namespace) -> Suite:
    return find_suite(options.suite, options.model, getattr(options, "weights", None))


if __name__ == "__main__":
    sys.exit(main())
