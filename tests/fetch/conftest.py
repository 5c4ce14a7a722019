from __future__ import annotations

from collections.abc import Iterator

import pytest
from mirror_server import Web, served

from evalsuite.fetch import download


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server on this machine; retries do not wait."""
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(Web()) as web:
        yield web
