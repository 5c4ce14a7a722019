"""Trainer of `lgm-mini`: photometric loss on rendered views, a budget in minutes, resumable.

    python -m evalsuite.models.lgm.training --data train_meshes --out out/train --minutes 70
    python -m evalsuite.models.lgm.training --data train_meshes --out out/train --export
    torchrun --nproc-per-node 2 -m evalsuite.models.lgm.training ...    # each process takes its share of a batch

A run keeps in ``--out``: ``cache/`` (views), ``model.safetensors``, ``ema.safetensors`` (the result),
``optimiser.pt`` and ``log.jsonl``. Started again, it goes on where the last checkpoint stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from evalsuite.core.errors import BadDataError, EvalsuiteError, MissingDataError, NonFiniteError, OptionError
from evalsuite.core.protocol import WHITE
from evalsuite.core.types import Gaussians
from evalsuite.models.lgm.config import CONFIGS, INPUT_VIEWS
from evalsuite.models.lgm.dataset import (
    CACHE_RESOLUTION,
    FREE_VIEWS,
    HELD_OUT,
    RINGS,
    Item,
    ObjectViews,
    build_cache,
    draw_item,
    load_object,
    make_item,
)
from evalsuite.models.lgm.network import LGM
from evalsuite.models.lgm.weights import MINI_PATH, load_state
from evalsuite.splats.loss import photometric_loss
from evalsuite.splats.rasterise import rasterise

_SCORED_VIEWS = 8
_MAX_SKIPPED = 10


@dataclass(frozen=True)
class TrainSettings:
    """All that shapes a run, but the data.

    Attributes:
        minutes: budget; the learning rate follows the share of it that has passed, so a slower machine takes
            fewer steps and still ends annealed.
        batch: samples per step, over all processes.
        learning_rate: peak; linear warm-up over ``warm_up`` of the budget, then cosine to 0.
        ssim_weight: weight of 1 - SSIM beside the two mean squared errors.
        ema: decay of the averaged weights, which are the result.
        checkpoint_seconds: time between checkpoints, each of which is also scored on the held-out objects.
    """

    model: str = "lgm-mini"
    minutes: float = 70.0
    batch: int = 4
    learning_rate: float = 1e-3
    warm_up: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0
    ssim_weight: float = 0.2
    ema: float = 0.995
    checkpoint_seconds: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.batch < 1:
            raise OptionError(f"{self.minutes} minutes, batch {self.batch}; expected more than 0 and at least 1")


@dataclass
class Progressed:
    """How far a run has come; saved with each checkpoint."""

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    skipped: int = 0


@dataclass
class Run:
    """State of a training run."""

    settings: TrainSettings
    out: Path
    model: LGM
    averaged: LGM
    optimiser: torch.optim.AdamW
    rng: np.random.Generator
    done: Progressed = field(default_factory=Progressed)


def item_loss(gaussians: Gaussians, item: Item, ssim_weight: float) -> dict[str, Float[Tensor, ""]]:
    """Losses of one sample's renders against its supervision: ``rgb``, ``alpha``, ``ssim`` and their ``total``."""
    assert item.target.alpha is not None
    raster = rasterise(gaussians, item.target.cameras, item.target.rgb.new_tensor(WHITE))
    rgb = F.mse_loss(raster.rgb, item.target.rgb)
    alpha = F.mse_loss(raster.alpha, item.target.alpha)
    pairs = zip(raster.rgb, item.target.rgb, strict=True)
    structure = torch.stack([photometric_loss(found, true, ssim_weight=1.0) for found, true in pairs]).mean()
    return {"rgb": rgb, "alpha": alpha, "ssim": structure, "total": rgb + alpha + ssim_weight * structure}


