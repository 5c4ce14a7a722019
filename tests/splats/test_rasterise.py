"""The engines against the float64 reference, and the laws that any renderer keeps."""

from __future__ import annotations

import math
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from functools import cache
from typing import Any

import numba
import pytest
import reference
import torch
from gsplat.cuda import _torch_impl as gsplat_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_scene import SHORT, ring, start, supervision
from torch import Tensor

from evalsuite.core.clock import Clock
from evalsuite.core.conventions import focal_from_fov, look_at, orbit_position
from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.execution.probes import rendering, stage
from evalsuite.metrics.spec import PROBES
from evalsuite.splats.cpu import blending, compositor
from evalsuite.splats.optimise import optimise
from evalsuite.splats.rasterise import Raster, RasterSettings, rasterise

FIELDS = ("means", "quats", "scales", "opacities", "sh")
WHITE = torch.ones(3)
CLASSIC = RasterSettings()
KINDS = ("plain", "needles", "huge", "opaque")
SIZES = ((37, 21), (64, 48), (16, 16), (1, 1), (5, 70))
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False"),
        ],
    ),
]


def random_gaussians(seed: int, count: int, degree: int = 0, kind: str = "plain") -> Gaussians:
    """Scatter a cloud round the origin, also behind the cameras of `random_cameras`; a tenth is opaque or empty."""
    draw = torch.Generator().manual_seed(seed)
    means = 0.45 * torch.randn(count, 3, generator=draw)
    means[::7] *= 4
    shortest, longest = {"plain": (0.01, 0.15), "needles": (0.0005, 0.3), "huge": (0.5, 3.0), "opaque": (0.05, 0.3)}[
        kind
    ]
    scales = shortest * (longest / shortest) ** torch.rand(count, 3, generator=draw)
    if kind == "needles":
        scales[:, 1:] = shortest
    opacities = torch.rand(count, generator=draw)
    opacities[3::20], opacities[13::20] = 0.0, 1.0
    if kind == "opaque":
        opacities = 0.9 + 0.1 * opacities
    sh = 0.35 * torch.randn(count, (degree + 1) ** 2, 3, generator=draw)
    return Gaussians(means, torch.randn(count, 4, generator=draw), scales, opacities, sh)


def random_cameras(seed: int, views: int = 2, size: tuple[int, int] = (37, 21)) -> Cameras:
    """Cameras on an orbit of radius 1.5 with an off-centre principal point and unequal focal lengths."""
    draw = torch.Generator().manual_seed(1000 + seed)
    angles = torch.rand(views, 2, generator=draw)
    poses = [look_at(orbit_position(360 * float(a), 80 * float(e) - 40, 1.5)) for a, e in angles]
    focal = focal_from_fov(50.0, max(size)) * (0.8 + 0.4 * torch.rand(views, 2, generator=draw))
    centre = torch.tensor(size) * (0.4 + 0.2 * torch.rand(views, 2, generator=draw))
    return Cameras(torch.stack(poses), focal, centre, *size)


def random_background(seed: int) -> Tensor:
    """Draw a colour that is neither black nor white."""
    return torch.rand(3, generator=torch.Generator().manual_seed(2000 + seed))


def leaves(gaussians: Gaussians, device: str, dtype: torch.dtype) -> Gaussians:
    """Copy the values as leaves of a new graph."""
    return Gaussians(*(getattr(gaussians, f).detach().to(device, dtype).clone().requires_grad_() for f in FIELDS))


@cache
def trained_gaussians() -> Gaussians:
    """Result of 300 steps on images of a cloud."""
    recipe = replace(SHORT, horizon=300, sh_every=100)
    steps = optimise(start(count=600), supervision(views=12, size=48), WHITE, recipe, [300], seed=0, clock=Clock())
    return [gaussians for _, gaussians in steps][-1]


