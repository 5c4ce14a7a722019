"""Sizes of the published LGM networks, and of the small one this project trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalsuite.core.registry import Registry

INPUT_VIEWS = 4
"""Views per sample; fixed by the published attention layout."""

RAW_CHANNELS = 14
"""Channels per splat before activation: position 3, opacity 1, scale 3, quaternion 4, colour 3."""

Head = Literal["xyz", "ray"]


@dataclass(frozen=True)
class LGMConfig:
    """Shape of one LGM network.

    Attributes:
        input_size: side of the square input views, pixels.
        down_channels, up_channels: width of each block; one halving (doubling) of resolution between two blocks.
        down_attention, mid_attention, up_attention: where multi-view attention follows each residual block.
        head: ``xyz`` places splats freely in [-1, 1]^3 (as published); ``ray`` keeps them on their pixel's ray.
        layers: residual blocks per down block; up blocks have one more.
        heads: attention heads; head width is channels / heads.
    """

    name: str
    input_size: int
    down_channels: tuple[int, ...]
    down_attention: tuple[bool, ...]
    mid_attention: bool
    up_channels: tuple[int, ...]
    up_attention: tuple[bool, ...]
    head: Head = "xyz"
    layers: int = 2
    heads: int = 16

    @property
    def splat_size(self) -> int:
        """Side of the square splat map of one view."""
        return self.input_size >> (len(self.down_channels) - 1) << (len(self.up_channels) - 1)

    @property
    def splats(self) -> int:
        """Gaussians per sample."""
        return INPUT_VIEWS * self.splat_size**2


_WIDE = (64, 128, 256, 512, 1024, 1024)
_WIDE_ATTENTION = (False, False, False, True, True, True)

CONFIGS: Registry[LGMConfig] = Registry("model")
CONFIGS.add(
    "lgm-big",
    LGMConfig(
        name="lgm-big",
        input_size=256,
        down_channels=_WIDE,
        down_attention=_WIDE_ATTENTION,
        mid_attention=True,
        up_channels=(1024, 1024, 512, 256, 128),
        up_attention=(True, True, True, False, False),
    ),
)
CONFIGS.add(
    "lgm-small",
    LGMConfig(
        name="lgm-small",
        input_size=256,
        down_channels=_WIDE,
        down_attention=_WIDE_ATTENTION,
        mid_attention=True,
        up_channels=(1024, 1024, 512, 256),
        up_attention=(True, True, True, False),
    ),
)
CONFIGS.add(
    "lgm-tiny",
    LGMConfig(
        name="lgm-tiny",
        input_size=256,
        down_channels=(32, 64, 128, 256, 512),
        down_attention=(False, False, False, False, True),
        mid_attention=True,
        up_channels=(512, 256, 128),
        up_attention=(True, False, False),
    ),
)
CONFIGS.add(
    "lgm-mini",
    LGMConfig(
        name="lgm-mini",
        input_size=64,
        down_channels=(32, 64, 128, 128),
        down_attention=(False, False, True, True),
        mid_attention=True,
        up_channels=(128, 128, 64),
        up_attention=(True, False, False),
        head="ray",
        layers=1,
        heads=4,
    ),
)
