"""Any four posed views to the network's input tensor, and its Gaussians back to the scene's frame.

LGM's frame is the first input camera's OpenGL frame pushed back 1.5, scaled so that the cameras stand
1.5 from the scene's centre (LGM core/provider_objaverse.py): x_lgm = scale * rotation @ (x - centre) + shift.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from evalsuite.core.conventions import focal_from_fov
from evalsuite.core.errors import MissingDataError, NonFiniteError, OptionError, ShapeError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG, WHITE
from evalsuite.core.types import Cameras, Gaussians, Views
from evalsuite.models.lgm.config import INPUT_VIEWS, MAX_SPLATS, LGMConfig
from evalsuite.models.lgm.hull import hull_input
from evalsuite.models.lgm.network import IMAGENET_MEAN, IMAGENET_STD, LGM
from evalsuite.splats.cpu.projection import ALPHA_CUT

_OPENGL = (1.0, -1.0, -1.0)
"""OpenCV camera axes to OpenGL's: y and z change sign."""

_RIGID = 1e-3
"""Largest deviation of a pose's R R^T from the identity."""


@dataclass(frozen=True)
class Frame:
    """Similarity from the scene's frame to LGM's: x_lgm = scale * rotation @ (x - centre) + shift."""

    rotation: Float[Tensor, "3 3"]
    centre: Float[Tensor, "3"]
    shift: Float[Tensor, "3"]
    scale: float


def lgm_frame(cameras: Cameras, centre: Float[Tensor, "3"] | None = None) -> Frame:
    """LGM's frame for cameras of which the first is the reference.

    Args:
        cameras: poses in the scene's frame.
        centre: what they look at, scene units; the origin by default.

    Raises:
        ShapeError: the cameras stand on the centre, so no scale can be told.
    """
    centre = cameras.cam_from_world.new_zeros(3) if centre is None else centre.to(cameras.cam_from_world)
    distance = float((cameras.positions - centre).norm(dim=1).mean())
    if distance < 1e-6:
        raise ShapeError(
            f"cameras stand {distance:.1e} from the scene's centre; expected a ring around it: pass another centre"
        )
    scale = CAMERA_RADIUS / distance
    flip = centre.new_tensor(_OPENGL)
    pose = cameras.cam_from_world[0]
    rotation = flip[:, None] * pose[:3, :3]
    shift = scale * flip * (pose[:3, :3] @ centre + pose[:3, 3])
    return Frame(rotation, centre, shift + centre.new_tensor([0.0, 0.0, CAMERA_RADIUS]), scale)


def cameras_in_frame(cameras: Cameras, frame: Frame) -> Cameras:
    """The same cameras posed in LGM's frame; depths along z come out scaled by ``frame.scale``."""
    pose = cameras.cam_from_world.clone()
    rotation = cameras.cam_from_world[:, :3, :3]
    pose[:, :3, :3] = rotation @ frame.rotation.T
    moved = frame.scale * (rotation @ frame.centre + cameras.cam_from_world[:, :3, 3])
    pose[:, :3, 3] = moved - pose[:, :3, :3] @ frame.shift
    return replace(cameras, cam_from_world=pose)


def gaussians_from_frame(gaussians: Gaussians, frame: Frame) -> Gaussians:
    """Gaussians of LGM's frame, moved, turned and scaled into the scene's. Degree-0 colours do not turn."""
    return replace(
        gaussians,
        means=(gaussians.means - frame.shift) / frame.scale @ frame.rotation + frame.centre,
        quats=_quaternion_product(_quaternion(frame.rotation.T), gaussians.quats),
        scales=gaussians.scales / frame.scale,
    )


