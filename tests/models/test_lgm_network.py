"""The network has the published names, shapes and activations."""

import dataclasses
import math

import lgm_reference as reference
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


def shapes_of(config: LGMConfig) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in on_meta(config).state_dict().items()}


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


# Widths of the residual blocks, level by level (LGM core/unet.py), and where attention begins and ends.
_DOWN = [(64, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 1024)]
_UP = [
    ((2048, 2048, 2048), 1024),
    ((2048, 2048, 1536), 1024),
    ((1536, 1024, 768), 512),
    ((768, 512, 384), 256),
    ((384, 256, 192), 128),
]
_TINY_DOWN = [(32, 32), (32, 64), (64, 128), (128, 256), (256, 512)]
_TINY_UP = [((1024, 1024, 768), 512), ((768, 512, 384), 256), ((384, 256, 192), 128)]
PUBLISHED = {
    "lgm-big": (_DOWN, _UP, 3, 3),
    "lgm-small": (_DOWN, _UP[:4], 3, 3),
    "lgm-tiny": (_TINY_DOWN, _TINY_UP, 4, 1),
}


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every tensor of a public checkpoint, from its level table, not from our network."""
    down, up, first_attention, attended_ups = PUBLISHED[name]
    shapes = _conv("unet.conv_in", 9, down[0][0])
    for i, (cin, c) in enumerate(down):
        for layer, width in enumerate((cin, c)):
            shapes |= _residual(f"unet.down_blocks.{i}.nets.{layer}", width, c)
            shapes |= _attention(f"unet.down_blocks.{i}.attns.{layer}", c) if i >= first_attention else {}
        shapes |= _conv(f"unet.down_blocks.{i}.downsample", c, c) if i < len(down) - 1 else {}
    middle = down[-1][1]
    for layer in range(2):
        shapes |= _residual(f"unet.mid_block.nets.{layer}", middle, middle)
    shapes |= _attention("unet.mid_block.attns.0", middle)
    for i, (widths, c) in enumerate(up):
        for layer, width in enumerate(widths):
            shapes |= _residual(f"unet.up_blocks.{i}.nets.{layer}", width, c)
            shapes |= _attention(f"unet.up_blocks.{i}.attns.{layer}", c) if i < attended_ups else {}
        shapes |= _conv(f"unet.up_blocks.{i}.upsample", c, c) if i < len(up) - 1 else {}
    last = up[-1][1]
    shapes |= {"unet.norm_out.weight": (last,), "unet.norm_out.bias": (last,)}
    return shapes | _conv("unet.conv_out", last, 14) | _conv("conv", 14, 14, 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_and_shapes(name: str) -> None:
    assert shapes_of(CONFIGS[name]) == published_shapes(name)


def narrow(name: str) -> LGMConfig:
    """A published network with every level, skip and attention in its place, but few channels and small views."""
    config = CONFIGS[name]
    width = {32: 32, 64: 32, 128: 64, 256: 64, 512: 96, 1024: 128}
    down, up = (tuple(width[c] for c in channels) for channels in (config.down_channels, config.up_channels))
    return dataclasses.replace(config, input_size=32, down_channels=down, up_channels=up)


def activated(model: LGM, x: torch.Tensor) -> torch.Tensor:
    """(B, N, 14) in the published order: position, opacity, scale, quaternion, colour."""
    with torch.no_grad():
        samples = model.to_gaussians(model(x), x)
    return torch.stack(
        [
            torch.cat([s.means, s.opacities[:, None], s.scales, s.quats, rgb_from_sh0(s.sh[:, 0])], dim=1)
            for s in samples
        ]
    )


# Mean over splats of the 14 activated channels, computed by the original code (3DTopia/LGM@fe8d12c, forward_gaussians,
# float64) from the made-up weights and input of `lgm_reference`.
ORIGINAL_MEANS = {
    "lgm-big": [-0.6623102080, -0.6589266486, -0.2989850738, 0.5747816201, 0.0738324657, 0.1171281510, 0.1308032053,
                -0.2412307004, -0.3032347447, -0.3738873900, -0.6427997275, 0.5758902328, 0.6417373072, 0.6692125515],
    "lgm-small": [-0.6445331531, -0.8044385526, -0.1761206345, 0.5407605213, 0.0787597979, 0.1105922095, 0.1317846037,
                  -0.2318424619, -0.2570038835, -0.4703725827, -0.6775365422, 0.6150495753, 0.6031404360, 0.6878240053],
    "lgm-tiny": [-0.7090378218, -0.8084880409, 0.4203783641, 0.5106437166, 0.0723460980, 0.1223518633, 0.1163558445,
                 -0.3007236797, -0.5204120462, -0.1960572490, -0.6896349545, 0.5435595600, 0.6798543990, 0.7767750504],
}  # fmt: skip


@pytest.mark.parametrize("name", ORIGINAL_MEANS)
def test_equals_the_published_network(name: str) -> None:
    """Against a second implementation splat by splat, and against the original code's own numbers."""
    config = narrow(name)
    state, x = reference.made_up_state(shapes_of(config)), reference.made_up_input(2, 32)
    model = LGM(config).double().eval()
    model.load_state_dict(state)
    found = activated(model, x).double()  # activations are float32
    torch.testing.assert_close(found, reference.gaussians(state, x), atol=1e-6, rtol=0)
    original = torch.tensor(ORIGINAL_MEANS[name], dtype=torch.float64)
    torch.testing.assert_close(found.mean((0, 1)), original, atol=1e-6, rtol=0)


