"""Any four posed views reach the network in LGM's frame, and its Gaussians come back in the scene's."""

import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.core.errors import NonFiniteError, OptionError, ShapeError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG
from evalsuite.core.types import Cameras, Gaussians, Views
from evalsuite.models.lgm.config import Head, LGMConfig
from evalsuite.models.lgm.inputs import (
    cameras_in_frame,
    gaussians_from_frame,
    lgm_frame,
    network_input,
    plucker,
    predict,
    resample,
)
from evalsuite.models.lgm.network import LGM
from evalsuite.scenes.rig import orbit_cameras

WHITE = torch.ones(3)
BLACK = torch.zeros(3)
TOY = LGMConfig("toy", 16, (32, 64), (False, True), True, (64, 32), (True, False), "ray", layers=1, heads=2)


def ring(resolution: int = 32, radius: float = CAMERA_RADIUS, fov_y_deg: float = FOV_Y_DEG) -> Cameras:
    """The study's input cameras."""
    return orbit_cameras(
        torch.arange(4) * 90.0, torch.full((4,), 20.0), radius=radius, fov_y_deg=fov_y_deg, resolution=resolution
    )


def some_views(cameras: Cameras, alpha: bool = True) -> Views:
    rng = torch.Generator().manual_seed(0)
    rgb = torch.rand(len(cameras), cameras.height, cameras.width, 3, generator=rng)
    return Views(rgb, torch.rand(rgb.shape[:3], generator=rng) if alpha else None, cameras)


def toy_model(head: Head) -> LGM:
    torch.manual_seed(0)
    return LGM(replace(TOY, head=head)).eval()


def rotation(axis_angle: list[float]) -> torch.Tensor:
    """Rodrigues through the matrix exponential."""
    x, y, z = axis_angle
    turn: torch.Tensor = torch.linalg.matrix_exp(torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]))
    return turn


def moved_cameras(cameras: Cameras, turn: torch.Tensor, shift: torch.Tensor) -> Cameras:
    """The cameras of the scene moved by x -> turn @ x + shift."""
    pose = cameras.cam_from_world.clone()
    pose[:, :3, :3] = cameras.cam_from_world[:, :3, :3] @ turn.T
    pose[:, :3, 3] = cameras.cam_from_world[:, :3, 3] - pose[:, :3, :3] @ shift
    return replace(cameras, cam_from_world=pose)


