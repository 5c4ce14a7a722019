"""The network has the published names, shapes and activations."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from evalsuite.core.conventions import rgb_from_sh0
from evalsuite.core.errors import ShapeError, UnknownNameError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG
from evalsuite.core.types import Cameras
from evalsuite.models.lgm.config import CONFIGS, LGMConfig
from evalsuite.models.lgm.inputs import pack
from evalsuite.models.lgm.network import LGM, SelfAttention
from evalsuite.scenes.rig import orbit_cameras

TOY = LGMConfig(
    name="toy",
    input_size=16,
    down_channels=(32, 64),
    down_attention=(False, True),
    mid_attention=True,
    up_channels=(64, 32),
    up_attention=(True, False),
    layers=1,
    heads=2,
)


def ring() -> Cameras:
    """The study's input cameras."""
    return orbit_cameras(
        torch.arange(4) * 90.0, torch.full((4,), 20.0), radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=16
    )


def on_meta(config: LGMConfig) -> LGM:
    with torch.device("meta"):
        return LGM(config)


@pytest.mark.parametrize(
    ("name", "tensors", "parameters", "splats"),
    [
        ("lgm-big", 376, 415_042_848, 65_536),
        ("lgm-small", 344, 412_958_240, 16_384),
        ("lgm-tiny", 244, 59_743_360, 16_384),
    ],
)
def test_published_sizes(name: str, tensors: int, parameters: int, splats: int) -> None:
    state = on_meta(CONFIGS[name]).state_dict()
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == parameters
    assert CONFIGS[name].splats == splats


def _residual(p: str, i: int, o: int) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {
        f"{p}.norm1.weight": (i,),
        f"{p}.norm1.bias": (i,),
        f"{p}.conv1.weight": (o, i, 3, 3),
        f"{p}.conv1.bias": (o,),
        f"{p}.norm2.weight": (o,),
        f"{p}.norm2.bias": (o,),
        f"{p}.conv2.weight": (o, o, 3, 3),
        f"{p}.conv2.bias": (o,),
    }
    return keys if i == o else keys | {f"{p}.shortcut.weight": (o, i, 1, 1), f"{p}.shortcut.bias": (o,)}


def _attention(p: str, c: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{p}.norm.weight": (c,),
        f"{p}.norm.bias": (c,),
        f"{p}.attn.qkv.weight": (3 * c, c),
        f"{p}.attn.proj.weight": (c, c),
        f"{p}.attn.proj.bias": (c,),
    }


def _conv(p: str, i: int, o: int, k: int = 3) -> dict[str, tuple[int, ...]]:
    return {f"{p}.weight": (o, i, k, k), f"{p}.bias": (o,)}


