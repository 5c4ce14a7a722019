"""Two trivial reconstructions that any arm must beat: one colour, and the visual hull of the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from evalsuite.arms.kernels.carving import first_inside
from evalsuite.core.errors import UnsupportedError
from evalsuite.core.types import Cameras, Render, Views

_THRESHOLD = 0.5


@dataclass(frozen=True)
class MeanColour:
    """The same colour in every pixel of every view: no silhouette, no depth."""

    colour: Float[Tensor, "3"]

    @classmethod
    def of(cls, inputs: Views, background: Float[Tensor, "3"]) -> MeanColour:
        """Mean colour of the inputs over the background."""
        return cls(inputs.over(background).mean(dim=(0, 1, 2)))

    def render(self, cameras: Cameras, background: Float[Tensor, "3"]) -> Render:
        """Constant images, alpha 0, depth 0; the background is not seen."""
        shape = (len(cameras), cameras.height, cameras.width)
        return Render(self.colour.expand(*shape, 3), self.colour.new_zeros(shape), self.colour.new_zeros(shape))

    @property
    def primitives(self) -> int:
        """None: there is no geometry."""
        return 0

    @property
    def bytes(self) -> int:
        """Nothing is exported."""
        return 0


@dataclass(frozen=True)
class VisualHull:
    """The largest shape inside a sphere that agrees with the input silhouettes (Laurentini 1994), in one colour.

    Image-based: nothing is stored but the silhouettes; a pixel is inside when some sample of its ray projects
    into all of them.

    Attributes:
        silhouettes: input alpha > 0.5.
        cameras: of the silhouettes.
        colour: of the whole hull, sRGB.
        centre, radius: bounding sphere, world units.
        samples: per ray, evenly spaced over its chord of the sphere.
    """

    silhouettes: Bool[Tensor, "V H W"]
    cameras: Cameras
    colour: Float[Tensor, "3"]
    centre: Float[Tensor, "3"]
    radius: float
    samples: int = 128

    @classmethod
    def of(cls, inputs: Views, background: Float[Tensor, "3"], centre: Float[Tensor, "3"], radius: float) -> VisualHull:
        """Hull of the inputs, painted with their mean straight colour where alpha > 0.5 (the background if nowhere).

        Raises:
            UnsupportedError: the inputs have no alpha.
        """
        if inputs.alpha is None:
            raise UnsupportedError(
                "visual-hull needs silhouettes, the inputs are photographs without alpha; leave it out for this scene"
            )
        inside = inputs.alpha > _THRESHOLD
        colour = inputs.rgb[inside].mean(dim=0) if inside.any() else background
        return cls(inside, inputs.cameras, colour, centre, radius)

    @torch.no_grad()
    def render(self, cameras: Cameras, background: Float[Tensor, "3"]) -> Render:
        """The hull over the background: alpha is 1 or 0, depth that of the first sample inside."""
        depth = torch.stack([self._depth(cameras[[view]]) for view in range(len(cameras))])
        alpha = (depth > 0).to(depth)
        return Render(torch.where(alpha[..., None] > 0, self.colour, background.to(self.colour)), alpha, depth)

    @property
    def primitives(self) -> int:
        """None: there are silhouettes, no geometry."""
        return 0

    @property
    def bytes(self) -> int:
        """Nothing is exported."""
        return 0

    def _depth(self, camera: Cameras) -> Float[Tensor, "H W"]:
        """Depth of the hull seen from one camera, 0 outside."""
        # directions have z = 1 in the camera, so the ray's parameter is the depth
        row, column = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
        pixel = torch.stack([column, row], dim=-1).reshape(-1, 2).to(camera.focal_px) + 0.5
        rays = torch.nn.functional.pad((pixel - camera.centre_px) / camera.focal_px, (0, 1), value=1.0)
        rotation, translation = camera.cam_from_world[0, :3, :3], camera.cam_from_world[0, :3, 3]
        near, far = _chord(rays, rotation @ self.centre + translation, self.radius)
        hit = far > near
        depth = rays.new_zeros(len(rays))
        depth[hit] = self._first_inside(rays[hit] @ rotation, camera.positions[0], near[hit], far[hit])
        return depth.reshape(camera.height, camera.width)

    def _first_inside(
        self,
        rays: Float[Tensor, "R 3"],
        origin: Float[Tensor, "3"],
        near: Float[Tensor, "R"],
        far: Float[Tensor, "R"],
    ) -> Float[Tensor, "R"]:
        """Ray parameter of the first sample inside all silhouettes, 0 if there is none."""
        # projection is linear up to its last division: a sample costs one multiply-add per ray and coordinate
        projection = self.cameras.intrinsics @ self.cameras.cam_from_world[:, :3]
        start = projection[:, :, :3] @ origin + projection[:, :, 3]
        slope = projection[:, :, :3] @ rays.T
        fractions = (torch.arange(self.samples, device=rays.device) + 0.5) / self.samples
        # a border of False stands for all that is out of frame
        framed = torch.nn.functional.pad(self.silhouettes, (1, 1, 1, 1))
        arrays = (start, slope, near, far, fractions, framed)
        if rays.is_cuda:
            return march(*arrays)
        return torch.from_numpy(first_inside(*(array.contiguous().numpy() for array in arrays)))


def march(
    start: Float[Tensor, "V 3"],
    slope: Float[Tensor, "V 3 R"],
    near: Float[Tensor, "R"],
    far: Float[Tensor, "R"],
    fractions: Float[Tensor, "S"],
    framed: Bool[Tensor, "V Hb Wb"],
) -> Float[Tensor, "R"]:
    """What `first_inside` does, on any device: all rays a sample further at a time."""
    views, height, width = framed.shape
    offset = torch.arange(views, device=near.device, dtype=torch.int32)[:, None] * height * width
    first = torch.zeros_like(near)
    for fraction in fractions.tolist():
        t = near + (far - near) * fraction
        x, y, z = (start[..., None] + slope * t).unbind(1)
        safe = z.clamp_min(1e-9)
        column = torch.where(z > 0, x / safe + 1, 0).clamp_(0, width - 1).int()
        row = (y / safe + 1).clamp_(0, height - 1).int()
        seen = framed.reshape(-1).index_select(0, (offset + row * width + column).view(-1)).view(views, -1)
        first = torch.where(seen.all(dim=0) & (first == 0), t, first)
    return first


def _chord(
    rays: Float[Tensor, "R 3"], centre: Float[Tensor, "3"], radius: float
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where rays from the origin enter and leave a sphere; both 0 for a ray that misses it or has it behind."""
    length = rays.square().sum(dim=1)
    middle = rays @ centre / length
    half = ((radius**2 - centre @ centre) / length + middle.square()).clamp_min(0).sqrt()
    return (middle - half).clamp_min(0), (middle + half).clamp_min(0)