def assert_close(
    name: str, found: Tensor, expected: Tensor, settled: Tensor, tolerance: float, step: float = 0.1
) -> None:
    """Within the tolerance, but for the few pixels that hinge on a hard threshold: those by no more than its step.

    A stop that falls the other way drops at most 1e-4 / (1 - 0.999) of a colour, a cut that does 1/255.
    """
    error = (found.detach().cpu().double() - expected.detach()).abs() / max(1.0, float(expected.detach().max()))
    assert error.shape == expected.shape, name
    calm, torn = error[settled], error[~settled]
    assert not len(calm) or calm.max() <= tolerance, f"{name}: worst {calm.max():.1e} where no threshold is near"
    assert not len(torn) or torn.max() <= step, f"{name}: worst {torn.max():.1e} where a threshold is near"


def assert_same_picture(found: Raster, expected: reference.Picture, tolerance: float = 2e-5) -> None:
    """Colour, alpha and depth agree, and so do the rectangles but for a rounding of the ceiling."""
    assert (~expected.settled).sum() <= max(3, 0.04 * expected.settled.numel())
    assert_close("rgb", found.rgb, expected.rgb, expected.settled, tolerance)
    assert_close("alpha", found.alpha, expected.alpha, expected.settled, tolerance)
    assert_close(
        "depth", found.depth, expected.depth, expected.settled, 5 * tolerance, math.inf
    )  # one cut may end at 0
    radii, both = found.radii.cpu(), (found.radii.cpu() > 0) & (expected.radii > 0)
    assert ((radii > 0) != (expected.radii > 0)).sum() <= 0.002 * radii.numel()
    assert ((radii - expected.radii).abs()[both] <= 1 + 1e-5 * expected.radii[both]).all()
    error = (found.means2d.cpu().double() - expected.means2d).detach().abs()[both]
    assert (error <= 1e-5 * expected.means2d.detach().abs()[both].clamp_min(100)).all()


def gradients(picture: Raster | reference.Picture, inputs: dict[str, Tensor], where: Tensor) -> dict[str, Tensor]:
    """Gradients of a fixed random weighing of the pixels ``where``, by input and at ``means2d``, on the CPU."""
    draw = torch.Generator().manual_seed(7)
    picture.means2d.retain_grad()
    channels = torch.cat([picture.rgb, picture.alpha[..., None], picture.depth[..., None]], dim=3)
    weights = torch.randn(channels.shape, generator=draw) * where[..., None]
    torch.autograd.backward((channels * weights.to(channels)).sum())
    found = {name: tensor.grad for name, tensor in (inputs | {"means2d": picture.means2d}).items()}
    return {name: torch.zeros(1) if grad is None else grad.cpu().double() for name, grad in found.items()}


def inputs_of(gaussians: Gaussians, background: Tensor) -> dict[str, Tensor]:
    """All that is differentiated, by name."""
    return {f: getattr(gaussians, f) for f in FIELDS} | {"background": background}


