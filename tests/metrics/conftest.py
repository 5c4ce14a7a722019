"""LPIPS weights for tests: none, unless a test asks for generated ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from backbone_factory import write_backbone

from evalsuite.core.mirror import VARIABLE
from evalsuite.metrics.perceptual import ALEX, SQUEEZE, VGG, Backbone


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever lies on this machine, no test sees it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Backbone]]:
    """A mirror of generated backbones, and by name what each of its files is."""
    root = tmp_path_factory.mktemp("mirror")
    return root, {b.net: write_backbone(root, b, old_format=b is VGG) for b in (ALEX, VGG, SQUEEZE)}


@pytest.fixture
def nets(generated: tuple[Path, Mapping[str, Backbone]], monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Backbone]:
    """Generated backbones by name, with their mirror in place."""
    monkeypatch.setenv(VARIABLE, str(generated[0]))
    return generated[1]