def covariance(gaussians: Gaussians) -> torch.Tensor:
    """R diag(s^2) R^T per Gaussian, from the quaternion's definition."""
    w, x, y, z = torch.nn.functional.normalize(gaussians.quats, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    r = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return r @ torch.diag_embed(gaussians.scales**2) @ r.mT


ANGLE = st.floats(-2.0, 2.0, width=32)
SHIFT = st.floats(-3.0, 3.0, width=32)


@pytest.mark.parametrize("head", ["xyz", "ray"])
@given(angle=st.lists(ANGLE, min_size=3, max_size=3), shift=st.lists(SHIFT, min_size=3, max_size=3))
@settings(max_examples=15, deadline=None)
def test_moving_the_scene_moves_the_gaussians(head: Head, angle: list[float], shift: list[float]) -> None:
    model, views = toy_model(head), some_views(ring())
    turn, offset = rotation(angle), torch.tensor(shift)
    still = predict(model, views, WHITE)
    moved = predict(model, replace(views, cameras=moved_cameras(views.cameras, turn, offset)), WHITE, centre=offset)
    torch.testing.assert_close(moved.means, still.means @ turn.T + offset, atol=2e-3, rtol=0)
    torch.testing.assert_close(covariance(moved), turn @ covariance(still) @ turn.T, atol=2e-4, rtol=0)
    torch.testing.assert_close(moved.opacities, still.opacities, atol=2e-3, rtol=0)
    torch.testing.assert_close(moved.sh, still.sh, atol=1e-2, rtol=0)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_scaling_the_scene_scales_the_gaussians(factor: float) -> None:
    model, views = toy_model("ray"), some_views(ring())
    still = predict(model, views, WHITE)
    large = predict(model, replace(views, cameras=ring(radius=CAMERA_RADIUS * factor)), WHITE)
    torch.testing.assert_close(large.means, still.means * factor, atol=1e-3 * factor, rtol=0)
    torch.testing.assert_close(large.scales, still.scales * factor, atol=1e-4 * factor, rtol=0)


def test_frame_is_the_published_one() -> None:
    cameras = ring()
    posed = cameras_in_frame(cameras, lgm_frame(cameras))
    # T(0, 0, 1.5) @ inverse(pose_0) @ pose, OpenGL, as LGM's training data has it
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    world_from_gl = torch.linalg.inv(cameras.cam_from_world) @ flip
    push = torch.eye(4)
    push[2, 3] = 1.5
    published = push @ torch.linalg.inv(world_from_gl[0]) @ world_from_gl
    torch.testing.assert_close(torch.linalg.inv(posed.cam_from_world) @ flip, published, atol=1e-5, rtol=0)


def test_frame_round_trips() -> None:
    torch.manual_seed(0)
    cameras = moved_cameras(ring(radius=4.0), rotation([0.3, -1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    frame = lgm_frame(cameras, torch.tensor([1.0, 2.0, 3.0]))
    local = Gaussians(torch.randn(9, 3), torch.randn(9, 4), torch.rand(9, 3), torch.rand(9), torch.randn(9, 1, 3))
    world = gaussians_from_frame(local, frame)
    back = frame.scale * (world.means - frame.centre) @ frame.rotation.T + frame.shift
    torch.testing.assert_close(back, local.means, atol=1e-5, rtol=0)
    turned = frame.rotation @ covariance(world) @ frame.rotation.T * frame.scale**2
    torch.testing.assert_close(turned, covariance(local), atol=1e-5, rtol=1e-4)
    # what the moved camera sees of the local point is what the scene's camera sees of the world point, scaled
    seen = cameras_in_frame(cameras, frame).cam_from_world
    inside = local.means @ seen[2, :3, :3].T + seen[2, :3, 3]
    outside = world.means @ cameras.cam_from_world[2, :3, :3].T + cameras.cam_from_world[2, :3, 3]
    torch.testing.assert_close(inside, outside * frame.scale, atol=1e-5, rtol=1e-4)


def test_rays_match_the_published_formula() -> None:
    cameras = cameras_in_frame(ring(), lgm_frame(ring()))
    rays = plucker(cameras, 8)
    focal = 0.5 * 8 / math.tan(math.radians(49.1) / 2)
    for view, row, column in [(0, 0, 0), (1, 3, 6), (3, 7, 1)]:
        local = torch.tensor([(column + 0.5 - 4) / focal, -(row + 0.5 - 4) / focal, -1.0])
        pose = torch.linalg.inv(cameras.cam_from_world[view]) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        direction = torch.nn.functional.normalize(pose[:3, :3] @ local, dim=0)
        expected = torch.cat([torch.linalg.cross(pose[:3, 3], direction), direction])
        torch.testing.assert_close(rays[view, :, row, column], expected, atol=1e-5, rtol=0)


def test_halving_is_the_mean_of_four_pixels_over_white() -> None:
    views = some_views(ring(resolution=32))
    assert views.alpha is not None
    white = views.rgb * views.alpha[..., None] + 1 - views.alpha[..., None]
    expected = white.view(4, 16, 2, 16, 2, 3).mean((2, 4))
    torch.testing.assert_close(resample(views, 16, WHITE), expected, atol=1e-5, rtol=0)


def test_a_wider_view_is_cropped_and_a_narrower_one_padded() -> None:
    def images(fov_y_deg: float) -> torch.Tensor:
        cameras = ring(64, fov_y_deg=fov_y_deg)
        return resample(Views(torch.ones(4, 64, 64, 3), None, cameras), 16, BLACK)

    assert bool((images(90.0) - 1).abs().max() < 1e-5)
    narrow = images(FOV_Y_DEG / 2)
    assert bool((narrow[:, 0] == 0).all())
    assert bool((narrow[:, 7:9, 7:9] - 1).abs().max() < 1e-5)


def test_pixels_keep_their_rays_when_intrinsics_change() -> None:
    """A ramp over the ray's angle reads the same through any lens, crop and aspect."""
    square = ring(48)
    wide = replace(
        square,
        focal_px=square.focal_px * 1.7,
        centre_px=torch.tensor([[70.0, 50.0]]).expand(4, 2),
        width=150,
        height=110,
    )

    def ramp(cameras: Cameras) -> Views:
        x = (torch.arange(cameras.width) + 0.5 - cameras.centre_px[0, 0]) / cameras.focal_px[0, 0]
        return Views((0.5 + x)[None, None, :, None].expand(4, cameras.height, -1, 3).contiguous(), None, cameras)

    torch.testing.assert_close(resample(ramp(wide), 16, BLACK), resample(ramp(square), 16, BLACK), atol=1e-3, rtol=0)


def test_padding_is_white_for_objects_and_background_for_photographs() -> None:
    cameras = ring(32, fov_y_deg=FOV_Y_DEG / 2)
    photo, _ = network_input(some_views(cameras, alpha=False), 16, BLACK, photographs=True)
    cut_out, _ = network_input(some_views(cameras), 16, BLACK)
    assert bool((photo[:, :3, 0] < 0).all())
    assert bool((cut_out[:, :3, 0] > 2).all())


def test_photographs_of_any_aspect_are_read_when_asked_for() -> None:
    cameras = replace(ring(), height=20, centre_px=torch.tensor([[16.0, 10.0]]).expand(4, 2))
    assert len(predict(toy_model("xyz"), some_views(cameras, alpha=False), BLACK, photographs=True)) == 4 * 16 * 16


def test_images_are_normalised_over_white() -> None:
    """ImageNet's mean and deviation, as every published checkpoint was trained with."""
    views = some_views(ring(16))
    clear = replace(views, alpha=torch.zeros_like(views.rgb[..., 0]))
    x, _ = network_input(clear, 16, BLACK)
    white = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(x[:, :3], white[:, None, None].expand(4, 3, 16, 16), atol=1e-5, rtol=0)


def test_predicting_twice_gives_the_same_bits() -> None:
    model, views = toy_model("ray"), some_views(ring())
    first, second = predict(model, views, WHITE), predict(model, views, WHITE)
    assert torch.equal(first.means, second.means)
    assert not first.means.requires_grad


def test_wrong_inputs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # as users run it: the tests' own shape checker would be faster
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model, views = toy_model("ray"), some_views(ring())
    with pytest.raises(ShapeError, match="3 input views"):
        predict(model, views[[0, 1, 2]], WHITE)
    with pytest.raises(ShapeError, match=r"torch\.uint8"):
        predict(model, replace(views, rgb=(views.rgb * 255).to(torch.uint8)), WHITE)
    with pytest.raises(NonFiniteError, match="alpha"):
        predict(model, replace(views, alpha=torch.full_like(views.rgb[..., 0], math.nan)), WHITE)
    with pytest.raises(OptionError, match="focal length"):
        predict(model, replace(views, cameras=replace(ring(), focal_px=torch.zeros(4, 2))), WHITE)
    with pytest.raises(ShapeError, match="5 input views"):
        predict(model, views[[0, 1, 2, 3, 0]], WHITE)
    with pytest.raises(ShapeError, match=r"no alpha.*photographs=True"):
        predict(model, replace(views, alpha=None), WHITE)
    with pytest.raises(ShapeError, match=r"32 x 16 px; LGM reads square"):
        predict(model, Views(views.rgb[:, :16], views.rgb[:, :16, :, 0], replace(ring(), height=16)), WHITE)
    with pytest.raises(NonFiniteError, match="cam_from_world holds NaN"):
        moved_cameras(ring(), torch.eye(3), torch.tensor([math.nan, 0.0, 0.0]))
    with pytest.raises(NonFiniteError, match="intrinsics"):
        predict(model, replace(views, cameras=replace(ring(), centre_px=torch.full((4, 2), math.nan))), WHITE)
    for bad in (2 * torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, 1.0]))):
        with pytest.raises(ShapeError, match="right-handed rigid pose"):
            predict(model, replace(views, cameras=moved_cameras(ring(), bad, torch.zeros(3))), WHITE)
    with pytest.raises(ShapeError, match="centre"):
        predict(model, replace(views, cameras=ring(radius=1e-9)), WHITE)
