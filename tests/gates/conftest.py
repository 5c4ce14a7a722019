from __future__ import annotations

from pathlib import Path

import pytest

from evalsuite.gates.golden import GoldenStore
from evalsuite.records.store import RecordStore


@pytest.fixture
def goldens(tmp_path: Path) -> GoldenStore:
    return GoldenStore(tmp_path / "golden", "smoke", "cpu-x86-64")


@pytest.fixture
def records(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "out")
