"""Training items are consistent, training learns, and a run can be resumed and exported."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evalsuite.core.conventions import sh0_from_rgb
from evalsuite.core.errors import BadDataError, BadWeightsError, MissingDataError, NonFiniteError, OptionError
from evalsuite.core.types import Gaussians
from evalsuite.models.lgm import training
from evalsuite.models.lgm.config import CONFIGS, INPUT_VIEWS, LGMConfig
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
from evalsuite.models.lgm.training import (
    TrainSettings,
    export,
    item_loss,
    learning_rate,
    main,
    save,
    score,
    start,
    step,
    train,
)
from evalsuite.models.lgm.weights import load_state
from evalsuite.splats.rasterise import rasterise

TOY = LGMConfig("toy", 16, (32, 32), (False, True), True, (32, 32), (True, False), "ray", layers=1, heads=2)
SETTINGS = TrainSettings(model="toy", minutes=10.0, batch=2, warm_up=0.0)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS._items, "toy", TOY)


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
    return ObjectViews("toy", (rgba * 255).round().to(torch.uint8), cameras)


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
    item = make_item(views, [1, 2, 3, 0], [0, 5, 14], 16, size)
    pose = views.cameras.cam_from_world[1]
    flip = torch.tensor([1.0, -1.0, -1.0])
    means = (blob().means @ pose[:3, :3].T + pose[:3, 3]) * flip + torch.tensor([0.0, 0.0, 1.5])
    raster = rasterise(replace(blob(), means=means), item.target.cameras, torch.ones(3))
    torch.testing.assert_close(raster.rgb, item.target.rgb, atol=0.01, rtol=0)
    assert item.target.alpha is not None
    torch.testing.assert_close(raster.alpha, item.target.alpha, atol=0.01, rtol=0)


def test_mirrored_object_is_consistent() -> None:
    """Images and cameras are mirrored together: they match the mirrored object."""
    views = toy_object(blob())
    rng = np.random.default_rng(0)
    several = (augmented(views, rng) for _ in range(50))
    mirrored = next(m for m in several if not torch.equal(m.rgba[..., 3], views.rgba[..., 3]))
    gaussians = replace(blob(), means=blob().means * torch.tensor([-1.0, 1.0, 1.0]))
    alpha = rasterise(gaussians, mirrored.cameras, torch.ones(3)).alpha
    torch.testing.assert_close(alpha, mirrored.rgba[..., 3].float() / 255, atol=0.01, rtol=0)


def test_images_over_white_averages_premultiplied_colour() -> None:
    rgba = torch.tensor([[[255, 0, 0, 255], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], dtype=torch.uint8)
    rgb, alpha = images_over_white(rgba[None], 1)
    assert rgb.flatten().tolist() == [1.0, 0.75, 0.75]
    assert alpha.item() == 0.25


def test_items_are_drawn_from_the_generator() -> None:
    views = toy_object(blob(), 128)
    first, second, third = (draw_item(views, 16, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, third.x)


def test_loss_is_zero_only_for_the_truth() -> None:
    views = toy_object(blob())
    item = make_item(views, range(4), [12, 13], 16, 32)
    pose, flip = views.cameras.cam_from_world[0], torch.tensor([1.0, -1.0, -1.0])
    means = (blob().means @ pose[:3, :3].T + pose[:3, 3]) * flip + torch.tensor([0.0, 0.0, 1.5])
    losses = [float(item_loss(replace(blob(), means=means + shift), item, 0.2)["total"]) for shift in (0.0, 0.02, 0.1)]
    assert losses[0] < 1e-3
    assert losses[0] < losses[1] < losses[2]


def test_learning_rate_warms_up_and_decays() -> None:
    settings = TrainSettings(warm_up=0.1, learning_rate=1.0)
    rates = [learning_rate(settings, p) for p in (0.0, 0.05, 0.1, 0.55, 1.0, 1.5)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.5, 0.0, 0.0])


def test_training_learns_one_object(tmp_path: Path) -> None:
    views = toy_object(blob(), 128)
    run = start(SETTINGS, tmp_path)
    before = score(run.model, [views])
    losses = [step(run, [views])["total"] for _ in range(25)]
    after = score(run.model, [views])
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert after["psnr_fg_db"] > before["psnr_fg_db"] + 1
    assert run.done.skipped == 0
    assert run.done.samples == 50


def test_score_of_the_truth_is_perfect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    views = toy_object(blob(), 128)
    model = start(SETTINGS, tmp_path).model
    pose, flip = views.cameras.cam_from_world[0], torch.tensor([1.0, -1.0, -1.0])
    means = (blob().means @ pose[:3, :3].T + pose[:3, 3]) * flip + torch.tensor([0.0, 0.0, 1.5])
    monkeypatch.setattr(model, "to_gaussians", lambda raw, x: [replace(blob(), means=means)])
    result = score(model, [views])
    assert result["psnr_fg_db"] > 40
    assert result["alpha_iou"] > 0.99


def test_a_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    views = toy_object(blob())
    settings = replace(SETTINGS, minutes=1e-6)
    run = train(settings, [views], [toy_object(blob(), 128)], tmp_path)
    assert run.done.steps == 1
    entry = json.loads((tmp_path / "log.jsonl").read_text())
    assert {"steps", "samples", "seconds", "total", "psnr_fg_db", "alpha_iou", "skipped"} <= entry.keys()
    again = start(settings, tmp_path)
    assert again.done == run.done
    for key, value in run.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value)
    moments = next(iter(again.optimiser.state.values()))["exp_avg"]
    assert torch.equal(moments, next(iter(run.optimiser.state.values()))["exp_avg"])


def test_checkpoints_of_different_steps_are_refused(tmp_path: Path) -> None:
    run = start(SETTINGS, tmp_path)
    save(run)
    optimiser = (tmp_path / "optimiser.pt").read_bytes()
    run.done.steps = 5
    save(run)
    (tmp_path / "optimiser.pt").write_bytes(optimiser)
    with pytest.raises(BadDataError, match=r"step 5.*step 0"):
        start(SETTINGS, tmp_path)


def test_checkpoint_of_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(start(SETTINGS, tmp_path))
    monkeypatch.setitem(CONFIGS._items, "toy", replace(TOY, up_channels=(32, 64)))
    with pytest.raises(BadWeightsError, match=r"\(14, 32, 3, 3\).*\(14, 64, 3, 3\)"):
        start(SETTINGS, tmp_path)


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


def test_export_writes_weights_and_card(tmp_path: Path) -> None:
    run = start(SETTINGS, tmp_path)
    step(run, [toy_object(blob())])
    save(run)
    target = tmp_path / "toy.safetensors"
    export(SETTINGS, tmp_path, 7, [toy_object(blob(), 128)], target)
    load_state(run.model, target)
    card = target.with_suffix(".md").read_text()
    assert "CC BY 4.0" in card
    assert "| steps, samples | 1, 2 |" in card
    assert str(tmp_path) not in card
    with pytest.raises(MissingDataError, match="train first"):
        export(SETTINGS, tmp_path / "empty", 7, [], target)


def test_broken_cache_is_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "thing.safetensors"
    save_file({"rgba": torch.zeros(2, 8, 8, 4, dtype=torch.uint8), "cam_from_world": torch.zeros(2, 4, 4)}, path)
    with pytest.raises(BadDataError, match="expected 32 views"):
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
    # kept, not rendered again
    stamp = (tmp_path / "cache" / "mug.safetensors").stat().st_mtime_ns
    list(build_cache(scans, tmp_path / "cache", 1, workers=1))
    assert (tmp_path / "cache" / "mug.safetensors").stat().st_mtime_ns == stamp


def test_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "no *.glb" in capsys.readouterr().err
    with pytest.raises(OptionError, match=r"0\.0 minutes"):
        TrainSettings(minutes=0.0)