def published_big_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the public `big` checkpoint, from its level table (LGM core/unet.py), not from our network."""
    down = [(64, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 1024)]
    up = [
        ((2048, 2048, 2048), 1024),
        ((2048, 2048, 1536), 1024),
        ((1536, 1024, 768), 512),
        ((768, 512, 384), 256),
        ((384, 256, 192), 128),
    ]
    shapes = _conv("unet.conv_in", 9, 64)
    for i, (cin, c) in enumerate(down):
        for layer, width in enumerate((cin, c)):
            shapes |= _residual(f"unet.down_blocks.{i}.nets.{layer}", width, c)
            shapes |= _attention(f"unet.down_blocks.{i}.attns.{layer}", c) if i >= 3 else {}
        shapes |= _conv(f"unet.down_blocks.{i}.downsample", c, c) if i < 5 else {}
    for layer in range(2):
        shapes |= _residual(f"unet.mid_block.nets.{layer}", 1024, 1024)
    shapes |= _attention("unet.mid_block.attns.0", 1024)
    for i, (widths, c) in enumerate(up):
        for layer, width in enumerate(widths):
            shapes |= _residual(f"unet.up_blocks.{i}.nets.{layer}", width, c)
            shapes |= _attention(f"unet.up_blocks.{i}.attns.{layer}", c) if i < 3 else {}
        shapes |= _conv(f"unet.up_blocks.{i}.upsample", c, c) if i < 4 else {}
    shapes |= {"unet.norm_out.weight": (128,), "unet.norm_out.bias": (128,)}
    return shapes | _conv("unet.conv_out", 128, 14) | _conv("conv", 14, 14, 1)


def test_big_has_the_published_names_and_shapes() -> None:
    found = {key: tuple(value.shape) for key, value in on_meta(CONFIGS["lgm-big"]).state_dict().items()}
    assert found == published_big_shapes()


def test_mini_is_small() -> None:
    assert sum(p.numel() for p in on_meta(CONFIGS["lgm-mini"]).parameters()) < 5_000_000


def test_unknown_model_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="lgm-mini"):
        CONFIGS["lgm-mimi"]


def test_splats_are_ordered_view_row_column() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TOY, mid_attention=False, down_attention=(False,) * 2, up_attention=(False,) * 2)
    model = LGM(config).eval()
    x = torch.randn(1, 4, 9, 16, 16)
    changed = x.clone()
    changed[0, 2, :, 11:14, 2:5] += (
        20.0  # without attention only view 2 can change, most of all around row 12, column 3
    )
    with torch.no_grad():
        difference = (model(changed) - model(x)).abs().sum(-1).view(4, 16, 16)
    assert (difference.sum((1, 2)) > 0).tolist() == [False, False, True, False]
    row, column = divmod(int(difference[2].argmax()), 16)
    assert abs(row - 12) <= 3
    assert abs(column - 3) <= 3


def test_attention_joins_the_views() -> None:
    torch.manual_seed(0)
    model = LGM(TOY).eval()
    x = torch.randn(2, 4, 9, 16, 16)
    changed = x.clone()
    changed[0, 2] += 1.0
    with torch.no_grad():
        difference = (model(changed) - model(x)).abs().sum(-1).view(2, 4, -1).sum(-1)
    assert bool((difference[0] > 0).all())
    assert bool((difference[1] == 0).all())


def test_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    attention = LGM(TOY).get_submodule("unet.mid_block.attns.0.attn")
    assert isinstance(attention, SelfAttention)
    x = torch.randn(3, 10, 64)
    q, k, v = (x @ w.T for w in attention.qkv.weight.chunk(3))
    heads = []
    for h in range(2):
        s = slice(32 * h, 32 * h + 32)
        heads.append((q[..., s] @ k[..., s].mT / math.sqrt(32)).softmax(-1) @ v[..., s])
    expected = attention.proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_published_activations() -> None:
    raw = torch.zeros(1, TOY.splats, 14)
    raw[0, 0] = torch.tensor([2.0, -3.0, 0.5, 0.0, 0.0, 1.0, -1.0, 2.0, 0.0, 0.0, 0.0, 10.0, -10.0, 0.0])
    splats = LGM(TOY).to_gaussians(raw, torch.zeros(1, 4, 9, 16, 16))[0]
    assert splats.means[0].tolist() == [1.0, -1.0, 0.5]
    assert splats.opacities[0].item() == 0.5
    torch.testing.assert_close(splats.scales[0], 0.1 * F.softplus(torch.tensor([0.0, 1.0, -1.0])))
    assert splats.quats[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    torch.testing.assert_close(rgb_from_sh0(splats.sh[0, 0]), torch.tensor([1.0, 0.0, 0.5]), atol=1e-6, rtol=0)


def test_untrained_ray_head_paints_its_input() -> None:
    torch.manual_seed(0)
    model = LGM(dataclasses.replace(TOY, head="ray"))
    model.start_on_rays()
    images, cameras = torch.rand(4, 16, 16, 3), ring()
    x = pack(images, cameras)[None]
    raw = torch.zeros(1, TOY.splats, 14)
    splats = model.to_gaussians(raw, x)[0]
    torch.testing.assert_close(rgb_from_sh0(splats.sh[:, 0]), images.view(-1, 3), atol=1e-5, rtol=0)
    eyes = cameras.positions.repeat_interleave(256, 0)
    towards = F.normalize(splats.means - eyes, dim=1)
    torch.testing.assert_close(towards, x[0, :, 6:9].permute(0, 2, 3, 1).reshape(-1, 3), atol=1e-4, rtol=0)


def test_ray_head_shifts_along_the_image_axes() -> None:
    model = LGM(dataclasses.replace(TOY, head="ray"))
    cameras = ring()
    x = pack(torch.rand(4, 16, 16, 3), cameras)[None]
    raw = torch.zeros(1, TOY.splats, 14)
    shifted = raw.clone()
    shifted[..., 0] = 0.3
    moved = model.to_gaussians(shifted, x)[0].means - model.to_gaussians(raw, x)[0].means
    camera_right = cameras.cam_from_world[:, 0, :3].repeat_interleave(256, 0)
    torch.testing.assert_close(F.normalize(moved, dim=1), camera_right, atol=1e-3, rtol=0)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 4, 9, 32, 32\).*\(B, 4, 9, 16, 16\)"):
        LGM(TOY)(torch.zeros(1, 4, 9, 32, 32))
