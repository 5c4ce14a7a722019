"""Trajectories on this machine: in process, or in worker processes of one thread each.

Small kernels gain little from a second thread and lose much when threads outnumber cores, so parallelism is over
trajectories: ``workers`` processes, each with its share of the cores fixed once at start.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

import numba
import torch

from evalsuite.core.cases import Trajectory
from evalsuite.core.suites import Suite
from evalsuite.execution.trajectory import blank_record, finished, run_trajectory
from evalsuite.records.store import RecordStore


class LocalExecutor:
    """Runs trajectories of one suite.

    Args:
        device: ``cpu`` or ``cuda``.
        workers: processes; 1 runs everything in this process, None takes one per core on CPU and one on CUDA.
        resume: keep cases that this very code has finished before.
    """

    def __init__(
        self, suite: Suite, store: RecordStore, *, device: str = "cpu", workers: int | None = None, resume: bool = False
    ) -> None:
        self.suite, self.store, self.device, self.resume = suite, store, device, resume
        self.workers = workers or (_cores() if device == "cpu" else 1)
        self._pool: ProcessPoolExecutor | None = None
        self._futures: dict[str, Future[None]] = {}

    def start(self, trajectories: Sequence[Trajectory]) -> None:
        """Forget earlier records of these trajectories (unless resumed) and begin to run them."""
        waiting = [t for t in trajectories if not (self.resume and finished(t, self.suite, self.store, self.device))]
        for trajectory in waiting:
            for case in trajectory.cases:
                self.store.path(case.id).unlink(missing_ok=True)
        if self.workers == 1:
            fix_threads(_cores())
            self._futures = {t.id: Future() for t in waiting}
            return
        threads = max(1, _cores() // self.workers)
        self._pool = ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(threads,)
        )
        for trajectory in waiting:
            self._futures[trajectory.id] = self._pool.submit(
                _run_in_worker, trajectory, self.suite, str(self.store.root), self.device
            )

    def done(self, trajectory: Trajectory, wait_seconds: float) -> bool:
        """Whether a trajectory has ended and every one of its cases has a record; without workers, runs it now.

        Args:
            wait_seconds: how long to wait for a worker before answering no.
        """
        future = self._futures.get(trajectory.id)
        if future is None:
            return True
        if self._pool is None:
            if not future.done():
                run_trajectory(trajectory, self.suite, self.store, self.device)
                future.set_result(None)
            return True
        try:
            future.result(timeout=wait_seconds)
        except NotYetError:
            return False
        except BrokenProcessPool:
            self._record_lost(trajectory)
        return True

    @property
    def progress(self) -> tuple[int, int]:
        """Trajectories done, and all that had to be run."""
        return sum(future.done() for future in self._futures.values()), len(self._futures)

    def close(self) -> None:
        """Stop; what has not begun is cancelled, what has finished stays on disk."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def terminate(self) -> None:
        """End the workers where they are: their trajectories have no further records, what has finished stays."""
        if self._pool is None:
            return
        for worker in list((self._pool._processes or {}).values()):  # no public way before Python 3.14
            worker.kill()
        self.close()

    def _record_lost(self, trajectory: Trajectory) -> None:
        """A worker died (killed, out of memory): say so in the records it did not write."""
        for case in trajectory.cases:
            if self.store.read(case.id) is None:
                blank = blank_record(trajectory, self.suite, self.device)
                reason = "the worker process died before this case was finished (killed, or out of memory)"
                self.store.write(replace(blank, case=case.id, steps=case.steps, status="crashed", reason=reason))


def _begin_worker(threads: int) -> None:
    """What a worker does first.

    Ctrl-C reaches every process of a terminal; what becomes of the workers is for their parent to say. One that has
    died (killed, out of memory) says nothing: nobody waits for the results then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()
    fix_threads(threads)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def fix_threads(threads: int) -> None:
    """Give torch and Numba the same number of threads, once: oversubscription costs a factor of 20.

    Numba comes first: starting its threads sets the number of OpenMP threads, which torch shares.
    """
    numba.set_num_threads(threads)
    torch.set_num_threads(threads)


def _cores() -> int:
    """Cores this process may use, and Numba has threads for."""
    return min(len(os.sched_getaffinity(0)), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def _run_in_worker(trajectory: Trajectory, suite: Suite, store: str, device: str) -> None:
    run_trajectory(trajectory, suite, RecordStore(Path(store)), device)
