from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.selection import select
from evalsuite.records.store import RecordStore

_THREADS = """
import numba, torch
from evalsuite.execution.local import fix_threads
from evalsuite.execution.trajectory import warm_up
fix_threads(1)
warm_up("cpu")
print(torch.get_num_threads(), numba.get_num_threads())
"""


MEASURED = {
    "seconds": {},
    **dict.fromkeys(("peak_host_bytes", "base_host_bytes", "frames_per_second", "anchor_seconds", "anchor_share")),
}
"""Fields that differ from run to run."""


def test_one_thread_stays_one_after_kernels_have_run() -> None:
    """Numba's start of its threads once raised torch's number again, and made a run three times slower."""
    done = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def _die(*_: object) -> None:
    import os

    os._exit(9)


def test_a_killed_worker_leaves_records_that_say_so(tmp_path: Path) -> None:
    selection = select("smoke", ["smoke.blob"], ["b"], [0, 50])
    executor = LocalExecutor(selection.suite, RecordStore(tmp_path), workers=2)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        executor._pool = pool
        executor._futures = {t.id: pool.submit(_die) for t in selection.trajectories}
        for trajectory in selection.trajectories:
            while not executor.done(trajectory, 0.1):
                pass
    for case in selection.cases:
        record = executor.store.read(case.id)
        assert record is not None
        assert record.status == "crashed"
        assert "worker process died" in record.reason


def test_workers_and_no_workers_make_equal_records(tmp_path: Path) -> None:
    selection = select("smoke", ["smoke.blob"], ["mean-colour", "visual-hull"])
    for workers in (1, 2):
        executor = LocalExecutor(selection.suite, RecordStore(tmp_path / str(workers)), workers=workers)
        executor.start(selection.trajectories)
        for trajectory in selection.trajectories:
            while not executor.done(trajectory, 1.0):
                pass
        executor.close()
    for case in selection.cases:
        one, two = (RecordStore(tmp_path / name).read(case.id) for name in ("1", "2"))
        assert one is not None
        assert two is not None
        for metric, reading in one.metrics.items():  # torch's sums depend on the number of threads, by rounding only
            assert two.metrics[metric].per_view == pytest.approx(reading.per_view, rel=1e-9)
        bare = [replace(r, **MEASURED, machine={}, metrics={}) for r in (one, two)]  # type: ignore[arg-type]
        assert bare[0] == bare[1]


@pytest.mark.parametrize(
    ("device", "asked", "cores", "threads", "workers"),
    [
        ("cpu", None, 3, 8, 3),
        ("cpu", None, 8, 3, 3),
        ("cpu", 5, 3, 8, 5),
        ("cuda", None, 3, 8, 1),
        ("cuda", 2, 3, 8, 2),
    ],
)
def test_workers_default_to_the_cores_there_are_and_to_one_on_a_gpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    asked: int | None,
    cores: int,
    threads: int,
    workers: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", threads)
    executor = LocalExecutor(select("smoke").suite, RecordStore(tmp_path), device=device, workers=asked)
    assert executor.workers == workers
