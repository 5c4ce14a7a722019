"""Run a selection to its end under a progress bar."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from evalsuite.execution.local import LocalExecutor
from evalsuite.execution.selection import Selection

_POLL_SECONDS = 0.5
_LOG_EVERY_SECONDS = 60.0


def run_selection(selection: Selection, executor: LocalExecutor, console: Console) -> None:
    """Run every trajectory; afterwards every case of the selection has a record.

    A terminal gets a bar; a log file gets a line a minute. An interruption ends the workers at once.
    """
    try:
        executor.start(selection.trajectories)
        _wait(selection, executor, console)
    except BaseException:
        executor.terminate()
        raise
    executor.close()


def _wait(selection: Selection, executor: LocalExecutor, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = last = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(f"{selection.suite.name}: trajectories", total=executor.progress[1])
        for trajectory in selection.trajectories:
            while not executor.done(trajectory, _POLL_SECONDS):
                bar.update(task, completed=executor.progress[0])
                if not console.is_terminal and time.monotonic() - last > _LOG_EVERY_SECONDS:
                    last = time.monotonic()
                    done, total = executor.progress
                    console.print(f"{selection.suite.name}: {done} of {total} trajectories, {last - start:.0f} s")
            bar.update(task, completed=executor.progress[0])
