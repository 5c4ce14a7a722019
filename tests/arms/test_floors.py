"""The floors: what one colour and four silhouettes can and cannot show."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from evalsuite.arms.floors import MeanColour, VisualHull, march
from evalsuite.arms.kernels.carving import first_inside
from evalsuite.core.errors import UnsupportedError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG, Protocol, Rig
from evalsuite.core.types import Cameras, Renderable, Scene, Views
from evalsuite.metrics.evaluate import evaluate
from evalsuite.metrics.heldout import HeldOut
from evalsuite.scenes.procedural import KINDS, procedural_mesh
from evalsuite.scenes.rig import object_scene, orbit_cameras

WHITE = torch.ones(3)
ORANGE = torch.tensor([0.9, 0.5, 0.1])
SIZE = 64


def ring(elevation_deg: float, offset_deg: float = 0.0, count: int = 4) -> Cameras:
    azimuth = torch.arange(count) * 360.0 / count + offset_deg
    elevation = torch.full((count,), elevation_deg)
    return orbit_cameras(azimuth, elevation, radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=SIZE)


def sphere(cameras: Cameras, centre: Tensor, radius: float) -> Tensor:
    """Exact silhouette of a sphere: pixels whose central ray meets it, [V, H, W] bool."""
    grid = torch.arange(SIZE) + 0.5
    rows, columns = torch.meshgrid(grid, grid, indexing="ij")
    centre_px, focal_px = cameras.centre_px[0], cameras.focal_px[0]
    rays = torch.stack([columns - centre_px[0], rows - centre_px[1], focal_px[0].expand(SIZE, SIZE)], dim=-1)
    rays = torch.nn.functional.normalize(rays, dim=-1)
    seen = cameras.cam_from_world[:, :3, :3] @ centre + cameras.cam_from_world[:, :3, 3]
    along = torch.einsum("hwc,vc->vhw", rays, seen)
    return seen.square().sum(dim=1)[:, None, None] - along.square() < radius**2


def sphere_views(cameras: Cameras, centre: Tensor, radius: float) -> Views:
    alpha = sphere(cameras, centre, radius).float()
    return Views(alpha[..., None] * ORANGE, alpha, cameras)


@pytest.fixture(scope="module")
def truck() -> Scene:
    protocol = Protocol("floors", rig=Rig(resolution=SIZE, capture_views=4, heldout_per_elevation=1))
    return object_scene("test.truck", KINDS["truck"], procedural_mesh("truck", 0), protocol)


CENTRE = torch.tensor([0.1, -0.05, 0.07])


@pytest.fixture
def ball() -> tuple[Views, VisualHull]:
    views = sphere_views(ring(20.0), CENTRE, 0.35)
    return views, VisualHull.of(views, WHITE, torch.zeros(3), 0.6)


def test_the_hull_contains_the_sphere(ball: tuple[Views, VisualHull]) -> None:
    _, hull = ball
    for elevation in (-30.0, 0.0, 30.0, 70.0):
        cameras = ring(elevation, 45.0)
        alpha = hull.render(cameras, WHITE).alpha > 0
        true = sphere(cameras, CENTRE, 0.35)
        inner = torch.stack([torch.from_numpy(binary_erosion(view)) for view in true.numpy()])
        assert inner.sum() > 1000, "the test needs pixels"
        assert bool(alpha[inner].all())
        assert alpha.sum() > true.sum(), "four silhouettes leave the hull fatter than the sphere"


def test_the_hull_shows_its_inputs_their_silhouettes(ball: tuple[Views, VisualHull]) -> None:
    views, hull = ball
    render = hull.render(views.cameras, WHITE)
    assert views.alpha is not None
    for shown, true in zip(render.alpha.bool().numpy(), views.alpha.bool().numpy(), strict=True):
        assert (shown <= true).all(), "never outside an input silhouette"
        assert shown[binary_erosion(true, iterations=2)].all(), "at most 2 px inside it"


def test_the_hull_of_an_object(truck: Scene) -> None:
    hull = VisualHull.of(truck.inputs, truck.background, truck.centre, truck.radius)
    assert truck.inputs.alpha is not None
    assert truck.heldout.alpha is not None
    true = (truck.inputs.alpha > 0.5).numpy()
    shown = hull.render(truck.inputs.cameras, WHITE).alpha.bool().numpy()
    assert (shown <= true).all()
    assert (true & ~shown).sum() < 0.03 * true.sum()
    unseen = hull.render(truck.heldout.cameras, WHITE).alpha.bool().numpy()
    for hulled, solid in zip(unseen, (truck.heldout.alpha > 0.5).numpy(), strict=True):
        assert binary_dilation(hulled)[solid].mean() > 0.99


def test_depth_is_that_of_the_nearest_hull(ball: tuple[Views, VisualHull]) -> None:
    views, hull = ball
    render = hull.render(views.cameras, WHITE)
    assert torch.equal(render.depth > 0, render.alpha > 0)
    centre = views.cameras.cam_from_world[:, :3, :3] @ CENTRE + views.cameras.cam_from_world[:, :3, 3]
    u, v = ((centre[:, :2] / centre[:, 2:]) * views.cameras.focal_px + views.cameras.centre_px).int().unbind(1)
    middle = render.depth[range(4), v.tolist(), u.tolist()]
    # the hull contains the sphere and stays in the bounding one; a step of the march is at most 1.2 / 128
    assert (middle < centre[:, 2] - 0.35 + 0.02).all()
    assert (middle > CAMERA_RADIUS - 0.6).all()


def test_the_hull_is_painted_with_the_mean_foreground(ball: tuple[Views, VisualHull]) -> None:
    views, hull = ball
    torch.testing.assert_close(hull.colour, ORANGE)
    blue = torch.tensor([0.0, 0.2, 1.0])
    render = hull.render(views.cameras, blue)
    inside = render.alpha > 0
    torch.testing.assert_close(render.rgb[inside], ORANGE.expand(int(inside.sum()), 3))
    torch.testing.assert_close(render.rgb[~inside], blue.expand(int((~inside).sum()), 3))


def test_only_alpha_above_one_half_is_silhouette(ball: tuple[Views, VisualHull]) -> None:
    views, hull = ball
    assert views.alpha is not None
    soft = replace(views, alpha=views.alpha * 0.2 + 0.4, rgb=views.rgb + (1 - views.alpha[..., None]) * 0.5)
    again = VisualHull.of(soft, WHITE, torch.zeros(3), 0.6)
    assert torch.equal(again.silhouettes, hull.silhouettes)
    torch.testing.assert_close(again.colour, hull.colour)


def test_the_hull_stays_in_its_sphere(ball: tuple[Views, VisualHull]) -> None:
    views, _ = ball
    full = replace(views, alpha=torch.ones(4, SIZE, SIZE))
    cameras = ring(-10.0, 30.0)
    centre, radius = torch.tensor([0.1, 0.0, 0.0]), 0.3
    alpha = VisualHull.of(full, WHITE, centre, radius).render(cameras, WHITE).alpha
    assert torch.equal(alpha > 0, sphere(cameras, centre, radius))


def test_what_an_input_does_not_frame_is_outside() -> None:
    views = replace(sphere_views(ring(20.0), CENTRE, 0.35), alpha=torch.ones(4, SIZE, SIZE))
    # one input looks away: everything lies behind it
    poses = views.cameras.cam_from_world.clone()
    poses[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ poses[0]
    away = replace(views, cameras=replace(views.cameras, cam_from_world=poses))
    assert VisualHull.of(views, WHITE, torch.zeros(3), 0.3).render(ring(0.0), WHITE).alpha.any()
    assert not VisualHull.of(away, WHITE, torch.zeros(3), 0.3).render(ring(0.0), WHITE).alpha.any()


def test_empty_silhouettes_give_an_empty_hull(ball: tuple[Views, VisualHull]) -> None:
    views, _ = ball
    hull = VisualHull.of(replace(views, alpha=torch.zeros(4, SIZE, SIZE)), ORANGE, torch.zeros(3), 0.6)
    render = hull.render(views.cameras, ORANGE)
    assert not render.alpha.any()
    assert not render.depth.any()
    assert torch.equal(render.rgb, ORANGE.expand(4, SIZE, SIZE, 3))


def test_photographs_have_no_hull(ball: tuple[Views, VisualHull]) -> None:
    views, _ = ball
    with pytest.raises(UnsupportedError, match="needs silhouettes") as caught:
        VisualHull.of(replace(views, alpha=None), WHITE, torch.zeros(3), 0.6)
    assert caught.value.status == "unsupported"


def test_mean_colour_is_the_mean_over_the_background() -> None:
    cameras = ring(20.0)
    alpha = torch.zeros(4, SIZE, SIZE)
    alpha[:, : SIZE // 4] = 1
    views = Views(ORANGE.expand(4, SIZE, SIZE, 3), alpha, cameras)
    floor = MeanColour.of(views, WHITE)
    torch.testing.assert_close(floor.colour, 0.25 * ORANGE + 0.75)
    photographs = MeanColour.of(replace(views, alpha=None), WHITE)
    torch.testing.assert_close(photographs.colour, ORANGE)


def test_psnr_of_mean_colour_is_the_variance() -> None:
    cameras = ring(20.0)
    rgb = torch.rand(4, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    rgb[:, :, : SIZE // 2] *= 0.3
    floor = MeanColour.of(Views(rgb, None, cameras), WHITE)
    # each channel's variance round its own mean over all views, read view by view
    expected = [
        -10 * math.log10(float((view.double() - rgb.double().mean(dim=(0, 1, 2))).square().mean())) for view in rgb
    ]
    readings, images = evaluate(floor, HeldOut(Views(rgb, None, cameras), WHITE, eight_bit=False))
    assert readings["psnr"].per_view == pytest.approx(expected, abs=1e-4)
    assert (images == images[0, 0, 0]).all()


def test_mean_colour_has_no_shape(truck: Scene) -> None:
    floor = MeanColour.of(truck.inputs, truck.background)
    render = floor.render(truck.heldout.cameras, torch.zeros(3))
    assert render.rgb.shape == (*render.alpha.shape, 3)
    assert not render.alpha.any()
    assert not render.depth.any()
    assert evaluate(floor, HeldOut(truck.heldout, truck.background, eight_bit=True))[0]["alpha-iou"].value == 0


def test_the_hull_beats_one_colour(truck: Scene) -> None:
    floors: list[Renderable] = [
        MeanColour.of(truck.inputs, truck.background),
        VisualHull.of(truck.inputs, truck.background, truck.centre, truck.radius),
    ]
    flat, hull = (evaluate(floor, HeldOut(truck.heldout, truck.background, eight_bit=True))[0] for floor in floors)
    for metric, margin in (("psnr", 2.0), ("psnr-fg", 2.0), ("alpha-iou", 0.5)):
        low, high = flat[metric].value, hull[metric].value
        assert low is not None
        assert high is not None
        assert high > low + margin, metric
    assert [(floor.primitives, floor.bytes) for floor in floors] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("seed", range(8))
def test_the_kernel_carves_what_tensors_do(seed: int) -> None:
    """To the bit, also for rays that no silhouette sees, that start inside, and that lie behind a camera."""
    draw = torch.Generator().manual_seed(seed)
    views, rays, samples = 3, 500, 37
    start = torch.tensor([20.0, 15.0, 1.0]) + torch.randn(views, 3, generator=draw) * torch.tensor([3.0, 3.0, 0.2])
    slope = torch.randn(views, 3, rays, generator=draw) * torch.tensor([15.0, 10.0, 0.5])[:, None]
    near, far = torch.rand(2, rays, generator=draw).sort(dim=0).values * 3 - 0.2
    framed = torch.nn.functional.pad(torch.rand(views, 30, 40, generator=draw) < 0.7, (1, 1, 1, 1))
    arrays = (start, slope, near, far, (torch.arange(samples) + 0.5) / samples, framed)
    found = march(*arrays)
    assert 20 < int((found != 0).sum()) < 480
    assert torch.equal(torch.from_numpy(first_inside(*(array.numpy() for array in arrays))), found)


def test_nothing_behind_a_camera_is_seen_by_it() -> None:
    """Not even where both coordinates vanish and the division has no sign to tell."""
    start, slope = torch.tensor([[0.0, 0.0, -1.0]]), torch.zeros(1, 3, 1)
    framed = torch.nn.functional.pad(torch.ones(1, 4, 4, dtype=torch.bool), (1, 1, 1, 1))
    arrays = (start, slope, torch.tensor([0.5]), torch.tensor([2.0]), torch.tensor([0.25, 0.75]), framed)
    assert march(*arrays).tolist() == first_inside(*(array.numpy() for array in arrays)).tolist() == [0.0]
    assert march(-start, *arrays[1:]).tolist() == [0.875], "in front of it, it is"
