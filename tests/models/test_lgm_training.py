"""The trainer: items agree with the object, a run learns, and one that is killed goes on bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from evalsuite.core.conventions import sh0_from_rgb
from evalsuite.core.errors import BadDataError, MissingDataError, NonFiniteError, OptionError
from evalsuite.core.types import Gaussians
from evalsuite.execution.local import fix_threads
from evalsuite.models.lgm import training
from evalsuite.models.lgm.config import INPUT_VIEWS, TRAINABLE, LGMConfig
from evalsuite.models.lgm.curves import plot_curves, read_log
from evalsuite.models.lgm.dataset import (
    FREE_VIEWS,
    RINGS,
    ObjectViews,
    augmented,
    build_cache,
    draw_item,
    images_over_white,
    load_object,
    make_item,
    training_cameras,
)
from evalsuite.models.lgm.training import TrainSettings, item_loss, learning_rate, save, score, start, step, train
from evalsuite.splats.rasterise import rasterise

TOY = LGMConfig(
    "toy", 32, (32, 32), (False, True), True, (32, 32), (True, False), "hull", layers=1, heads=2, stem="hull", core=True
)
SETTINGS = TrainSettings(model="toy", steps=100, batch=2, warm_up=0, checkpoint_every=2)
FLIP = torch.tensor([1.0, -1.0, -1.0])


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINABLE._items, "toy", TOY)


def blob() -> Gaussians:
    """A lopsided, coloured object that no mirror image or turn maps onto itself."""
    rng = torch.Generator().manual_seed(3)
    means = torch.randn(60, 3, generator=rng) * torch.tensor([0.2, 0.1, 0.15]) + torch.tensor([0.1, 0.05, 0.0])
    return Gaussians(
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).expand(60, 4).contiguous(),
        scales=torch.full((60, 3), 0.05),
        opacities=torch.full((60,), 0.95),
        sh=sh0_from_rgb(torch.rand(60, 3, generator=rng))[:, None],
    )


def toy_object(gaussians: Gaussians, resolution: int = 32) -> ObjectViews:
    """Views of Gaussians, in the layout of the cache but smaller."""
    cameras = training_cameras(0, resolution)
    raster = rasterise(gaussians, cameras, torch.zeros(3))
    straight = (raster.rgb / raster.alpha.clamp(min=1e-6)[..., None]).clamp(0, 1)
    rgba = torch.cat([straight, raster.alpha[..., None]], dim=-1)
    depth = torch.where(raster.alpha > 0.5, raster.depth, 0.0)[: RINGS * INPUT_VIEWS]
    return ObjectViews("toy", (rgba * 255).round().to(torch.uint8), depth, cameras)


def in_lgm_frame(gaussians: Gaussians, views: ObjectViews, first: int) -> Gaussians:
    """Round Gaussians in the frame of one view, from the frame's definition."""
    pose = views.cameras.cam_from_world[first]
    means = (gaussians.means @ pose[:3, :3].T + pose[:3, 3]) * FLIP + torch.tensor([0.0, 0.0, 1.5])
    return replace(gaussians, means=means)


def test_cameras_of_an_object() -> None:
    cameras = training_cameras(7)
    assert len(cameras) == RINGS * INPUT_VIEWS + FREE_VIEWS
    torch.testing.assert_close(cameras.positions.norm(dim=1), torch.full((len(cameras),), 1.5))
    assert cameras.positions[:4, 1].tolist() == pytest.approx([1.5 * np.sin(np.radians(20))] * 4, abs=1e-5)
    torch.testing.assert_close(cameras.positions[0] * torch.tensor([-1, 1, -1]), cameras.positions[2])
    assert not torch.equal(training_cameras(8).positions[4], cameras.positions[4])


def test_target_cameras_see_the_object_in_the_networks_frame() -> None:
    """Truth rendered in the world equals the object, moved into LGM's frame, seen by the item's cameras."""
    views, size = toy_object(blob()), 32
    item = make_item(views, [1, 2, 3, 0], [0, 5, 14], TOY, size)
    raster = rasterise(in_lgm_frame(blob(), views, 1), item.target.cameras, torch.ones(3))
    torch.testing.assert_close(raster.rgb, item.target.rgb, atol=0.01, rtol=0)
    assert item.target.alpha is not None
    torch.testing.assert_close(raster.alpha, item.target.alpha, atol=0.01, rtol=0)


