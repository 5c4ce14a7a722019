"""Values that travel between stages: cameras, views, Gaussians, evidence, scenes.

Axes: ``V`` views, ``H W`` image, ``N`` Gaussians, ``P`` points, ``K`` spherical-harmonic coefficients.
An arm is handed `Evidence`, which has no field for held-out views: it cannot leak by type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from evalsuite.core.cases import Budget, Stratum
from evalsuite.core.errors import NonFiniteError, ShapeError


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of one image size, OpenCV axes."""

    cam_from_world: Float[Tensor, "V 4 4"]
    focal_px: Float[Tensor, "V 2"]
    centre_px: Float[Tensor, "V 2"]
    width: int
    height: int

    def __post_init__(self) -> None:
        if not torch.isfinite(self.cam_from_world).all():
            raise NonFiniteError("cam_from_world holds NaN or infinity; expected finite 4x4 poses: check the pose file")

    def __len__(self) -> int:
        return self.cam_from_world.shape[0]

    def __getitem__(self, index: Sequence[int] | slice | Tensor) -> Cameras:
        """Sub-set of the cameras; always keeps the leading axis."""
        index = index if isinstance(index, slice | Tensor) else list(index)
        return replace(
            self,
            cam_from_world=self.cam_from_world[index],
            focal_px=self.focal_px[index],
            centre_px=self.centre_px[index],
        )

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return replace(
            self,
            cam_from_world=self.cam_from_world.to(device),
            focal_px=self.focal_px.to(device),
            centre_px=self.centre_px.to(device),
        )

    @property
    def positions(self) -> Float[Tensor, "V 3"]:
        """Camera centres in the world."""
        rotation, translation = self.cam_from_world[:, :3, :3], self.cam_from_world[:, :3, 3]
        return -(rotation.transpose(1, 2) @ translation[..., None])[..., 0]

    @property
    def intrinsics(self) -> Float[Tensor, "V 3 3"]:
        """Calibration matrices K."""
        k = torch.zeros(len(self), 3, 3, dtype=self.focal_px.dtype, device=self.focal_px.device)
        k[:, 0, 0], k[:, 1, 1] = self.focal_px.unbind(1)
        k[:, :2, 2] = self.centre_px
        k[:, 2, 2] = 1
        return k


@dataclass(frozen=True)
class Views:
    """Posed images. ``rgb`` is sRGB in [0, 1]; ``alpha`` is straight coverage, None for photographs."""

    rgb: Float[Tensor, "V H W 3"]
    alpha: Float[Tensor, "V H W"] | None
    cameras: Cameras

    def __post_init__(self) -> None:
        v, h, w, _ = self.rgb.shape
        if (v, h, w) != (len(self.cameras), self.cameras.height, self.cameras.width):
            raise ShapeError(
                f"views hold {v} images of {w} x {h}, their cameras {len(self.cameras)} of "
                f"{self.cameras.width} x {self.cameras.height}; expected the same: resample both together"
            )

    def __len__(self) -> int:
        return self.rgb.shape[0]

    def __getitem__(self, index: Sequence[int] | slice) -> Views:
        """Sub-set of the views; always keeps the leading axis."""
        index = index if isinstance(index, slice) else list(index)
        alpha = None if self.alpha is None else self.alpha[index]
        return Views(self.rgb[index], alpha, self.cameras[index])

    def over(self, background: Float[Tensor, "3"]) -> Float[Tensor, "V H W 3"]:
        """Images composited over a background colour; photographs come back unchanged."""
        if self.alpha is None:
            return self.rgb
        a = self.alpha[..., None]
        return self.rgb * a + background * (1 - a)


@dataclass(frozen=True)
class Points:
    """Structure-from-motion points with sRGB colours in [0, 1]."""

    xyz: Float[Tensor, "P 3"]
    rgb: Float[Tensor, "P 3"]

    def __len__(self) -> int:
        return self.xyz.shape[0]


