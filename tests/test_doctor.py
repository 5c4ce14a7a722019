"""`evalsuite doctor`: what is here is told apart from what is wrong, and LPIPS from its look-alikes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import squeezenet1_1

from evalsuite.cli import main
from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.core.mirror import VARIABLE
from evalsuite.doctor import LPIPS_DOCUMENTED, data_lines, lpips_acceptance
from evalsuite.fetch.fetching import Source
from evalsuite.fetch.manifest import load_manifest
from evalsuite.metrics.perceptual import FOLDER, SQUEEZE, lpips_distance


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def squeeze_file() -> Path:
    """Random weights where the data folder would have the published ones."""
    path = Path("data") / FOLDER / SQUEEZE.file
    path.parent.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_it_says_what_is_here_and_how_to_get_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in printed
    assert "threads   torch" in printed
    assert "lpips     0 of 3 here; run `evalsuite fetch lpips`" in printed


def test_a_wrong_hash_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    squeeze_file()
    assert main(["doctor"]) == 1
    assert "WRONG: sha256 is" in capsys.readouterr().out


def test_a_right_hash_is_said_to_be_right() -> None:
    path = squeeze_file()
    manifest = load_manifest()
    item = manifest.items[f"lpips/{SQUEEZE.file}"]
    known = replace(item, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    unknown = replace(item, sha256=None)
    for here, words in ((known, "sha256 as in the manifest"), (unknown, "no hash is known to hold it against")):
        lines = list(data_lines(replace(manifest, items={item.id: here}), Source(Path("data"))))
        assert lines[0] == ("lpips     1 of 1 here", True)
        assert lines[1][1]
        assert lines[1][0].endswith(words)


def test_without_weights_the_acceptance_test_is_missing_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingDataError):
        lpips_acceptance()
    assert main(["doctor", "--lpips"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("run `evalsuite fetch lpips`")


def test_random_weights_do_not_reach_the_acceptance_test(capsys: pytest.CaptureFixture[str]) -> None:
    squeeze_file()
    assert main(["doctor", "--lpips"]) == 2
    assert f"{SQUEEZE.file}: sha256 is" in capsys.readouterr().err


def test_other_values_than_the_documented_ones_are_refused() -> None:
    """As if the published file were these weights: everything runs but the comparison."""
    backbone = replace(SQUEEZE, sha256=hashlib.sha256(squeeze_file().read_bytes()).hexdigest())
    with pytest.raises(BadDataError, match=r"expected 0\.1024, 0\.0938"):
        lpips_acceptance(backbone)
    first, second = documented_pairs()
    own = tuple(lpips_distance(backbone, first, second).tolist())
    assert lpips_acceptance(backbone, own) == own
    assert len(own) == len(LPIPS_DOCUMENTED)


def documented_pairs() -> tuple[Tensor, Tensor]:
    """The images of the documented example, in [0, 1]: it maps them to [-1, 1] itself."""
    generator = torch.Generator().manual_seed(42)
    first = torch.rand(2, 3, 100, 100, generator=generator)
    second = torch.rand(2, 3, 100, 100, generator=generator)
    return first.movedim(1, 3), second.movedim(1, 3)
