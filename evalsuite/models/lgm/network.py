"""The LGM network: an asymmetric U-Net over four views with attention across them (arXiv 2402.05054, section 3.2).

Tensor names and shapes are those of the public checkpoints, so their state dicts load strictly.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from evalsuite.core.conventions import sh0_from_rgb
from evalsuite.core.errors import ShapeError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG
from evalsuite.core.types import Gaussians
from evalsuite.models.lgm.config import INPUT_VIEWS, RAW_CHANNELS, LGMConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_GROUPS = 32
_EPS = 1e-5
_HALF = math.sqrt(0.5)

_DEPTH_SPAN = 0.9
"""Reach of the ray head on both sides of the ray's point nearest to the origin, world units."""

_OFFSET_SPAN = 1.5
"""Sideways reach of the ray head, in splat-map pixels."""


class GroupNorm(nn.GroupNorm):
    """Group norm of 32 groups, eps 1e-5, that keeps convolutions in channels-last order."""

    def __init__(self, channels: int) -> None:
        super().__init__(_GROUPS, channels, eps=_EPS)

    def forward(self, x: Float[Tensor, "BV C h w"]) -> Float[Tensor, "BV C h w"]:
        """Normalised activations."""
        # torch's CPU kernel for channels-last is faster forward, but slower backward, and less exact: it triples the
        # distance to the original code in float32
        contiguous = x.element_size() >= 4 or torch.is_grad_enabled()
        x = super().forward(x.contiguous() if contiguous else x)
        return x.contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the sum with the shortcut is scaled by sqrt(1/2)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = GroupNorm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Float[Tensor, "BV Cin h w"]) -> Float[Tensor, "BV Cout h w"]:
        """Residual update of every view on its own."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = (y + self.shortcut(x)) * _HALF
        return out


class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence; no bias on q, k, v."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        """Attention with scale head_width^-1/2."""
        b, length, c = x.shape
        q, k, v = self.qkv(x).view(b, length, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(b, length, c))
        return out


class MultiViewAttention(nn.Module):
    """Attention over the pixels of all four views as one sequence in order view, row, column."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.attn = SelfAttention(channels, heads)

    def forward(self, x: Float[Tensor, "BV C h w"]) -> Float[Tensor, "BV C h w"]:
        """Residual update that lets the views see each other."""
        bv, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(bv // INPUT_VIEWS, INPUT_VIEWS * h * w, c)
        y = self.attn(tokens).reshape(bv, h, w, c).permute(0, 3, 1, 2)
        out: Tensor = (y + x) * _HALF
        return out


def _attention(present: bool, channels: int, heads: int) -> nn.Module:
    # Identity has no tensors: absent attention leaves no key and shifts no index.
    return MultiViewAttention(channels, heads) if present else nn.Identity()


class DownBlock(nn.Module):
    """Residual blocks at one resolution, then a strided convolution (absent in the last block)."""

    def __init__(self, config: LGMConfig, level: int) -> None:
        super().__init__()
        out = config.down_channels[level]
        widths = (config.down_channels[max(level - 1, 0)],) + (out,) * config.layers
        self.nets = nn.ModuleList(ResidualBlock(widths[i], out) for i in range(config.layers))
        self.attns = nn.ModuleList(
            _attention(config.down_attention[level], out, config.heads) for _ in range(config.layers)
        )
        last = level == len(config.down_channels) - 1
        self.downsample = None if last else nn.Conv2d(out, out, 3, stride=2, padding=1)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Activation for the next level; every intermediate result is appended to ``skips``."""
        for net, attn in zip(self.nets, self.attns, strict=True):
            x = attn(net(x))
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        c = config.down_channels[-1]
        self.nets = nn.ModuleList([ResidualBlock(c, c), ResidualBlock(c, c)])
        self.attns = nn.ModuleList([_attention(config.mid_attention, c, config.heads)])

    def forward(self, x: Tensor) -> Tensor:
        """Update at constant shape."""
        out: Tensor = self.nets[1](self.attns[0](self.nets[0](x)))
        return out


class UpBlock(nn.Module):
    """Residual blocks that each consume one skip, then nearest x2 and a convolution (absent in the last block)."""

    def __init__(self, config: LGMConfig, level: int, skip_channels: list[int]) -> None:
        super().__init__()
        out = config.up_channels[level]
        previous = config.up_channels[level - 1] if level else config.down_channels[-1]
        count = config.layers + 1
        widths = (previous,) + (out,) * (count - 1)
        self.nets = nn.ModuleList(ResidualBlock(widths[i] + skip_channels.pop(), out) for i in range(count))
        self.attns = nn.ModuleList(_attention(config.up_attention[level], out, config.heads) for _ in range(count))
        last = level == len(config.up_channels) - 1
        self.upsample = None if last else nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Activation for the next level; pops its skips, newest first."""
        for net, attn in zip(self.nets, self.attns, strict=True):
            x = attn(net(torch.cat([x, skips.pop()], dim=1)))
        if self.upsample is not None:
            x = self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


def _skip_channels(config: LGMConfig) -> list[int]:
    channels = [config.down_channels[0]]
    for level, c in enumerate(config.down_channels):
        last = level == len(config.down_channels) - 1
        channels += [c] * (config.layers + (0 if last else 1))
    return channels


class UNet(nn.Module):
    """Views as a batch of images in, 14 raw channels per layer of the splat map out."""

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        skips = _skip_channels(config)
        self.conv_in = nn.Conv2d(config.channels, config.down_channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(DownBlock(config, i) for i in range(len(config.down_channels)))
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList(UpBlock(config, i, skips) for i in range(len(config.up_channels)))
        self.norm_out = GroupNorm(config.up_channels[-1])
        self.conv_out = nn.Conv2d(config.up_channels[-1], config.raw_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "BV Cin H W"]) -> Float[Tensor, "BV Cout S S"]:
        """Raw splat maps."""
        x = self.conv_in(x.to(self.conv_in.weight.dtype))
        skips = [x]
        for block in self.down_blocks:
            x = block(x, skips)
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x, skips)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x.to(self.norm_out.weight.dtype))))
        return out


