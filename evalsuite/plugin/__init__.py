"""The pytest plugin: options, the case matrix, fixtures, summary and page of a study.

Loaded by the root ``conftest.py``. Hooks live in `hooks` and `benchmark`, goldens in `snapshots`, what they share per
session in `study`.
"""

from evalsuite.plugin.benchmark import (
    benchmark_clock,
    pytest_benchmark_update_json,
    pytest_benchmark_update_machine_info,
)
from evalsuite.plugin.hooks import (
    golden,
    pytest_addoption,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
    study,
)

__all__ = [
    "benchmark_clock",
    "golden",
    "pytest_addoption",
    "pytest_benchmark_update_json",
    "pytest_benchmark_update_machine_info",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "study",
]