@torch.no_grad()
def score(model: LGM, objects: Sequence[ObjectViews]) -> dict[str, float]:
    """Mean over objects of held-out foreground PSNR (dB) and alpha IoU, at 128 px from the study's rig.

    Foreground is where the true alpha is at least 0.5; both images are over white. IoU is of alpha >= 0.5.
    """
    psnr, iou = [], []
    free = range(RINGS * INPUT_VIEWS, RINGS * INPUT_VIEWS + _SCORED_VIEWS)
    for views in objects:
        item = make_item(views, range(INPUT_VIEWS), free, model.config.input_size, CACHE_RESOLUTION)
        gaussians = model.to_gaussians(model(item.x[None]), item.x[None])[0]
        raster = rasterise(gaussians, item.target.cameras, item.x.new_tensor(WHITE))
        assert item.target.alpha is not None
        true, found = item.target.alpha >= 0.5, raster.alpha >= 0.5
        error = ((raster.rgb.clamp(0, 1) - item.target.rgb) ** 2).mean(-1)
        foreground = (error * true).sum((1, 2)) / true.sum((1, 2)).clamp(min=1)
        psnr.append(float((-10 * foreground.log10()).mean()))
        iou.append(float(((true & found).sum((1, 2)) / (true | found).sum((1, 2)).clamp(min=1)).mean()))
    return {"psnr_fg_db": float(np.mean(psnr)), "alpha_iou": float(np.mean(iou))}


def learning_rate(settings: TrainSettings, progress: float) -> float:
    """Rate at a share of the budget in [0, 1]: linear warm-up, then cosine to 0."""
    if progress < settings.warm_up:
        return settings.learning_rate * max(progress / settings.warm_up, 0.01)
    rest = min((progress - settings.warm_up) / (1 - settings.warm_up), 1.0)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * rest))


def start(settings: TrainSettings, out: Path) -> Run:
    """A fresh run, or the one whose checkpoint is in ``out``.

    Raises:
        BadDataError, BadWeightsError: the checkpoint is incomplete or of another network.
    """
    torch.manual_seed(settings.seed)
    config = CONFIGS[settings.model]
    model, averaged = LGM(config), LGM(config)
    if config.head == "ray":
        model.start_on_rays()
    averaged.load_state_dict(model.state_dict())
    resumed = (out / "optimiser.pt").is_file()
    if resumed:
        load_state(model, out / "model.safetensors")
        load_state(averaged, out / "ema.safetensors")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
    )
    run = Run(settings, out, model, averaged.eval(), optimiser, np.random.default_rng())
    if resumed:
        _resume(run)
    # a stream of its own for each process and each restart
    run.rng = np.random.default_rng([settings.seed, run.done.steps, 0 if _first() else dist.get_rank()])
    return run


def _resume(run: Run) -> None:
    state = torch.load(run.out / "optimiser.pt", weights_only=True)
    run.done = Progressed(**state["progress"])
    for name in ("model", "ema"):
        with safe_open(run.out / f"{name}.safetensors", framework="pt") as file:
            steps = int((file.metadata() or {}).get("steps", -1))
        if steps != run.done.steps:
            raise BadDataError(
                f"{run.out}: {name}.safetensors is of step {steps}, optimiser.pt of step {run.done.steps}; "
                "expected one checkpoint: start in an empty folder"
            )
    run.optimiser.load_state_dict(state["optimiser"])


def save(run: Run) -> None:
    """Checkpoint: each file is replaced whole; ``optimiser.pt``, the last one, makes it valid."""
    metadata = {"config": run.settings.model, "steps": str(run.done.steps), "samples": str(run.done.samples)}
    for name, model in (("model", run.model), ("ema", run.averaged)):
        partial = run.out / f"{name}.partial"
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial, metadata)
        partial.replace(run.out / f"{name}.safetensors")
    partial = run.out / "optimiser.partial"
    torch.save({"optimiser": run.optimiser.state_dict(), "progress": asdict(run.done)}, partial)
    partial.replace(run.out / "optimiser.pt")


