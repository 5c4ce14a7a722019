"""A study in small: made-up records in place of runs, so that a whole session takes a second."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evalsuite.report.page  # noqa: F401  # pytester forgets what a run imports: matplotlib again for every test
from evalsuite.core.cases import Trajectory
from evalsuite.core.machine import device_class, fingerprint
from evalsuite.core.suites import Suite
from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.probes import PROBE_CASES
from evalsuite.gates.approval import Repeats, approve
from evalsuite.gates.claims import load_claims
from evalsuite.gates.golden import GoldenStore
from evalsuite.gates.seal import seal
from evalsuite.metrics.spec import ENGINE, METRICS
from evalsuite.records.schema import Reading, Record
from evalsuite.records.store import RecordStore
from evalsuite.report.tables import check_comparable
from evalsuite.scenes.catalogue import SCENES, SUITES

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = Suite("tiny", tuple(f"smoke.{name}" for name in ("blob", "chair", "creature", "truck", "wheel")))
LEVELS = {"mean-colour": 12.0, "visual-hull": 16.0, "a": 20.0, "b": 20.0, "c": 19.0}
VIEWS = 2
SHOWN = ("psnr", "ssim")
"""Metrics of the made-up records: few, since the type checker looks at every number."""


def psnr_of(case: str, arm: str, steps: int) -> float:
    """A level per arm that rises with N under budget capture, a little different from scene to scene."""
    gain = 4.0 * steps**0.2 if steps else 0.0
    if "inputs" in case:
        gain = 0.3 * gain if arm == "b" else -0.5 * gain
    return LEVELS[arm] + gain + 0.1 * (sum(map(ord, case.split("/")[0])) % 7)


def record_of(trajectory: Trajectory, case: str, steps: int) -> Record:
    """What a run would have left."""
    psnr = psnr_of(case, trajectory.arm, steps)
    readings = {}
    for name in SHOWN:
        spec = METRICS[name]
        value = psnr if name == "psnr" else psnr / (50 if spec.direction == "higher" else 100)
        readings[name] = Reading(value, (value,) * VIEWS, spec.version)
    return Record(
        case=case,
        scene=trajectory.scene,
        stratum=SCENES[trajectory.scene].stratum,
        arm=trajectory.arm,
        budget=trajectory.budget,
        steps=steps,
        seed=trajectory.seed,
        suite=TINY.name,
        protocol=TINY.protocol_name,
        protocol_hash=TINY.protocol.hash,
        metrics=readings,
        seconds={"sfm": 1.234567891, "optimise": 0.01234567891 * (1 + steps), "forward": 0.123456789},
        gaussians=8192,
        peak_host_bytes=2**30,
        machine=fingerprint("cpu"),
        source="5012ce5012ce",
    )


def probe_record(case: str, device: str) -> Record:
    """What a probe would have left."""
    readings = {"mean-red": Reading(0.5, (0.5,), 1)}
    return Record(case, ENGINE, ENGINE, case.split("/")[1], None, 0, 0, ENGINE, "made-up", "made-up", metrics=readings)


def page_without_plots(store: Path, out: Path, expected: Sequence[str], training: float | None = None) -> Path:
    """What the page reads, and none of the seconds that drawing takes."""
    check_comparable(RecordStore(store))
    return out


class Changes:
    """What this run does otherwise than the one that was approved: by case, a new record, text, or None to lose it."""

    def __init__(self) -> None:
        self.by_case: dict[str, Callable[[Record], Record | str | None]] = {}

    def psnr(self, case: str, by: float) -> None:
        """Move one value."""

        def moved(record: Record) -> Record:
            reading = record.metrics["psnr"]
            assert reading.value is not None
            return replace(record, metrics={**record.metrics, "psnr": replace(reading, value=reading.value + by)})

        self.by_case[case] = moved

    def apply(self, record: Record) -> Record | str | None:
        """The record as this run leaves it."""
        return self.by_case.get(record.case, lambda found: found)(record)


class FakeExecutor(LocalExecutor):
    """Writes made-up records where a real one would run trajectories."""

    changes = Changes()

    def start(self, trajectories: Sequence[Trajectory]) -> None:
        for trajectory in trajectories:
            for case in trajectory.cases:
                found = self.changes.apply(record_of(trajectory, case.id, case.steps))
                if isinstance(found, Record):
                    self.store.write(found)
                elif found is not None:
                    self.store.path(case.id).write_text(found)

    def done(self, trajectory: Trajectory, wait_seconds: float) -> bool:
        return True


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> Changes:
    """The changes of this test's run."""
    found = Changes()
    monkeypatch.setattr(FakeExecutor, "changes", found)
    return found


