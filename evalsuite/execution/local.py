"""Trajectories on this machine: in process, or in worker processes of one thread each.

Small kernels gain little from a second thread and lose much when threads outnumber cores, so parallelism is over
trajectories: ``workers`` processes, each with its share of the cores fixed once at start.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numba
import torch

from evalsuite.core.cases import Trajectory
from evalsuite.core.suites import Suite
from evalsuite.execution.trajectory import blank_record, finished, run_trajectory
from evalsuite.records.store import RecordStore
from evalsuite.scenes.catalogue import SUITES


class LocalExecutor:
    """Runs trajectories of one suite; `ensure` blocks until the records of one are there.

    Args:
        workers: processes; 1 runs everything in this process.
        resume: keep cases that this very code has finished before.
    """

    def __init__(self, suite: Suite, store: RecordStore, *, device: str, workers: int, resume: bool) -> None:
        self.suite, self.store, self.device, self.resume = suite, store, device, resume
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._futures: dict[str, Future[None]] = {}

    def start(self, trajectories: Sequence[Trajectory]) -> None:
        """Forget earlier records of these trajectories (unless resumed) and begin to run them."""
        waiting = [t for t in trajectories if not (self.resume and finished(t, self.suite, self.store))]
        for trajectory in waiting:
            for case in trajectory.cases:
                self.store.path(case.id).unlink(missing_ok=True)
        if self.workers == 1:
            fix_threads(os.cpu_count() or 1)
            self._futures = {t.id: Future() for t in waiting}
            return
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        self._pool = ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=fix_threads, initargs=(threads,)
        )
        for trajectory in waiting:
            self._futures[trajectory.id] = self._pool.submit(
                _run_in_worker, trajectory, self.suite.name, str(self.store.root), self.device
            )

    def ensure(self, trajectory: Trajectory) -> None:
        """Wait for (or, without workers, run) one trajectory; afterwards every one of its cases has a record."""
        future = self._futures.get(trajectory.id)
        if future is None or (self._pool is None and future.done()):
            return
        if self._pool is None:
            run_trajectory(trajectory, self.suite, self.store, self.device)
            future.set_result(None)
            return
        try:
            future.result()
        except BrokenProcessPool:
            self._record_lost(trajectory)

    @property
    def progress(self) -> tuple[int, int]:
        """Trajectories done, and all that had to be run."""
        return sum(future.done() for future in self._futures.values()), len(self._futures)

    def close(self) -> None:
        """Stop; what has not begun is cancelled, what has finished stays on disk."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _record_lost(self, trajectory: Trajectory) -> None:
        """A worker died (killed, out of memory): say so in the records it did not write."""
        for case in trajectory.cases:
            if self.store.read(case.id) is None:
                blank = blank_record(trajectory, self.suite)
                reason = "the worker process died before this case was finished (killed, or out of memory)"
                self.store.write(replace(blank, case=case.id, steps=case.steps, status="crashed", reason=reason))


def fix_threads(threads: int) -> None:
    """Give torch and Numba the same number of threads, once: oversubscription costs a factor of 20."""
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)


def _run_in_worker(trajectory: Trajectory, suite: str, store: str, device: str) -> None:
    run_trajectory(trajectory, SUITES[suite], RecordStore(Path(store)), device)
