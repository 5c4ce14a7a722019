"""A folder of records, one atomic file per case: ``<root>/<scene>/<case>.json``, images beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from evalsuite.core.errors import SchemaError
from evalsuite.records.schema import Record, loads


class RecordStore:
    """Reads and writes records; a killed process leaves whole files or none."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, case_id: str) -> Path:
        """Where the record of a case lives."""
        return self.root / f"{case_id}.json"

    def write(self, record: Record) -> Path:
        """Write a record, replacing an earlier one of the same case."""
        path = self.path(record.case)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(record.dumps(), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def read(self, case_id: str) -> Record | None:
        """The record of a case, None if there is none.

        Raises:
            SchemaError: the file is there but malformed, of a newer schema or of another case, or cannot be read.
        """
        path = self.path(case_id)
        if not path.exists():
            return None
        record = _read(path)
        if record.case != case_id:
            raise SchemaError(f"{path} is the record of {record.case}, expected {case_id}: run that case again")
        return record

    def __iter__(self) -> Iterator[Record]:
        """All records, in the order of their ids."""
        for path in sorted(self.root.glob("*/*.json"), key=lambda p: f"{p.parent.name}/{p.stem}"):
            yield _read(path)


def _read(path: Path) -> Record:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path} cannot be read ({error}); delete it and run the case again") from None
    return loads(text, str(path))
