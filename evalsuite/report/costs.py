"""Cost per asset in words: training shared by a volume of assets, or counted as sunk; for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from evalsuite.core.cases import BUDGETS
from evalsuite.records.schema import Record
from evalsuite.report.crossover import VOLUMES, Cost, cost_table
from evalsuite.report.tables import busy_settings, main_pools, marked, number

UNKNOWN = "unknown"
"""In place of a number that hangs on a training nobody has timed."""

HEADER = (
    *("arm", "seconds per asset", "h, training sunk"),
    *(f"h at {volume:,}" for volume in VOLUMES),
    "break-even, assets",
)

Cells = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, header and rows of a table."""


def training_sentence(training_seconds: float | None) -> str:
    """What the network's training took and who is charged for it.

    Args:
        training_seconds: of processor time, over all processes; None if unknown, 0 if it is to be left out.
    """
    if training_seconds is None:
        return "What training took is unknown, since the weights do not say: A and B cost more than with training sunk."
    if training_seconds == 0:
        return "Training is counted as sunk (0 h)."
    hours = training_seconds / 3600
    return f"Training took {training_seconds:,.0f} s of processor time ({hours:.3g} h), charged to A and B."


def cost_cells(
    records: Iterable[Record], training_seconds: float | None, expected: Sequence[str] = ()
) -> Iterator[Cells]:
    """A table per pool and budget: `evalsuite.report.crossover.cost_table` as text.

    Args:
        records: of one protocol.
        training_seconds: as in `training_sentence`.
        expected: ids of the cases there should be.

    Raises:
        NotComparableError: see `evalsuite.report.tables.check_comparable`.
    """
    records = list(records)
    for pool, scenes in main_pools(records).items():
        for budget in BUDGETS:
            costs = cost_table(records, budget, scenes, training_seconds, expected)
            slow = {setting for setting, scene in busy_settings(records) if scene in scenes}
            if any(cost.setting.budget for cost in costs):
                # The last row is C's final checkpoint: without its seconds there is no rival to break even with.
                rival = costs[-1].sunk_hours is not None
                rows = [_row(cost, training_seconds, rival, cost.setting in slow) for cost in costs]
                yield f"Budget {budget}, {pool}", HEADER, rows


def cost_tables(
    records: Iterable[Record], training_seconds: float | None, expected: Sequence[str] = ()
) -> Iterator[Table]:
    """`cost_cells` for the terminal, what training took below each."""
    for title, header, rows in cost_cells(records, training_seconds, expected):
        table = Table(title=escape(f"Cost per asset: {title}"), box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.caption = training_sentence(training_seconds)
        for name in header:
            table.add_column(name, justify="left" if name == header[0] else "right")
        for row in rows:
            table.add_row(*map(escape, row))
        yield table


def _row(cost: Cost, training_seconds: float | None, rival: bool, busy: bool) -> list[str]:
    charged = cost.setting.arm != "c"
    unknown = charged and training_seconds is None and cost.sunk_hours is not None
    blank = UNKNOWN if unknown else "—"
    even = ""
    if charged:
        even = number(cost.break_even, 0) if cost.break_even else blank if unknown or not rival else "never"
    return [
        cost.setting.label,
        marked(cost.seconds.text(1), busy),
        "—" if cost.sunk_hours is None else f"{cost.sunk_hours:.4g}",
        *([f"{hours:.4g}" for hours in cost.hours] or [blank] * len(VOLUMES)),
        even,
    ]
