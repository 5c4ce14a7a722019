"""The frozen description of everything that changes a number without being under test.

A protocol's hash travels in every record and golden; values of different hashes are never compared.
The recipe, the engine and the weights are *not* in it: they are what a gate is there to compare.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from evalsuite.core.registry import Registry

OBJECT_RADIUS = 0.6
"""Radius of the sphere an object scene is scaled into: it fills, and always fits, LGM's view."""

CAMERA_RADIUS = 1.5
"""Distance of object cameras from the origin (LGM core/options.py)."""

FOV_Y_DEG = 49.1
"""Vertical field of view of object cameras (LGM core/options.py)."""

WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Rig:
    """Where the cameras of an object scene stand (azimuth 0 is +z, degrees).

    Attributes:
        supersample: rays per pixel and axis of the ray-traced truth; box filter.
    """

    resolution: int = 128
    fov_y_deg: float = FOV_Y_DEG
    camera_radius: float = CAMERA_RADIUS
    object_radius: float = OBJECT_RADIUS
    input_elevation_deg: float = 20.0
    input_azimuths_deg: tuple[float, ...] = (0.0, 90.0, 180.0, 270.0)
    capture_views: int = 96
    heldout_elevations_deg: tuple[float, ...] = (0.0, 10.0, 20.0, 30.0, 40.0)
    heldout_per_elevation: int = 4
    supersample: int = 4


@dataclass(frozen=True)
class CaptureRule:
    """How a real capture is split and scaled.

    Attributes:
        long_side: images are reduced (area-averaged) until their longer side has this many pixels; None: they stay
            as the publisher reduced them (the catalogue names his folder), which is how published numbers are made.
        heldout_every: every k-th image, sorted by name, is held out (3DGS and Mip-NeRF 360 use 8).
    """

    long_side: int | None = 320
    heldout_every: int = 8
    inputs: int = 4


@dataclass(frozen=True)
class GeometryRule:
    """How a surface is taken from a result, and how it is measured against the true one (docs/design/geometry.md).

    Attributes:
        views: cameras, evenly spread over a sphere round the scene, from which depth and alpha are rendered.
        resolution: width and height of those renders, pixels.
        distance: of those cameras from the scene's centre, in units of its radius.
        margin: the surface is looked for in a ball of this many times the scene's radius.
        voxels: per side of the cube round that ball.
        truncation: of the signed distance, in voxels.
        solid_alpha: a pixel shows a surface if its alpha is at least this, else free space.
        samples: of either surface, evenly over what can be seen.
        directions: evenly spread over the sphere; what no parallel ray from any of them reaches is not seen.
        icp_samples: points of either side from which the ``.icp`` metrics are aligned and measured.
        icp_iterations: of that alignment, at most.
    """

    views: int = 24
    resolution: int = 256
    distance: float = 2.5
    margin: float = 1.05
    voxels: int = 160
    truncation: float = 5.0
    solid_alpha: float = 0.5
    samples: int = 100_000
    seed: int = 0
    directions: int = 32
    icp_samples: int = 2_000
    icp_iterations: int = 20


@dataclass(frozen=True)
class Protocol:
    """All that fixes a number, but the things under test.

    Attributes:
        geometry: None: no surface is taken, and no metric of geometry measured.
        steps_b, steps_c: checkpoints (the ladder of N) of arms B and C; the last is the trajectory's length.
        eight_bit: renders and truth are rounded to 8 bits before any metric, as an image file would hold them.
        metric_versions: metric id to the version of its definition.
    """

    name: str
    rig: Rig = Rig()
    capture: CaptureRule = CaptureRule()
    geometry: GeometryRule | None = GeometryRule()
    background: tuple[float, float, float] = WHITE
    steps_b: tuple[int, ...] = (0, 50, 200, 1000)
    steps_c: tuple[int, ...] = (50, 200, 1000, 3000)
    seeds: tuple[int, ...] = (0,)
    eight_bit: bool = True
    metric_versions: tuple[tuple[str, int], ...] = (
        ("alpha-iou", 1),
        ("chamfer.100k-s0", 1),
        ("chamfer.100k-s0.icp", 1),
        ("f-score-0.5.100k-s0", 1),
        ("f-score-1.100k-s0", 1),
        ("f-score-2.100k-s0", 1),
        ("flip-67", 1),
        ("lpips-alex", 1),
        ("lpips-vgg", 1),
        ("normals.100k-s0", 1),
        ("psnr", 1),
        ("psnr-fg", 1),
        ("ssim", 1),
    )
    version: int = 2

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits over every field but the name."""
        fields = dataclasses.asdict(self)
        del fields["name"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


PROTOCOLS: Registry[Protocol] = Registry("protocol")
PROTOCOLS.add("object-128", Protocol("object-128"))

_OF_IMAGES = ("alpha-iou", "flip-67", "lpips-alex", "lpips-vgg", "psnr", "psnr-fg", "ssim")
PROTOCOLS.add(
    "object-128-images",
    Protocol(
        "object-128-images",
        geometry=None,
        steps_b=(0, 200),
        steps_c=(200,),
        metric_versions=tuple(pair for pair in Protocol.metric_versions if pair[0] in _OF_IMAGES),
    ),
)
"""For paired differences: 200 steps lie before any density control, so equal seeds stay equal draws in base and head,
and images cost a tenth of surfaces."""


# one ladder for both protocols of suite `paper`: a table has one row per N
_paper = Protocol("object-256", Rig(256), steps_b=(0, 50, 200, 1000, 3000), steps_c=(50, 200, 1000, 3000, 30_000))
PROTOCOLS.add("object-256", _paper)
PROTOCOLS.add("capture-published", dataclasses.replace(_paper, name="capture-published", capture=CaptureRule(None)))
