"""One module of the package opens connections; every other one is shown here not to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import evalsuite

PACKAGE = Path(evalsuite.__file__).parent
DOOR = PACKAGE / "fetch" / "download.py"
NETWORK = {
    "aiohttp", "asyncio", "boto3", "fsspec", "ftplib", "gdown", "http", "httpx", "huggingface_hub", "pooch", "requests",
    "smtplib", "socket", "socketserver", "ssl", "telnetlib", "tensorflow_datasets", "urllib", "urllib3", "webbrowser",
    "websockets", "xmlrpc",
}  # fmt: skip
HARMLESS = {"urllib.parse"}
DOWNLOADERS = {"load_state_dict_from_url", "load_url", "download_url_to_file", "hf_hub_download", "from_pretrained",
               "urlopen", "urlretrieve", "get_state_dict"}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def ways_out(tree: ast.AST) -> set[str]:
    """Network modules that are imported, and functions of other libraries that download, anywhere in a tree."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} & DOWNLOADERS
    full = {name for name in found if name.split(".")[0] in NETWORK and ".".join(name.split(".")[:2]) not in HARMLESS}
    return full | {name for name in found if name.split(".")[-1] in DOWNLOADERS or name.startswith("torch.hub")}


@pytest.mark.parametrize(
    "code",
    [
        "import requests", "from urllib.request import urlopen", "def f():\n    import socket", "import urllib.request",
        "import torch.hub", "from torch.hub import x", "torch.hub.load_state_dict_from_url(x)", "import http.client",
    ],
)  # fmt: skip
def test_the_scan_sees_it(code: str) -> None:
    assert ways_out(ast.parse(code))


def test_the_scan_lets_the_rest_pass() -> None:
    code = "import json\nfrom urllib.parse import quote\nimport torch\nfrom evalsuite.fetch.download import download"
    assert not ways_out(ast.parse(code))
    assert ways_out(ast.parse(DOOR.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [path for path in MODULES if path != DOOR], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_other_module_reaches_the_network(path: Path) -> None:
    assert not ways_out(ast.parse(path.read_text(encoding="utf-8")))
