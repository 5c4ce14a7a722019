"""The visual hull bounds the true surface, and the hull head bounds its splats by the hull."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from evalsuite.core.conventions import rgb_from_sh0
from evalsuite.core.errors import MissingDataError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG
from evalsuite.core.types import Cameras, Views
from evalsuite.models.lgm import inputs
from evalsuite.models.lgm.config import CUE_FRACTIONS, LGMConfig
from evalsuite.models.lgm.hull import REACH, STEPS
from evalsuite.models.lgm.inputs import assemble, cameras_in_frame, lgm_frame, plucker, predict, silhouettes
from evalsuite.models.lgm.network import LGM
from evalsuite.scenes.rig import orbit_cameras

SIZE = 64
CONFIG = LGMConfig(
    "toy", SIZE, (32, 32), (False, True), True, (32, 32), (True, False), "hull", layers=1, heads=2, stem="hull"
)
STEP = 2 * REACH / STEPS
PIXEL = 2 * math.tan(math.radians(FOV_Y_DEG) / 2) * CAMERA_RADIUS / SIZE
"""Width of a pixel at the object's distance: finer than this no silhouette says where a hull begins."""

Ball = tuple[tuple[float, float, float], float]


def posed(size: int = SIZE) -> Cameras:
    """The study's input cameras in LGM's frame."""
    cameras = orbit_cameras(
        torch.arange(4) * 90.0, torch.full((4,), 20.0), radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=size
    )
    return cameras_in_frame(cameras, lgm_frame(cameras))


def first_hit(balls: list[Ball], rays: torch.Tensor) -> torch.Tensor:
    """Signed distance, from the ray's point nearest to the origin, of the first ball; NaN where there is none."""
    moment, direction = rays[:, :3].movedim(1, -1), rays[:, 3:].movedim(1, -1)
    nearest = torch.linalg.cross(direction, moment)
    hits = []
    for middle, radius in balls:
        offset = torch.tensor(middle) - nearest
        along = (offset * direction).sum(-1)
        inside = radius**2 - (offset.square().sum(-1) - along**2)
        hits.append(torch.where(inside > 0, along - inside.clamp(min=0).sqrt(), torch.inf))
    hit: torch.Tensor = torch.stack(hits).amin(0)
    return torch.where(hit.isfinite(), hit, torch.nan)


def input_of(balls: list[Ball], images: torch.Tensor | None = None) -> torch.Tensor:
    """Hull input of grey balls (or of other images) with exact silhouettes."""
    alpha = first_hit(balls, plucker(posed(), SIZE)).isfinite().float()
    images = 1 - 0.5 * alpha[..., None].expand(-1, -1, -1, 3) if images is None else images
    return assemble(CONFIG, images, alpha, posed())


BALLS = st.lists(st.tuples(st.tuples(*[st.floats(-0.25, 0.25)] * 3), st.floats(0.1, 0.3)), min_size=1, max_size=3)


def test_a_cells_ray_goes_through_what_it_covers() -> None:
    rows, columns = torch.arange(0, SIZE, 2), torch.arange(1, SIZE, 2)  # the upper right pixel of every cell
    alpha = torch.zeros(4, SIZE, SIZE)
    alpha[:, rows[:, None], columns] = 1.0
    rays = assemble(CONFIG, torch.ones(4, SIZE, SIZE, 3), alpha, posed())[:, 3:9]
    exact = plucker(posed(), SIZE)[:, :, rows[:, None], columns]
    middle = F.avg_pool2d(plucker(posed(), SIZE), 2)
    assert float((rays - exact).abs().max()) < 0.01 * float((middle - exact).abs().max())


