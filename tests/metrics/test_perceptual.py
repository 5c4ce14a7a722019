"""LPIPS: the package's own value, from files that are what they should be, and from no others."""

from __future__ import annotations

import re
import shutil
import socket
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import lpips
import pytest
import torch
from backbone_factory import random_state, write_backbone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image.lpips import _LPIPS

from evalsuite.core.errors import (
    BadWeightsError,
    MissingDataError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
    WrongHashError,
)
from evalsuite.core.mirror import VARIABLE
from evalsuite.fetch.manifest import load_manifest
from evalsuite.metrics import perceptual
from evalsuite.metrics.perceptual import (
    ALEX,
    BACKBONES,
    FOLDER,
    SQUEEZE,
    VGG,
    Backbone,
    find_backbone,
    load_network,
    lpips_distance,
)

Nets = Mapping[str, Backbone]
ALL_NETS = pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
SIDE = 64


def draw(seed: int, views: int = 1, side: int = SIDE) -> Tensor:
    """Blocks of colour with noise on top, [V, side, side, 3]."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(views, 3, 4, 4, generator=generator)
    image = torch.nn.functional.interpolate(blocks, (side, side), mode="bilinear")
    return (0.8 * image + 0.2 * torch.rand(image.shape, generator=generator)).permute(0, 2, 3, 1).contiguous()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)


def test_backbones_are_those_of_the_manifest() -> None:
    items = load_manifest().items
    for backbone in (ALEX, VGG, SQUEEZE):
        item = items[f"lpips/{backbone.file}"]
        assert item.sha256 == backbone.sha256
        assert item.to == (FOLDER / backbone.file)
    assert all(name == f"lpips-{backbone.net}" for name, backbone in BACKBONES.items())


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_the_value_is_that_of_the_documented_call(
    net: str, nets: Nets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lpips.LPIPS(net=...)`, with torchvision finding our file in its own cache (which it takes unchecked)."""
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    shutil.copyfile(find_backbone(nets[net]), cache / nets[net].file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        documented = lpips.LPIPS(net=net, verbose=False)
    pred, true = draw(0, 2), draw(1, 2)
    first, second = (image.permute(0, 3, 1, 2) for image in (pred, true))
    with torch.no_grad():
        expected = documented(2 * first - 1, 2 * second - 1).flatten()
        torch.testing.assert_close(documented(first, second, normalize=True).flatten(), expected, rtol=0, atol=1e-5)
        unmapped = documented(first, second).flatten()
    ours = lpips_distance(nets[net], pred, true)
    assert expected.min() > 0.01
    torch.testing.assert_close(ours, expected.double(), rtol=0, atol=1e-5)
    # [0, 1] in place of [-1, 1], as the published evaluators of 3DGS have it
    assert ((unmapped - ours).abs() / ours).min() > 0.05


@pytest.mark.parametrize("net", ["vgg", "squeeze"])
def test_the_value_is_that_of_torchmetrics(net: str, nets: Nets) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _LPIPS(pretrained=True, net=net, pnet_rand=True)  # type: ignore[arg-type]
    ours = load_network(nets[net], find_backbone(nets[net]), torch.device("cpu"))
    # the same tensors in the same order; only squeeze's slices have other names
    theirs.net.load_state_dict(dict(zip(theirs.net.state_dict(), ours.net.state_dict().values(), strict=True)))
    pred, true = draw(2, 2), draw(3, 2)
    with torch.no_grad():
        expected = theirs(pred.permute(0, 3, 1, 2), true.permute(0, 3, 1, 2), normalize=True).flatten()
    torch.testing.assert_close(lpips_distance(nets[net], pred, true), expected.double(), rtol=0, atol=1e-5)


def test_nets_are_different_metrics(nets: Nets) -> None:
    alex, vgg = (lpips_distance(nets[net], draw(0), draw(1)).item() for net in ("alex", "vgg"))
    assert abs(alex - vgg) > 0.05 * vgg


@pytest.mark.usefixtures("offline")
@ALL_NETS
def test_loading_needs_no_network_and_draws_no_random_number(net: str, nets: Nets) -> None:
    before = torch.get_rng_state()
    network = load_network.__wrapped__(nets[net], find_backbone(nets[net]), torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    features = random_state(net)
    loaded = {name.split(".", 1)[1]: value for name, value in network.net.state_dict().items()}
    assert {f"features.{name}" for name in loaded} == {name for name in features if name.startswith("features.")}
    assert all(torch.equal(value, features[f"features.{name}"]) for name, value in loaded.items())


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_laws(nets: Nets, seed: int) -> None:
    a, b, c = (draw(seed + k, 2, side=32) for k in range(3))
    alex = nets["alex"]
    assert lpips_distance(alex, a, a).tolist() == [0.0, 0.0]
    forward = lpips_distance(alex, a, b)
    assert forward.min() > 0, "the package's linear layers have no negative weight"
    torch.testing.assert_close(lpips_distance(alex, b, a), forward, rtol=1e-5, atol=0)
    torch.testing.assert_close(lpips_distance(alex, a.flip(0), b.flip(0)), forward.flip(0), rtol=1e-6, atol=0)
    ladder = torch.stack([lpips_distance(alex, (a + k * (c - 0.5)).clamp(0, 1), a) for k in (0.05, 0.2, 0.8)])
    assert (ladder.diff(dim=0) > 0).all()


@ALL_NETS
def test_absent_weights_are_missing_data_with_the_command(
    net: str, nets: Nets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(MissingDataError, match=r"run `evalsuite fetch lpips`$") as caught:
        lpips_distance(nets[net], draw(0), draw(1))
    assert caught.value.status == "missing-data"


def test_the_data_folder_is_looked_into(nets: Nets, monkeypatch: pytest.MonkeyPatch) -> None:
    there = find_backbone(nets["alex"])
    monkeypatch.delenv(VARIABLE)
    here = Path("data") / FOLDER / nets["alex"].file
    here.parent.mkdir(parents=True)
    shutil.copyfile(there, here)
    assert find_backbone(nets["alex"]) == here


@ALL_NETS
def test_random_weights_are_refused(net: str, nets: Nets) -> None:
    """Right name, layout and shapes: only the hash tells."""
    published = {"alex": ALEX, "vgg": VGG, "squeeze": SQUEEZE}[net]
    with pytest.raises(WrongHashError, match=rf"^{re.escape(published.file)}: sha256 is [0-9a-f]{{64}}") as caught:
        lpips_distance(published, draw(0), draw(1))
    assert caught.value.status == "crashed"


def test_wrong_weights_stop_a_run_before_it_begins(nets: Nets, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongHashError):
        perceptual.refuse_wrong_backbones()
    monkeypatch.delenv(VARIABLE)
    perceptual.refuse_wrong_backbones()


def test_a_file_that_changes_under_our_feet_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    first = write_backbone(tmp_path, SQUEEZE)
    assert find_backbone(first).is_file()
    write_backbone(tmp_path, SQUEEZE, seed=1)
    with pytest.raises(WrongHashError):
        find_backbone(first)


@pytest.mark.parametrize("what", ["another network", "no tensors", "a pickle that runs code"])
def test_a_right_hash_of_the_wrong_thing_is_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    good = write_backbone(tmp_path, SQUEEZE)
    path = tmp_path / FOLDER / good.file
    thing = {"another network": random_state("alex"), "no tensors": [1, 2], "a pickle that runs code": shutil.rmtree}
    torch.save(thing[what], path)
    odd = replace(good, sha256=perceptual._sha256(path, 0, 0))
    with pytest.raises(BadWeightsError, match=r"does not fit squeeze \([^\n]*evalsuite fetch lpips`$"):
        lpips_distance(odd, draw(0), draw(1))


@ALL_NETS
def test_the_smallest_image(net: str, nets: Nets) -> None:
    backbone = nets[net]
    side = backbone.smallest_px
    assert torch.isfinite(lpips_distance(backbone, draw(0, side=side), draw(1, side=side))).all()
    with pytest.raises(UnsupportedError, match=rf"expected at least {side} px for lpips-{net}") as caught:
        lpips_distance(backbone, draw(0, side=side - 1), draw(1, side=side - 1))
    assert caught.value.status == "unsupported"
    network = load_network(backbone, find_backbone(backbone), torch.device("cpu"))
    assert sees(network, side)
    assert not sees(network, side - 1), "the bound is the network's own"


def sees(network: torch.nn.Module, side: int) -> bool:
    """Whether every layer of a network has a feature of an image of that size."""
    image = torch.zeros(1, 3, side, side)
    try:
        return bool(torch.isfinite(network(image, image)).all())
    except RuntimeError:
        return False


def test_views_beyond_memory_are_unsupported(nets: Nets) -> None:
    perceptual.require_size(nets["vgg"], 1600, 1200)
    perceptual.require_size(nets["alex"], 4946, 3286)
    with pytest.raises(UnsupportedError, match=r"lpips-vgg of 4946 x 3286 px would take 42 GiB, expected at most 8"):
        perceptual.require_size(nets["vgg"], 4946, 3286)


@pytest.mark.usefixtures("unchecked")
def test_wrong_input_is_refused(nets: Nets) -> None:
    image = draw(0)
    broken = image.clone()
    broken[0, 3, 4, 1] = torch.nan
    for pred, error in ((2 * image - 1, ShapeError), (image * 255, ShapeError), (broken, NonFiniteError)):
        with pytest.raises(error, match=r"^pred "):
            lpips_distance(nets["alex"], pred, image)
    for pred in (image.double(), image[:, 1:], image[0]):
        with pytest.raises(ShapeError, match=r"^pred "):
            lpips_distance(nets["alex"], pred, image)
