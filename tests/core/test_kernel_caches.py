"""Which kernels the caches answer for, and what makes one stale."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numba
import pytest

from evalsuite.core import kernels as subject
from evalsuite.core.kernels import KEPT_VERSIONS, LOCATORS, BesideSources, OfUser, keep_kernels, kernel_stamp


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of kernels that `keep_kernels` has been told of."""
    monkeypatch.setattr(subject, "_folders", set())
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    (kernels / "one.py").write_text("def one(): return 1\n")
    keep_kernels(str(kernels / "__init__.py"))
    return kernels


def kernel() -> None:
    """Any function."""


def test_only_kernels_of_named_folders_are_answered_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("")
    assert BesideSources.from_function(kernel, str(folder / "one.py")) is not None
    assert BesideSources.from_function(kernel, str(tmp_path / "other.py")) is None


def test_a_kernel_is_stale_once_any_file_of_its_folder_has_changed(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "two.py").write_text("def two(): return 2\n")
    before = kernel_stamp(folder)
    locator = BesideSources.from_function(kernel, str(folder / "one.py"))
    assert locator.get_source_stamp() == before
    assert kernel_stamp(other) != before
    (folder / "inlined.py").write_text("THREE = 3\n")
    kernel_stamp.cache_clear()  # a process reads each folder once
    assert locator.get_source_stamp() != before


def test_the_users_cache_keeps_the_versions_that_were_used_last(folder: Path) -> None:
    place = Path(OfUser.from_function(kernel, str(folder / "one.py")).get_cache_path())
    for age in range(1, KEPT_VERSIONS + 3):
        version = place.with_name(f"version-{age}")
        version.mkdir()
        os.utime(version, (1_000_000 - age, 1_000_000 - age))
    os.utime(place, (0, 0))  # the oldest, until a process asks for it
    subject._leave_newest.cache_clear()
    OfUser.from_function(kernel, str(folder / "one.py"))
    assert {version.name for version in place.parent.iterdir()} == {
        place.name,
        *(f"version-{age}" for age in range(1, KEPT_VERSIONS)),
    }


def test_a_second_folder_adds_no_second_set_of_locators(folder: Path, tmp_path: Path) -> None:
    keep_kernels(str(tmp_path / "more" / "__init__.py"))
    config: Any = numba.config  # fills itself from the environment: no type checker sees its names
    named = config.CACHE_LOCATOR_CLASSES.split(",")
    assert [name.rsplit(".", 1)[1] for name in named[:3]] == [locator.__name__ for locator in LOCATORS]
    assert len(named) == len(set(named))
    assert "InTreeCacheLocator" in named, "what Numba would ask for everybody else's functions"
