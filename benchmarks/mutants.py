"""What the gate catches: defects put into copies of this checkout, and the same code under other seeds.

    python -m benchmarks.mutants                          # the table of docs/gate.md (hours)
    python -m benchmarks.mutants --quick                  # without the long runs of the study (half an hour)
    python -m benchmarks.mutants --only half-a-pixel      # one row
    python -m benchmarks.mutants --seeds 3 4 5            # null runs: nothing is wrong, only the seed differs

Each run is pytest in a folder of its own, judged by its exit code against the goldens in git; the table adds by how
much the values that moved are beyond noise. What the defects are: `benchmarks.defects`.
`tests/gates/test_mutants.py` runs the quick half of it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from benchmarks.defects import ENGINE_ALONE, MUTANTS, Mutant, other_seed
from evalsuite.core.machine import device_class
from evalsuite.gates.golden import Comparison, GoldenStore, compare
from evalsuite.gates.means import LADDERS, Mean, means
from evalsuite.metrics.spec import ENGINE
from evalsuite.plugin.verdict import NO_VERDICT
from evalsuite.records.store import RecordStore

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("evalsuite", "tests", "golden", "conftest.py", "pyproject.toml")
"""What a run of the gate reads."""


@dataclass(frozen=True)
class Run:
    """What one run of a mutant came to."""

    exit_code: int
    output: str
    seconds: float


def copy(source: Path, folder: Path) -> None:
    """Copy what a run of the gate reads, compiled kernels and bytecode included; prepared scenes are linked to."""
    folder.mkdir(parents=True)
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, folder / part)
        else:
            shutil.copy2(source / part, folder / part)
    if (source / "data").is_dir():
        (folder / "data").symlink_to((source / "data").resolve())


def checkout(mutant: Mutant, folder: Path, source: Path = ROOT) -> Path:
    """A copy of a checkout with the mutant's edits; ``folder`` is made, and returned."""
    copy(source, folder)
    for edit in mutant.edits:
        edit.apply(folder)
    return folder


