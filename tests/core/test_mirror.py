from __future__ import annotations

from pathlib import Path

import pytest

from evalsuite.core.mirror import places


def test_the_mirror_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSUITE_MIRROR", "elsewhere")
    assert places(Path("gso/x")) == (Path("elsewhere/gso/x"), Path("data/gso/x"))


@pytest.mark.parametrize("value", ["", None])
def test_without_a_mirror_only_data_is_left(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    else:
        monkeypatch.setenv("EVALSUITE_MIRROR", value)
    assert places(Path("gso/x")) == (Path("data/gso/x"),)