class LGM(nn.Module):
    """Four posed views to Gaussians, in LGM's frame (first camera, pushed back 1.5).

    Args:
        config: an entry of `CONFIGS`, or another shape with widths that are multiples of 32.
    """

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config)
        self.conv = nn.Conv2d(config.raw_channels, config.raw_channels, 1)

    def in_dtype(self, dtype: torch.dtype) -> LGM:
        """The same network computing in ``dtype`` up to its last layers, which stay in float32 at least.

        In bfloat16 positions would move in steps of up to 1/256, a third of the distance between `lgm-big`'s splats.
        """
        self.unet.to(dtype)
        if dtype.itemsize < 4:
            for layer in (self.unet.norm_out, self.unet.conv_out, self.conv):
                layer.float()
        return self

    def forward(self, x: Float[Tensor, "B 4 Cin H W"]) -> Float[Tensor, "B N 14"]:
        """Raw channels per splat, flattened in order view, row, column; those of the core, if any, come last.

        Args:
            x: ImageNet-normalised RGB, ray moment o x d, unit ray direction d, and further channels with the hull
                stem; see `inputs.network_input`.

        Raises:
            ShapeError: other axes than four views of the configured channels and size.
        """
        channels, size = self.config.channels, self.config.map_size
        if x.ndim != 5 or x.shape[1:] != (INPUT_VIEWS, channels, size, size):
            raise ShapeError(
                f"x has shape {tuple(x.shape)}; {self.config.name} expects (B, 4, {channels}, {size}, {size}): "
                "build it with inputs.network_input"
            )
        b = x.shape[0]
        images = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        raw: Tensor = self.conv(self.unet(images))
        layers = list(raw.split(RAW_CHANNELS, dim=1))
        if self.config.core:
            layers[-1] = F.avg_pool2d(layers[-1], 2)
        return torch.cat([layer.permute(0, 2, 3, 1).reshape(b, -1, RAW_CHANNELS) for layer in layers], dim=1)

    def to_gaussians(self, raw: Float[Tensor, "B N 14"], x: Float[Tensor, "B 4 Cin H W"]) -> list[Gaussians]:
        """Activated Gaussians of each sample, spherical-harmonic degree 0.

        Args:
            raw: result of `forward`.
            x: the input it came from; the xyz head does not read it.
        """
        raw, x = raw.float(), x.float()
        config = self.config
        if config.head == "xyz":
            fields = _activate_xyz(raw)
        else:
            sides = [config.splat_size] * config.splats_per_cell + [config.splat_size // 2] * config.core
            layers = raw.split([INPUT_VIEWS * side**2 for side in sides], dim=1)
            activated = [_activate_on_rays(r, x, side, config) for r, side in zip(layers, sides, strict=True)]
            fields = tuple(torch.cat(parts, dim=1) for parts in zip(*activated, strict=True))
        return [Gaussians(*sample) for sample in zip(*fields, strict=True)]

    def start_on_rays(self) -> None:
        """Set the last layer so that an untrained ray or hull head already paints its inputs.

        Splats start about a pixel wide, in their pixel's own colour: half transparent in front of the centre (ray),
        or near their ceiling of opacity a tenth of the way into the hull, the next of the cell a fifth further (hull),
        half transparent four tenths of the way (core).
        """
        bias = self.conv.bias
        assert bias is not None
        hull = self.config.head == "hull"
        with torch.no_grad():
            self.conv.weight.mul_(0.1)
            bias.zero_()
            for layer, start in enumerate(bias.view(-1, RAW_CHANNELS)):
                core = layer == self.config.splats_per_cell
                inward = 0.4 if core else 0.1 + 0.2 * layer
                start[2] = math.log(inward / (1 - inward)) if hull else math.atanh(-0.3 / _DEPTH_SPAN)
                start[3] = (0.4 if core else 3.0) if hull else -1.0
                start[7] = 1.0


Fields = tuple[Tensor, ...]


def _activate_xyz(raw: Float[Tensor, "B N 14"]) -> Fields:
    """Published activations (LGM core/models.py): means, quats, scales, opacities, sh."""
    return (
        raw[..., 0:3].clamp(-1, 1),
        F.normalize(raw[..., 7:11], dim=-1),
        0.1 * F.softplus(raw[..., 4:7]),
        raw[..., 3].sigmoid(),
        sh0_from_rgb(0.5 * torch.tanh(raw[..., 11:14]) + 0.5)[..., None, :],
    )


def _activate_on_rays(
    raw: Float[Tensor, "B N 14"], x: Float[Tensor, "B 4 Cin H W"], size: int, config: LGMConfig
) -> Fields:
    """Splats that stay near their pixel's ray: depth in channel 2, small sideways shifts in 0 and 1.

    Depth is measured from the ray's point nearest to the origin, d x (o x d), so poses need not be passed; the
    hull head keeps it between where the ray enters and leaves the hull, and pixels of the background are transparent.
    Colour is a residual on the pixel's own; scale is relative to the pixel's footprint at that depth.
    """
    b, v = x.shape[:2]
    hull = config.head == "hull"
    maps = _pooled(x.flatten(0, 1), size, hull).unflatten(0, (b, v)).permute(0, 1, 3, 4, 2)
    length = maps[..., 6:9].norm(dim=-1, keepdim=True)
    moment, direction = maps[..., 3:6] / length, maps[..., 6:9] / length
    half = size // 2
    right = (direction[:, :, :, half:].mean((2, 3)) - direction[:, :, :, :half].mean((2, 3)))[:, :, None, None]
    down = (direction[:, :, half:].mean((2, 3)) - direction[:, :, :half].mean((2, 3)))[:, :, None, None]
    right, down = F.normalize(right, dim=-1), F.normalize(down, dim=-1)

    grid = raw.reshape(b, v, size, size, RAW_CHANNELS)
    opacity = grid[..., 3].sigmoid()
    if hull:
        coverage, enter, leave = maps[..., 9], maps[..., 10:11], maps[..., 11:12]
        along = enter + (leave - enter) * grid[..., 2:3].sigmoid()
        opacity = config.opacity_ceiling * opacity * coverage * (leave > enter)[..., 0]
    else:
        along = _DEPTH_SPAN * torch.tanh(grid[..., 2:3])
    pixel = 2 * math.tan(math.radians(FOV_Y_DEG) / 2) / size * (CAMERA_RADIUS + along)
    shift = _OFFSET_SPAN * torch.tanh(grid[..., 0:2]) * pixel
    means = torch.linalg.cross(direction, moment) + along * direction + shift[..., :1] * right + shift[..., 1:] * down
    scales = 0.6 * pixel * torch.exp(2 * torch.tanh(grid[..., 4:7] / 2))

    std, mean = x.new_tensor(IMAGENET_STD), x.new_tensor(IMAGENET_MEAN)
    rgb = maps[..., 0:3] * std + mean + 0.5 * torch.tanh(grid[..., 11:14])
    return (
        means.flatten(1, 3),
        F.normalize(raw[..., 7:11], dim=-1),
        scales.flatten(1, 3),
        opacity.flatten(1, 3),
        sh0_from_rgb(rgb).flatten(1, 3)[..., None, :],
    )


def _pooled(x: Float[Tensor, "BV Cin H W"], size: int, hull: bool) -> Float[Tensor, "BV C S S"]:
    """What splats read of the input, averaged over their pixels: colour, rays and, with ``hull``, channels 9 to 11.

    Colour and rays count by coverage, and the interval by where there is one.
    """
    if not hull:
        return F.adaptive_avg_pool2d(x[:, :9], size)
    hit = (x[:, 11:12] > x[:, 10:11]).to(x.dtype)
    covered = x[:, 9:10]
    weights = torch.cat(
        [covered.expand(-1, 3, -1, -1), (covered + 1e-3).expand(-1, 6, -1, -1), torch.ones_like(hit), hit, hit], dim=1
    )
    return F.adaptive_avg_pool2d(x[:, :12] * weights, size) / F.adaptive_avg_pool2d(weights, size).clamp(min=1e-3)