def test_surface_points_project_into_their_own_cells_at_the_true_depth() -> None:
    views = toy_object(blob())
    item = make_item(views, [1, 2, 3, 0], [1, 2, 3, 0], TOY, TOY.splat_size)
    cameras, size = item.target.cameras, TOY.splat_size
    local = (
        torch.einsum("vij,vnj->vni", cameras.cam_from_world[:, :3, :3], item.surface.view(4, -1, 3))
        + cameras.cam_from_world[:, None, :3, 3]
    )
    pixel = local[..., :2] / local[..., 2:] * cameras.focal_px[:, None] + cameras.centre_px[:, None]
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = torch.stack([column, row], dim=-1).reshape(-1, 2) + 0.5
    seen = item.seen.view(4, -1) == 1
    assert int(seen.sum()) > 20
    torch.testing.assert_close(pixel[seen], middle.expand(4, -1, 2)[seen], atol=1e-3, rtol=0)
    depth = views.depth[[1, 2, 3, 0]].view(4, size, 2, size, 2).mean((2, 4)).view(4, -1)
    torch.testing.assert_close(local[..., 2][seen], depth[seen], atol=1e-4, rtol=0)


def test_mirrored_object_is_consistent() -> None:
    """Images, depths and cameras are mirrored together: they match the mirrored object."""
    views = toy_object(blob())
    rng = np.random.default_rng(0)
    several = (augmented(views, rng) for _ in range(50))
    mirrored = next(m for m in several if not torch.equal(m.rgba[..., 3], views.rgba[..., 3]))
    raster = rasterise(
        replace(blob(), means=blob().means * torch.tensor([-1.0, 1.0, 1.0])), mirrored.cameras, torch.ones(3)
    )
    torch.testing.assert_close(raster.alpha, mirrored.rgba[..., 3].float() / 255, atol=0.01, rtol=0)
    rings = raster.depth[: RINGS * INPUT_VIEWS]
    covered = (raster.alpha[: RINGS * INPUT_VIEWS] > 0.6) & (mirrored.depth > 0)
    torch.testing.assert_close(rings[covered], mirrored.depth[covered], atol=0.01, rtol=0)


