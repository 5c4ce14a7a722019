"""``compare``: two checkouts, in quality under equal seeds and in speed in turns."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from evalsuite.core.errors import OptionError
from evalsuite.core.machine import fingerprint as machine
from evalsuite.execution.checkouts import checkout, fingerprint, laps
from evalsuite.execution.paired_seeds import Sides, require_one_suite, run_seeds
from evalsuite.execution.preflight import require_device, require_folder
from evalsuite.gates.paired import MIN_PAIRS, PairedResult, judge_pairs, metric_differences
from evalsuite.gates.quality import CONTRASTS, FIRST_SEEDS, QualityResult, judge_quality, require_one_machine
from evalsuite.metrics.spec import METRICS
from evalsuite.records.store import RecordStore

SUMMARY = "summary.md"


def compare(options: argparse.Namespace) -> int:
    """Run both sides and judge; 1 if head is worse or slower."""
    if options.pairs < MIN_PAIRS or not options.threshold > 0:
        raise OptionError(
            f"{options.pairs} pairs and a threshold of {options.threshold}, expected >= {MIN_PAIRS} and > 0"
        )
    require_device(options.device)
    require_folder(options.out, "--out")
    tell: Callable[[str], None] = Console(stderr=True).print
    with tempfile.TemporaryDirectory(prefix="evalsuite-compare-") as folder:
        scratch = Path(folder)
        with checkout(options.base, scratch) as base, checkout(options.head, scratch) as head:
            pair = f"{fingerprint(base)}-{fingerprint(head)}-{options.device}"
            sides = Sides(base, head, (options.out / "compare" / pair).resolve(), options.device)
            print(f"base {base.name} {base.commit[:12]}, head {head.name} {head.commit[:12]}, kept in {sides.folder}")
            if options.only != "time":
                require_one_suite(base, head)
            for store in (*sides.stores(), *(RecordStore(r) for r in sides.folder.glob("time/pair-*/*/records/*"))):
                require_one_machine(store, machine(options.device))
            quality = () if options.only == "time" else _quality(sides, tell)
            speed = () if options.only == "quality" else _time(sides, options, tell)
    _write_summary(sides, quality, speed)
    worse = any(result.verdict == "worse" for result in quality)
    return 1 if worse or any(result.verdict == "slower" for result in speed) else 0


def _quality(sides: Sides, tell: Callable[[str], None]) -> tuple[QualityResult, ...]:
    """Both stages; what the first decides, the second does not ask again."""
    found = _judged(sides, FIRST_SEEDS, 0, CONTRASTS, tell)
    undecided = [(r.setting, r.metric) for r in found if r.verdict == "inconclusive"]
    if undecided:
        seeds = max(result.needed for result in found if result.verdict == "inconclusive")
        tell(f"quality: {len(undecided)} of {len(found)} contrasts are open after {FIRST_SEEDS} seeds, {seeds} next")
        later = {(r.setting, r.metric): r for r in _judged(sides, seeds, 1, undecided, tell)}
        found = tuple(later.get((r.setting, r.metric), r) for r in found)
    print(*found, sep="\n")
    return found


def _judged(
    sides: Sides, seeds: int, stage: int, contrasts: Sequence[tuple[str, str]], tell: Callable[[str], None]
) -> tuple[QualityResult, ...]:
    """Results of the first so many seeds; those that have been run before are not run again."""
    settings = sorted({setting for setting, _ in contrasts})
    base, head = run_seeds(sides, range(seeds), settings, tell)
    return judge_quality(base, head, stage, contrasts)


def _time(sides: Sides, options: argparse.Namespace, tell: Callable[[str], None]) -> tuple[PairedResult, ...]:
    measured = []
    for pair in laps(sides.base, sides.head, options.pairs, sides.folder / "time", options.device):
        measured.append(pair)
        tell(f"pair {len(measured)} of {options.pairs}")
    results = judge_pairs(measured, options.threshold)
    print(*results, sep="\n")
    if options.only == "time":
        for metric, (gain, case) in metric_differences(measured).items():
            print(f"largest difference in {metric}: {gain:+.6f} ({case}; > 0 means that head is better)")
    return results


def _write_summary(sides: Sides, quality: Sequence[QualityResult], speed: Sequence[PairedResult]) -> None:
    """Tables in ``summary.md`` of the comparison's folder."""
    lines = [f"# {sides.head.name} ({sides.head.commit[:12]}) against {sides.base.name} ({sides.base.commit[:12]})"]
    if quality:
        lines += ["", "| setting | metric | verdict | gain of head | interval | seeds | scenes | spread of a seed |"]
        lines.append("|---|---|---|---:|---:|---:|---:|---:|")
        lines += [
            f"| {r.setting} | {r.metric} | {r.verdict} | {r.gain:+.2g} {METRICS[r.metric].unit} "
            f"| {r.low:+.2g} to {r.high:+.2g} | {r.seeds} | {r.scenes} | {r.spread:.2g} |"
            for r in quality
        ]
    if speed:
        lines += ["", "| quantity | verdict | head / base | interval | pairs |", "|---|---|---:|---:|---:|"]
        lines += [
            f"| {r.quantity} | {r.verdict} | {r.ratio:.3f} | {r.low:.3f} to {r.high:.3f} | {r.pairs} |" for r in speed
        ]
    path = sides.folder / SUMMARY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path)