@given(balls=BALLS)
@settings(max_examples=15, deadline=None)
def test_the_surface_lies_between_entry_and_exit(balls: list[Ball]) -> None:
    x = input_of(balls)
    truth = first_hit(balls, x[:, 3:9])
    # a cell that is fully covered: its middle ray meets the object, not only one of its corners
    sure = (x[:, 9] == 1) & truth.isfinite()
    assert sure.any()
    enter, leave = x[:, 10][sure], x[:, 11][sure]
    grazing = 0.06  # a silhouette is cut at pixels: rays that touch it may miss the rim of another
    assert bool((enter <= truth[sure] + STEP + grazing).all())
    assert bool((truth[sure] <= leave + STEP).all())
    # found to half a step, between silhouettes that are known to a pixel
    assert float((enter > truth[sure] + STEP / 2 + PIXEL).float().mean()) < 0.02


def test_the_hull_of_a_ball_is_a_little_larger_than_the_ball() -> None:
    x = input_of([((0.0, 0.0, 0.0), 0.4)])
    enter, leave = x[:, 10, 15:17, 15:17], x[:, 11, 15:17, 15:17]
    assert float(enter.max()) <= -0.4 + STEP
    assert float(leave.min()) >= 0.4 - STEP
    assert float(enter.min()) > -0.4 * 2**0.5 - STEP


def test_a_part_between_two_samples_still_has_an_interval() -> None:
    x = input_of([((0.0, 0.0, 0.0), 0.02), ((0.3, 0.2, 0.1), 0.02)])
    covered = x[:, 9] > 0.1
    assert covered.any()
    assert bool((x[:, 11][covered] > x[:, 10][covered]).all())


def test_cues_tell_what_the_other_views_see() -> None:
    colours = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.5, 0.4], [0.6, 0.1, 0.8], [0.2, 0.7, 0.6]])
    x = input_of([((0.0, 0.0, 0.0), 0.4)], colours[:, None, None].expand(4, SIZE, SIZE, 3))
    cues = x[:, 28:, 16, 16].view(4, len(CUE_FRACTIONS), 3, 4)
    for view in range(4):
        for turn in range(3):
            expected = colours[(view + turn + 1) % 4] - colours[view]
            torch.testing.assert_close(cues[view, :, turn, :3], expected.expand(len(CUE_FRACTIONS), 3))
    # the opposite view has the front surface behind its own, the hull's whole depth away
    length = x[0, 11, 16, 16] - x[0, 10, 16, 16]
    assert 0.5 * length < cues[0, 0, 1, 3] < length + 2 * STEP


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return input_of([((0.0, 0.1, 0.0), 0.3), ((0.2, 0.0, -0.1), 0.2)])


@given(seed=st.integers(0, 1000), strength=st.sampled_from([0.1, 3.0, 100.0]))
@settings(max_examples=20, deadline=None)
def test_splats_stay_in_the_hull(x: torch.Tensor, seed: int, strength: float) -> None:
    raw = strength * torch.randn(1, CONFIG.splats, 14, generator=torch.Generator().manual_seed(seed))
    raw[..., :2] = 0  # no shift to the side
    splats = LGM(CONFIG).to_gaussians(raw, x[None])[0]
    moment, direction = (p.permute(0, 2, 3, 1).reshape(-1, 3) for p in (x[:, 3:6], x[:, 6:9]))
    offset = splats.means - torch.linalg.cross(direction, moment)
    along = (offset * direction).sum(-1)
    torch.testing.assert_close(offset, along[:, None] * direction, atol=1e-5, rtol=0)
    hit = x[:, 9].flatten() > 0.1
    assert bool((along >= x[:, 10].flatten() - 1e-5)[hit].all())
    assert bool((along <= x[:, 11].flatten() + 1e-5)[hit].all())
    assert bool((splats.opacities[~hit] == 0).all())
    assert bool((splats.opacities <= x[:, 9].flatten()).all())


