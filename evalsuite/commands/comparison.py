"""``compare``: two checkouts in turns."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from evalsuite.core.errors import OptionError
from evalsuite.execution.checkouts import checkout, laps
from evalsuite.execution.preflight import require_device
from evalsuite.gates.paired import MIN_PAIRS, judge_pairs, metric_differences


def compare(options: argparse.Namespace) -> int:
    """Run both sides in turns; 1 if head is slower."""
    if options.pairs < MIN_PAIRS or not options.threshold > 0:
        raise OptionError(
            f"{options.pairs} pairs and a threshold of {options.threshold}, expected >= {MIN_PAIRS} and > 0"
        )
    require_device(options.device)
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