@pytest.fixture
def tiny(
    pytester: pytest.Pytester, changes: Changes, approved: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A checkout with the plugin, the ablation's tests and claims, and the approved goldens of a made-up suite."""
    monkeypatch.setitem(SUITES._items, TINY.name, TINY)
    study_module = importlib.import_module("evalsuite.plugin.study")  # the package's name is the fixture
    monkeypatch.setattr(study_module, "LocalExecutor", FakeExecutor)
    monkeypatch.setattr(study_module, "probe", probe_record)
    monkeypatch.setattr("evalsuite.report.page.write_page", page_without_plots)
    # with the last two, pytest repeats every failure whole in its short summary
    for variable in ("EVALSUITE_MIRROR", "GITHUB_STEP_SUMMARY", "PYTEST_XDIST_WORKER", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(variable, raising=False)
    pytester.makeconftest('pytest_plugins = ["evalsuite.plugin"]')
    pytester.makeini("[pytest]\naddopts = -m 'not gpu' -p no:cacheprovider\nfilterwarnings = error")
    for name in ("test_ablation.py", "claims.toml"):
        shutil.copy(REPOSITORY / "tests" / "ablation" / name, pytester.path / name)
    shutil.copytree(approved, pytester.path / "golden")
    return pytester


@pytest.fixture(scope="session")
def approved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Goldens of the made-up suite, approved once from three seeds."""
    root = tmp_path_factory.mktemp("approved")
    records, golden = RecordStore(root / "records"), root / "golden"
    expected = [(trajectory, case) for trajectory in TINY.trajectories() for case in trajectory.cases]
    for trajectory, case in expected:
        record = record_of(trajectory, case.id, case.steps)
        records.write(record)
        for seed, by in ((1, 0.02), (2, -0.02)) if trajectory.budget else ():
            records.write(replace(moved_by(record, f"{case.id}-s{seed}", by), seed=seed))
    approve(records, [case.id for _, case in expected], store_in(golden), Repeats((1, 2), records))
    for name in PROBE_CASES:
        records.write(probe_record(name, "cpu"))
    approve(records, tuple(PROBE_CASES), store_in(golden, ENGINE))
    seal(store_in(golden), load_claims(REPOSITORY / "tests/ablation/claims.toml"))
    seal(store_in(golden, ENGINE), ())
    return golden


def moved_by(record: Record, case: str, by: float) -> Record:
    """The same case of another seed, whose every value is off by a share."""
    if record.steps == 0:
        by = 0.0
    metrics: Mapping[str, Reading] = {
        name: replace(r, value=(r.value or 0.0) * (1 + by / 10)) for name, r in record.metrics.items()
    }
    return replace(record, case=case, metrics=metrics)


def store_in(golden: Path, suite: str = TINY.name) -> GoldenStore:
    """A suite's goldens below a folder."""
    return GoldenStore(golden, suite, device_class("cpu"))


def golden_store(project: pytest.Pytester, suite: str = TINY.name) -> GoldenStore:
    """Where the project's goldens are."""
    return store_in(project.path / "golden", suite)


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the made-up study whole."""
    return project.runpytest_inprocess("--suite", TINY.name, *arguments)


def run_part(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run one scene of it."""
    return run(project, "--scene", "smoke.chair", *arguments)


def benchmarks(path: Path) -> dict[str, Any]:
    """Entries of a benchmark's JSON, by case id."""
    tree = json.loads(path.read_text())
    return {entry["name"].split("[")[1].removesuffix("]"): entry for entry in tree["benchmarks"]}