def test_images_over_white_averages_premultiplied_colour() -> None:
    rgba = torch.tensor([[[255, 0, 0, 255], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], dtype=torch.uint8)
    rgb, alpha = images_over_white(rgba[None], 1)
    assert rgb.flatten().tolist() == [1.0, 0.75, 0.75]
    assert alpha.item() == 0.25


def test_items_are_drawn_from_the_generator() -> None:
    views = toy_object(blob(), 128)
    first, second, third = (draw_item(views, TOY, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, third.x)


def test_an_item_is_supervised_by_one_input_and_five_other_views() -> None:
    views = toy_object(blob(), 128)
    for seed in range(20):
        item = draw_item(views, TOY, np.random.default_rng(seed))
        assert len(item.target) == 6
        forward = F.normalize(item.x[:, 6:9].mean((2, 3)), dim=1)
        same = -F.normalize(item.target.cameras.positions, dim=1) @ forward.T > 0.9999
        assert bool(same.any())


def test_loss_is_zero_only_for_the_truth() -> None:
    views = toy_object(blob())
    item = make_item(views, range(4), [12, 13], TOY, 32)
    truth = in_lgm_frame(blob(), views, 0)
    # as many surface points as there are splats
    item = replace(item, surface=truth.means, seen=torch.ones(len(truth)))
    losses = [
        float(item_loss(replace(truth, means=truth.means + shift), item, SETTINGS)["total"])
        for shift in (0.0, 0.02, 0.1)
    ]
    assert losses[0] < 1e-3
    assert losses[0] < losses[1] < losses[2]


def test_learning_rate_warms_up_and_decays() -> None:
    settings = TrainSettings(steps=1000, warm_up=100, learning_rate=1.0)
    rates = [learning_rate(settings, steps) for steps in (0, 49, 99, 550, 1000, 1500)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.5, 0.0, 0.0])


def test_training_learns_one_object(tmp_path: Path) -> None:
    views = toy_object(blob(), 128)
    run = start(SETTINGS, tmp_path)
    before = score(run.model, [views])
    losses = [step(run, [views])["total"] for _ in range(25)]
    after = score(run.model, [views])
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert after["psnr_fg_db"] > before["psnr_fg_db"] + 1
    assert run.done.skipped == 0
    assert run.done.samples == 50


def test_score_of_the_truth_is_perfect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    views = toy_object(blob(), 128)
    model = start(SETTINGS, tmp_path).model
    monkeypatch.setattr(model, "to_gaussians", lambda raw, x: [in_lgm_frame(blob(), views, 0)])
    result = score(model, [views])
    assert result["psnr_fg_db"] > 40
    assert result["alpha_iou"] > 0.99


def test_scans_and_procedural_objects_are_drawn_equally_often() -> None:
    views = toy_object(blob())
    objects = [replace(views, name=name) for name in ("mug", "random-4", "random-5", "random-6")]
    rng = np.random.default_rng(0)
    drawn = [training._draw_object(objects, rng).name for _ in range(300)]
    assert 120 < drawn.count("mug") < 180
    assert {training._draw_object(objects[:1], rng).name for _ in range(9)} == {"mug"}


def _train_and_die(out: Path, threads: int) -> None:
    """Train, and be killed in the middle of the fourth step: after the checkpoint of the second."""
    fix_threads(threads)
    TRAINABLE._items["toy"] = TOY
    real, calls = training.item_loss, []

    def deadly(*arguments: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 3 * SETTINGS.batch + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)  # type: ignore[arg-type]

    training.item_loss = deadly
    train(replace(SETTINGS, steps=4), [toy_object(blob(), 128)], [toy_object(blob(), 128)], out)


def test_a_run_killed_in_mid_step_resumes_bit_for_bit(tmp_path: Path) -> None:
    victim = multiprocessing.get_context("spawn").Process(
        target=_train_and_die, args=(tmp_path / "killed", torch.get_num_threads())
    )
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    views = toy_object(blob(), 128)
    for folder in ("killed", "whole"):
        train(replace(SETTINGS, steps=4), [views], [views], tmp_path / folder)
    whole, resumed = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "killed"))
    for part in ("model", "ema"):
        assert all(torch.equal(value, resumed[part][key]) for key, value in whole[part].items())
    for key, moments in whole["optimiser"]["state"].items():
        assert torch.equal(moments["exp_avg_sq"], resumed["optimiser"]["state"][key]["exp_avg_sq"])
    logs = [read_log(tmp_path / folder) for folder in ("whole", "killed")]
    assert [entry["steps"] for entry in logs[0]] == [entry["steps"] for entry in logs[1]] == [2, 4]
    assert [entry["psnr_fg_db"] for entry in logs[0]] == [entry["psnr_fg_db"] for entry in logs[1]]


def _train_as_one_of_two(rank: int, meeting: Path, out: Path) -> None:
    fix_threads(1)
    TRAINABLE._items["toy"] = TOY
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    run = train(replace(SETTINGS, steps=2), [toy_object(blob(), 128)], [toy_object(blob(), 128)], out)
    assert run.done.samples == 2 * SETTINGS.batch
    weights = {key: value.detach().contiguous() for key, value in run.model.named_parameters()}
    save_file(weights, out / f"rank-{rank}.safetensors")
    dist.destroy_process_group()


