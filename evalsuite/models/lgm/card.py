"""From a training run to the files in the package: weights, curves, and a card that says where they come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from evalsuite.core.errors import MissingDataError
from evalsuite.models.lgm.config import INPUT_VIEWS, MAX_SPLATS
from evalsuite.models.lgm.curves import plot_curves, read_log
from evalsuite.models.lgm.dataset import FREE_VIEWS, RINGS, ObjectViews
from evalsuite.models.lgm.network import LGM
from evalsuite.models.lgm.settings import TrainSettings
from evalsuite.models.lgm.training import SCORED_VIEWS, score, start

_SAME_DB, _SAME_IOU = 0.01, 0.001
"""Half precision is stored if it costs less than this on the held-out objects."""

_CARD = """# {model}

The LGM network (arXiv 2402.05054) at {parameters:,} parameters: four 128 px views with alpha in, at most {splats:,}
Gaussians out, each kept on its pixel's ray inside the visual hull of the four silhouettes. Trained by `evalsuite
train`; arm A of the CPU suites.

| | |
|---|---|
| data | {scans} scanned and {procedural} procedural objects, ray-traced ({views} views each, 128 px) |
| steps, samples | {steps:,}, {samples:,} |
| seconds | {cpu_seconds:,.0f} of processor time{each} |
| hardware | {hardware} |
| steps left out for non-finite gradients | {skipped} |
| held-out foreground PSNR | {psnr_fg_db:.2f} dB |
| held-out alpha IoU | {alpha_iou:.3f} |
| weights on disk | {dtype} |

Held out ({held} objects, never trained on): {names}.
Scores: inputs from the study's rig, {scored} other views at 128 px, over white; foreground is true alpha >= 0.5.

![Losses and held-out scores against samples]({curves})
{ablation}
## Licences

The weights are MIT, as this project. They were trained on renders of these scans, which are not redistributed:

- YCB objects (Calli et al. 2015), CC BY 4.0, through hsr-project/tmc_wrs_gazebo @777adea;
- HOPE objects (Tyree et al. 2022), CC BY 4.0 (upstream terms may be narrower), through
  Lifelong-Robot-Learning/LIBERO @8f1084e;
- OCRTOC scans (Liu et al. 2021), MIT, through ChenEating716/pybullet-URDF-models @6428163;
- Google Scanned Objects (Downs et al. 2022), CC BY 4.0, through real-stanford/scalingup @7fb7891; none of the study's
  own objects.
"""

_ABLATION = """
## What the choices are worth

Runs of equal length ({samples:,} samples, same seed and schedule), scored as above:

| | foreground PSNR, dB | alpha IoU |
|---|---|---|
{rows}
"""


def read_facts(out: Path) -> dict[str, Any]:
    """What a run wrote about its data and machine.

    Raises:
        MissingDataError: ``out`` holds no run with a checkpoint.
    """
    if not (out / "checkpoint.pt").is_file() or not (out / "run.json").is_file():
        raise MissingDataError(f"no checkpoint in {out}; expected a run: train first (without --export)")
    facts: dict[str, Any] = json.loads((out / "run.json").read_text())
    return facts


def export(out: Path, heldout: Sequence[ObjectViews], target: Path, ablations: Sequence[Path] = ()) -> None:
    """Write the averaged weights of a run to ``target``, curves (``.png``) and the model card (``.md``) beside it.

    Args:
        out: the run.
        heldout: objects to score on.
        target: safetensors file.
        ablations: runs of equal length to compare in the card.

    Raises:
        MissingDataError: a folder holds no run with a checkpoint.
    """
    facts = read_facts(out)
    rows = _ablation_table(ablations)
    run = start(TrainSettings(**facts["settings"]), out)
    state, scores, dtype = _stored(run.averaged, heldout)
    metadata = {
        "config": run.model.config.name,
        "steps": run.done.steps,
        "samples": run.done.samples,
        "training_seconds": round(run.done.cpu_seconds * facts["processes"], 1),
        **scores,
    }
    # one entry: safetensors writes several in any order, and equal runs shall give equal bytes
    save_file(state, target, {"run": json.dumps(metadata, sort_keys=True)})
    target.chmod(0o644)  # safetensors writes files that only their owner can read
    plot_curves(read_log(out), target.with_suffix(".png"))
    card = _CARD.format(
        model=run.model.config.name,
        parameters=sum(p.numel() for p in run.model.parameters()),
        splats=min(run.model.config.splats, MAX_SPLATS),
        views=RINGS * INPUT_VIEWS + FREE_VIEWS,
        dtype=dtype,
        held=len(heldout),
        names=", ".join(views.name for views in heldout),
        scored=SCORED_VIEWS,
        curves=target.with_suffix(".png").name,
        ablation=rows,
        each=f" in each of {facts['processes']} processes" if facts["processes"] > 1 else "",
        **{key: facts[key] for key in ("scans", "procedural", "hardware")},
        **{key: getattr(run.done, key) for key in ("steps", "samples", "cpu_seconds", "skipped")},
        **scores,
    )
    target.with_suffix(".md").write_text(card, encoding="utf-8")


def _stored(model: LGM, heldout: Sequence[ObjectViews]) -> tuple[dict[str, torch.Tensor], dict[str, float], str]:
    """Tensors to store, in half precision if that costs nothing; their scores; their precision."""
    full = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    exact = score(model, heldout)
    half = {key: value.half() for key, value in full.items()}
    model.load_state_dict({key: value.float() for key, value in half.items()})
    rounded = score(model, heldout)
    loss_db, loss_iou = (abs(exact[key] - rounded[key]) for key in ("psnr_fg_db", "alpha_iou"))
    same = loss_db < _SAME_DB and loss_iou < _SAME_IOU
    return (half, rounded, "float16") if same else (full, exact, "float32")


def _ablation_table(runs: Sequence[Path]) -> str:
    if not runs:
        return ""
    rows, samples = [], 0
    for out in runs:
        facts = read_facts(out)
        last = read_log(out)[-1]
        samples = int(last["samples"])
        data = "" if facts["procedural"] else ", scans alone"
        rows.append(f"| {facts['settings']['model']}{data} | {last['psnr_fg_db']:.2f} | {last['alpha_iou']:.3f} |")
    return _ABLATION.format(samples=samples, rows="\n".join(rows))
