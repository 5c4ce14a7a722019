"""Do poses, images and prediction agree? Two tests before a number may count as quality.

1. Silhouettes against poses, before the network runs: the visual hull of right silhouettes projects onto each of them
   (Laurentini 1994). It needs no prediction, so it tells a wrong pose from a poor network.
2. Prediction against inputs: re-rendered, it must explain them better than an empty page does.

What separates right from wrong is measured (docs/design/alignment.md). Photographs have no silhouette and lie outside
the networks' domain: for them neither test says anything, and the record's notes say that.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from evalsuite.arms.floors import VisualHull
from evalsuite.core.errors import MisalignedError
from evalsuite.core.types import Evidence, Gaussians, Views
from evalsuite.splats.field import GaussianField

MIN_SILHOUETTE_AGREEMENT = 0.9
"""Intersection over union of a silhouette and the hull of all four, in the worst view."""

UNTESTED = "alignment not tested: the inputs are photographs without alpha"

_THRESHOLD = 0.5


def require_agreeing_silhouettes(evidence: Evidence) -> None:
    """Refuse inputs whose silhouettes contradict their poses; photographs pass.

    Raises:
        MisalignedError: some view shows less than `MIN_SILHOUETTE_AGREEMENT`.
    """
    inputs = evidence.inputs
    if inputs.alpha is None:
        return
    agreement = silhouette_agreement(inputs, evidence.centre, evidence.radius)
    worst = int(agreement.argmin())
    if float(agreement[worst]) < MIN_SILHOUETTE_AGREEMENT:
        raise MisalignedError(
            f"the silhouette of input view {worst} agrees with the hull of all four at IoU {agreement[worst]:.2f}; "
            f"expected >= {MIN_SILHOUETTE_AGREEMENT}: check the order of the views, their poses (cam_from_world, "
            "OpenCV axes) and field of view, and the scene's centre and radius"
        )


def require_explained_inputs(gaussians: Gaussians, evidence: Evidence) -> str:
    """Refuse a prediction that does not show its own inputs; photographs pass.

    Returns:
        A note for the record: the gain that was measured, or why there is none.

    Raises:
        MisalignedError: an empty page would explain the inputs as well.
    """
    if evidence.inputs.alpha is None:
        return UNTESTED
    gain = explanation_db(gaussians, evidence.inputs, evidence.background)
    if gain <= 0:
        raise MisalignedError(
            f"the prediction explains its inputs no better than an empty page ({gain:.1f} dB), although poses and "
            "silhouettes agree; expected > 0 dB: check the network's weights, frame and activations"
        )
    return f"re-rendered inputs are {gain:.1f} dB better than an empty page"


def silhouette_agreement(inputs: Views, centre: Float[Tensor, "3"], radius: float) -> Float[Tensor, "V"]:
    """Intersection over union of each silhouette (alpha > 0.5) and the hull of all of them; 1 where both are empty.

    Args:
        inputs: posed views with alpha.
        centre, radius: sphere that bounds the hull, world units.
    """
    assert inputs.alpha is not None
    white = inputs.rgb.new_ones(3)
    hull = VisualHull.of(inputs, white, centre, radius).render(inputs.cameras, white).alpha > _THRESHOLD
    true = inputs.alpha > _THRESHOLD
    union = (hull | true).sum(dim=(1, 2))
    return torch.where(union > 0, (hull & true).sum(dim=(1, 2)) / union.clamp_min(1), 1.0)


@torch.no_grad()
def explanation_db(gaussians: Gaussians, inputs: Views, background: Float[Tensor, "3"]) -> float:
    """How much smaller the error of the re-rendered inputs is than that of an empty page, dB.

    The error is LGM's training loss without its perceptual term: MSE of colour over the background plus MSE of alpha.

    Args:
        gaussians: prediction in the scene's frame.
        inputs: posed views with alpha, which it was made from.
        background: colour of the empty page, sRGB.
    """
    assert inputs.alpha is not None
    shown = GaussianField(gaussians).render(inputs.cameras, background)
    colour = inputs.over(background)
    error = (shown.rgb.clamp(0, 1) - colour).square().mean() + (shown.alpha - inputs.alpha).square().mean()
    empty = (background - colour).square().mean() + inputs.alpha.square().mean()
    return 10 * math.log10(max(float(empty), 1e-12) / max(float(error), 1e-12))
