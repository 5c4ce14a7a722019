"""One session's study: its selection, records, goldens and verdicts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from evalsuite.core.cases import Case
from evalsuite.core.machine import device_class
from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.selection import Selection
from evalsuite.gates.golden import Comparison, GoldenStore, compare
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore


@dataclass(frozen=True)
class StudySettings:
    """Where and how a study runs.

    Attributes:
        out: folder of records, images and the page.
        golden: folder of goldens.
        device: ``cpu`` or ``cuda``.
        workers: processes; None means one per core on CPU and one on CUDA.
    """

    out: Path
    golden: Path
    device: str = "cpu"
    workers: int | None = None
    resume: bool = False


class Study:
    """Runs trajectories on demand and judges their cases."""

    def __init__(self, selection: Selection, settings: StudySettings) -> None:
        self.selection, self.settings = selection, settings
        suite = selection.suite
        self.store = RecordStore(settings.out / "records" / suite.name)
        self.goldens = GoldenStore(settings.golden, suite.name, device_class())
        default = (os.cpu_count() or 1) if settings.device == "cpu" else 1
        self.executor = LocalExecutor(
            suite,
            self.store,
            device=settings.device,
            workers=settings.workers or default,
            resume=settings.resume,
        )
        self.comparisons: dict[str, Comparison] = {}
        self._started = False

    @property
    def expected(self) -> tuple[str, ...]:
        """Ids of every case this study must have a record of, fixed before anything runs."""
        return tuple(case.id for case in self.selection.cases)

    def record(self, case: Case) -> Record | None:
        """The record of a case, after its trajectory has run."""
        if not self._started:
            self._started = True
            self.executor.start(self.selection.trajectories)
        self.executor.ensure(case.trajectory)
        return self.store.read(case.id)

    def records(self) -> list[Record]:
        """Records of all cases of the selection, in order, those not run left out."""
        found = (self.record(case) for case in self.selection.cases)
        return [record for record in found if record is not None]

    def compare(self, case: Case) -> Comparison:
        """Judge a case against its golden and remember the verdict."""
        comparison = compare(case.id, self.record(case), self.goldens.read(case.id))
        self.comparisons[case.id] = comparison
        return comparison

    @property
    def ran(self) -> bool:
        """Whether any case was asked for."""
        return self._started

    def close(self) -> None:
        """Stop workers."""
        self.executor.close()