def both_gradients(
    cloud: Gaussians, cameras: Cameras, chosen: RasterSettings, device: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of the engine and of the reference over the pixels where no hard threshold is near."""
    exact, back = leaves(cloud, "cpu", torch.float64), random_background(0).double().requires_grad_()
    truth = reference.render(exact, cameras, back, chosen)
    expected = gradients(truth, inputs_of(exact, back), truth.settled)
    single, back = leaves(cloud, device, torch.float32), random_background(0).to(device).requires_grad_()
    picture = rasterise(single, cameras.to(device), back, chosen)
    return gradients(picture, inputs_of(single, back), truth.settled), expected


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Every gradient points the same way (cosine 0.9999) and is as long (relative L2 1e-3)."""
    for name, truth in expected.items():
        length = truth.norm()
        if length < 1e-12:
            assert found[name].norm() < 1e-6, f"{name}: the reference's gradient is zero"
            continue
        off = (found[name] - truth).norm() / length
        cosine = (found[name] * truth).sum() / (length * found[name].norm())
        assert off <= 1e-3, f"{name}: relative L2 {off:.2e}, cosine {cosine:.6f}"
        assert cosine >= 0.9999, f"{name}: relative L2 {off:.2e}, cosine {cosine:.6f}"


# --- the reference itself -------------------------------------------------------------------------------------------


def test_reference_projects_as_gsplat() -> None:
    cloud, cameras = random_gaussians(1, 200), random_cameras(1, 2, (64, 48))
    doubles = leaves(cloud, "cpu", torch.float64)
    covariances, _ = gsplat_torch._quat_scale_to_covar_preci(doubles.quats, doubles.scales, compute_preci=False)
    poses, intrinsics = cameras.cam_from_world.double(), cameras.intrinsics.double()
    _, means2d, depths, conics, compensations = gsplat_torch._fully_fused_projection(
        doubles.means, covariances, poses, intrinsics, 64, 48, calc_compensations=True
    )
    for view in range(2):
        seen = reference.project(doubles, cameras, view, RasterSettings(antialiased=True))
        alive = (seen.radii > 0).all(dim=1)
        assert 20 < alive.sum() < 200
        torch.testing.assert_close(seen.means2d[alive], means2d[view][alive])
        torch.testing.assert_close(seen.depths[alive], depths[view][alive])
        torch.testing.assert_close(seen.conics[alive], conics[view][alive])
        torch.testing.assert_close(seen.opacities[alive], (doubles.opacities * compensations[view])[alive])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_reference_colours_as_gsplat(degree: int) -> None:
    cloud = leaves(random_gaussians(2, 50, degree), "cpu", torch.float64)
    eye = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    expected = gsplat_torch._spherical_harmonics(degree, cloud.means - eye, cloud.sh)
    torch.testing.assert_close(reference.colours(cloud, eye), (expected + 0.5).clamp_min(0))


def test_reference_composites_two_layers_by_hand() -> None:
    """Two wide Gaussians, one in front of the other, seen at the pixel they are centred on."""
    pose = torch.eye(4)[None]
    camera = Cameras(pose, torch.tensor([[10.0, 10.0]]), torch.tensor([[0.5, 0.5]]), 1, 1)
    means = torch.tensor([[0.0, 0.0, 4.0], [0.0, 0.0, 2.0]])
    sh = torch.tensor([[[0.4, 0.0, 0.0]], [[0.0, 0.4, 0.0]]])
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2)
    pair = Gaussians(means, quats, torch.full((2, 3), 0.5), torch.tensor([0.6, 0.25]), sh)
    found = reference.render(pair, camera, torch.tensor([0.1, 0.2, 0.3]), CLASSIC)
    lit, flat = 0.5 + 0.4 / (2 * math.sqrt(math.pi)), 0.5
    front, back, rest = 0.25, 0.75 * 0.6, 0.75 * 0.4
    expected = [lit * back + flat * front + rest * 0.1, flat * back + lit * front + rest * 0.2]
    assert found.rgb[0, 0, 0, :2].tolist() == pytest.approx(expected, abs=1e-7)
    assert found.alpha.item() == pytest.approx(1 - rest, abs=1e-7)
    assert found.depth.item() == pytest.approx((2 * front + 4 * back) / (1 - rest), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_hide_no_visible_contribution(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rectangle of a Gaussian holds every pixel where its alpha passes the cut (see `reference._tile_mask`)."""
    cloud, cameras = random_gaussians(3, 150, kind=kind), random_cameras(3, 2, (64, 48))
    tiled = reference.render(cloud, cameras, WHITE, CLASSIC)
    assert tiled.alpha.max() > 0.1
    monkeypatch.setattr(reference, "_tile_mask", lambda means2d, radii, pixels: torch.ones(1, 1, dtype=torch.bool))
    assert torch.equal(reference.render(cloud, cameras, WHITE, CLASSIC).rgb, tiled.rgb)


# --- engine against reference ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_picture_is_the_references(kind: str, size: tuple[int, int], antialiased: bool, device: str) -> None:
    cloud, cameras = random_gaussians(11, 200, 1, kind), random_cameras(11, 3, size)
    chosen, back = RasterSettings(antialiased=antialiased), random_background(11)
    found = rasterise(cloud.to(device), cameras.to(device), back.to(device), chosen)
    assert found.rgb.dtype == found.alpha.dtype == found.depth.dtype == torch.float32
    # gsplat projects in float32: long needles lose digits in the determinant.
    assert_same_picture(found, reference.render(cloud, cameras, back, chosen), {"cpu": 2e-5, "cuda": 1e-4}[device])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 300),
    degree=st.integers(0, 3),
    kind=st.sampled_from(KINDS),
    size=st.tuples(st.integers(1, 48), st.integers(1, 48)),
)
def test_any_picture_is_the_references(seed: int, count: int, degree: int, kind: str, size: tuple[int, int]) -> None:
    cloud, cameras, back = (
        random_gaussians(seed, count, degree, kind),
        random_cameras(seed, 2, size),
        random_background(seed),
    )
    assert_same_picture(rasterise(cloud, cameras, back), reference.render(cloud, cameras, back, CLASSIC))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gradients_are_the_references(degree: int, kind: str, antialiased: bool, device: str) -> None:
    cloud, cameras = random_gaussians(21, 150, degree, kind), random_cameras(21, 2, (37, 21))
    assert_same_gradients(*both_gradients(cloud, cameras, RasterSettings(antialiased=antialiased), device))


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_beyond_the_field_of_view(device: str) -> None:
    """Large Gaussians centred outside the image: the Jacobian's clamp is at work."""
    cloud = random_gaussians(22, 80, 1, "huge")
    cloud = replace(cloud, means=cloud.means * torch.tensor([3.0, 1.0, 0.3]), opacities=0.3 * cloud.opacities)
    pose = look_at(torch.tensor([0.0, 0.0, 3.0]))[None]
    cameras = Cameras(pose, torch.tensor([[60.0, 60.0]]), torch.tensor([[18.0, 11.0]]), 37, 21)
    outside = reference.render(cloud, cameras, WHITE, CLASSIC)
    assert ((outside.radii > 0).all(dim=2) & ((outside.means2d[..., 0] - 18).abs() > 37)).sum() > 10
    assert_same_gradients(*both_gradients(cloud, cameras, CLASSIC, device))


@pytest.mark.parametrize("device", DEVICES)
def test_alpha_at_its_ceiling_has_no_gradient(device: str) -> None:
    """Where opacity exp(-sigma) passes 0.999 only the colour is differentiated."""
    cloud = Gaussians(
        torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, -0.3]]),
        torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.9, 0.1, 0.2, 0.3]]),
        torch.tensor([[8.0, 6.0, 0.1], [0.4, 0.3, 0.2]]),
        torch.tensor([1.0, 0.7]),
        0.3 * torch.ones(2, 1, 3),
    )
    cameras = Cameras(
        look_at(torch.tensor([0.0, 0.0, 1.5]))[None], torch.full((1, 2), 40.0), torch.tensor([[18.0, 10.0]]), 37, 21
    )
    clamped = (
        reference.render(replace(cloud, opacities=torch.tensor([1.0, 0.0])), cameras, WHITE, CLASSIC).alpha == 0.999
    )
    assert 0.1 < clamped.double().mean() < 0.9
    assert_same_gradients(*both_gradients(cloud, cameras, CLASSIC, device))


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
def test_near_and_far_planes_cull(antialiased: bool) -> None:
    cloud, cameras = random_gaussians(5, 200), random_cameras(5)
    chosen = RasterSettings(near_plane=1.2, far_plane=1.7, antialiased=antialiased)
    found, expected = rasterise(cloud, cameras, WHITE, chosen), reference.render(cloud, cameras, WHITE, chosen)
    assert_same_picture(found, expected)
    everything = rasterise(cloud, cameras, WHITE, RasterSettings(antialiased=antialiased))
    assert (everything.radii > 0).sum() > (found.radii > 0).sum()


