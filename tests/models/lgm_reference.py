"""LGM written a second time, as plain functions of a published state dict; and made-up weights that never change.

Straight from the paper (arXiv 2402.05054, section 3.2) and the public checkpoints' tensor names. No module, no
configuration: what a block is made of is read off the names that are there.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]

HEADS = 16
VIEWS = 4


def made_up(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float64 values that depend on name and shape only: NumPy's legacy generator is frozen for good."""
    values = 2 * np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) - 1
    if len(shape) > 1:
        values *= math.sqrt(5 / math.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1 + values / 2
    return torch.from_numpy(values)


def made_up_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict of made-up values; raw outputs come out near 0.6, so that few positions are clamped."""
    state = {name: made_up(name, shape) for name, shape in shapes.items()}
    state["conv.weight"] /= 2
    return state


def made_up_input(batch: int, size: int) -> Tensor:
    return made_up("input", (batch, VIEWS, 9, size, size)) * math.sqrt(size * size * VIEWS * 9 / 5)


def gaussians(state: State, x: Tensor) -> Tensor:
    """(B, N, 14): position, opacity, scale, quaternion, colour, activated."""
    raw = unet(state, x.flatten(0, 1))
    raw = F.conv2d(raw, state["conv.weight"], state["conv.bias"])
    raw = raw.unflatten(0, (-1, VIEWS)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    position, opacity, scale, turn, colour = raw.split([3, 1, 3, 4, 3], dim=-1)
    unit = turn / turn.square().sum(-1, keepdim=True).sqrt()
    return torch.cat(
        [position.clamp(-1, 1), opacity.sigmoid(), 0.1 * F.softplus(scale), unit, colour.tanh() / 2 + 0.5], dim=-1
    )


def unet(state: State, x: Tensor) -> Tensor:
    x = _conv(state, "unet.conv_in", x)
    skips = [x]
    for block in _numbered(state, "unet.down_blocks"):
        for layer, net in enumerate(_numbered(state, f"{block}.nets")):
            x = _attend(state, f"{block}.attns.{layer}", _residual(state, net, x))
            skips.append(x)
        if f"{block}.downsample.weight" in state:
            x = _conv(state, f"{block}.downsample", x, stride=2)
            skips.append(x)
    x = _residual(state, "unet.mid_block.nets.0", x)
    x = _residual(state, "unet.mid_block.nets.1", _attend(state, "unet.mid_block.attns.0", x))
    for block in _numbered(state, "unet.up_blocks"):
        for layer, net in enumerate(_numbered(state, f"{block}.nets")):
            x = _residual(state, net, torch.cat([x, skips.pop()], dim=1))
            x = _attend(state, f"{block}.attns.{layer}", x)
        if f"{block}.upsample.weight" in state:
            x = _conv(state, f"{block}.upsample", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    return _conv(state, "unet.conv_out", F.silu(_norm(state, "unet.norm_out", x)))


def _numbered(state: State, prefix: str) -> list[str]:
    found = {int(key[len(prefix) + 1 :].split(".")[0]) for key in state if key.startswith(f"{prefix}.")}
    return [f"{prefix}.{number}" for number in sorted(found)]


def _conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride, padding=1)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    groups = x.unflatten(1, (32, -1))
    variance, mean = torch.var_mean(groups, dim=(2, 3, 4), correction=0, keepdim=True)
    x = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
    return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def _residual(state: State, name: str, x: Tensor) -> Tensor:
    y = _conv(state, f"{name}.conv1", F.silu(_norm(state, f"{name}.norm1", x)))
    y = _conv(state, f"{name}.conv2", F.silu(_norm(state, f"{name}.norm2", y)))
    if f"{name}.shortcut.weight" in state:
        x = F.conv2d(x, state[f"{name}.shortcut.weight"], state[f"{name}.shortcut.bias"])
    return (y + x) / math.sqrt(2)


def _attend(state: State, name: str, x: Tensor) -> Tensor:
    if f"{name}.attn.qkv.weight" not in state:
        return x
    b, c, h, w = x.shape
    tokens = _norm(state, f"{name}.norm", x).unflatten(0, (-1, VIEWS)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    q, k, v = (
        (tokens @ rows.T).unflatten(2, (HEADS, -1)).transpose(1, 2)
        for rows in state[f"{name}.attn.qkv.weight"].chunk(3)
    )
    seen = (q @ k.mT / math.sqrt(c // HEADS)).softmax(-1) @ v
    y = seen.transpose(1, 2).flatten(2) @ state[f"{name}.attn.proj.weight"].T + state[f"{name}.attn.proj.bias"]
    return (y.view(b // VIEWS, VIEWS, h, w, c).permute(0, 1, 4, 2, 3).flatten(0, 1) + x) / math.sqrt(2)