@dataclass(frozen=True)
class Gaussians:
    """3D Gaussians with *activated* parameters: what the renderer sees.

    Attributes:
        means: centres, world units.
        quats: rotations, real part first, not necessarily of unit length.
        scales: standard deviations along the axes, world units, > 0.
        opacities: in [0, 1].
        sh: spherical-harmonic coefficients, K = (degree + 1)^2, constant term first.
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, "N"]
    sh: Float[Tensor, "N K 3"]

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]

    def to(self, device: torch.device | str) -> Gaussians:
        """The same Gaussians on another device."""
        return Gaussians(*(getattr(self, f).to(device) for f in ("means", "quats", "scales", "opacities", "sh")))

    def detach(self) -> Gaussians:
        """The same values outside any autograd graph, in memory of their own."""
        return Gaussians(*(getattr(self, f).detach().clone() for f in ("means", "quats", "scales", "opacities", "sh")))


@dataclass(frozen=True)
class Render:
    """What a `Renderable` shows to cameras; ``rgb`` is already over the background, not clamped.

    Attributes:
        depth: expected depth along the camera's z, alpha-normalised; 0 where alpha is 0.
    """

    rgb: Float[Tensor, "V H W 3"]
    alpha: Float[Tensor, "V H W"]
    depth: Float[Tensor, "V H W"]


@runtime_checkable
class Renderable(Protocol):
    """All that metrics may know of an arm's result, whatever its representation."""

    def render(self, cameras: Cameras, background: Float[Tensor, "3"]) -> Render:
        """Images of the result from the given cameras."""
        ...

    @property
    def primitives(self) -> int:
        """Number of Gaussians (or faces, or voxels)."""
        ...

    @property
    def bytes(self) -> int:
        """Size of the exported asset on disk."""
        ...


@dataclass(frozen=True)
class Mesh:
    """Triangle mesh in the scene's frame, with or without colour.

    Attributes:
        uv, image: texture coordinates, origin at the image's lower left corner, repeating; 8-bit sRGB.
        vertex_rgb: sRGB in [0, 1], in place of a texture, or multiplying it in linear light.
    """

    vertices: Float[np.ndarray, "P 3"]
    faces: Int[np.ndarray, "F 3"]
    uv: Float[np.ndarray, "P 2"] | None = None
    image: UInt8[np.ndarray, "h w 3"] | None = None
    vertex_rgb: Float[np.ndarray, "P 3"] | None = None

    @property
    def diagonal(self) -> float:
        """Diagonal of the bounding box of the vertices that faces use, world units; 0 without faces."""
        used = self.vertices[self.faces.ravel()]
        return float(np.linalg.norm(np.ptp(used, axis=0))) if len(used) else 0.0


@dataclass(frozen=True)
class SurfaceSamples:
    """Points drawn evenly from a surface, with the unit normals of the triangles they were drawn from.

    The sign of a normal is that of the triangle's winding: it means nothing for scans.
    """

    points: Float[np.ndarray, "P 3"]
    normals: Float[np.ndarray, "P 3"]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Evidence:
    """Everything an arm may see of a scene under one budget: never a held-out view.

    Attributes:
        inputs: the 4 views a feed-forward network reads.
        supervision: the views that supervise per-scene optimisation.
        points: publisher's structure-from-motion points over the supervision views, if the scene ships some.
        centre, radius: sphere that bounds the content.
        background: colour behind the scene, sRGB.
    """

    inputs: Views
    supervision: Views
    points: Points | None
    centre: Float[Tensor, "3"]
    radius: float
    background: Float[Tensor, "3"]


@dataclass(frozen=True)
class Scene:
    """One thing to reconstruct, with its views split by who may see them.

    Attributes:
        inputs: the 4 views the network reads; a sub-set of ``capture``.
        capture: all training views, inputs included.
        heldout: never seen by any arm.
        points: SfM points that ship with a capture (from training views only), else None.
        mesh: true surface of an object scene, else None.
        surface: samples of the part of ``mesh`` that can be seen from outside, else None.
        notes: what a reader of the record must know (missing frames, fallbacks).
        source: hash of the files that the scene was read from; empty for procedural scenes, or if nobody knows them.
    """

    id: str
    stratum: Stratum
    inputs: Views
    capture: Views
    heldout: Views
    centre: Float[Tensor, "3"]
    radius: float
    background: Float[Tensor, "3"]
    points: Points | None = None
    mesh: Mesh | None = None
    surface: SurfaceSamples | None = None
    notes: tuple[str, ...] = ()
    source: str = ""

    def evidence(self, budget: Budget) -> Evidence:
        """What an arm is handed under a budget. Publisher's points come with ``capture`` only."""
        whole = budget == "capture"
        return Evidence(
            inputs=self.inputs,
            supervision=self.capture if whole else self.inputs,
            points=self.points if whole else None,
            centre=self.centre,
            radius=self.radius,
            background=self.background,
        )