def step(run: Run, objects: Sequence[ObjectViews]) -> dict[str, float]:
    """One optimiser step on a drawn batch; returns mean losses.

    A step with non-finite gradients is left out and counted.

    Raises:
        NonFiniteError: too many such steps.
    """
    began = time.perf_counter()
    settings, size = run.settings, run.model.config.input_size
    chosen = run.rng.integers(len(objects), size=max(settings.batch // _processes(), 1))
    items = [draw_item(objects[int(i)], size, run.rng) for i in chosen]
    x = torch.stack([item.x for item in items])
    with torch.autocast("cpu", torch.bfloat16):
        raw = run.model(x)
    samples = run.model.to_gaussians(raw, x)
    losses = [item_loss(g, item, settings.ssim_weight) for g, item in zip(samples, items, strict=True)]
    total = torch.stack([loss["total"] for loss in losses]).mean()

    rate = learning_rate(settings, run.done.seconds / (60 * settings.minutes))
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    total.backward()
    _average_gradients(run.model)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), settings.clip)
    run.done.steps += 1
    run.done.samples += len(items) * _processes()
    if torch.isfinite(norm):
        run.optimiser.step()
        _average(run)
    else:
        run.done.skipped += 1
        if run.done.skipped > _MAX_SKIPPED:
            raise NonFiniteError(
                f"{run.done.skipped} steps with non-finite gradients; expected none: lower the learning rate"
            )
    run.done.seconds = _share_seconds(run.done.seconds + time.perf_counter() - began)
    return {k: float(torch.stack([loss[k] for loss in losses]).mean().detach()) for k in losses[0]}


def _processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _average_gradients(model: LGM) -> None:
    if _processes() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= _processes()
    begin = 0
    for gradient in gradients:
        gradient.copy_(flat[begin : begin + gradient.numel()].view(gradient.shape))
        begin += gradient.numel()


def _share_seconds(seconds: float) -> float:
    """The first process's clock: all must agree on the learning rate and on the end."""
    clock = torch.tensor([seconds], dtype=torch.float64)
    if _processes() > 1:
        dist.broadcast(clock, src=0)
    return float(clock)


