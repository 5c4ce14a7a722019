"""What can be fetched, and what is there, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Group
from rich.table import Table

from evalsuite.fetch.fetching import Source
from evalsuite.fetch.ledger import Entry, Ledger
from evalsuite.fetch.manifest import Item

_UNITS = ("B", "kB", "MB", "GB")

Place = Literal["data", "mirror", "no"]


def listing(items: Sequence[Item], source: Source) -> Group:
    """One row per item: size, where it is, licence; below, what the groups are and whom to cite.

    Looks at names only; `fetch` checks what is there.
    """
    table = Table("item", "size", "here", "licence", box=box.SIMPLE)
    table.columns[0].no_wrap = True
    table.columns[1].justify = "right"
    ledger = Ledger(source.root).read()
    for item in items:
        known = ledger.get(item.id)
        table.add_row(item.id, item_size(item, known), place(item, source), item.licence)
    abouts = {f"{item.id.split('/')[0]}: {item.about} ({item.citation})": None for item in items}
    return Group(table, *abouts)


def place(item: Item, source: Source) -> Place:
    """Where an item lies: in the data folder, in a mirror that is a folder, or in neither."""
    if (source.root / item.to).exists():
        return "data"
    folder = source.mirror_folder
    if folder and ((folder / item.in_mirror).is_file() or (folder / item.to).exists()):
        return "mirror"
    return "no"


def item_size(item: Item, known: Entry | None) -> str:
    """Of the publisher's file, else of what is kept; ``?`` until it was fetched once."""
    exact = item.bytes or (known.source_bytes or known.content.bytes if known else None)
    return "?" if exact is None else size_text(exact)


def size_text(count: int) -> str:
    """Bytes in decimal units, three digits: ``830 MB``, ``4.96 MB``."""
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    digits = 0 if unit == 0 or size >= 99.5 else 1 if size >= 9.95 else 2
    return f"{size:.{digits}f} {_UNITS[unit]}"
