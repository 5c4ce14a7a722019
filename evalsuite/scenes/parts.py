"""What a mesh file's reader hands on: triangles of one material, before several of them become one mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8


@dataclass(frozen=True)
class Part:
    """Triangles of one material, in the file's world; its colour is texture x factor x colours at the vertices.

    Attributes:
        uv: coordinates in the texture, origin at the lower left corner; None if ``image`` is.
        image: texture, 8-bit sRGB; None means white.
        factor: linear, in [0, 1].
        colours: linear, in [0, 1]; None means white.
    """

    vertices: Float[np.ndarray, "P 3"]
    faces: Int[np.ndarray, "F 3"]
    uv: Float[np.ndarray, "P 2"] | None
    image: UInt8[np.ndarray, "h w 3"] | None
    factor: Float[np.ndarray, "3"]
    colours: Float[np.ndarray, "P 3"] | None
