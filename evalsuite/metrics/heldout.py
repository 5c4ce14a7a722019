"""The true side of the image metrics: made once per scene, however many results are measured against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from evalsuite.core.errors import ShapeError
from evalsuite.core.types import Views
from evalsuite.metrics.image import ALPHA_THRESHOLD, flip_appearance, require_image

KEPT_BYTES = 256 << 20
"""Most that prepared views may take; those of larger scenes are made anew for every result."""

_BYTES_PER_PIXEL = 12 + 20
"""Of a composited image, and of its `flip_appearance`."""


@dataclass(frozen=True)
class TrueView:
    """One held-out view, as a render of it is measured.

    Attributes:
        given: the view itself, with its camera.
        image: over the background, in [0, 1], rounded if the protocol says so.
        foreground: pixels with alpha > 0.5; None for photographs.
        appearance: what FLIP knows of the image; None where views are not kept, which are worked through in bands.
    """

    given: Views
    image: Float[Tensor, "1 H W 3"]
    foreground: Bool[Tensor, "1 H W"] | None
    appearance: Float[np.ndarray, "5 H W"] | None


class HeldOut:
    """Held-out views over a background, prepared at once if that fits into `KEPT_BYTES`.

    Args:
        views: without alpha for photographs.
        background: sRGB in [0, 1].
        eight_bit: the protocol's rule: round to multiples of 1/255.

    Raises:
        ShapeError: there is no view, or the truth is not an image in [0, 1].
        NonFiniteError: the truth holds NaN or infinity.
    """

    def __init__(self, views: Views, background: Float[Tensor, "3"], eight_bit: bool) -> None:
        if len(views) == 0:
            raise ShapeError("truth holds 0 views, expected at least one: check the scene's held-out split")
        self.views, self.background, self.eight_bit = views, background, eight_bit
        self._fits = views.rgb[..., 0].numel() * _BYTES_PER_PIXEL <= KEPT_BYTES
        self._kept = tuple(map(self._prepared, range(len(views)))) if self._fits else None

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[TrueView]:
        """The views, in order."""
        return iter(self._kept) if self._kept is not None else map(self._prepared, range(len(self)))

    def as_stored(self, image: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V H W 3"]:
        """An image in [0, 1] as the protocol compares it: rounded as a file would hold it, or as it is."""
        return (image * 255).round() / 255 if self.eight_bit else image

    def _prepared(self, number: int) -> TrueView:
        view = self.views[[number]]
        require_image("truth.rgb", view.rgb, (1, None, None, 3))
        image = self.as_stored(view.over(self.background.to(view.rgb)).clamp(0, 1))
        foreground = None if view.alpha is None else view.alpha > ALPHA_THRESHOLD
        return TrueView(view, image, foreground, flip_appearance(image[0]) if self._fits else None)
