"""One session's study: its selection, records, goldens and verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evalsuite.core.cases import Case
from evalsuite.core.errors import SchemaError
from evalsuite.core.machine import device_class
from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.probes import PROBE_CASES, probe
from evalsuite.execution.progress import run_selection
from evalsuite.execution.selection import Selection
from evalsuite.gates.claims import Claim, ClaimResult, judge
from evalsuite.gates.costs import CostResult
from evalsuite.gates.golden import Comparison, Golden, GoldenStore, compare
from evalsuite.gates.means import Mean, means
from evalsuite.gates.peaks import judge_memory, memory_path, read_memory
from evalsuite.gates.timing import judge_timing, read_timing, timing_path
from evalsuite.metrics.spec import ENGINE
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore
from evalsuite.scenes.catalogue import SCENES


@dataclass(frozen=True)
class StudySettings:
    """Where and how a study runs.

    Attributes:
        out: folder of records, images, summary and page.
        golden: folder of goldens.
        device: ``cpu`` or ``cuda``.
        workers: processes; None means one per core on CPU and one on CUDA.
        resume: keep cases that this very code has finished before.
        require_gpu: a skipped GPU test is a failed one.
    """

    out: Path
    golden: Path
    device: str = "cpu"
    workers: int | None = None
    resume: bool = False
    require_gpu: bool = False


class Study:
    """Runs a selection once, when its first record is asked for, and judges every case that was expected.

    Attributes:
        expected: ids of every case there must be a record of, fixed before anything runs; the engine's probes are
            among them when the whole suite is.
        selected: tests of this study that pytest will run.
        rulings: what claims came to, by id.
    """

    def __init__(self, selection: Selection, settings: StudySettings, console: Console) -> None:
        self.selection, self.settings, self.console = selection, settings, console
        suite = selection.suite
        self.store = RecordStore(settings.out / "records" / suite.name)
        self.goldens = GoldenStore(settings.golden, suite.name, device_class(settings.device))
        self.engine_store = RecordStore(settings.out / "records" / ENGINE)
        self.engine_goldens = GoldenStore(settings.golden, ENGINE, device_class(settings.device))
        self.probes: tuple[str, ...] = tuple(PROBE_CASES) if selection.whole else ()
        self.expected: tuple[str, ...] = (*(case.id for case in selection.cases), *self.probes)
        self.rulings: dict[str, ClaimResult] = {}
        self.selected = 0
        self.ran = False
        self._comparisons: dict[str, Comparison] = {}
        self._means: tuple[Mean, ...] | None = None

    def run(self) -> None:
        """Run everything expected, unless it has been."""
        if self.ran:
            return
        self.ran = True
        s = self.settings
        for case in self.probes:
            self.engine_store.path(case).unlink(missing_ok=True)
            self.engine_store.write(probe(case, s.device))
        executor = LocalExecutor(self.selection.suite, self.store, device=s.device, workers=s.workers, resume=s.resume)
        run_selection(self.selection, executor, self.console)

    def record(self, case: Case | str) -> Record | None:
        """The record of a case.

        Raises:
            SchemaError: it is there and cannot be read.
        """
        self.run()
        case_id = str(case)
        return (self.engine_store if case_id in self.probes else self.store).read(case_id)

    def records(self) -> list[Record]:
        """Readable records of all cases of the selection, in order; probes are not among them."""
        found = []
        for case in self.selection.cases:
            try:
                record = self.record(case)
            except SchemaError:
                continue  # its comparison says so
            found += [record] if record is not None else []
        return found

    def golden(self, case: Case | str) -> Golden | None:
        """The golden of a case.

        Raises:
            SchemaError: it is there and cannot be read.
        """
        case_id = str(case)
        return (self.engine_goldens if case_id in self.probes else self.goldens).read(case_id)

    def compare(self, case: Case | str) -> Comparison:
        """Judge a case against its golden; a file that cannot be read is a failed case."""
        case_id = str(case)
        if case_id not in self._comparisons:
            try:
                comparison = compare(case_id, self.record(case_id), self.golden(case_id))
            except SchemaError as error:
                comparison = Comparison(case_id, "failed", reason=str(error))
            self._comparisons[case_id] = comparison
        return self._comparisons[case_id]

    def comparisons(self) -> tuple[Comparison, ...]:
        """The verdict on every expected case; empty if nothing ran."""
        return tuple(self.compare(case) for case in self.expected) if self.ran else ()

    def means(self) -> tuple[Mean, ...]:
        """Mean drops over scenes (`evalsuite.gates.means`); empty if nothing ran."""
        if self._means is None and self.ran:
            self._means = self._compute_means()
        return self._means or ()

    def _compute_means(self) -> tuple[Mean, ...]:
        compared = [c for c in self.comparisons() if c.changes and c.case not in self.probes]
        return means(compared, {c.case: golden for c in compared if (golden := self.golden(c.case)) is not None})

    def timing(self) -> tuple[CostResult, ...]:
        """Judge memory of the records on any machine, and their speed on the declared one."""
        where = device_class(self.settings.device)
        place, records = (self.settings.golden, self.selection.suite.name, where), self.records()
        return (
            *judge_memory(records, read_memory(memory_path(*place))),
            *judge_timing(records, read_timing(timing_path(*place))),
        )

    def judge(self, claim: Claim) -> ClaimResult:
        """Test a claim, and remember what it came to."""
        result = self.rulings[claim.id] = judge(claim, self.records())
        return result

    def concerns(self, claim: Claim) -> bool:
        """Whether this run can judge a claim: it is the whole suite, and has scenes the claim is about."""
        strata = {SCENES[scene].stratum for scene in self.selection.suite.scenes}
        return self.selection.whole and bool(strata & set(claim.strata))

    def orphans(self) -> tuple[str, ...]:
        """Goldens without a case: renamed, or removed; of a part of a suite nothing can be said."""
        if not self.selection.whole:
            return ()
        return tuple(
            case for store in (self.goldens, self.engine_goldens) for case in store.cases() if case not in self.expected
        )

    def images(self, case: str) -> tuple[Path, Path] | None:
        """Strips of a case's held-out views and of the truth, None where there are none."""
        scene = case.split("/")[0]
        strip, truth = self.store.root / f"{case}.png", self.store.root / scene / "truth.png"
        return (strip, truth) if strip.exists() and truth.exists() else None


def worst_first(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Those that did not come out ``same``, worst first: what blocks, then by how far beyond the tolerance."""

    def severity(comparison: Comparison) -> tuple[bool, float]:
        excess = max((change.drop / change.tolerance for change in comparison.changes), default=float("inf"))
        return comparison.blocks, excess

    moved = [c for c in comparisons if c.verdict != "same"]
    return tuple(sorted(moved, key=lambda c: (*(-float(part) for part in severity(c)), c.case)))