def test_two_processes_share_a_batch_and_stay_in_step(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    pair = [
        spawn.Process(target=_train_as_one_of_two, args=(rank, tmp_path / "meeting", tmp_path / "out"))
        for rank in (0, 1)
    ]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    first, second = (load_file(tmp_path / "out" / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    # neither learnt from its own half of the batch alone
    views = toy_object(blob(), 128)
    alone = train(replace(SETTINGS, steps=2, batch=1), [views], [views], tmp_path / "alone").model
    assert not torch.equal(alone.conv.weight, first["conv.weight"])
    assert len(read_log(tmp_path / "out")) == 1  # one of them writes


def test_a_run_logs_scores_and_draws_its_curves(tmp_path: Path) -> None:
    views = toy_object(blob(), 128)
    run = train(replace(SETTINGS, steps=3), [views], [views], tmp_path)
    assert run.done.steps == 3
    entry = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert {"steps", "samples", "cpu_seconds", "total", "psnr_fg_db", "alpha_iou", "skipped"} <= entry.keys()
    assert (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
    again = start(SETTINGS, tmp_path)
    assert again.done == run.done
    for key, value in run.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value)


def test_curves_of_a_run_without_scores(tmp_path: Path) -> None:
    losses = dict.fromkeys(("rgb", "alpha", "ssim", "surface"), 0.1)
    plot_curves([{"samples": 4.0 * k, **losses} for k in range(5)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_broken_or_foreign_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(start(SETTINGS, tmp_path), tmp_path)
    monkeypatch.setitem(TRAINABLE._items, "toy", replace(TOY, up_channels=(32, 64)))
    with pytest.raises(BadDataError, match="no checkpoint of toy"):
        start(SETTINGS, tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadDataError, match="start in an empty folder") as caught:
        start(SETTINGS, tmp_path)
    assert "\n" not in str(caught.value)


def test_divergence_is_counted_then_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = toy_object(blob())
    run = start(SETTINGS, tmp_path)
    before = run.model.conv.weight.clone()
    real = training.item_loss

    def broken(*arguments: object) -> dict[str, torch.Tensor]:
        return {key: value * torch.nan for key, value in real(*arguments).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(training, "item_loss", broken)
    monkeypatch.setattr(training, "_MAX_SKIPPED", 1)
    step(run, [views])
    assert run.done.skipped == 1
    assert torch.equal(run.model.conv.weight, before)
    with pytest.raises(NonFiniteError, match="2 steps"):
        step(run, [views])


def test_broken_cache_is_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "thing.safetensors"
    tensors = {
        "rgba": torch.zeros(2, 8, 8, 4, dtype=torch.uint8),
        "depth": torch.zeros(2, 8, 8),
        "cam_from_world": torch.zeros(2, 4, 4),
    }
    save_file(tensors, path)
    with pytest.raises(BadDataError, match="expected 36 views"):
        load_object(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadDataError, match="not a view cache"):
        load_object(path)
    with pytest.raises(MissingDataError, match="train_meshes"):
        next(build_cache(tmp_path / "nowhere", tmp_path / "cache", 1))


@pytest.mark.data
def test_cache_holds_what_the_mesh_shows(tmp_path: Path) -> None:
    train_meshes = Path(os.environ["EVALSUITE_MIRROR"]) / "train_meshes"
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "mug.glb").write_bytes((train_meshes / "ycb_025_mug.glb").read_bytes())
    assert list(build_cache(scans, tmp_path / "cache", 1, workers=1)) == ["mug", "random-0"]
    views = load_object(tmp_path / "cache" / "mug.safetensors")
    assert 0.05 < float((views.rgba[..., 3] > 127).float().mean()) < 0.6
    covered = views.rgba[: RINGS * INPUT_VIEWS, ..., 3] > 0
    assert bool((covered == (views.depth > 0)).all())
    assert 0.9 < float(views.depth[covered].min()) < float(views.depth[covered].max()) < 2.1
    # kept, not rendered again
    stamp = (tmp_path / "cache" / "mug.safetensors").stat().st_mtime_ns
    list(build_cache(scans, tmp_path / "cache", 1, workers=1))
    assert (tmp_path / "cache" / "mug.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.gpu
def test_a_gpu_trains_with_the_same_code(tmp_path: Path) -> None:
    views = toy_object(blob(), 128)
    runs = [start(replace(SETTINGS, device=device), tmp_path) for device in ("cpu", "cuda")]
    losses = [[step(run, [views])["total"] for _ in range(3)] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert runs[1].model.conv.weight.is_cuda


def test_settings_that_train_nothing_are_refused() -> None:
    with pytest.raises(OptionError, match="0 steps"):
        TrainSettings(steps=0)
