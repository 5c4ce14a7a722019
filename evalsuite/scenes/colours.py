"""sRGB and linear light (IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def srgb_from_linear(linear: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Encode values in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def linear_from_srgb(srgb: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Inverse of `srgb_from_linear`."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def times(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Product in linear light of two colours in sRGB: a tint on a texture, as glTF defines it."""
    return srgb_from_linear(linear_from_srgb(a) * linear_from_srgb(b))
