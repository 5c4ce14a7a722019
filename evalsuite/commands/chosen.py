"""The suite and the records that a command's options name."""

from __future__ import annotations

import argparse

from evalsuite.core.suites import Suite
from evalsuite.execution.preflight import require_folder
from evalsuite.execution.selection import find_suite
from evalsuite.records.store import RecordStore


def chosen_suite(options: argparse.Namespace) -> Suite:
    """The suite of ``--suite``, ``--model`` and, where a command has it, ``--weights``.

    Raises:
        UnknownNameError: no such suite or network.
    """
    return find_suite(options.suite, options.model, getattr(options, "weights", None))


def chosen_store(options: argparse.Namespace) -> RecordStore:
    """The records of the suite below ``--out``.

    Raises:
        UnknownNameError: no such suite or network.
        OptionError: ``--out`` can be no folder.
    """
    require_folder(options.out, "--out")
    return RecordStore(options.out / "records" / chosen_suite(options).name)
