"""One session's study: its selection, records, goldens and verdicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from evalsuite.core.cases import Case, Trajectory
from evalsuite.core.errors import NotComparableError, SchemaError
from evalsuite.core.machine import device_class
from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.preflight import require_ready
from evalsuite.execution.probes import PROBE_CASES, probe
from evalsuite.execution.progress import run_selection
from evalsuite.execution.selection import Selection
from evalsuite.gates.claims import Claim, ClaimResult, judge
from evalsuite.gates.classes import missing_class
from evalsuite.gates.costs import CostResult
from evalsuite.gates.golden import Comparison, Golden, GoldenStore, compare
from evalsuite.gates.laws import start_is_feedforward
from evalsuite.gates.means import Mean, means
from evalsuite.gates.peaks import judge_memory, memory_path, read_memory
from evalsuite.gates.seal import contradictions, edits
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
        require_approved: what is better than its golden blocks until somebody has approved it.
    """

    out: Path
    golden: Path
    device: str = "cpu"
    workers: int | None = None
    resume: bool = False
    require_gpu: bool = False
    require_approved: bool = False


class Study:
    """Runs a selection once, when its first record is asked for, and judges every case that was expected.

    Attributes:
        expected: ids of every case there must be a record of, fixed before anything runs; the engine's probes are
            always among them.
        claims: what the collected tests claim (``claims.toml`` beside them), whichever of them were picked.
        selected: tests of this study that pytest will run.
        interrupted: whether the session ended before its time: then there is no verdict.
    """

    def __init__(self, selection: Selection, settings: StudySettings, console: Console) -> None:
        self.selection, self.settings, self.console = selection, settings, console
        suite = selection.suite
        self.store = RecordStore(settings.out / "records" / suite.name)
        self.goldens = GoldenStore(settings.golden, suite.name, device_class(settings.device))
        self.engine_store = RecordStore(settings.out / "records" / ENGINE)
        self.engine_goldens = GoldenStore(settings.golden, ENGINE, device_class(settings.device))
        self.probes: tuple[str, ...] = tuple(PROBE_CASES)
        self.expected: tuple[str, ...] = (*(case.id for case in selection.cases), *self.probes)
        self.claims: tuple[Claim, ...] = ()
        self.selected = 0
        self.ran = self.interrupted = False
        self._comparisons: dict[str, Comparison] = {}
        self._rulings: dict[Claim, ClaimResult] = {}
        self._means: tuple[Mean, ...] | None = None

    @property
    def definition(self) -> tuple[str, ...]:
        """Ids of every case of the whole suite, counted anew from its definition."""
        return (*(case.id for t in self.selection.suite.trajectories() for case in t.cases), *self.probes)

    def narrow(self, cases: Collection[str]) -> None:
        """Run and expect only these cases, and the probes."""
        self.selection = self.selection.narrowed(cases)
        self.expected = (*(case.id for case in self.selection.cases), *self.probes)

    def require_ready(self) -> None:
        """Refuse to begin where nothing can run; one scene that lacks its data, of a suite that has some, is not-run.

        Raises:
            EvalsuiteError: no scene of the suite has its data, or the network has no weights; in one line, with the
                next step.
        """
        arms = {t.arm for t in self.selection.trajectories}
        everywhere = tuple(t for t in self.selection.suite.trajectories() if t.arm in arms)
        require_ready(replace(self.selection, trajectories=everywhere), self.settings.device)

    def run(self) -> None:
        """Run everything expected, unless it has been."""
        if self.ran:
            return
        self.ran = True
        s = self.settings
        self.summary.unlink(missing_ok=True)  # of an earlier run: a killed one must not leave it as its own
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

    def recorded(self, case: str) -> bool:
        """Whether a case has left a record."""
        return (self.engine_store if case in self.probes else self.store).path(case).exists()

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
        """Test a claim; records that cannot stand side by side leave it unjudged, which blocks it if required."""
        if claim not in self._rulings:
            try:
                self._rulings[claim] = judge(claim, self.records())
            except NotComparableError as error:
                self._rulings[claim] = ClaimResult(claim, (), reason=f"not judged: {error}")
        return self._rulings[claim]

    def rulings(self) -> tuple[ClaimResult, ...]:
        """What every claim that concerns this run came to, whichever tests were picked; empty if nothing ran."""
        return tuple(self.judge(claim) for claim in self.claims if self.concerns(claim)) if self.ran else ()

    @property
    def warmstarts(self) -> tuple[Trajectory, ...]:
        """Trajectories of B that have N = 0, in scenes that have A."""
        feedforward = {t.scene for t in self.selection.trajectories if t.arm == "a"}
        return tuple(t for t in self.selection.trajectories if t.arm == "b" and 0 in t.steps and t.scene in feedforward)

    def breach(self, warmstart: Trajectory) -> str:
        """How B breaks the law that at N = 0 it is A (`evalsuite.gates.laws`); empty if it does not."""
        start, feedforward = f"{warmstart.id}-n0", f"{warmstart.scene}/a"
        try:
            reason = start_is_feedforward(self.record(start), self.record(feedforward))
        except SchemaError as error:
            reason = str(error)
        return f"{start} is not {feedforward}: {reason}" if reason else ""

    def breaches(self) -> tuple[str, ...]:
        """Every breach of that law; empty if nothing ran."""
        return tuple(found for t in self.warmstarts if (found := self.breach(t))) if self.ran else ()

    def edits(self) -> tuple[str, ...]:
        """What was changed without an approval, and goldens that contradict themselves; one line each."""
        try:
            found = (*edits(self.goldens, self.claims), *edits(self.engine_goldens, ()))
        except SchemaError as error:
            return (str(error),)
        read = []
        for case in self.goldens.cases():
            try:
                read.append(self.goldens.read(case))
            except SchemaError:
                continue  # its comparison says so
        return (*found, *contradictions(golden for golden in read if golden is not None))

    def missing_class(self) -> str | None:
        """What to do where nobody has approved anything on this class of device; None where somebody has."""
        return missing_class(self.goldens if self.selection.cases else self.engine_goldens)

    def lost(self) -> tuple[str, ...]:
        """Cases that should have a verdict and have none: of a whole suite, those of its definition."""
        wanted = self.definition if self.selection.whole else (*(c.id for c in self.selection.cases), *self.probes)
        judged = {comparison.case for comparison in self.comparisons()}
        return tuple(case for case in wanted if case not in judged)

    def concerns(self, claim: Claim) -> bool:
        """Whether this run can judge a claim: it is the whole suite, and has scenes the claim is about."""
        strata = {SCENES[scene].stratum for scene in self.selection.suite.scenes}
        return self.selection.whole and bool(strata & set(claim.strata))

    def orphans(self) -> tuple[str, ...]:
        """Goldens without a case: renamed, or removed; of a part of a suite that can be said of the probes alone."""
        stores = (self.engine_goldens, *([self.goldens] if self.selection.whole else []))
        return tuple(dict.fromkeys(c for store in stores for c in store.cases() if c not in self.expected))

    @property
    def summary(self) -> Path:
        """Where the session writes what it came to."""
        return self.settings.out / "summary.md"

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
