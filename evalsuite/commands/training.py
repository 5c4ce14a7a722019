"""``train``: the package's own network."""

from __future__ import annotations

import argparse

from evalsuite.execution.preflight import require_device, require_folder
from evalsuite.models.lgm.settings import TrainingData, TrainSettings, training_scans


def train(options: argparse.Namespace) -> int:
    """Train, or write the weights of a run and its card."""
    require_folder(options.out, "--out")
    data = TrainingData(options.data, options.cache or options.out / "cache", options.procedural)
    settings = TrainSettings(model=options.model, steps=options.steps, device=options.device)
    training_scans(data.meshes)
    require_device(options.device)
    from evalsuite.models.lgm.card import export
    from evalsuite.models.lgm.training import load_objects, train_on

    if options.export:
        export(options.out, load_objects(data)[1], options.export, options.ablation)
        print(f"weights, curves and card written to {options.export.parent}")
    else:
        run = train_on(data, settings, options.out)
        print(f"{run.done.samples} samples seen; checkpoint, log and curves are in {options.out}")
    return 0
