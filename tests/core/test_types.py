"""What the values that travel between stages promise."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from evalsuite.core.conventions import look_at, orbit_position
from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.types import Cameras, Evidence, Gaussians, Points, Scene, Views

EYES = torch.stack([orbit_position(a, e, 1.5) for a, e in ((0.0, 10.0), (100.0, -20.0), (250.0, 60.0))])


def cameras(count: int = 3, width: int = 6, height: int = 4) -> Cameras:
    return Cameras(
        cam_from_world=torch.stack([look_at(eye) for eye in EYES[:count]]),
        focal_px=torch.arange(2.0 * count).reshape(count, 2) + 5,
        centre_px=torch.tensor([[width / 2, height / 2]]).repeat(count, 1),
        width=width,
        height=height,
    )


def views(count: int = 3, alpha: bool = True) -> Views:
    draw = torch.Generator().manual_seed(0)
    cover = torch.rand(count, 4, 6, generator=draw) if alpha else None
    return Views(torch.rand(count, 4, 6, 3, generator=draw), cover, cameras(count))


def gaussians(coefficients: int = 1) -> Gaussians:
    return Gaussians(
        torch.zeros(5, 3), torch.ones(5, 4), torch.ones(5, 3), torch.ones(5), torch.zeros(5, coefficients, 3)
    )


def test_positions_invert_the_poses() -> None:
    torch.testing.assert_close(cameras().positions, EYES, atol=1e-5, rtol=0)


def test_intrinsics() -> None:
    k = cameras().intrinsics
    expected = torch.tensor([[7.0, 0.0, 3.0], [0.0, 8.0, 2.0], [0.0, 0.0, 1.0]])
    assert torch.equal(k[1], expected)
    assert k.shape == (3, 3, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_pose_that_is_no_number_is_refused(bad: float) -> None:
    poses = cameras().cam_from_world.clone()
    poses[1, 0, 3] = bad
    with pytest.raises(NonFiniteError, match="cam_from_world") as caught:
        dataclasses.replace(cameras(), cam_from_world=poses)
    assert caught.value.status == "nonfinite"


@pytest.mark.parametrize(
    "index",
    [[2, 0], (2, 0), torch.tensor([2, 0])],
    ids=["list", "tuple", "tensor"],
)
def test_a_subset_of_cameras(index: list[int] | Tensor) -> None:
    chosen = cameras()[index]
    assert len(chosen) == 2
    torch.testing.assert_close(chosen.positions, EYES[[2, 0]], atol=1e-5, rtol=0)
    assert torch.equal(chosen.focal_px, cameras().focal_px[[2, 0]])
    assert (chosen.width, chosen.height) == (6, 4)


def test_a_subset_keeps_the_leading_axis() -> None:
    assert cameras()[[1]].cam_from_world.shape == (1, 4, 4)
    assert views()[1:2].rgb.shape == (1, 4, 6, 3)
    assert len(views()[[]]) == 0


def test_a_subset_of_views_keeps_image_and_camera_together() -> None:
    whole, part = views(), views()[[2, 0]]
    assert part.alpha is not None
    assert whole.alpha is not None
    assert torch.equal(part.rgb, whole.rgb[[2, 0]])
    assert torch.equal(part.alpha, whole.alpha[[2, 0]])
    torch.testing.assert_close(part.cameras.positions, EYES[[2, 0]], atol=1e-5, rtol=0)
    assert views(alpha=False)[:1].alpha is None


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (3, 6, 4, 3), (3, 4, 5, 3)], ids=["count", "swapped", "width"])
def test_images_that_do_not_fit_their_cameras_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected the same"):
        Views(torch.zeros(shape), None, cameras())


def test_over_is_the_compositing_law() -> None:
    shot, background = views(), torch.tensor([0.2, 0.5, 1.0])
    assert shot.alpha is not None
    for v, y, x in ((0, 0, 0), (1, 2, 3), (2, 3, 5)):
        a = shot.alpha[v, y, x]
        torch.testing.assert_close(shot.over(background)[v, y, x], a * shot.rgb[v, y, x] + (1 - a) * background)
    opaque = dataclasses.replace(shot, alpha=torch.ones(3, 4, 6))
    assert torch.equal(opaque.over(background), shot.rgb)
    empty = dataclasses.replace(shot, alpha=torch.zeros(3, 4, 6))
    assert torch.equal(empty.over(background), background.expand(3, 4, 6, 3))


def test_photographs_have_no_background() -> None:
    shot = views(alpha=False)
    assert torch.equal(shot.over(torch.tensor([0.2, 0.5, 1.0])), shot.rgb)


@pytest.mark.parametrize(("coefficients", "degree"), [(1, 0), (4, 1), (9, 2), (16, 3)])
def test_degree_of_harmonics(coefficients: int, degree: int) -> None:
    assert gaussians(coefficients).sh_degree == degree


def test_detached_gaussians_have_memory_of_their_own() -> None:
    source = gaussians()
    source.means.requires_grad_()
    copy = source.detach()
    assert not copy.means.requires_grad
    with torch.no_grad():
        source.means.add_(1)
        source.sh.add_(1)
    assert not copy.means.any()
    assert not copy.sh.any()
    assert len(copy) == 5


def test_moving_devices_keeps_every_field() -> None:
    assert gaussians().to("meta").sh.device.type == "meta"
    moved = cameras().to("cpu")
    assert torch.equal(moved.cam_from_world, cameras().cam_from_world)
    assert torch.equal(moved.centre_px, cameras().centre_px)


def scene() -> Scene:
    whole = views()
    return Scene(
        id="test.ball",
        stratum="organic",
        inputs=whole[:1],
        capture=whole[:2],
        heldout=whole[2:],
        centre=torch.zeros(3),
        radius=0.6,
        background=torch.ones(3),
        points=Points(torch.zeros(7, 3), torch.zeros(7, 3)),
    )


def test_the_budget_says_what_supervises() -> None:
    capture, inputs = scene().evidence("capture"), scene().evidence("inputs")
    assert (len(capture.supervision), len(inputs.supervision)) == (2, 1)
    assert torch.equal(inputs.supervision.rgb, scene().inputs.rgb)
    assert torch.equal(capture.inputs.rgb, inputs.inputs.rgb)
    assert capture.points is not None
    assert len(capture.points) == 7
    assert inputs.points is None, "the publisher's points come from all training views"


@pytest.mark.parametrize("budget", ["capture", "inputs"])
def test_evidence_has_no_way_to_a_heldout_view(budget: str) -> None:
    evidence = scene().evidence(budget)  # type: ignore[arg-type]
    secret = scene().heldout.rgb
    fields = [getattr(evidence, field.name) for field in dataclasses.fields(Evidence)]
    images = [value.rgb for value in fields if isinstance(value, Views)]
    assert len(images) == 2
    assert not any(torch.equal(view, secret[0]) for stack in images for view in stack)
    assert not any(isinstance(value, Scene) for value in fields)