def test_eps2d_widens_every_footprint() -> None:
    cloud, cameras = random_gaussians(6, 100), random_cameras(6)
    chosen = RasterSettings(eps2d=1.5)
    assert_same_picture(rasterise(cloud, cameras, WHITE, chosen), reference.render(cloud, cameras, WHITE, chosen))


def assert_alike(found: Tensor, expected: Tensor) -> None:
    """Of all channel values, thresholds included: 99.99 % within 1e-4, none beyond one step of 8 bits."""
    error = (found.cpu().double() - expected).abs()
    assert (error <= 1e-4).double().mean() >= 0.9999
    assert error.max() <= 1 / 255


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
def test_pictures_of_trained_gaussians_are_the_references(antialiased: bool, device: str) -> None:
    """Optimised Gaussians are not like random ones: thin, flat, on surfaces, many nearly opaque or empty."""
    trained = trained_gaussians().to(device)
    cameras, chosen = ring(4, 64), RasterSettings(antialiased=antialiased)
    found = rasterise(trained, cameras.to(device), WHITE.to(device), chosen)
    expected = reference.render(trained.to("cpu"), cameras, WHITE, chosen)
    assert expected.settled.double().mean() > 0.98
    assert_close("rgb", found.rgb, expected.rgb, expected.settled, 1e-5, step=1 / 255)
    assert_close("alpha", found.alpha, expected.alpha, expected.settled, 1e-5, step=1 / 255)


