"""Goldens as syrupy sees them: its comparator knows tolerances, its path comes from the case id.

The rules are those of `evalsuite.gates.golden.compare`; `evalsuite approve` has the same. syrupy neither writes nor
deletes here: a golden changes with a reason, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from syrupy.data import SnapshotCollections
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from evalsuite.core.errors import OptionError
from evalsuite.gates.golden import GoldenStore, compare, describe
from evalsuite.gates.golden import loads as load_golden
from evalsuite.records.schema import Record
from evalsuite.records.schema import loads as load_record

if TYPE_CHECKING:
    from syrupy.location import PyTestLocation
    from syrupy.types import SerializableData, SerializedData, SnapshotIndex

GOLDENS = pytest.StashKey[GoldenStore]()
"""Where a test that has a golden finds the store it lies in; its case id is the item's ``case`` parameter."""

REFUSAL = "goldens are not rewritten by --snapshot-update; expected: evalsuite approve --reason ..."


class GoldenExtension(SingleFileSnapshotExtension):
    """Compares a `Record` with the golden of its case."""

    _write_mode = WriteMode.TEXT
    file_extension = "json"

    def serialize(self, data: SerializableData, **_filters: Any) -> SerializedData:
        """The record as sorted JSON.

        Raises:
            NonFiniteError: a number in the record is NaN or infinite.
        """
        record: Record = data
        return record.dumps()

    def matches(self, *, serialized_data: SerializableData, snapshot_data: SerializableData) -> bool:
        """Whether the gate lets the record pass beside the golden."""
        record = load_record(serialized_data, "the record")
        return not compare(record.case, record, load_golden(snapshot_data, record.case, "the golden")).blocks

    def diff_lines(self, serialized_data: SerializedData, snapshot_data: SerializedData) -> Iterator[str]:
        """What moved, instead of a diff of two files."""
        record = load_record(str(serialized_data), "the record")
        golden = load_golden(str(snapshot_data), record.case, "the golden") if snapshot_data else None
        yield from describe(compare(record.case, record, golden))

    @classmethod
    def get_location(cls, *, test_location: PyTestLocation, index: SnapshotIndex) -> str:
        """``golden/<suite>/<device class>/<case id>.json``."""
        return str(test_location.item.config.stash[GOLDENS].path(str(_case(test_location))))

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        """The case id."""
        return str(_case(test_location))

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        """The folder of the suite's goldens."""
        return str(test_location.item.config.stash[GOLDENS].folder)

    def discover_snapshots(
        self, *, test_location: PyTestLocation, ignore_extensions: list[str] | None = None
    ) -> SnapshotCollections:
        """None: goldens without a case are found by the study's own count, whatever part of it runs."""
        return SnapshotCollections()

    @classmethod
    def write_snapshot_collection(cls, **_collection: Any) -> None:
        """Refuse.

        Raises:
            OptionError: always.
        """
        raise OptionError(REFUSAL)

    def delete_snapshots(self, *, snapshot_location: str, snapshot_names: set[str]) -> None:
        """Refuse.

        Raises:
            OptionError: always.
        """
        raise OptionError(f"{Path(snapshot_location).name}: {REFUSAL} --prune")


def _case(test_location: PyTestLocation) -> object:
    return test_location.item.callspec.params["case"]  # type: ignore[attr-defined]
