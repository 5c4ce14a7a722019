"""What tests need and may lack: a data mirror, a GPU. Each skip says so."""

from __future__ import annotations

import os
from collections.abc import Iterator

import jaxtyping
import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Under pytest-xdist every core has a process already: one thread each, but for tests that ask for more."""
    if hasattr(item.config, "workerinput"):
        from evalsuite.execution.local import fix_threads  # takes seconds, which a refused command line should not

        fix_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``data`` without a mirror, and those marked ``gpu`` without CUDA."""
    no_data = pytest.mark.skip(reason="EVALSUITE_MIRROR is not set: no scans or captures to test on")
    no_gpu = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        if item.get_closest_marker("data") and not os.environ.get("EVALSUITE_MIRROR"):
            item.add_marker(no_data)
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(no_gpu)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch the run-time shape checker off: for tests of the errors that users without it get."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