@pytest.mark.parametrize("device", DEVICES)
def test_pictures_of_random_gaussians_are_alike_everywhere(device: str) -> None:
    cloud, cameras = random_gaussians(12, 400, 3), random_cameras(12, 4, (64, 48))
    found = rasterise(cloud.to(device), cameras.to(device), WHITE.to(device))
    expected = reference.render(cloud, cameras, WHITE, CLASSIC)
    assert_alike(found.rgb, expected.rgb)
    assert_alike(found.alpha, expected.alpha)


@pytest.mark.parametrize("device", DEVICES)
def test_absolute_screen_gradients_are_sums_over_pixels(device: str) -> None:
    """Ye et al. 2024, AbsGS: what density control reads as ``means2d.absgrad``."""
    cloud, cameras = random_gaussians(24, 30, kind="opaque"), random_cameras(24, 2, (9, 7))
    exact = leaves(cloud, "cpu", torch.float64)
    truth = reference.render(exact, cameras, WHITE, CLASSIC)
    weights = torch.randn(truth.rgb.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pixels = ((truth.rgb * weights).sum(dim=3) * truth.settled).flatten()
    expected = sum(torch.autograd.grad(pixel, truth.means2d, retain_graph=True)[0].abs() for pixel in pixels)
    single = leaves(cloud, device, torch.float32)
    found = rasterise(single, cameras.to(device), WHITE.to(device), RasterSettings(absgrad=True))
    found.means2d.retain_grad()
    torch.autograd.backward((found.rgb * (weights * truth.settled[..., None]).to(found.rgb)).sum())
    absolute = found.means2d.absgrad.cpu().double()
    assert (absolute - expected).norm() <= 1e-3 * expected.norm()
    signed = found.means2d.grad.cpu().abs()
    assert (absolute >= signed * (1 - 1e-5) - 1e-7).all()
    assert absolute.sum() > 1.2 * signed.sum()


# --- the engine by itself -------------------------------------------------------------------------------------------


def smooth_scene() -> tuple[Gaussians, Cameras]:
    """Faint, wide Gaussians: no pixel of theirs is near a hard threshold, so differences are derivatives."""
    cloud = random_gaussians(31, 6, 1, "huge")
    cloud = replace(cloud, means=0.2 * cloud.means, opacities=torch.linspace(0.2, 0.4, 6), scales=0.5 + cloud.scales)
    return cloud, random_cameras(31, 2, (19, 13))


@pytest.mark.parametrize("field", FIELDS)
def test_gradients_are_finite_differences(field: str) -> None:
    cloud, cameras = smooth_scene()
    draw = torch.Generator().manual_seed(9)
    weights = torch.randn(2, 13, 19, 5, generator=draw).double()

    def loss(values: Gaussians) -> Tensor:
        picture = rasterise(values, cameras, random_background(31))
        return (torch.cat([picture.rgb, picture.alpha[..., None], picture.depth[..., None]], dim=3) * weights).sum()

    values = leaves(cloud, "cpu", torch.float32)
    torch.autograd.backward(loss(values))
    gradient = getattr(values, field).grad
    for _ in range(4):
        direction = torch.randn(gradient.shape, generator=draw)
        step = 3e-3 * direction / direction.norm()
        plus, minus = (loss(replace(cloud, **{field: getattr(cloud, field) + s * step})) for s in (1, -1))
        expected = float((gradient.double() * step).sum())
        scale = float(gradient.double().norm() * step.norm())
        assert float(plus - minus) / 2 == pytest.approx(expected, abs=0.01 * scale)


def picture_and_gradients() -> list[Tensor]:
    """Everything the engine computes for one scene with many tiles."""
    values = leaves(random_gaussians(41, 300, 2), "cpu", torch.float32)
    back = random_background(41).requires_grad_()
    picture = rasterise(values, random_cameras(41, 3, (70, 50)), back)
    found = gradients(picture, inputs_of(values, back), torch.ones(3, 50, 70))
    return [picture.rgb, picture.alpha, picture.depth, picture.means2d, picture.radii, *found.values()]


def test_runs_repeat_bit_for_bit() -> None:
    assert all(torch.equal(a, b) for a, b in zip(picture_and_gradients(), picture_and_gradients(), strict=True))


@pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2, reason="NUMBA_NUM_THREADS (or the machine) allows one thread only"
)
def test_threads_change_no_bit() -> None:
    before = numba.get_num_threads()
    runs = []
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            runs.append(picture_and_gradients())
    finally:
        numba.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_batch_of_cameras_is_its_cameras_one_by_one() -> None:
    cloud, cameras = random_gaussians(42, 120, 2), random_cameras(42, 3)
    together = rasterise(cloud, cameras, WHITE)
    for view in range(3):
        alone = rasterise(cloud, cameras[[view]], WHITE)
        for name in ("rgb", "alpha", "depth", "means2d", "radii"):
            assert torch.equal(getattr(together, name)[view], getattr(alone, name)[0]), name