def test_the_core_stays_in_the_hull_too(x: torch.Tensor) -> None:
    config = replace(CONFIG, core=True)
    assert config.splats == 4 * (32**2 + 16**2)
    raw = 3 * torch.randn(1, config.splats, 14, generator=torch.Generator().manual_seed(0))
    raw[..., :2] = 0
    splats = LGM(config).to_gaussians(raw, x[None])[0]
    covered = F.max_pool2d(x[:, 9:10], 2).flatten() > 0
    enter = -F.max_pool2d(-x[:, 10], 2).flatten()
    leave = F.max_pool2d(x[:, 11], 2).flatten()
    core = slice(4 * 32**2, None)
    means, opacities = splats.means[core], splats.opacities[core]
    assert bool((opacities[~covered] == 0).all())
    # distance from the origin's nearest point, along the ray through what the four cells cover
    mean_ray = F.avg_pool2d(x[:, 6:9] * (x[:, 9:10] + 1e-3), 2)
    direction = F.normalize(mean_ray.permute(0, 2, 3, 1).reshape(-1, 3), dim=1)
    along = (means * direction).sum(-1)[opacities > 0]
    assert bool((along >= enter[opacities > 0] - 1e-3).all())
    assert bool((along <= leave[opacities > 0] + 1e-3).all())
    # coarser splats, as far apart as they are large
    assert float(splats.scales[core].mean() / splats.scales[: 4 * 32**2].mean()) == pytest.approx(2, rel=0.1)


def test_every_splat_of_a_cell_stays_in_the_hull_below_the_ceiling(x: torch.Tensor) -> None:
    config = replace(CONFIG, core=True, splats_per_cell=3, opacity_ceiling=0.4)
    cells = 4 * 32**2
    assert config.splats == 3 * cells + 4 * 16**2
    raw = 10 * torch.randn(1, config.splats, 14, generator=torch.Generator().manual_seed(0))
    raw[..., :2] = 0
    splats = LGM(config).to_gaussians(raw, x[None])[0]
    hit = x[:, 9].flatten() > 0.1
    moment, direction = (p.permute(0, 2, 3, 1).reshape(-1, 3) for p in (x[:, 3:6], x[:, 6:9]))
    for layer in splats.means[: 3 * cells].split(cells):
        along = ((layer - torch.linalg.cross(direction, moment)) * direction).sum(-1)
        assert bool((along >= x[:, 10].flatten() - 1e-5)[hit].all())
        assert bool((along <= x[:, 11].flatten() + 1e-5)[hit].all())
    assert float(splats.opacities.max()) == pytest.approx(0.4, rel=1e-3)


def test_untrained_splats_of_a_cell_stand_behind_each_other(x: torch.Tensor) -> None:
    model = LGM(replace(CONFIG, core=True, splats_per_cell=3))
    model.start_on_rays()
    with torch.no_grad():
        model.conv.weight.zero_()
        means = model.to_gaussians(model(x[None]), x[None])[0].means
    moment, direction = (p.permute(0, 2, 3, 1).reshape(-1, 3) for p in (x[:, 3:6], x[:, 6:9]))
    enter, leave = x[:, 10].flatten(), x[:, 11].flatten()
    deep = leave - enter > 4 * STEP
    for number, layer in enumerate(means[: 3 * 4 * 32**2].split(4 * 32**2)):
        along = ((layer - torch.linalg.cross(direction, moment)) * direction).sum(-1)
        share = ((along - enter) / (leave - enter))[deep]
        torch.testing.assert_close(share, torch.full_like(share, 0.1 + 0.2 * number), atol=1e-4, rtol=0)


