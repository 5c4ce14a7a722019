"""Arms A, B and C. One trajectory runner serves B and C: only the initial Gaussians differ."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch

from evalsuite.arms.alignment import require_agreeing_silhouettes, require_explained_inputs
from evalsuite.arms.arm import ArmSettings, Checkpoint
from evalsuite.arms.floors import MeanColour, VisualHull
from evalsuite.arms.seeding import seed_gaussians
from evalsuite.core.clock import Clock
from evalsuite.core.types import Evidence, Gaussians
from evalsuite.models.lgm.inputs import infer, model_input, predict
from evalsuite.models.lgm.network import LGM
from evalsuite.models.lgm.weights import load_lgm
from evalsuite.splats.field import GaussianField
from evalsuite.splats.optimise import optimise


def feedforward(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
    """Arm A: the frozen network, one forward pass on the inputs."""
    gaussians, notes = _forward(evidence, settings, clock)
    yield Checkpoint(0, GaussianField(gaussians), clock.snapshot(), notes)


def warmstart(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
    """Arm B: A's Gaussians, then photometric steps. Its checkpoint at N = 0 is A, bit for bit."""
    gaussians, notes = _forward(evidence, settings, clock)
    yield from _optimised(gaussians, evidence, settings, clock, notes)


def scratch(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
    """Arm C: Gaussians seeded from structure-from-motion points, then the same photometric steps as B."""
    gaussians, notes = seed_gaussians(evidence, settings.seed, clock, settings.structures)
    yield from _optimised(gaussians, evidence, settings, clock, notes)


def mean_colour(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
    """Floor: every pixel has the mean colour of the inputs."""
    with clock.phase("forward"):
        result = MeanColour.of(evidence.inputs, evidence.background)
    yield Checkpoint(0, result, clock.snapshot())


def visual_hull(evidence: Evidence, settings: ArmSettings, clock: Clock) -> Iterator[Checkpoint]:
    """Floor: the hull of the input silhouettes in the inputs' mean foreground colour."""
    with clock.phase("forward"):
        result = VisualHull.of(evidence.inputs, evidence.background, evidence.centre, evidence.radius)
    yield Checkpoint(0, result, clock.snapshot())


def _forward(evidence: Evidence, settings: ArmSettings, clock: Clock) -> tuple[Gaussians, tuple[str, ...]]:
    """The prediction and a note on it; the tests of alignment are no part of the arm's seconds.

    Raises:
        MisalignedError: poses, images and prediction contradict each other.
    """
    inputs = evidence.inputs
    loaded = _network.cache_info().misses
    with clock.phase("load"):
        model = _network(settings.model, settings.weights, str(inputs.rgb.device))
    require_agreeing_silhouettes(evidence)
    read = (inputs, evidence.background, evidence.centre)
    photographs = inputs.alpha is None
    if _network.cache_info().misses > loaded:
        with clock.phase("compile"):  # the first pass of a network chooses kernels and fills pools of memory
            predict(model, *read, photographs=photographs)
    with clock.phase("prepare"), torch.no_grad():
        x, frame = model_input(model.config, *read, photographs=photographs)
    with clock.phase("forward"):
        gaussians = infer(model, x, frame)
    return gaussians, (require_explained_inputs(gaussians, evidence),)


@lru_cache(maxsize=1)
def _network(name: str, weights: Path | None, device: str) -> LGM:
    """Loaded once per process. bfloat16 on CUDA, float32 on CPU."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    return load_lgm(name, weights, dtype).to(device)


def _optimised(
    initial: Gaussians, evidence: Evidence, settings: ArmSettings, clock: Clock, notes: tuple[str, ...]
) -> Iterator[Checkpoint]:
    cap = settings.recipe.cap
    if len(initial) > cap:
        crowded = f"start of {len(initial):,} Gaussians is above the cap {cap:,} of recipe {settings.recipe.name}"
        notes = (*notes, f"{crowded}: density control only prunes while there are more")
    trajectory = optimise(
        initial,
        evidence.supervision,
        evidence.background,
        settings.recipe,
        settings.steps,
        seed=settings.seed,
        clock=clock,
    )
    for steps, gaussians in trajectory:
        yield Checkpoint(steps, GaussianField(gaussians), clock.snapshot(), notes)