def run(folder: Path, arguments: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})) -> Run:
    """Run pytest in a checkout, as its user would, without a GPU.

    Args:
        variables: of the environment, beside this process's own.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # bytecode is written whatever the user's shell says: a run imports everything in three processes
    own |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "", "CUDA_VISIBLE_DEVICES": ""}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-q", "-p", "no:cacheprovider"],
        cwd=folder, env={**own, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Run(done.returncode, done.stdout + done.stderr, time.perf_counter() - start)


HEADER = ("defect", "exit", "metric", "A: tolerances", "B, C: sigma", "cases", "mean: sigma", "means", "ladders")


@dataclass(frozen=True)
class Judged:
    """Verdicts on a run's records, by the goldens of this checkout."""

    comparisons: tuple[Comparison, ...]
    means: tuple[Mean, ...]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Per metric: loss of A in tolerances, of B and C and of means over scenes in sigma, and how many are worse.

        Losses are the largest; the last column is the mean over the ladders of B and C, in its own sigma.
        """
        changes = [(c.case, change) for c in self.comparisons for change in c.changes]
        for metric in sorted({change.metric for _, change in changes}):
            own = [change for _, change in changes if change.metric == metric]
            forward = [change for case, change in changes if change.metric == metric and _is_forward(case)]
            noisy = [change for case, change in changes if change.metric == metric and not _is_forward(case)]
            over = [mean for mean in self.means if mean.metric == metric and mean.sigma]
            settings = [mean for mean in over if mean.setting != LADDERS and not _is_forward(mean.setting)]
            ladders = [mean for mean in over if mean.setting == LADDERS]
            yield (
                metric.split(".100k")[0] + (".icp" if metric.endswith(".icp") else ""),
                _largest([change.drop / change.tolerance for change in forward]),
                _largest([change.drop / change.sigma for change in noisy if change.sigma]),
                f"{sum(change.verdict == 'worse' for change in own)} of {len(own)}",
                _largest([mean.drop / mean.sigma for mean in settings]),
                f"{sum(mean.verdict == 'worse' for mean in settings)} of {len(settings)}",
                _largest([mean.drop / mean.sigma for mean in ladders])
                + (" worse" if any(mean.verdict == "worse" for mean in ladders) else ""),
            )

    def worst_probe(self) -> tuple[str, str, str]:
        """Of the engine: the number that moved most, by how many tolerances, and how many numbers are worse."""
        changes = [change for c in self.comparisons for change in c.changes]
        worst = max(changes, key=lambda change: change.drop / change.tolerance)
        count = sum(change.verdict == "worse" for change in changes)
        return f"{worst.metric}, {count} of {len(changes)} worse", f"{worst.drop / worst.tolerance:.0f}", ""


def judged(records: Path, suite: str = "smoke") -> Judged:
    """Hold the records that a run left against the goldens of this checkout."""
    goldens = GoldenStore(ROOT / "golden", suite, device_class("cpu"))
    comparisons, approved = [], {}
    for record in RecordStore(records):
        golden = goldens.read(record.case)
        comparisons.append(compare(record.case, record, golden))
        if golden is not None:
            approved[record.case] = golden
    return Judged(tuple(comparisons), means(comparisons, approved))


def _is_forward(case: str) -> bool:
    """Whether a case, or a setting, is one pass of a network or floor: arms without N, and B at N = 0."""
    return not re.search(r"-n[1-9]", case)


def _largest(values: Sequence[float]) -> str:
    return f"{max(values):.1f}" if values else ""


def _table(mutant: Mutant, keep: Path, console: Console) -> list[tuple[str, ...]]:
    """Every run of a mutant, each with its exit code; the rows of what it did to values follow the full one."""
    rows: list[tuple[str, ...]] = []
    for arguments in (*mutant.quick, *((mutant.full,) if mutant.full else ())):
        with tempfile.TemporaryDirectory() as scratch:
            folder = checkout(mutant, Path(scratch) / "checkout")
            done = run(folder, arguments)
            engine = judged(folder / "out" / "records" / ENGINE, ENGINE) if arguments == ENGINE_ALONE else None
            if arguments is mutant.full:
                shutil.rmtree(keep, ignore_errors=True)
                shutil.copytree(folder / "out" / "records" / "smoke", keep)
        shown = " ".join(arguments).removeprefix("tests/ablation ")
        console.print(f"{mutant.name}: exit {done.exit_code} after {done.seconds:.0f} s: {shown}")
        required = arguments is not mutant.full or mutant.exit_code == NO_VERDICT
        if required and done.exit_code != mutant.exit_code:
            console.print(f"expected exit {mutant.exit_code}", *done.output.splitlines()[-30:], sep="\n", markup=False)
        rows.append((mutant.name, f"{done.exit_code}", f"`{shown}`", *[""] * (len(HEADER) - 3)))
        if engine is not None:
            rows.append(("", "", *engine.worst_probe(), *[""] * 4))
    if mutant.full:
        rows += [("", "", *cells) for cells in judged(keep).rows()]
    return rows


def main() -> None:
    """Command line: see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants")
    parser.add_argument("--only", action="append", choices=tuple(MUTANTS), help="this defect; may be repeated")
    parser.add_argument("--seeds", nargs="+", type=int, help="null runs instead: the same code with other seeds")
    parser.add_argument("--quick", action="store_true", help="only runs that must notice the defect by themselves")
    parser.add_argument("--out", type=Path, default=Path("out/mutants"), help="folder of table and records")
    options = parser.parse_args()
    if options.seeds:
        chosen = [replace(other_seed(seed), quick=()) for seed in options.seeds]
    else:
        chosen = [MUTANTS[name] for name in options.only or MUTANTS]
    if options.quick:
        chosen = [replace(mutant, full=()) for mutant in chosen if mutant.quick]
    console = Console(stderr=True, width=160)
    lines = [HEADER, ("---",) * len(HEADER)]
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "table.md"
    for mutant in chosen:
        lines += _table(mutant, options.out / mutant.name, console)
        text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        table.write_text(text + "\n", encoding="utf-8")  # as far as it is: what has run is not lost
    console.print(f"table: {table}")


if __name__ == "__main__":
    main()
