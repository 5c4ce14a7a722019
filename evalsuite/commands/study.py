"""``run``, ``noise`` and ``report``: records of a suite, and what they say."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from evalsuite.commands.chosen import chosen_store, chosen_suite
from evalsuite.core.errors import OptionError
from evalsuite.execution.preflight import require_folder, require_ready
from evalsuite.execution.selection import Selection, select

TABLE_WIDTH = 120
"""Tables are printed at least this wide: a wrapped number is no number."""


def run(options: argparse.Namespace) -> int:
    """Run what the options pick of a suite; 1 if a case has no numbers."""
    selection = select(chosen_suite(options), options.scene, options.arm, options.steps)
    if options.seed:
        selection = selection.under(options.seed)
    chosen_store(options)
    require_ready(selection, options.device)
    return _execute(selection, options)


def noise(options: argparse.Namespace) -> int:
    """Run the optimised arms under other seeds; 1 if a case has no numbers."""
    suite, store = chosen_suite(options), chosen_store(options)
    own = sorted(set(options.seeds) & {t.seed for t in suite.trajectories()})
    if own:
        raise OptionError(f"seed {own[0]} is the one the suite itself runs; choose others to measure its spread")
    selections = [select(suite, arms=("b", "c"), seed=seed) for seed in options.seeds]
    for selection in selections[:1]:  # seeds need the same data
        require_ready(selection, options.device)
    store.root.mkdir(parents=True, exist_ok=True)
    return max([_execute(selection, options) for selection in selections], default=0)


def _execute(selection: Selection, options: argparse.Namespace) -> int:
    store = chosen_store(options)
    from evalsuite.execution.local import LocalExecutor
    from evalsuite.execution.progress import run_selection

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


def report(options: argparse.Namespace) -> int:
    """Print the tables and write the page."""
    suite, store = chosen_suite(options), chosen_store(options)
    if options.numbers:
        require_folder(options.numbers, "--numbers")
    expected = [case.id for t in suite.trajectories() for case in t.cases]
    records = [record for case in expected if (record := store.read(case)) is not None]
    if not records:
        raise OptionError(f"no records in {store.root}; run `evalsuite run --suite {options.suite}` first")
    from evalsuite.execution.training_cost import training_cost
    from evalsuite.report.costs import cost_tables
    from evalsuite.report.numbers import write_numbers
    from evalsuite.report.page import write_page
    from evalsuite.report.tables import case_table, means_tables, show_whole, stratum_table

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    training = training_cost(suite, records)
    tables = (case_table(records), stratum_table(records), *means_tables(records))
    show_whole(console, *tables, *cost_tables(records, training, expected))
    print(write_page(store.root, options.out / "report", expected, training))
    if options.numbers:
        write_numbers(records, options.numbers, expected)
    return 0