def test_order_of_gaussians_is_irrelevant() -> None:
    cloud, cameras = random_gaussians(51, 200, 1), random_cameras(51)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = Gaussians(*(getattr(cloud, f)[order] for f in FIELDS))
    there, back = rasterise(cloud, cameras, WHITE), rasterise(shuffled, cameras, WHITE)
    assert torch.equal(there.rgb, back.rgb)
    assert torch.equal(there.radii[:, order], back.radii)


def test_equal_depths_keep_their_order() -> None:
    """Ties of depth are drawn by index: swapping two coplanar Gaussians swaps which one is in front."""
    camera = Cameras(torch.eye(4)[None], torch.tensor([[20.0, 20.0]]), torch.tensor([[8.0, 8.0]]), 16, 16)
    means = torch.tensor([[0.0, 0.0, 2.0]] * 2)
    sh = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2)
    pair = Gaussians(means, quats, torch.full((2, 3), 0.2), torch.full((2,), 0.9), sh)
    red_first = rasterise(pair, camera, WHITE).rgb[0, 8, 8]
    green_first = rasterise(replace(pair, sh=sh.flip(0)), camera, WHITE).rgb[0, 8, 8]
    assert red_first[0] > red_first[1]
    assert green_first[1] > green_first[0]


def test_moving_world_and_camera_together_changes_nothing() -> None:
    """A rigid motion of both (constant colours: harmonics would have to be rotated too)."""
    cloud, cameras = random_gaussians(61, 150), random_cameras(61)
    turn = torch.tensor([[0.8, 0.3, -0.4, 0.33]])
    turn = turn / turn.norm()
    rotation = reference.rotation_matrices(turn.double())[0]
    shift = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)
    w, v = turn[:, :1], turn[:, 1:]
    qw, qv = cloud.quats[:, :1], cloud.quats[:, 1:]
    quats = torch.cat([w * qw - qv @ v.T, w * qv + qw * v + torch.linalg.cross(v.expand_as(qv), qv)], dim=1)
    moved = replace(cloud, means=(cloud.means.double() @ rotation.T + shift).float(), quats=quats)
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = rotation, shift
    poses = (cameras.cam_from_world.double() @ torch.linalg.inv(motion)).float()
    before = rasterise(cloud, cameras, WHITE)
    after = rasterise(moved, replace(cameras, cam_from_world=poses), WHITE)
    settled = reference.render(cloud, cameras, WHITE, CLASSIC).settled
    assert_close("rgb", after.rgb, before.rgb.double(), settled, 1e-4)
    assert_close("alpha", after.alpha, before.alpha.double(), settled, 1e-4)
    assert_close("depth", after.depth, before.depth.double(), settled, 5e-4, math.inf)