def test_tiny_at_full_size_equals_the_published_network() -> None:
    """One splat of 16,384, and the mean of all, from the original code in float32."""
    state = reference.made_up_state(published_shapes("lgm-tiny"))
    model = on_meta(CONFIGS["lgm-tiny"]).eval()
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    splats = activated(model, reference.made_up_input(1, 256).float())[0]
    mean = [-0.6296706, -0.1402354, 0.7110035, 0.4390914, 0.0552467, 0.1105868, 0.1238806,
            -0.4525400, -0.4443954, 0.3016826, -0.6167494, 0.7614933, 0.4860335, 0.7364979]  # fmt: skip
    splat = [-1.0000000, -0.0804218, 0.7747814, 0.3580270, 0.0722611, 0.1159458, 0.1372240,
             -0.3055756, -0.5253798, 0.3773101, -0.6987393, 0.8492353, 0.3855953, 0.7632084]  # fmt: skip
    torch.testing.assert_close(splats.mean(0), torch.tensor(mean), atol=1e-4, rtol=0)
    torch.testing.assert_close(splats[16_384 * 5 // 7], torch.tensor(splat), atol=1e-4, rtol=0)


def test_batches_do_not_mix() -> None:
    torch.manual_seed(0)
    model, x = LGM(TOY).eval(), torch.randn(2, 4, 9, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:], model(x[1:]), atol=1e-5, rtol=0)


def test_gradients_do_not_change_the_result() -> None:
    """Norms take another route through memory in training."""
    torch.manual_seed(0)
    model, x = LGM(TOY).eval(), torch.randn(1, 4, 9, 16, 16)
    with torch.no_grad():
        still = model(x)
    torch.testing.assert_close(model(x), still, atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_bfloat16_on_cuda_is_close_to_float32_on_cpu() -> None:
    torch.manual_seed(0)
    model, x = LGM(narrow("lgm-tiny")).eval(), torch.randn(1, 4, 9, 32, 32)
    with torch.no_grad():
        full = model(x)
        half = model.in_dtype(torch.bfloat16).cuda()(x.cuda())
    assert half.is_cuda
    assert float((half.cpu() - full).norm() / full.norm()) < 0.03


def test_half_precision_keeps_the_last_layers_in_float32() -> None:
    torch.manual_seed(0)
    model, x = LGM(TOY).eval(), torch.randn(1, 4, 9, 16, 16)
    with torch.no_grad():
        full = model(x)
        half = model.in_dtype(torch.bfloat16)(x)
    assert model.unet.conv_in.weight.dtype == torch.bfloat16
    assert half.dtype == model.conv.weight.dtype == torch.float32
    # bfloat16 itself has 256 steps between powers of two: more distinct values mean the head did not round
    assert half.unique().numel() > 0.9 * half.numel()
    assert float((half - full).norm() / full.norm()) < 0.03


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
