"""One session's study: its selection, records, goldens and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evalsuite.core.cases import Case
from evalsuite.core.machine import device_class
from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.progress import run_selection
from evalsuite.execution.selection import Selection
from evalsuite.gates.golden import Comparison, GoldenStore, compare
from evalsuite.gates.timing import TimingResult, judge_timing, read_timing, timing_path
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
        resume: keep cases that this very code has finished before.
    """

    out: Path
    golden: Path
    device: str = "cpu"
    workers: int | None = None
    resume: bool = False


class Study:
    """Runs a selection once, when its first record is asked for, and judges the cases."""

    def __init__(self, selection: Selection, settings: StudySettings, console: Console) -> None:
        self.selection, self.settings, self.console = selection, settings, console
        suite = selection.suite
        self.store = RecordStore(settings.out / "records" / suite.name)
        self.goldens = GoldenStore(settings.golden, suite.name, device_class())
        self.comparisons: dict[str, Comparison] = {}
        self.ran = False

    @property
    def expected(self) -> tuple[str, ...]:
        """Ids of every case this study must have a record of, fixed before anything runs."""
        return tuple(case.id for case in self.selection.cases)

    def record(self, case: Case) -> Record | None:
        """The record of a case."""
        if not self.ran:
            self.ran = True
            s = self.settings
            executor = LocalExecutor(
                self.selection.suite, self.store, device=s.device, workers=s.workers, resume=s.resume
            )
            run_selection(self.selection, executor, self.console)
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

    def timing(self) -> tuple[TimingResult, ...]:
        """Judge speed and memory of the records against those of the declared machine."""
        path = timing_path(self.settings.golden, self.selection.suite.name, device_class())
        return judge_timing(self.records(), read_timing(path))
