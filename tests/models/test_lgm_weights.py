"""Weights load strictly, or the message names what does not fit."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from evalsuite.core.errors import BadWeightsError, MissingDataError, UnknownNameError
from evalsuite.models.lgm import files
from evalsuite.models.lgm.config import CONFIGS, LGMConfig
from evalsuite.models.lgm.network import LGM
from evalsuite.models.lgm.weights import load_lgm, load_state

TOY = LGMConfig("toy", 16, (32, 64), (False, True), True, (64, 32), (True, False), layers=1, heads=2)


def published_file(path: Path, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """A file in the publisher's layout, with the loss network's keys that some of them carry."""
    torch.manual_seed(1)
    state = {key: value.to(dtype).contiguous() for key, value in LGM(TOY).state_dict().items()}
    save_file(state | {"lpips_loss.net.slice1.0.weight": torch.zeros(2, 2)}, path)
    return state


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_published_layout_loads(tmp_path: Path, dtype: torch.dtype) -> None:
    state = published_file(tmp_path / "w.safetensors", dtype)
    with torch.device("meta"):
        model = LGM(TOY)
    load_state(model, tmp_path / "w.safetensors")
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].float())
    assert torch.isfinite(model(torch.zeros(1, 4, 9, 16, 16))).all()


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = published_file(path)
    state["unet.conv_in.weight"] = torch.zeros(32, 6, 3, 3)
    save_file(state, path)
    with pytest.raises(BadWeightsError, match=r"unet\.conv_in\.weight is \(32, 6, 3, 3\).*\(32, 9, 3, 3\)"):
        load_state(LGM(TOY), path)


@pytest.mark.parametrize(("change", "message"), [("drop", "conv.bias is absent"), ("add", "extra is .*absent in toy")])
def test_missing_and_unknown_keys_are_named(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "w.safetensors"
    state = published_file(path)
    if change == "drop":
        del state["conv.bias"]
    else:
        state["extra"] = torch.zeros(1)
    save_file(state, path)
    with pytest.raises(BadWeightsError, match=message):
        load_state(LGM(TOY), path)


def test_wrong_dtype_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = published_file(path)
    state["conv.bias"] = torch.zeros(14, dtype=torch.int32)
    save_file(state, path)
    with pytest.raises(BadWeightsError, match=r"conv\.bias is I32"):
        load_state(LGM(TOY), path)


def test_a_refused_file_leaves_the_network_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = published_file(path)
    del state["unet.norm_out.bias"]
    save_file(state, path)
    model = LGM(TOY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(BadWeightsError):
        load_state(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_broken_files_are_bad_weights(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.safetensors"
    published_file(path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"not weights at all", "empty": b""}[content])
    with pytest.raises(BadWeightsError, match="not a whole safetensors file"):
        load_state(LGM(TOY), path)


@pytest.mark.parametrize("extension", ["pth", "ckpt", "safetensors"])
def test_pickles_are_refused_unread(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"w.{extension}"
    for archive in (True, False):
        torch.save(LGM(TOY).state_dict(), path, _use_new_zipfile_serialization=archive)
        with pytest.raises(BadWeightsError, match=r"a pickle, .*expected safetensors"):
            load_state(LGM(TOY), path)


def hollow_file(path: Path, name: str) -> None:
    """A checkpoint of a published size whose values are a hole in the file: no space is taken on disk."""
    with torch.device("meta"):
        state = LGM(CONFIGS[name]).state_dict()
    header, end = {}, 0
    for key, value in state.items():
        begin, end = end, end + 2 * value.numel()
        header[key] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize(
    ("found", "wanted", "key"),
    [
        ("lgm-big", "lgm-small", r"unet\.conv_out\.weight is \(14, 128, 3, 3\) in the file, \(14, 256, 3, 3\)"),
        ("lgm-small", "lgm-big", r"unet\.conv_out\.weight is \(14, 256, 3, 3\) in the file, \(14, 128, 3, 3\)"),
        ("lgm-tiny", "lgm-big", r"unet\.conv_in\.bias is \(32,\) in the file, \(64,\)"),
    ],
)
def test_weights_of_another_size_are_recognised(tmp_path: Path, found: str, wanted: str, key: str) -> None:
    hollow_file(tmp_path / "w.safetensors", found)
    with pytest.raises(BadWeightsError, match=rf"{key} in {wanted}: these are weights of {found}, load them as that"):
        load_lgm(wanted, tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_published_size_loads_strictly(tmp_path: Path, dtype: torch.dtype) -> None:
    hollow_file(tmp_path / "w.safetensors", "lgm-tiny")
    model = load_lgm("lgm-tiny", tmp_path / "w.safetensors", dtype)
    assert len(model.state_dict()) == 244
    assert sum(p.numel() for p in model.parameters()) == 59_743_360
    assert model.unet.conv_in.weight.dtype == dtype
    assert model.conv.weight.dtype == torch.float32


def test_a_file_named_by_the_user_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path))
    path = tmp_path / "mine.safetensors"
    with pytest.raises(MissingDataError, match=r"no weights of lgm-big at .*mine\.safetensors"):
        files.weights_path("lgm-big", path)
    path.touch()
    assert files.weights_path("lgm-big", path) == path


def test_public_weights_come_from_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy network stands in for `big`: the path rule is what is tested."""
    monkeypatch.setitem(CONFIGS._items, "lgm-big", TOY)
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path))
    path = tmp_path / "weights" / "lgm" / "model_fp16_fixrot.safetensors"
    path.parent.mkdir(parents=True)
    state = published_file(path)
    model = load_lgm("lgm-big")
    assert not model.training
    assert torch.equal(model.state_dict()["conv.bias"], state["conv.bias"].float())


def test_missing_weights_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    with pytest.raises(MissingDataError, match=os.path.join("weights", "lgm", "model_fp16_fixrot")):
        load_lgm("lgm-big")
    monkeypatch.setattr(files, "MINI_PATH", tmp_path / "absent.safetensors")
    with pytest.raises(MissingDataError, match=r"absent\.safetensors"):
        load_lgm("lgm-mini")
    with pytest.raises(MissingDataError, match="no public weights"):
        load_lgm("lgm-tiny")
    with pytest.raises(UnknownNameError, match="lgm-mini"):
        load_lgm("lgm-huge")


def test_the_package_carries_mini() -> None:
    model = load_lgm("lgm-mini")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    card = files.MINI_PATH.with_suffix(".md").read_text()
    with safe_open(files.MINI_PATH, framework="pt") as file:
        samples = json.loads(file.metadata()["run"])["samples"]
    assert f"{samples:,} |" in card
    assert files.MINI_PATH.stat().st_size < 10_000_000
