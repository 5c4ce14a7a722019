"""Trainer of `lgm-mini` (command ``evalsuite train``): photometric loss on rendered views, resumable bit for bit.

    evalsuite train --data train_meshes --out out/train --steps 6000
    torchrun --nproc-per-node 2 -m evalsuite.cli train ...    # each process takes its share of a batch

A run keeps in its folder ``cache/`` (views), ``checkpoint.pt``, ``log.jsonl`` and ``curves.png``. Every step draws
from a generator of its own, seeded with the step, and the schedule follows steps: started again after any kind of
end, the run goes on from its last checkpoint with the very bits it would have had.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from evalsuite.core.errors import BadDataError, NonFiniteError
from evalsuite.core.machine import fingerprint
from evalsuite.core.protocol import WHITE
from evalsuite.core.types import Gaussians
from evalsuite.models.lgm.config import INPUT_VIEWS, TRAINABLE
from evalsuite.models.lgm.curves import plot_curves, read_log
from evalsuite.models.lgm.dataset import (
    CACHE_RESOLUTION,
    HELD_OUT,
    PROCEDURAL,
    RINGS,
    Item,
    ObjectViews,
    build_cache,
    draw_item,
    load_object,
    make_item,
)
from evalsuite.models.lgm.network import LGM
from evalsuite.models.lgm.settings import TrainingData, TrainSettings
from evalsuite.splats.loss import photometric_loss
from evalsuite.splats.rasterise import rasterise

SCORED_VIEWS = 8
"""Free views per held-out object that a score is the mean of."""

_SMALLEST = 0.02
"""Share of an image below which an object's pixels do not count for more."""

_MAX_SKIPPED = 10
_LOG_EVERY = 25


@dataclass
class Progressed:
    """How far a run has come; saved with each checkpoint.

    Attributes:
        cpu_seconds: processor time of the first process, so that pauses of the machine do not count.
        skipped: steps left out for non-finite gradients.
    """

    steps: int = 0
    samples: int = 0
    cpu_seconds: float = 0.0
    skipped: int = 0


@dataclass
class Run:
    """State of a training run."""

    settings: TrainSettings
    model: LGM
    averaged: LGM
    optimiser: torch.optim.AdamW
    done: Progressed = field(default_factory=Progressed)


def item_loss(gaussians: Gaussians, item: Item, settings: TrainSettings) -> dict[str, Float[Tensor, ""]]:
    """Losses of one sample: of its renders (``rgb``, ``alpha``, ``ssim``), of its splats (``surface``), ``total``.

    Squared errors in colour are per pixel of the object, so that small and thin things count like large ones, and four
    times as much there as on the background, of which alpha already says that it is empty. Alpha's loss is 1 - IoU of
    soft silhouettes, the smaller over the larger alpha, each summed over a view.
    """
    assert item.target.alpha is not None
    truth, covered = item.target.rgb, item.target.alpha
    raster = rasterise(gaussians, item.target.cameras, truth.new_tensor(WHITE))
    share = covered.mean().clamp(min=_SMALLEST)
    rgb = ((raster.rgb - truth).square().mean(-1) * (0.5 + 1.5 * covered)).mean() / share
    shared, union = (choose(raster.alpha, covered).sum((1, 2)) for choose in (torch.minimum, torch.maximum))
    alpha = (1 - shared / union.clamp(min=1)).mean()
    pairs = zip(raster.rgb, truth, strict=True)
    structure = torch.stack([photometric_loss(found, true, ssim_weight=1.0) for found, true in pairs]).mean()
    distance = (gaussians.means[: len(item.surface)] - item.surface).square().sum(1).add(1e-8).sqrt()
    surface = (distance * item.seen).sum() / item.seen.sum().clamp(min=1)
    weights = settings.alpha_weight, settings.ssim_weight, settings.surface_weight
    total = rgb + sum(w * part for w, part in zip(weights, (alpha, structure, surface), strict=True))
    return {"rgb": rgb, "alpha": alpha, "ssim": structure, "surface": surface, "total": total}


