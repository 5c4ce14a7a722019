"""LDR-FLIP's error map (Andersson et al. 2020, "FLIP: A Difference Evaluator for Alternating Images", with errata).

Both images go to the opponent space Y Cx Cz; each channel is blurred as the eye's contrast sensitivity has it at the
given pixels per degree; colours are compared in Hunt-adjusted L*a*b* by the HyAB distance; edges and points of the
achromatic channel sharpen what differs there. Filters are separable sums at clamped edges. Arithmetic is float32, each
output's sum in the order of the taps: a band of rows has the bits of the whole image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

# linear sRGB (D65) to XYZ, its inverse, and the white of the rows' sums
_TO_XYZ = np.array(
    [
        [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
        [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
        [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
    ]
)
_WHITE = _TO_XYZ.sum(axis=1)
_TO_RELATIVE = (_TO_XYZ / _WHITE[:, None]).astype(np.float32)
_TO_RGB = (np.linalg.inv(_TO_XYZ) * _WHITE).astype(np.float32)

# contrast sensitivity of the achromatic, red-green and blue-yellow channels: sums of Gaussians (a, b)
_SENSITIVITY = (((1.0, 0.0047),), ((1.0, 0.0053),), ((34.1, 0.04), (13.5, 0.025)))
_FEATURE_DEGREES = 0.082

_COLOUR_POWER, _KNEE, _KNEE_ERROR = np.float32(0.7), np.float32(0.4), np.float32(0.95)
_LINEAR_BELOW, _SLOPE = np.float32((6 / 29) ** 3), np.float32(1 / (3 * (6 / 29) ** 2))
_OFFSET = np.float32(4 / 29)


class Filters(NamedTuple):
    """Taps of all filters at one resolution, float32, each of 2 r + 1 values.

    Attributes:
        contrast: [4, 2 r + 1] of the achromatic and red-green channels, and of both parts of the blue-yellow one.
        smooth, edge, point: [2 r' + 1] of the features: a Gaussian, its first and its second derivative.
        worst: colour distance of the farthest colours, green and blue.
    """

    contrast: np.ndarray
    smooth: np.ndarray
    edge: np.ndarray
    point: np.ndarray
    worst: np.float32


def filters(pixels_per_degree: float) -> Filters:
    """Filters of a viewing condition."""
    widest = max(b for channel in _SENSITIVITY for _, b in channel)
    radius = math.ceil(3 * math.sqrt(widest / (2 * math.pi**2)) * pixels_per_degree)
    x = np.arange(-radius, radius + 1) / pixels_per_degree
    rows = []
    for channel in _SENSITIVITY:
        # the square root of the amplitude, since rows and columns both carry it; the whole sums to 1 in two dimensions
        parts = [math.sqrt(a * math.sqrt(math.pi / b)) * np.exp(-(math.pi**2) * x**2 / b) for a, b in channel]
        total = math.sqrt(sum(part.sum() ** 2 for part in parts))
        rows += [part / total for part in parts]
    sigma = 0.5 * _FEATURE_DEGREES * pixels_per_degree
    k = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    gauss = np.exp(-(k**2) / (2 * sigma**2))
    edge, point = -k * gauss, (k**2 / sigma**2 - 1) * gauss
    ends = np.zeros((1, 2, 3), np.float32)
    ends[0, 0, 1] = ends[0, 1, 2] = 1
    lab = _adjusted_lab(ends.transpose(2, 0, 1).copy())
    return Filters(
        np.stack(rows).astype(np.float32),
        (gauss / gauss.sum()).astype(np.float32),
        (edge / edge[edge > 0].sum()).astype(np.float32),
        np.where(point > 0, point / point[point > 0].sum(), point / -point[point < 0].sum()).astype(np.float32),
        np.float32(_distance(lab[:, 0, 0], lab[:, 0, 1])),
    )


@njit(cache=True)
def _opponent(rgb):
    """Y Cx Cz planes [3, H, W] of an sRGB image [H, W, 3]."""
    height, width, _ = rgb.shape
    planes = np.empty((3, height, width), np.float32)
    linear = np.empty(3, np.float32)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                value = rgb[y, x, c]
                if value <= np.float32(0.04045):
                    linear[c] = value / np.float32(12.92)
                else:
                    linear[c] = ((value + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
            i, j, k = _relative(linear[0], linear[1], linear[2])
            planes[0, y, x] = np.float32(116) * j - np.float32(16)
            planes[1, y, x] = np.float32(500) * (i - j)
            planes[2, y, x] = np.float32(200) * (j - k)
    return planes


@njit(cache=True, inline="always")
def _relative(r, g, b):
    """X, Y, Z in units of white."""
    return (
        _TO_RELATIVE[0, 0] * r + _TO_RELATIVE[0, 1] * g + _TO_RELATIVE[0, 2] * b,
        _TO_RELATIVE[1, 0] * r + _TO_RELATIVE[1, 1] * g + _TO_RELATIVE[1, 2] * b,
        _TO_RELATIVE[2, 0] * r + _TO_RELATIVE[2, 1] * g + _TO_RELATIVE[2, 2] * b,
    )


@njit(cache=True)
def _convolved(plane, across, down):
    """Correlate rows with one filter, then columns with another of the same length; edges are repeated."""
    height, width = plane.shape
    radius = across.shape[0] // 2
    rows, out = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    padded = np.empty(width + 2 * radius, np.float32)
    for y in range(height):
        padded[:radius] = plane[y, 0]
        padded[radius : radius + width] = plane[y]
        padded[radius + width :] = plane[y, width - 1]
        row = rows[y]
        for k in range(2 * radius + 1):
            tap = across[k]
            for x in range(width):
                row[x] += tap * padded[x + k]
    for y in range(height):
        row = out[y]
        for k in range(2 * radius + 1):
            tap, source = down[k], rows[min(max(y + k - radius, 0), height - 1)]
            for x in range(width):
                row[x] += tap * source[x]
    return out


@njit(cache=True, inline="always")
def _curve(t):
    return np.float32(np.cbrt(t)) if t > _LINEAR_BELOW else _SLOPE * t + _OFFSET


@njit(cache=True)
def _adjusted_lab(rgb):
    """L*a*b* of linear colours [3, H, W], chroma scaled by lightness (Hunt)."""
    lab = np.empty_like(rgb)
    for y in range(rgb.shape[1]):
        for x in range(rgb.shape[2]):
            i, j, k = _relative(rgb[0, y, x], rgb[1, y, x], rgb[2, y, x])
            fx, fy, fz = _curve(i), _curve(j), _curve(k)
            lightness = np.float32(116) * fy - np.float32(16)
            hunt = np.float32(0.01) * lightness
            lab[0, y, x] = lightness
            lab[1, y, x] = hunt * np.float32(500) * (fx - fy)
            lab[2, y, x] = hunt * np.float32(200) * (fy - fz)
    return lab


@njit(cache=True)
def _seen(planes, contrast):
    """What is seen of Y Cx Cz planes: blurred, brought into the gamut, in adjusted L*a*b*."""
    lightness = _convolved(planes[0], contrast[0], contrast[0])
    red_green = _convolved(planes[1], contrast[1], contrast[1])
    blue_yellow = _convolved(planes[2], contrast[2], contrast[2]) + _convolved(planes[2], contrast[3], contrast[3])
    rgb = np.empty_like(planes)
    for y in range(planes.shape[1]):
        for x in range(planes.shape[2]):
            j = (lightness[y, x] + np.float32(16)) / np.float32(116)
            i = red_green[y, x] / np.float32(500) + j
            k = j - blue_yellow[y, x] / np.float32(200)
            for c in range(3):
                value = _TO_RGB[c, 0] * i + _TO_RGB[c, 1] * j + _TO_RGB[c, 2] * k
                rgb[c, y, x] = min(max(value, np.float32(0)), np.float32(1))
    return _adjusted_lab(rgb)


@njit(cache=True)
def _features(lightness, smooth, derivative):
    """Length of the filter's response along both axes, of Y in [0, 1]."""
    grey = (lightness + np.float32(16)) / np.float32(116)
    along, down = _convolved(grey, derivative, smooth), _convolved(grey, smooth, derivative)
    return np.sqrt(along * along + down * down)


@njit(cache=True)
def _distance(a, b):
    """HyAB (Abasi et al. 2020) of two adjusted colours [3], compressed."""
    chroma = np.sqrt((a[1] - b[1]) * (a[1] - b[1]) + (a[2] - b[2]) * (a[2] - b[2]))
    return (abs(a[0] - b[0]) + chroma) ** _COLOUR_POWER


@njit(cache=True)
def error_map(pred, true, contrast, smooth, edge, point, worst):
    """FLIP's error of every pixel, in [0, 1]: float32 [H, W].

    Args:
        pred, true: [H, W, 3] sRGB in [0, 1].
        contrast, smooth, edge, point, worst: of `filters`.
    """
    planes_p, planes_t = _opponent(pred), _opponent(true)
    seen_p, seen_t = _seen(planes_p, contrast), _seen(planes_t, contrast)
    edges = np.abs(_features(planes_p[0], smooth, edge) - _features(planes_t[0], smooth, edge))
    points = np.abs(_features(planes_p[0], smooth, point) - _features(planes_t[0], smooth, point))
    height, width, _ = pred.shape
    out = np.empty((height, width), np.float32)
    knee = _KNEE * worst
    for y in range(height):
        for x in range(width):
            colour = _distance(seen_p[:, y, x], seen_t[:, y, x])
            if colour < knee:
                colour *= _KNEE_ERROR / knee
            else:
                colour = _KNEE_ERROR + (colour - knee) / (worst - knee) * (np.float32(1) - _KNEE_ERROR)
            feature = np.sqrt(max(edges[y, x], points[y, x]) * np.float32(math.sqrt(0.5)))
            out[y, x] = colour ** (np.float32(1) - feature)
    return out
