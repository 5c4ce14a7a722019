"""A device class without goldens is one fact, not one per case."""

from __future__ import annotations

from pathlib import Path

from made_up import golden

from evalsuite.gates.classes import missing_class
from evalsuite.gates.golden import GoldenStore


def test_a_class_with_a_golden_is_not_missing(goldens: GoldenStore) -> None:
    goldens.write(golden())
    assert missing_class(goldens) is None


def test_a_missing_class_names_those_that_are_there_and_the_way_to_it(goldens: GoldenStore, tmp_path: Path) -> None:
    goldens.write(golden())
    GoldenStore(tmp_path / "golden", "smoke", "cpu-aarch64").write(golden())
    (tmp_path / "golden/smoke/cpu-empty").mkdir()
    found = missing_class(GoldenStore(tmp_path / "golden", "smoke", "cuda-sm90")) or ""
    assert found.startswith("no goldens for cuda-sm90 yet (smoke has cpu-aarch64, cpu-x86-64): run `evalsuite run ")
    assert "--suite smoke --device cuda`" in found
    assert "evalsuite approve --suite smoke" in found
    assert "\n" not in found


def test_a_suite_that_nobody_approved_anywhere(goldens: GoldenStore) -> None:
    found = missing_class(goldens) or ""
    assert "no goldens for cpu-x86-64 yet (smoke has none on any class)" in found
    assert "--device" not in found


def test_a_machine_file_alone_is_no_class(goldens: GoldenStore) -> None:
    goldens.write_machine({"cpu": "x"})
    (goldens.folder / "memory.json").write_text("{}")
    assert missing_class(goldens) is not None