@torch.no_grad()
def score(model: LGM, objects: Sequence[ObjectViews]) -> dict[str, float]:
    """Mean over objects of held-out foreground PSNR (dB) and alpha IoU, at 128 px from the study's rig.

    Foreground is where the true alpha is at least 0.5; both images are over white. IoU is of alpha >= 0.5.
    """
    psnr, iou = [], []
    device = model.conv.weight.device
    free = range(RINGS * INPUT_VIEWS, RINGS * INPUT_VIEWS + SCORED_VIEWS)
    for views in objects:
        item = make_item(views, range(INPUT_VIEWS), free, model.config, CACHE_RESOLUTION).to(device)
        gaussians = model.to_gaussians(model(item.x[None]), item.x[None])[0]
        raster = rasterise(gaussians, item.target.cameras, item.x.new_tensor(WHITE))
        assert item.target.alpha is not None
        true, found = item.target.alpha >= 0.5, raster.alpha >= 0.5
        error = ((raster.rgb.clamp(0, 1) - item.target.rgb) ** 2).mean(-1)
        foreground = (error * true).sum((1, 2)) / true.sum((1, 2)).clamp(min=1)
        psnr.append(float((-10 * foreground.log10()).mean()))
        iou.append(float(((true & found).sum((1, 2)) / (true | found).sum((1, 2)).clamp(min=1)).mean()))
    return {"psnr_fg_db": float(np.mean(psnr)), "alpha_iou": float(np.mean(iou))}


def learning_rate(settings: TrainSettings, steps: int) -> float:
    """Rate after a number of steps: linear warm-up, then cosine to 0."""
    warm_up = min(settings.warm_up, settings.steps // 10)
    if steps < warm_up:
        return settings.learning_rate * (steps + 1) / warm_up
    rest = min((steps - warm_up) / (settings.steps - warm_up), 1.0)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * rest))


def start(settings: TrainSettings, out: Path) -> Run:
    """A fresh run, or the one whose checkpoint is in ``out``.

    Raises:
        BadDataError: the checkpoint cannot be read, or is of another network.
    """
    torch.manual_seed(settings.seed)
    config = TRAINABLE[settings.model]
    model, averaged = LGM(config), LGM(config)
    if config.head != "xyz":
        model.start_on_rays()
    averaged.load_state_dict(model.state_dict())
    model.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
    )
    run = Run(settings, model, averaged.to(settings.device).eval(), optimiser)
    if (out / "checkpoint.pt").is_file():
        _resume(run, out / "checkpoint.pt")
    return run


def _resume(run: Run, path: Path) -> None:
    try:
        state = torch.load(path, weights_only=True, map_location=run.settings.device)
        run.model.load_state_dict(state["model"])
        run.averaged.load_state_dict(state["ema"])
        run.optimiser.load_state_dict(state["optimiser"])
        run.done = Progressed(**state["progress"])
    except Exception as error:  # torch.load and load_state_dict raise whatever a broken file leads them to
        reason = str(error).splitlines()[0]
        raise BadDataError(
            f"{path}: no checkpoint of {run.settings.model} ({reason}); start in an empty folder"
        ) from error


def save(run: Run, out: Path) -> None:
    """Write the checkpoint: one file, replaced whole, so that a run killed at any moment leaves a complete one."""
    partial = out / "checkpoint.partial"
    state = {
        "model": run.model.state_dict(),
        "ema": run.averaged.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "progress": asdict(run.done),
    }
    torch.save(state, partial)
    partial.replace(out / "checkpoint.pt")