def test_core_channels_are_means_of_four_pixels(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = LGM(replace(CONFIG, core=True)).eval()
    with torch.no_grad():
        model.conv.weight[14:].zero_()
        assert model.conv.bias is not None
        model.conv.bias[14:] = torch.arange(14.0)
        core = model(x[None])[0, 4 * 32**2 :]
    torch.testing.assert_close(core, torch.arange(14.0).expand(4 * 16**2, 14))


def test_no_more_splats_are_handed_out_than_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_SPLATS", 50)
    cameras = orbit_cameras(
        torch.arange(4) * 90.0, torch.full((4,), 20.0), radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=SIZE
    )
    views = Views(torch.rand(4, SIZE, SIZE, 3), torch.ones(4, SIZE, SIZE), cameras)
    torch.manual_seed(0)
    model = LGM(CONFIG).eval()
    kept = predict(model, views, torch.ones(3))
    monkeypatch.setattr(inputs, "MAX_SPLATS", 10**6)
    assert len(kept) == 50
    assert float(kept.opacities.min()) == float(predict(model, views, torch.ones(3)).opacities.sort().values[-50])


@pytest.mark.parametrize("strength", [1.0, 1e4])
def test_gradients_are_finite(x: torch.Tensor, strength: float) -> None:
    raw = (strength * torch.randn(1, CONFIG.splats, 14, generator=torch.Generator().manual_seed(0))).requires_grad_()
    splats = LGM(CONFIG).to_gaussians(raw, x[None])[0]
    sum(part.square().sum() for part in (splats.means, splats.scales, splats.opacities, splats.sh)).backward()  # type: ignore[union-attr]
    assert raw.grad is not None
    assert bool(raw.grad.isfinite().all())


def test_samples_of_a_batch_do_not_meet(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = LGM(CONFIG).eval()
    pair = torch.stack([x, input_of([((0.1, -0.1, 0.1), 0.25)])])
    with torch.no_grad():
        forth, back = (model.to_gaussians(model(p), p) for p in (pair, pair.flip(0)))
    for one, other in zip(forth, reversed(back), strict=True):
        torch.testing.assert_close(one.means, other.means, atol=1e-5, rtol=1e-4)


def test_an_untrained_head_paints_the_silhouettes(x: torch.Tensor) -> None:
    model = LGM(CONFIG)
    model.start_on_rays()
    with torch.no_grad():
        model.conv.weight.zero_()
        splats = model.to_gaussians(model(x[None]), x[None])[0]
    solid = x[:, 9].flatten() == 1
    torch.testing.assert_close(
        rgb_from_sh0(splats.sh[solid, 0]), torch.full((int(solid.sum()), 3), 0.5), atol=1e-3, rtol=0
    )
    assert float(splats.opacities[solid].min()) > 0.9


def test_photographs_are_covered_where_they_show_anything() -> None:
    narrow = orbit_cameras(
        torch.arange(4) * 90.0, torch.full((4,), 20.0), radius=CAMERA_RADIUS, fov_y_deg=30.0, resolution=SIZE
    )
    covered = silhouettes(Views(torch.rand(4, SIZE, SIZE, 3), None, narrow), SIZE)
    assert covered[:, SIZE // 2, SIZE // 2].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert float(covered[:, 0, 0].max()) == 0.0
    torch.manual_seed(0)
    splats = predict(
        LGM(CONFIG).eval(), Views(torch.rand(4, SIZE, SIZE, 3), None, narrow), torch.ones(3), photographs=True
    )
    assert 0 < len(splats) < CONFIG.splats


def test_prediction_drops_what_nobody_sees_and_refuses_the_invisible() -> None:
    cameras = orbit_cameras(
        torch.arange(4) * 90.0, torch.full((4,), 20.0), radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=SIZE
    )
    alpha = F.pad(torch.ones(4, 20, 20), (22, 22, 22, 22))
    views = Views(torch.rand(4, SIZE, SIZE, 3), alpha, cameras)
    torch.manual_seed(0)
    splats = predict(LGM(CONFIG).eval(), views, torch.ones(3))
    assert len(splats) == 4 * 10 * 10
    assert float(splats.opacities.min()) >= 1 / 255
    with pytest.raises(MissingDataError, match=r"nowhere above 0\.5"):
        predict(LGM(CONFIG).eval(), replace(views, alpha=torch.zeros_like(alpha)), torch.ones(3))
