"""The gate against defects: real runs in mutated checkouts, judged by their exit codes.

Two scenes and short ladders: minutes. ``python -m benchmarks.mutants`` takes hours and makes the table of docs/gate.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.defects import ENGINE_ALONE, MUTANTS, PASSED, Edit, Mutant, more_threads, other_seed
from benchmarks.mutants import ROOT, checkout, copy, run
from evalsuite.core.protocol import PROTOCOLS
from evalsuite.scenes.catalogue import PREPARED, SCENES
from evalsuite.scenes.prepared import write_scene

_ONE_THREAD: Mapping[str, str] = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Tests may run on every core already."""

IN_CI = tuple(mutant for mutant in MUTANTS.values() if mutant.in_ci)
NULLS = (more_threads(), other_seed(7))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without defect, its kernels compiled and the two scenes of the quick runs prepared, to copy from."""
    folder, protocol = tmp_path_factory.mktemp("sound") / "checkout", PROTOCOLS["object-128"]
    copy(ROOT, folder)
    (folder / "data").unlink(missing_ok=True)
    prepared = folder / "data" / PREPARED / protocol.name
    for scene in ("smoke.blob", "smoke.chair"):
        entry = SCENES[scene]
        write_scene(entry.generate(protocol), entry.origin(protocol), prepared / scene)
    done = run(folder, ENGINE_ALONE, _ONE_THREAD)
    assert done.exit_code == PASSED, done.output
    return folder


def _runs(mutants: Sequence[Mutant]) -> list[pytest.ParameterSet]:
    """One test per quick run."""
    found = [(mutant, arguments) for mutant in mutants for arguments in mutant.quick]
    names = [f"{mutant.name}-{mutant.quick.index(arguments)}" for mutant, arguments in found]
    return [pytest.param(*pair, id=name) for pair, name in zip(found, names, strict=True)]


@pytest.mark.parametrize(("mutant", "arguments"), _runs([*IN_CI, *NULLS]))
def test_the_gate_notices_a_defect_and_nothing_else(
    mutant: Mutant, arguments: tuple[str, ...], sound: Path, tmp_path: Path
) -> None:
    variables = {} if mutant.name == "more-threads" else _ONE_THREAD
    done = run(checkout(mutant, tmp_path / "checkout", sound), arguments, variables)
    assert done.exit_code == mutant.exit_code, done.output
    assert mutant.says in done.output, done.output


def test_a_mutant_older_than_the_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="has 0 times 'y = 1', expected 1"):
        Edit("kernel.py", "y = 1", "y = 2").apply(tmp_path)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_no_mutant_is_older_than_the_code(mutant: Mutant, tmp_path: Path) -> None:
    """Also those that CI does not run."""
    for edit in mutant.edits:
        (tmp_path / edit.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / edit.path).write_bytes((ROOT / edit.path).read_bytes())
        edit.apply(tmp_path)