def _quaternion(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "4"]:
    """Unit quaternion of a rotation matrix: the principal eigenvector of Bar-Itzhack's 4x4 form, without branches."""
    r = rotation.double()
    k = r.new_zeros(4, 4)
    k[0, 0] = r.trace()
    skew = torch.stack([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    k[0, 1:] = skew
    k[1:, 0] = skew
    k[1:, 1:] = r + r.T - r.trace() * torch.eye(3, dtype=r.dtype, device=r.device)
    vectors: Tensor = torch.linalg.eigh(k).eigenvectors
    return vectors[:, -1].to(rotation.dtype)


def _quaternion_product(p: Float[Tensor, "4"], q: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """Hamilton product p q of one quaternion with many."""
    real = p[0] * q[:, :1] - (q[:, 1:] * p[1:]).sum(-1, keepdim=True)
    imaginary = p[0] * q[:, 1:] + q[:, :1] * p[1:] + torch.linalg.cross(p[1:].expand_as(q[:, 1:]), q[:, 1:])
    return torch.cat([real, imaginary], dim=1)


def _area_weights(centre_px: Tensor, step_px: Tensor, source: int, target: int) -> Float[Tensor, "V target source"]:
    """Share of each source pixel in each target pixel along one axis; rows sum to less than 1 outside the image.

    A target pixel averages the interval it covers, widened to at least one source pixel: exact area averaging
    when the image shrinks, linear interpolation when it grows.
    """
    middle = (torch.arange(target, dtype=step_px.dtype, device=step_px.device) + 0.5 - target / 2) * step_px[:, None]
    middle = middle + centre_px[:, None]
    half = step_px.clamp(min=1.0)[:, None] / 2
    left = torch.arange(source, dtype=step_px.dtype, device=step_px.device)
    low, high = (middle - half)[..., None], (middle + half)[..., None]
    overlap = torch.minimum(high, left + 1) - torch.maximum(low, left)
    return overlap.clamp(min=0) / (2 * half[..., None])


def _square_weights(
    cameras: Cameras, size: int
) -> tuple[Float[Tensor, "V target height"], Float[Tensor, "V target width"]]:
    """`_area_weights` along rows and columns for square images of LGM's field of view round each camera's axis."""
    step = cameras.focal_px / focal_from_fov(FOV_Y_DEG, size)
    along = _area_weights(cameras.centre_px[:, 1], step[:, 1], cameras.height, size)
    across = _area_weights(cameras.centre_px[:, 0], step[:, 0], cameras.width, size)
    return along, across


def resample(views: Views, size: int, padding: Float[Tensor, "3"]) -> Float[Tensor, "V S S 3"]:
    """Square images of LGM's field of view around each camera's axis: cropped, or padded where the image ends.

    Alpha, if any, is composited over white before (LGM was trained so).

    Args:
        size: side of the result, pixels.
        padding: colour outside the images.
    """
    along, across = _square_weights(views.cameras, size)
    inside = along.sum(2)[:, :, None, None] * across.sum(2)[:, None, :, None]
    images = views.over(views.rgb.new_tensor(WHITE))
    return torch.einsum("vyh,vhwc,vxw->vyxc", along, images, across) + (1 - inside) * padding


def silhouettes(views: Views, size: int) -> Float[Tensor, "V S S"]:
    """Alpha on the pixels of `resample`; 0 where the image ends. All of a photograph is covered."""
    along, across = _square_weights(views.cameras, size)
    alpha = torch.ones_like(views.rgb[..., 0]) if views.alpha is None else views.alpha
    return torch.einsum("vyh,vhw,vxw->vyx", along, alpha, across)


def plucker(cameras: Cameras, size: int) -> Float[Tensor, "V 6 S S"]:
    """Ray moment o x d and unit direction d through every pixel of square images at LGM's field of view."""
    focal = focal_from_fov(FOV_Y_DEG, size)
    pose = cameras.cam_from_world
    grid = (torch.arange(size, dtype=pose.dtype, device=pose.device) + 0.5 - size / 2) / focal
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    local = F.normalize(torch.stack([x, y, torch.ones_like(x)], dim=-1), dim=-1)
    direction = torch.einsum("yxi,vij->vyxj", local, pose[:, :3, :3])
    origin = cameras.positions[:, None, None].expand_as(direction)
    return torch.cat([torch.linalg.cross(origin, direction), direction], dim=-1).permute(0, 3, 1, 2)


def pack(images: Float[Tensor, "V S S 3"], cameras: Cameras) -> Float[Tensor, "V 9 S S"]:
    """Network input of images at LGM's field of view, cameras already in LGM's frame."""
    normalised = (images - images.new_tensor(IMAGENET_MEAN)) / images.new_tensor(IMAGENET_STD)
    return torch.cat([normalised.permute(0, 3, 1, 2), plucker(cameras, images.shape[1])], dim=1)


def assemble(
    config: LGMConfig, images: Float[Tensor, "V S S 3"], alpha: Float[Tensor, "V S S"], cameras: Cameras
) -> Float[Tensor, "V Cin s s"]:
    """What a network of any stem reads: images over white and their coverage, cameras already in LGM's frame."""
    if config.stem == "plain":
        return pack(images, cameras)
    return hull_input(images, alpha, plucker(cameras, config.input_size), cameras)


def _check(inputs: Views, photographs: bool) -> None:
    cameras = inputs.cameras
    if len(inputs) != INPUT_VIEWS:
        raise ShapeError(f"{len(inputs)} input views; LGM reads exactly {INPUT_VIEWS}: choose {INPUT_VIEWS}")
    if not photographs and inputs.alpha is None:
        raise ShapeError(
            "the input views have no alpha; LGM reads objects over white: cut the object out, or pass photographs=True"
        )
    if not photographs and cameras.width != cameras.height:
        raise ShapeError(
            f"the input views are {cameras.width} x {cameras.height} px; LGM reads square images: crop them and move "
            "the principal point along, or pass photographs=True"
        )
    if not inputs.rgb.is_floating_point():
        raise ShapeError(f"rgb is {inputs.rgb.dtype}; expected floats in [0, 1]: divide 8-bit images by 255")
    for name, value in (("rgb", inputs.rgb), ("alpha", inputs.alpha)):
        if value is not None and not torch.isfinite(value).all():
            raise NonFiniteError(f"{name} of the input views holds NaN or infinity; expected [0, 1]: check the images")
    if not (torch.isfinite(cameras.focal_px).all() and torch.isfinite(cameras.centre_px).all()):
        raise NonFiniteError("an input camera has NaN or infinite intrinsics; expected pixels: check the intrinsics")
    if float(cameras.focal_px.min()) <= 0:
        raise OptionError("an input camera has a focal length <= 0 px; expected > 0: check the intrinsics")
    turn = cameras.cam_from_world[:, :3, :3].double()
    skew = (turn @ turn.mT - torch.eye(3).to(turn)).abs().amax() > _RIGID
    if skew or float(torch.linalg.det(turn).min()) < 0:
        raise ShapeError(
            "cam_from_world of an input view is no rotation and translation; expected a right-handed rigid pose: "
            "take scale out of it, and mirror no axis"
        )


def network_input(
    inputs: Views,
    size: int,
    background: Float[Tensor, "3"],
    centre: Float[Tensor, "3"] | None = None,
    *,
    photographs: bool = False,
) -> tuple[Float[Tensor, "V 9 S S"], Frame]:
    """Checked, resampled, normalised input of one sample, and the frame it lives in.

    Args:
        inputs: four posed views of any size and intrinsics, square and with alpha; the first one fixes the frame.
        size: the network's input size, pixels.
        background: colour around photographs whose field of view is narrower than LGM's; images with alpha
            continue in white.
        centre: what the cameras look at, scene units; the origin by default.
        photographs: take views without alpha and of any aspect, cropped and padded to a square round the optical
            axis. Outside the domain of the published networks: ask for it knowingly.

    Raises:
        ShapeError, NonFiniteError, OptionError: inputs the network cannot read; the message names the argument.
    """
    _check(inputs, photographs)
    white = inputs.rgb.new_tensor(WHITE)
    frame = lgm_frame(inputs.cameras, centre)
    images = resample(inputs, size, white if inputs.alpha is not None else background.to(white))
    return pack(images, cameras_in_frame(inputs.cameras, frame)), frame


def model_input(
    config: LGMConfig,
    inputs: Views,
    background: Float[Tensor, "3"],
    centre: Float[Tensor, "3"] | None = None,
    *,
    photographs: bool = False,
) -> tuple[Float[Tensor, "V Cin s s"], Frame]:
    """What a network of any stem reads of four views, and the frame it lives in; see `network_input`.

    The hull stem reads silhouettes too. Photographs have none: their hull is what all four cameras see.

    Raises:
        ShapeError, NonFiniteError, OptionError: as `network_input`.
        MissingDataError: the hull stem finds every input transparent.
    """
    if config.stem == "plain":
        return network_input(inputs, config.input_size, background, centre, photographs=photographs)
    _check(inputs, photographs)
    alpha = silhouettes(inputs, config.input_size)
    if not (alpha > 0.5).any():
        raise MissingDataError("alpha of the input views is nowhere above 0.5; expected an object: check the masks")
    frame = lgm_frame(inputs.cameras, centre)
    images = resample(inputs, config.input_size, inputs.rgb.new_tensor(WHITE))
    return assemble(config, images, alpha, cameras_in_frame(inputs.cameras, frame)), frame


@torch.no_grad()
def predict(
    model: LGM,
    inputs: Views,
    background: Float[Tensor, "3"],
    centre: Float[Tensor, "3"] | None = None,
    *,
    photographs: bool = False,
) -> Gaussians:
    """One forward pass: four posed views in, float32 Gaussians out, both in the scene's frame.

    Args:
        model: a network with loaded weights, on the device of the views; it computes in the dtype of its weights.
        inputs, background, centre, photographs: see `network_input`.

    Returns:
        One Gaussian per splat-map pixel; with the hull head, of those that any renderer would show.
    """
    return infer(model, *model_input(model.config, inputs, background, centre, photographs=photographs))


@torch.no_grad()
def infer(model: LGM, x: Float[Tensor, "V Cin s s"], frame: Frame) -> Gaussians:
    """`predict` from what `model_input` has made of the views."""
    batch = x[None].float()
    gaussians = model.to_gaussians(model(batch), batch)[0]
    if model.config.head == "hull":
        gaussians = _visible(gaussians)
    return gaussians_from_frame(gaussians, frame)


def _visible(gaussians: Gaussians) -> Gaussians:
    """Without the splats, such as those of background pixels, that no renderer shows; at most `MAX_SPLATS`."""
    opaque = gaussians.opacities.argsort(descending=True, stable=True)[:MAX_SPLATS]
    kept = opaque[gaussians.opacities[opaque] >= ALPHA_CUT].sort().values
    return Gaussians(*(getattr(gaussians, part.name)[kept] for part in fields(gaussians)))
