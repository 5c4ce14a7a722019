"""What a session prints and writes at its end."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from evalsuite.gates.golden import Change, Comparison
from evalsuite.plugin.study import Study
from evalsuite.records.schema import Record


def summary_lines(study: Study, width: int) -> list[str]:
    """Tables of cases and strata, what moved against the goldens, and the counts."""
    from evalsuite.report.tables import case_table, stratum_table  # plots and statistics: seconds of import

    records = _records(study)
    console = Console(width=max(width, 120), force_terminal=False, no_color=True)
    with console.capture() as capture:
        console.print(case_table(records))
        console.print(stratum_table(records))
    lines = capture.get().splitlines()
    moved = [c for c in study.comparisons.values() if c.verdict != "same"]
    lines += [line for comparison in _worst_first(moved) for line in describe(comparison)]
    counts = Counter(comparison.verdict for comparison in study.comparisons.values())
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    lines.append(
        f"evalsuite {study.selection.suite.name}: {len(study.expected)} cases expected, {len(records)} recorded, "
        f"{len(study.comparisons)} judged: {verdicts or 'none'}"
    )
    timing = study.timing()
    lines += [str(result) for result in timing if result.verdict != "same"]
    of = Counter(result.verdict for result in timing)
    lines.append(f"speed and memory: {', '.join(f'{count} {verdict}' for verdict, count in sorted(of.items()))}")
    lines.append(f"records: {study.store.root}  page: {study.settings.out / 'report' / 'index.html'}")
    return lines


def describe(comparison: Comparison) -> list[str]:
    """One line per metric that moved, or one with the reason."""
    if not comparison.changes:
        return [f"{comparison.verdict:10} {comparison.case}: {comparison.reason}"]
    return [
        f"{change.verdict:10} {comparison.case}: {change.metric} {change.golden:.4f} -> {change.value:.4f} "
        f"(tolerance {change.tolerance:.4f})"
        for change in comparison.changes
        if change.verdict != "same"
    ]


def write_outputs(study: Study) -> None:
    """Write the page."""
    from evalsuite.report.page import write_page

    write_page(study.store.root, study.settings.out / "report", study.expected)


def _records(study: Study) -> list[Record]:
    found = (study.store.read(case) for case in study.expected)
    return [record for record in found if record is not None]


def _worst_first(comparisons: list[Comparison]) -> list[Comparison]:
    def severity(comparison: Comparison) -> float:
        def excess(change: Change) -> float:
            return change.drop / change.tolerance

        return max((excess(change) for change in comparison.changes), default=float("inf"))

    return sorted(comparisons, key=lambda c: (-severity(c), c.case))