@torch.no_grad()
def _average(run: Run) -> None:
    decay = min(run.settings.ema, (1 + run.done.steps) / (10 + run.done.steps))
    for mean, value in zip(run.averaged.parameters(), run.model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def train(settings: TrainSettings, training: Sequence[ObjectViews], heldout: Sequence[ObjectViews], out: Path) -> Run:
    """Train until the budget is spent; checkpoints, scores and losses go to ``out``.

    Args:
        settings: see `TrainSettings`.
        training, heldout: disjoint objects of the cache.
        out: folder of the run; made if needed. A run found there is continued.

    Raises:
        BadDataError, BadWeightsError: the run found in ``out`` cannot be continued.
        NonFiniteError: training diverged.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = start(settings, out)
    budget, recent = 60 * settings.minutes, []
    saved = run.done.seconds
    with Progress(console=Console(stderr=True), disable=not _first()) as bar, (out / "log.jsonl").open("a") as log:
        task = bar.add_task(settings.model, total=budget, completed=int(run.done.seconds))
        while run.done.seconds < budget:
            recent.append(step(run, training))
            bar.update(task, completed=run.done.seconds, description=f"loss {recent[-1]['total']:.4f}")
            due = run.done.seconds - saved > settings.checkpoint_seconds or run.done.seconds >= budget
            if run.done.steps % 50 and not due:
                continue
            entry: dict[str, float] = asdict(run.done) | {
                key: round(float(np.mean([losses[key] for losses in recent])), 6) for key in recent[0]
            }
            recent = []
            if due:
                saved = run.done.seconds
            if not _first():
                continue
            if due:
                save(run)
                entry |= score(run.averaged, heldout)
            log.write(json.dumps(entry, sort_keys=True) + "\n")
            log.flush()
    return run


_CARD = """# lgm-mini

The LGM network (arXiv 2402.05054) at {parameters:,} parameters: four 64 px views in, {splats:,} Gaussians out, each
anchored on its pixel's ray. Trained by `python -m evalsuite.models.lgm.training`; arm A of the CPU suites.

| | |
|---|---|
| data | {scans} scanned and {random} procedural objects, ray-traced ({views} views each, 128 px) |
| steps, samples | {steps:,}, {samples:,} |
| seconds | {seconds:,.0f} on {hardware} |
| steps left out for non-finite gradients | {skipped} |
| held-out foreground PSNR | {psnr_fg_db:.2f} dB |
| held-out alpha IoU | {alpha_iou:.3f} |
| weights on disk | {dtype} |

Held out ({held} objects, never trained on): {names}.
Scores: inputs from the study's rig, {scored} other views at 128 px, over white; foreground is true alpha >= 0.5.

## Licences

The weights are MIT, as this project. They were trained on renders of these scans, which are not redistributed:

- YCB objects (Calli et al. 2015), CC BY 4.0, through hsr-project/tmc_wrs_gazebo @777adea;
- HOPE objects (Tyree et al. 2022), CC BY 4.0 (upstream terms may be narrower), through
  Lifelong-Robot-Learning/LIBERO @8f1084e;
- OCRTOC scans (Liu et al. 2021), MIT, through ChenEating716/pybullet-URDF-models @6428163;
- Google Scanned Objects (Downs et al. 2022), CC BY 4.0, through real-stanford/scalingup @7fb7891; none of the study's
  own objects.
"""


def export(settings: TrainSettings, out: Path, training: int, heldout: Sequence[ObjectViews], target: Path) -> None:
    """Write the averaged weights of a run to ``target`` and the model card beside it (``.md``).

    Half precision is stored if it costs less than 0.01 dB and 0.001 IoU on the held-out objects.

    Args:
        settings, out: the run.
        training: how many objects it was trained on, by the cache.
        heldout: objects to score on.
        target: safetensors file.

    Raises:
        MissingDataError: ``out`` holds no checkpoint.
    """
    if not (out / "optimiser.pt").is_file():
        raise MissingDataError(f"no checkpoint in {out}; expected a run: train first (without --export)")
    run = start(settings, out)
    full = score(run.averaged, heldout)
    state = {k: v.half() for k, v in run.averaged.state_dict().items()}
    run.model.load_state_dict({k: v.float() for k, v in state.items()})
    half = score(run.model.eval(), heldout)
    same = abs(full["psnr_fg_db"] - half["psnr_fg_db"]) < 0.01 and abs(full["alpha_iou"] - half["alpha_iou"]) < 0.001
    if not same:
        state = run.averaged.state_dict()
    kept = half if same else full
    facts = {"config": settings.model, **asdict(run.done), **kept}
    save_file({k: v.contiguous() for k, v in state.items()}, target, {k: str(v) for k, v in facts.items()})
    target.chmod(0o644)  # safetensors writes files that only their owner can read
    names = [views.name for views in heldout]
    target.with_suffix(".md").write_text(
        _CARD.format(
            parameters=sum(p.numel() for p in run.model.parameters()),
            splats=run.model.config.splats,
            scans=training - _random_count(out),
            random=_random_count(out),
            views=RINGS * INPUT_VIEWS + FREE_VIEWS,
            hardware=f"{os.cpu_count()} CPU cores ({platform.machine()}), bfloat16",
            dtype="float16" if same else "float32",
            held=len(names),
            names=", ".join(names),
            scored=_SCORED_VIEWS,
            **asdict(run.done),
            **kept,
        )
    )


def _random_count(out: Path) -> int:
    return sum(path.stem not in HELD_OUT for path in (out / "cache").glob("random-*.safetensors"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: train, or export what was trained. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evalsuite.models.lgm.training", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of *.glb scans (the mirror's train_meshes)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=TrainSettings.minutes, help="budget of the whole run")
    parser.add_argument("--procedural", type=int, default=270, help="procedural objects beside the scans")
    parser.add_argument(
        "--export", type=Path, nargs="?", const=MINI_PATH, help="write weights and card (default: into the package)"
    )
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    try:
        settings = TrainSettings(minutes=options.minutes)
        cache = options.out / "cache"
        if not _first():
            dist.barrier()  # the first process fills the cache
        names = list(build_cache(options.data, cache, options.procedural))
        if dist.is_initialized() and _first():
            dist.barrier()
        objects = [load_object(cache / f"{name}.safetensors") for name in names]
        heldout = [views for views in objects if views.name in HELD_OUT]
        training = [views for views in objects if views.name not in HELD_OUT]
        if options.export:
            export(settings, options.out, len(training), heldout, options.export)
        else:
            train(settings, training, heldout, options.out)
    except EvalsuiteError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
