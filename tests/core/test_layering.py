"""Imports point from right to left in the pipeline, and what judges records needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import evalsuite

PACKAGE = Path(evalsuite.__file__).parent
ORDER = (
    "core",
    "fetch",
    "scenes",
    "splats",
    "models",
    "arms",
    "records",
    "metrics",
    "execution",
    "gates",
    "report",
    "plugin",
    "doctor",
    "commands",
    "cli",
)
# What the order alone would allow, but DESIGN section 4 does not.
FORBIDDEN = {
    "scenes": {"fetch"},  # what loads data never brings it
    "models": {"fetch"},
    "metrics": {"fetch", "scenes", "splats", "models", "arms"},
    "records": {"scenes", "splats", "models", "arms"},
    "gates": {"scenes", "splats", "models", "arms", "execution"},
    "report": {"scenes", "splats", "models", "arms", "execution"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> set[str]:
    """Modules of evalsuite that any statement of a tree imports, inside functions and type-checking blocks too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            assert node.module is not None
            # `from evalsuite.core import clock` names a module, `from evalsuite.core.clock import Clock` does not
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= full & set(MODULES) or {node.module}
    return {name for name in names if name.split(".")[0] == "evalsuite"}


GRAPH = {name: imports(ast.parse(path.read_text(encoding="utf-8"))) for name, path in MODULES.items()}
EDGES = sorted({(source, target) for source, targets in GRAPH.items() for target in targets})


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else "evalsuite"


def test_the_walk_sees_imports() -> None:
    tree = ast.parse(
        "def f():\n    import evalsuite.core.clock\n    from evalsuite.core import errors\n    import torch"
    )
    assert imports(tree) == {"evalsuite.core.clock", "evalsuite.core.errors"}
    assert ("evalsuite.gates.golden", "evalsuite.metrics.spec") in EDGES
    assert ("evalsuite.metrics.evaluate", "evalsuite.records.schema") in EDGES


def test_every_package_has_a_place() -> None:
    assert {package(module) for module in MODULES} - {"evalsuite"} <= set(ORDER)


def test_imports_point_left() -> None:
    wrong = [
        f"{source} -> {target}"
        for source, target in EDGES
        if "evalsuite" not in (package(source), package(target))
        and ORDER.index(package(target)) > ORDER.index(package(source))
    ]
    assert not wrong


@pytest.mark.parametrize("reader", FORBIDDEN)
def test_what_sees_results_never_sees_their_makers(reader: str) -> None:
    found = {package(target) for source, target in EDGES if package(source) == reader}
    assert not found & FORBIDDEN[reader]


def test_modules_form_no_cycle() -> None:
    TopologicalSorter({name: targets - {name} for name, targets in GRAPH.items()}).prepare()  # raises CycleError


def test_gates_records_and_report_need_no_torch() -> None:
    names = [name for name in MODULES if package(name) in ("gates", "records", "report")]
    assert {"evalsuite.gates.golden", "evalsuite.records.store"} <= set(names)
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "sys.exit(', '.join({'torch', 'gsplat', 'numba', 'pycolmap'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


def test_the_matrix_needs_no_torch() -> None:
    code = "import evalsuite.core.suites, evalsuite.metrics.spec, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