def step(run: Run, objects: Sequence[ObjectViews]) -> dict[str, float]:
    """One optimiser step on a drawn batch; returns mean losses.

    A step with non-finite gradients is left out and counted.

    Raises:
        NonFiniteError: too many such steps.
    """
    began = time.process_time()
    settings, model = run.settings, run.model
    rng = np.random.default_rng([settings.seed, run.done.steps, rank()])
    chosen = [_draw_object(objects, rng) for _ in range(max(settings.batch // processes(), 1))]
    items = [draw_item(views, model.config, rng).to(settings.device) for views in chosen]
    x = torch.stack([item.x for item in items])
    with torch.autocast(x.device.type, torch.bfloat16):
        raw = model(x)
    samples = model.to_gaussians(raw, x)
    losses = [item_loss(g, item, settings) for g, item in zip(samples, items, strict=True)]
    total = torch.stack([loss["total"] for loss in losses]).mean()

    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(settings, run.done.steps)
    run.optimiser.zero_grad(set_to_none=True)
    total.backward()
    _average_gradients(model)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    run.done.steps += 1
    run.done.samples += len(items) * processes()
    if torch.isfinite(norm):
        run.optimiser.step()
        _average(run)
    else:
        run.done.skipped += 1
        if run.done.skipped > _MAX_SKIPPED:
            raise NonFiniteError(
                f"{run.done.skipped} steps with non-finite gradients; expected none: lower the learning rate"
            )
    run.done.cpu_seconds += time.process_time() - began
    return {k: float(torch.stack([loss[k] for loss in losses]).mean().detach()) for k in losses[0]}


def _draw_object(objects: Sequence[ObjectViews], rng: np.random.Generator) -> ObjectViews:
    """Scans and procedural objects in equal shares, however many there are of each."""
    kinds = ([v for v in objects if v.name.startswith(PROCEDURAL) == procedural] for procedural in (False, True))
    present = [kind for kind in kinds if kind]
    kind = present[int(rng.integers(len(present)))]
    return kind[int(rng.integers(len(kind)))]


def processes() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process in its run; the first one, 0, writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def _average_gradients(model: LGM) -> None:
    if processes() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= processes()
    begin = 0
    for gradient in gradients:
        gradient.copy_(flat[begin : begin + gradient.numel()].view(gradient.shape))
        begin += gradient.numel()


@torch.no_grad()
def _average(run: Run) -> None:
    decay = min(run.settings.ema, (1 + run.done.steps) / (10 + run.done.steps))
    for mean, value in zip(run.averaged.parameters(), run.model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def _forget_later(out: Path, steps: int) -> None:
    """Drop what was logged after the checkpoint: it will be logged again."""
    kept = [entry for entry in read_log(out) if entry["steps"] <= steps]
    (out / "log.jsonl").write_text("".join(json.dumps(entry, sort_keys=True) + "\n" for entry in kept))


def train(settings: TrainSettings, training: Sequence[ObjectViews], heldout: Sequence[ObjectViews], out: Path) -> Run:
    """Train to the last step; checkpoints, scores and losses go to ``out``.

    Args:
        settings: see `TrainSettings`.
        training, heldout: disjoint objects of the cache.
        out: folder of the run; made if needed. A run found there is continued.

    Raises:
        BadDataError: the run found in ``out`` cannot be continued.
        NonFiniteError: training diverged.
    """
    out.mkdir(parents=True, exist_ok=True)
    run, recent = start(settings, out), []
    if rank() == 0:
        _forget_later(out, run.done.steps)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=rank() > 0) as bar:
        task = bar.add_task(settings.model, total=settings.steps, completed=run.done.steps)
        shown = ""
        while run.done.steps < settings.steps:
            recent.append(step(run, training))
            bar.update(task, completed=run.done.steps, description=f"loss {recent[-1]['total']:.4f}{shown}")
            due = run.done.steps % settings.checkpoint_every == 0 or run.done.steps == settings.steps
            if rank() > 0 or (run.done.steps % _LOG_EVERY and not due):
                continue
            entry: dict[str, int | float] = asdict(run.done) | {
                key: round(float(np.mean([losses[key] for losses in recent])), 6) for key in recent[0]
            }
            recent = []
            if due:
                save(run, out)
                entry |= score(run.averaged, heldout)
                shown = f", held-out {entry['psnr_fg_db']:.2f} dB"
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry, sort_keys=True) + "\n")
            if due:
                plot_curves(read_log(out), out / "curves.png")
    return run


def train_on(data: TrainingData, settings: TrainSettings, out: Path) -> Run:
    """Fill the cache and train, as one process or, under ``torchrun``, as one of several.

    Raises:
        MissingDataError, BadDataError: no scans, or a broken cache.
        NonFiniteError: training diverged.
    """
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo")
    if rank() > 0:
        dist.barrier()  # the first process fills the cache
    training, heldout = load_objects(data)
    if rank() == 0:
        facts = {
            "settings": asdict(settings),
            "scans": sum(not views.name.startswith(PROCEDURAL) for views in training),
            "procedural": sum(views.name.startswith(PROCEDURAL) for views in training),
            "processes": processes(),
            "hardware": _hardware(settings.device),
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text(json.dumps(facts, sort_keys=True, indent=1) + "\n")
        if dist.is_initialized():
            dist.barrier()
    return train(settings, training, heldout, out)


def load_objects(data: TrainingData) -> tuple[list[ObjectViews], list[ObjectViews]]:
    """Objects to train on, and the held-out ones among scans and procedural objects.

    Raises:
        MissingDataError, BadDataError: no scans, or a broken cache.
    """
    spared = sum(name.startswith(PROCEDURAL) for name in HELD_OUT)
    names = build_cache(data.meshes, data.cache, data.procedural + spared)
    objects = [load_object(data.cache / f"{name}.safetensors") for name in names]
    heldout = [views for views in objects if views.name in HELD_OUT]
    return [views for views in objects if views.name not in HELD_OUT], heldout


def _hardware(device: str) -> str:
    machine = fingerprint(device)
    return str(machine["gpu"]) if device == "cuda" else f"{machine['cores']} cores of {machine['cpu']}, bfloat16"
