"""Sizes of the published LGM networks, and of the small one this project trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from evalsuite.core.registry import Registry

MAX_SPLATS = 16_384
"""Most Gaussians that `lgm-mini` hands out: of an object that fills half of every view and more the least opaque ones
are left out."""

INPUT_VIEWS = 4
"""Views per sample; fixed by the published attention layout."""

RAW_CHANNELS = 14
"""Channels per splat before activation: position 3, opacity 1, scale 3, quaternion 4, colour 3."""

CUE_FRACTIONS = (0.0, 0.2, 0.45, 0.75)
"""Where on a ray's hull interval the other views are consulted: fractions of its length."""

HULL_CHANNELS = 28 + len(CUE_FRACTIONS) * (INPUT_VIEWS - 1) * 4
"""Input channels of the hull stem; see `hull.hull_input`."""

Head = Literal["xyz", "ray", "hull"]

Stem = Literal["plain", "hull"]


@dataclass(frozen=True)
class LGMConfig:
    """Shape of one LGM network.

    Attributes:
        input_size: side of the square input views, pixels.
        down_channels, up_channels: width of each block; one halving (doubling) of resolution between two blocks.
        down_attention, mid_attention, up_attention: where multi-view attention follows each residual block.
        head: ``xyz`` places splats freely in [-1, 1]^3 (as published); ``ray`` keeps them on their pixel's ray;
            ``hull`` keeps them on the part of it that lies in the visual hull of the input silhouettes.
        layers: residual blocks per down block; up blocks have one more.
        heads: attention heads; head width is channels / heads.
        core: a second, coarser layer of splats, one for every 2 x 2 of the splat map, that the hull head may place
            behind the first: a surface seen at a grazing angle would show gaps without it.
        splats_per_cell: splats of the hull head that each cell has along its ray, staggered over the hull interval
            (pixelSplat, Charatan et al. 2024, has three): what is behind the first guess is there to be chosen.
        opacity_ceiling: most opacity that the hull head gives. An opaque splat hides those behind it, and then no
            gradient reaches them: a warm start from translucent splats is faster.
        stem: ``plain`` reads images and rays at full size (as published); ``hull`` reads what `hull.hull_input` makes
            of them and of their silhouettes, at half the size. The hull head needs it.
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
    stem: Stem = "plain"
    core: bool = False
    splats_per_cell: int = 1
    opacity_ceiling: float = 1.0

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return 9 if self.stem == "plain" else HULL_CHANNELS

    @property
    def map_size(self) -> int:
        """Side of the network's input, which has one cell per pixel (plain) or per 2 x 2 pixels (hull)."""
        return self.input_size if self.stem == "plain" else self.input_size // 2

    @property
    def splat_size(self) -> int:
        """Side of the square splat map of one view."""
        return self.map_size >> (len(self.down_channels) - 1) << (len(self.up_channels) - 1)

    @property
    def raw_channels(self) -> int:
        """Channels per splat-map pixel before activation."""
        return RAW_CHANNELS * (self.splats_per_cell + self.core)

    @property
    def splats(self) -> int:
        """Gaussians per sample, of which the hull head leaves those of the background out."""
        cells = INPUT_VIEWS * self.splat_size**2
        return cells * self.splats_per_cell + (cells // 4 if self.core else 0)


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
_MINI = LGMConfig(
    name="lgm-mini",
    input_size=128,
    down_channels=(32, 64, 128, 128),
    down_attention=(False, False, True, True),
    mid_attention=True,
    up_channels=(128, 64, 32, 32),
    up_attention=(True, False, False, False),
    head="hull",
    layers=1,
    heads=4,
    stem="hull",
    core=True,
    splats_per_cell=2,
    opacity_ceiling=0.4,
)
CONFIGS.add("lgm-mini", _MINI)

TRAINABLE: Registry[LGMConfig] = Registry("trainable model")
"""What `evalsuite train` trains: the package's own network, and what its choices were measured against."""
TRAINABLE.add("lgm-mini", _MINI)
TRAINABLE.add("no-core", replace(_MINI, name="no-core", core=False))
TRAINABLE.add("opaque", replace(_MINI, name="opaque", opacity_ceiling=1.0))
TRAINABLE.add("one-splat", replace(_MINI, name="one-splat", splats_per_cell=1))
_SINGLE = replace(_MINI, core=False, splats_per_cell=1)
TRAINABLE.add("ray-head", replace(_SINGLE, name="ray-head", head="ray"))
TRAINABLE.add("xyz-head", replace(_SINGLE, name="xyz-head", head="xyz"))
TRAINABLE.add(
    "4k-splats",
    replace(
        _MINI,
        name="4k-splats",
        up_channels=(128, 64, 32),
        up_attention=(True, False, False),
        splats_per_cell=1,
    ),
)
