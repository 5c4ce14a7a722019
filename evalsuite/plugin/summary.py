"""What a session says at its end: on the terminal, in ``summary.md``, and in the step summary of CI."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evalsuite.core.errors import NotComparableError, SchemaError
from evalsuite.execution.training_cost import training_cost
from evalsuite.gates.golden import Change, Comparison, describe, specification
from evalsuite.gates.means import LADDERS, Mean
from evalsuite.plugin.advice import command, differences, next_steps
from evalsuite.plugin.study import Study, worst_first
from evalsuite.plugin.verdict import by_hand, counts, failures, gains, outcome, restriction
from evalsuite.report.tables import busy_line, case_table, means_tables, show_whole, stratum_table

WIDTH = 120
ROWS = 40
"""Rows of the table of what moved; the rest is counted."""

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def summary_lines(study: Study, width: int) -> list[str]:
    """Tables of cases and strata, what moved against the goldens, what the gate can see; last, the verdict."""
    if study.interrupted:
        return restriction(study)
    lines: list[str] = []
    if study.ran:
        console = Console(width=max(width, WIDTH), force_terminal=False, no_color=True)
        with console.capture() as capture:
            if study.selection.cases:
                _print_tables(study, console)
            moved = _moved(study)
            if any(comparison.changes for comparison in moved):
                show_whole(console, _moved_table(study, moved))
            if study.selection.cases:
                show_whole(console, _sight_table(study))
        lines += capture.get().splitlines()
        lines += [line for comparison in moved for line in _plain(study, comparison)]
        lines += [f"{mean.verdict:12} {mean}" for mean in study.means() if mean.verdict != "same"]
        lines += [f"law {breach}" for breach in study.breaches()]
        lines += [f"claim {result}" for result in study.rulings()]
        lines += _speed_lines(study)
        lines += [*_left_out(study.comparisons()), *differences(moved), *_next_steps(study, moved)]
        lines += [f"by hand: {edit}" for edit in study.edits()]
    return lines + _verdict_lines(study)


def _verdict_lines(study: Study) -> list[str]:
    """What a reader needs who reads nothing else."""
    out = study.settings.out
    page = f"  page: {out / 'report' / 'index.html'}" if study.selection.cases else ""
    reasons = failures(study)
    return [
        *restriction(study),
        *(f"evalsuite: {line}" for line in reasons),
        *(f"evalsuite: {line}" for line in (*gains(study), *by_hand(study)) if line not in reasons),
        f"evalsuite {study.selection.suite.name}: {counts(study)}",
        f"records: {study.store.root}{page}  summary: {study.summary}",
    ]


def _moved(study: Study) -> tuple[Comparison, ...]:
    """What did not come out the same; that a whole class of device has no goldens is said once, not per case."""
    moved = worst_first(study.comparisons())
    return tuple(c for c in moved if c.verdict != "no-golden") if study.missing_class() else moved


def _next_steps(study: Study, moved: Sequence[Comparison]) -> list[str]:
    return next_steps(moved, command(study.selection.suite, study.settings.device))


def _print_tables(study: Study, console: Console) -> None:
    records = study.records()
    try:
        show_whole(console, case_table(records), stratum_table(records), *means_tables(records))
    except NotComparableError as error:  # these records are stale, which blocks: the rest is still to be said
        console.print(f"no tables: {error}", markup=False)


def properties(comparison: Comparison) -> list[tuple[str, object]]:
    """What the JUnit file says of a case, by name."""
    moves = [
        (change.metric, f"{change.golden:.6g} -> {change.value:.6g} (tolerance {change.tolerance:.3g})")
        for change in comparison.changes
    ]
    return [("verdict", comparison.verdict), *moves]


def write_outputs(study: Study, environment: Mapping[str, str] = os.environ) -> None:
    """Write the page and ``summary.md``, and append the latter to the file that ``GITHUB_STEP_SUMMARY`` names."""
    text = markdown(study)
    if study.ran and study.selection.cases and not study.interrupted:
        from evalsuite.report.page import write_page  # plots and statistics: seconds of import

        try:
            cost = training_cost(study.selection.suite, study.records())
            cases = [case.id for case in study.selection.cases]
            write_page(study.store.root, study.settings.out / "report", cases, cost)
        except (NotComparableError, SchemaError) as error:  # such records block; the summary must come out all the same
            text += f"No page: {error}\n\n"
    study.summary.parent.mkdir(parents=True, exist_ok=True)
    study.summary.write_text(text, encoding="utf-8")
    if environment.get(STEP_SUMMARY):
        with Path(environment[STEP_SUMMARY]).open("a", encoding="utf-8") as file:
            file.write(text)


def markdown(study: Study) -> str:
    """The summary as Markdown: verdict first, then what moved, claims, and what the gate can see."""
    lines = [line for found in restriction(study) for line in (found, "")]
    if study.interrupted:
        return "\n".join(lines) + "\n"
    lines += [f"## evalsuite `{study.selection.suite.name}`: {outcome(study)}", "", f"{counts(study)}."]
    reasons = failures(study)
    reasons += [line for line in (*gains(study), *by_hand(study)) if line not in reasons]
    lines += ["", *(f"- {reason}" for reason in reasons)] if reasons else []
    moved = _moved(study)
    if moved:
        lines += ["", "### What moved, worst first", ""]
        lines += _markdown_table(_MOVED, _moved_rows(study, moved, markdown=True))
        steps = [*differences(moved), *_next_steps(study, moved)]
        lines += ["", *(f"- {' '.join(line.split())}" for line in steps)] if steps else []
    odd = [mean for mean in study.means() if mean.verdict != "same"]
    if odd:
        lines += ["", "### Means over scenes that moved", "", *(f"- {mean.verdict}: {mean}" for mean in odd)]
    rulings = study.rulings()
    if rulings:
        lines += ["", "### Claims", ""]
        lines += [
            f"- **{result.ruling}**{' (required)' if result.claim.required else ''} {result}" for result in rulings
        ]
    edits = study.edits()
    if edits:
        lines += ["", "### Changed without an approval", "", *(f"- {edit}" for edit in edits)]
    left_out = [*_left_out(study.comparisons()), *busy_line(study.records() if study.ran else ())]
    lines += ["", *(f"- {line}" for line in left_out)] if left_out else []
    if study.ran and study.selection.cases:
        lines += ["", "### Losses this gate sees in 95 % of runs", ""]
        lines += _markdown_table(_SIGHT, sight_rows(study.comparisons(), study.means()))
    return "\n".join(lines) + "\n\n"


_MOVED = ("verdict", "case", "metric", "golden", "now", "sigma", "tolerance", "images")


def _moved_rows(study: Study, moved: Sequence[Comparison], markdown: bool = False) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for comparison in moved:
        images = study.images(comparison.case)
        if images and markdown:
            strip, truth = (path.relative_to(study.settings.out).as_posix() for path in images)
            shown = f"[render]({strip}) [truth]({truth})"
        else:
            shown = " ".join(str(path) for path in images) if images else ""
        if not comparison.changes:
            rows.append((comparison.verdict, comparison.case, comparison.reason, "", "", "", "", shown))
        rows += [
            (change.verdict, comparison.case, change.metric, *_numbers(change), shown)
            for change in sorted(comparison.changes, key=lambda change: -change.drop / change.tolerance)
            if change.verdict != "same"
        ]
    if len(rows) > ROWS:
        rest = len(rows) - ROWS
        rows = [*rows[:ROWS], ("", f"and {rest} more", "", "", "", "", "", "")]
    return rows


def _numbers(change: Change) -> tuple[str, str, str, str]:
    sigmas = "" if change.sigmas is None else f"{-change.sigmas:+.1f}"
    return f"{change.golden:.4f}", f"{change.value:.4f}", sigmas, f"{change.tolerance:.4f}"


def _moved_table(study: Study, moved: Sequence[Comparison]) -> Table:
    table = Table(title="What moved, worst first", box=None, pad_edge=False)
    for name in _MOVED[:-1]:
        table.add_column(name, no_wrap=True)
    for row in _moved_rows(study, [c for c in moved if c.changes]):
        table.add_row(*row[:-1])
    return table


def _plain(study: Study, comparison: Comparison) -> list[str]:
    """A case that moved, in lines that can be searched for, with the paths of its images."""
    images = study.images(comparison.case)
    return describe(comparison) + ([f"             {images[0]}  {images[1]}"] if images else [])


_SIGHT = ("metric", "unit", "one pass", "one optimised case", "mean over scenes", LADDERS)


def sight_rows(comparisons: Sequence[Comparison], means: Sequence[Mean]) -> list[tuple[str, ...]]:
    """Per metric: the loss that is seen in 95 % of runs (median over cases or settings).

    Columns: in one case without noise; in one optimised case; in the mean over scenes of an optimised setting; in the
    mean over the ladders of B and C, in sigma of a single run.
    """
    changes = [change for c in comparisons for change in c.changes if not c.case.startswith("engine/")]
    rows: list[tuple[str, ...]] = []
    for metric in sorted({change.metric for change in changes}):
        own = [change for change in changes if change.metric == metric]
        settings = [
            m.visible for m in means if m.metric == metric and m.setting != LADDERS and m.noisy and not m.paired
        ]
        ladders = [m.visible for m in means if m.metric == metric and m.setting == LADDERS]
        rows.append(
            (
                metric,
                specification(metric).unit,
                _median([change.visible for change in own if change.sigmas is None and change.measured]),
                _median([change.visible for change in own if change.sigmas is not None]),
                _median(settings),
                f"{ladders[0]:.1f} sigma" if ladders else "",
            )
        )
    return rows


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2g}" if values else ""


def _sight_table(study: Study) -> Table:
    table = Table(title="Losses this gate sees in 95 % of runs (medians)", box=None, pad_edge=False)
    for name in _SIGHT:
        table.add_column(name, no_wrap=True)
    for row in sight_rows(study.comparisons(), study.means()):
        table.add_row(*row)
    return table


def _speed_lines(study: Study) -> list[str]:
    """What became slower or larger, then how many quantities came out how."""
    results = study.timing()
    found = Counter(result.verdict for result in results)
    tally = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.items()))
    shown = [str(result) for result in results if result.blocks or not result.setting]
    return [*shown, f"speed and memory: {tally or 'nothing to compare'}"]


def _left_out(comparisons: Sequence[Comparison]) -> list[str]:
    found = Counter(note for comparison in comparisons for note in comparison.left_out.values())
    return [f"not compared: {note} ({count} cases)" for note, count in sorted(found.items())]


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *cells)]