def test_background_enters_linearly() -> None:
    cloud, cameras = random_gaussians(71, 100), random_cameras(71)
    one, two = random_background(71), random_background(72)
    on_black, on_one, on_two, on_mix = (
        rasterise(cloud, cameras, back) for back in (torch.zeros(3), one, two, 0.25 * one + 0.75 * two)
    )
    torch.testing.assert_close(on_mix.rgb, 0.25 * on_one.rgb + 0.75 * on_two.rgb, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(on_one.rgb, on_black.rgb + (1 - on_one.alpha[..., None]) * one, atol=1e-6, rtol=1e-6)
    assert torch.equal(on_one.alpha, on_two.alpha)
    assert torch.equal(on_one.depth, on_two.depth)


def test_alpha_is_a_fraction_and_depth_lies_among_the_gaussians() -> None:
    cloud, cameras = random_gaussians(81, 300), random_cameras(81, 2, (64, 48))
    found = rasterise(cloud, cameras, WHITE)
    assert 0 <= found.alpha.min() < found.alpha.max() <= 1
    assert (found.depth[found.alpha == 0] == 0).all()
    covered = found.depth[found.alpha > 0]
    z = (cloud.means @ cameras.cam_from_world[:, 2, :3].T + cameras.cam_from_world[:, 2, 3]).clamp_min(0.01)
    assert covered.min() >= z.min() * 0.999
    assert covered.max() <= z.max() * 1.001


# --- edges ----------------------------------------------------------------------------------------------------------


def nothing_seen(cloud: Gaussians) -> None:
    """Assert that the image is the background alone and every gradient but the background's is zero."""
    values, back = leaves(cloud, "cpu", torch.float32), random_background(0).requires_grad_()
    found = rasterise(values, random_cameras(0), back)
    assert torch.equal(found.rgb, back.expand_as(found.rgb))
    assert found.alpha.abs().max() == found.depth.abs().max() == 0
    assert found.means2d.shape == found.radii.shape == (2, len(cloud), 2)
    assert not found.radii.any()
    grads = gradients(found, inputs_of(values, back), torch.ones(2, 21, 37))
    assert grads.pop("background").abs().min() > 0
    for name, grad in grads.items():
        assert (grad == 0).all(), name


def test_no_gaussians_leave_the_background() -> None:
    nothing_seen(random_gaussians(0, 0))


def test_gaussians_behind_every_camera_leave_the_background() -> None:
    cloud = random_gaussians(0, 30)
    eyes = random_cameras(0).positions
    away = eyes.sum(dim=0) / eyes.sum(dim=0).norm() * 30
    assert (torch.einsum("vij,j->vi", random_cameras(0).cam_from_world[:, :3, :3], away)[:, 2] < -5).all()
    nothing_seen(replace(cloud, means=0.1 * cloud.means + away))


def test_zero_opacity_leaves_the_background() -> None:
    nothing_seen(replace(random_gaussians(0, 30), opacities=torch.zeros(30)))


def test_one_gaussian() -> None:
    cloud, cameras = (
        replace(random_gaussians(1, 1), means=torch.zeros(1, 3), opacities=torch.tensor([0.8])),
        random_cameras(1),
    )
    found = rasterise(cloud, cameras, WHITE)
    assert found.alpha.max() > 0.1
    assert_same_picture(found, reference.render(cloud, cameras, WHITE, CLASSIC))


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
def test_zero_scales_are_points_of_the_blur(antialiased: bool) -> None:
    """Classic draws the 0.3 px blur; antialiased gives a point no weight. Neither makes a NaN."""
    cloud = replace(random_gaussians(2, 40), scales=torch.zeros(40, 3))
    cameras, chosen = random_cameras(2), RasterSettings(antialiased=antialiased)
    values, back = leaves(cloud, "cpu", torch.float32), WHITE.clone().requires_grad_()
    found = rasterise(values, cameras, back, chosen)
    assert_same_picture(found, reference.render(cloud, cameras, WHITE, chosen))
    assert (found.alpha.max() > 0.1) != antialiased
    assert all(
        grad.isfinite().all() for grad in gradients(found, inputs_of(values, back), torch.ones(2, 21, 37)).values()
    )


def test_a_million_gaussians_of_which_few_are_seen() -> None:
    few = random_gaussians(4, 200)
    places = torch.randperm(1_000_000, generator=torch.Generator().manual_seed(0))[:200].sort().values
    many = replace(random_gaussians(5, 1_000_000), opacities=torch.zeros(1_000_000))
    for field in FIELDS:
        getattr(many, field)[places] = getattr(few, field)
    cameras = random_cameras(4, 1, (64, 48))
    assert torch.equal(rasterise(many, cameras, WHITE).rgb, rasterise(few, cameras, WHITE).rgb)


def test_a_million_overlapping_gaussians_fit_into_bounded_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one covers the whole image: lists are made for a few tiles at a time."""
    held = []
    blend = compositor.composite_forward

    def watch(first: int, starts: Any, entries: Any, *rest: Any) -> None:
        held.append(len(entries))
        blend(first, starts, entries, *rest)

    monkeypatch.setattr(compositor, "composite_forward", watch)
    cloud = replace(random_gaussians(6, 1_000_000), scales=torch.full((1_000_000, 3), 3.0))
    cloud = replace(cloud, opacities=0.02 + 0.02 * cloud.opacities, means=0.1 * cloud.means)
    found = rasterise(cloud, random_cameras(6, 1, (48, 40)), WHITE)
    assert sum(held) > 8_000_000
    assert max(held) <= blending.MAX_ENTRIES
    assert found.alpha.min() > 0.999


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_arguments_are_named(field: str, value: float) -> None:
    cloud = random_gaussians(3, 5)
    getattr(cloud, field).view(-1)[-1] = value
    with pytest.raises(NonFiniteError, match=field):
        rasterise(cloud, random_cameras(3), WHITE)


def test_nonfinite_background_is_named() -> None:
    with pytest.raises(NonFiniteError, match="background"):
        rasterise(random_gaussians(3, 5), random_cameras(3), torch.tensor([0.0, math.nan, 0.0]))


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("means", (5, 2)),
        ("quats", (5, 3)),
        ("scales", (4, 3)),
        ("opacities", (5, 1)),
        ("sh", (5, 5, 3)),
        ("sh", (5, 3)),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_named(field: str, shape: tuple[int, ...]) -> None:
    cloud = replace(random_gaussians(3, 5), **{field: torch.rand(shape)})
    with pytest.raises(ShapeError, match=field):
        rasterise(cloud, random_cameras(3), WHITE)


@pytest.mark.usefixtures("unchecked")
def test_wrong_background_is_named() -> None:
    with pytest.raises(ShapeError, match="background"):
        rasterise(random_gaussians(3, 5), random_cameras(3), torch.rand(4))


def test_probes_of_the_engine_hold_the_references_gradients() -> None:
    """Their goldens are what was measured; this says that it is right, for the crowd that finite differences forgo."""
    crowd, cameras, ground = stage.crowd(), stage.crowd_cameras(), stage.background().double().requires_grad_()
    values = leaves(crowd, "cpu", torch.float64)
    images = [reference.render(values, cameras[[view]], ground, CLASSIC) for view in range(len(cameras))]
    names = [field.name for field in dataclass_fields(Raster)]
    together = Raster(*(torch.cat([getattr(image, name) for image in images]) for name in names))
    rendering.weighted_sum(together).backward()
    found = rendering.backward("cpu")
    for name in (*FIELDS, "background"):
        gradient = (ground if name == "background" else getattr(values, name)).grad
        for number, (expected,) in stage.vector(f"gradient-{name}", gradient).items():
            assert found[number][0] == pytest.approx(expected, abs=PROBES[number].floor), number
