"""LDR-FLIP (Andersson et al. 2020, "FLIP: A Difference Evaluator for Alternating Images"), one image at a time.

`appearance` is all that FLIP knows of one image: the truth's is made once. `row_errors` compares two of them. Numbers
in brackets are the paper's sections. Filters are separable, as the authors' own implementation has them: the
blue-yellow one is a sum of two Gaussians and so is filtered twice. Borders repeat the outermost pixels. Planes are
float32, what is computed per pixel float64.
"""

import math

import numpy as np
from numba import njit, prange

# weight and width of the contrast sensitivity's Gaussians: achromatic, red-green, blue-yellow twice [4.1]
_SENSITIVITY = ((1.0, 0.0047), (1.0, 0.0053), (34.1, 0.04), (13.5, 0.025))
_EDGE_DEGREES = 0.082  # width of what is seen as an edge or a point [4.2]
_COLOUR_POWER, _FEATURE_POWER = 0.7, 0.5
_KNEE_AT, _KNEE_VALUE = 0.4, 0.95  # share of the largest colour difference, and what it becomes [4.1.3]

_WHITE = (0.31271, 0.32902)  # D65
_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # of sRGB (IEC 61966-2-1), x and y


def _xyz_from_linear():
    """The matrix that sRGB's primaries and white define, rows divided by the white's XYZ: white becomes (1, 1, 1)."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in (*_PRIMARIES, _WHITE)]).T
    primaries, white = columns[:, :3], columns[:, 3]
    return primaries * np.linalg.solve(primaries, white) / white[:, None]


_XYZ = _xyz_from_linear()
_LINEAR = np.linalg.inv(_XYZ)

_BYTES = np.arange(256, dtype=np.float32) / np.float32(255)


def _linear(value):
    """One sRGB value, linear."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


_LINEAR_BYTES = np.array([_linear(float(value)) for value in _BYTES])
_linear = njit(cache=True)(_linear)


def reach(pixels_per_degree):
    """Rows and columns round a pixel that FLIP looks at: three deviations of its widest, blue-yellow filter."""
    widest = max(width for _, width in _SENSITIVITY)
    return math.ceil(3 * math.sqrt(widest / (2 * math.pi**2)) * pixels_per_degree)


def filters(pixels_per_degree):
    """Weights of the contrast filters, (4, 2 R + 1), and of Gaussian, edge and point, (3, 2 r + 1): float32."""
    radius = reach(pixels_per_degree)
    degrees = np.arange(-radius, radius + 1) / pixels_per_degree
    contrast = np.array(
        [math.sqrt(a * math.sqrt(math.pi / b)) * np.exp(-(math.pi**2) * degrees**2 / b) for a, b in _SENSITIVITY]
    )
    sums = contrast.sum(axis=1)
    contrast /= np.array([sums[0], sums[1], math.hypot(sums[2], sums[3]), math.hypot(sums[2], sums[3])])[:, None]
    deviation = 0.5 * _EDGE_DEGREES * pixels_per_degree
    pixels = np.arange(-math.ceil(3 * deviation), math.ceil(3 * deviation) + 1)
    gauss = np.exp(-(pixels**2) / (2 * deviation**2))
    edge, point = -pixels * gauss, (pixels**2 / deviation**2 - 1) * gauss
    for weights in (edge, point):  # positive weights add up to 1, negative ones to -1 [4.2]
        above, below = weights[weights > 0].sum(), -weights[weights < 0].sum()
        weights[:] = np.where(weights > 0, weights / above, weights / below)
    return contrast.astype(np.float32), np.stack([gauss / gauss.sum(), edge, point]).astype(np.float32)


@njit(cache=True, parallel=True)
def appearance(image, contrast, features):
    """What FLIP compares of an image: (5, H, W) float32: L*, Hunt-adjusted a* and b*, edge and point strength.

    Args:
        image: (H, W, 3) float32 sRGB in [0, 1].
        contrast, features: of `filters`.
    """
    height, width, _ = image.shape
    rows = np.empty((height, 7, width), dtype=np.float32)
    for y in prange(height):
        _filter_row(image[y], contrast, features, rows[y])
    seen = np.empty((5, height, width), dtype=np.float32)
    for y in prange(height):
        sums = np.zeros((8, width), dtype=np.float32)
        _filter_columns(rows, y, contrast, features, sums)
        lightness, a, b = _hunt_lab(sums[0, 0], sums[1, 0], sums[2, 0] + sums[3, 0])
        for x in range(width):
            # plain background: what its left neighbour became
            if x > 0 and not (sums[:4, x] == sums[:4, x - 1]).all():
                lightness, a, b = _hunt_lab(sums[0, x], sums[1, x], sums[2, x] + sums[3, x])
            seen[0, y, x], seen[1, y, x], seen[2, y, x] = lightness, a, b
            seen[3, y, x] = math.sqrt(sums[4, x] * sums[4, x] + sums[6, x] * sums[6, x])
            seen[4, y, x] = math.sqrt(sums[5, x] * sums[5, x] + sums[7, x] * sums[7, x])
    return seen


@njit(cache=True, parallel=True)
def row_errors(pred, true, first, count):
    """Sums of FLIP's error over rows: (count,) float64, of rows ``first`` and on of two `appearance`."""
    width = pred.shape[2]
    sums = np.empty(count)
    largest = _largest_difference()
    for row in prange(count):
        y, total = first + row, 0.0
        for x in range(width):
            edge, point = abs(pred[3, y, x] - true[3, y, x]), abs(pred[4, y, x] - true[4, y, x])
            lightness = abs(pred[0, y, x] - true[0, y, x])
            a, b = pred[1, y, x] - true[1, y, x], pred[2, y, x] - true[2, y, x]
            if lightness + abs(a) + abs(b) + edge + point > 0:
                total += _error(lightness + math.sqrt(a * a + b * b), max(edge, point), largest)
        sums[row] = total
    return sums


@njit(cache=True)
def _error(distance, feature, largest):
    """From a HyAB distance and a difference of edges or points to FLIP's error [4.1.3, 4.3]."""
    colour, knee = distance**_COLOUR_POWER, _KNEE_AT * largest
    if colour < knee:
        colour *= _KNEE_VALUE / knee
    else:
        colour = _KNEE_VALUE + (colour - knee) / (largest - knee) * (1 - _KNEE_VALUE)
    return colour ** (1 - (feature / math.sqrt(2.0)) ** _FEATURE_POWER)


@njit(cache=True)
def _largest_difference():
    """Of green and blue, the colours that are farthest apart [4.1.3]."""
    green = _lab(0.0, 1.0, 0.0)
    blue = _lab(0.0, 0.0, 1.0)
    a = 0.01 * (green[0] * green[1] - blue[0] * blue[1])
    b = 0.01 * (green[0] * green[2] - blue[0] * blue[2])
    return (abs(green[0] - blue[0]) + math.sqrt(a * a + b * b)) ** _COLOUR_POWER


@njit(cache=True)
def _filter_row(pixels, contrast, features, out):
    """Filters along one row: Y, Cx, Cz twice; Gaussian, edge and point of the lightness: (7, W)."""
    width, radius, small = len(pixels), contrast.shape[1] // 2, features.shape[1] // 2
    padded = np.empty((4, width + 2 * radius), dtype=np.float32)
    for x in range(width):
        y, cx, cz = _opponent(pixels[x, 0], pixels[x, 1], pixels[x, 2])
        padded[0, radius + x], padded[1, radius + x], padded[2, radius + x] = y, cx, cz
        padded[3, radius + x] = (y + 16) / 116
    for channel in range(4):
        padded[channel, :radius] = padded[channel, radius]
        padded[channel, radius + width :] = padded[channel, radius + width - 1]
    out[:] = 0
    for channel in range(4):
        for k in range(2 * radius + 1):
            _add(out[channel], padded[min(channel, 2), k : k + width], contrast[channel, k])
    for kind in range(3):
        for k in range(2 * small + 1):
            start = radius - small + k
            _add(out[4 + kind], padded[3, start : start + width], features[kind, k])


@njit(cache=True)
def _filter_columns(rows, y, contrast, features, sums):
    """Filters along all columns at one row: Y, Cx, Cz twice; edges and points along x, then along y: (8, W)."""
    last, radius, small = len(rows) - 1, contrast.shape[1] // 2, features.shape[1] // 2
    for k in range(2 * radius + 1):
        source = rows[min(max(y + k - radius, 0), last)]
        for channel in range(4):
            _add(sums[channel], source[channel], contrast[channel, k])
    for k in range(2 * small + 1):
        source = rows[min(max(y + k - small, 0), last)]
        _add(sums[4], source[5], features[0, k])
        _add(sums[5], source[6], features[0, k])
        _add(sums[6], source[4], features[1, k])
        _add(sums[7], source[4], features[2, k])


@njit(cache=True)
def _add(total, values, weight):
    for x in range(len(total)):
        total[x] += weight * values[x]


@njit(cache=True)
def _opponent(red, green, blue):
    """Colour in sRGB to the linear opponent space YCxCz [4.1]."""
    r, g, b = _decoded(red), _decoded(green), _decoded(blue)
    x = _XYZ[0, 0] * r + _XYZ[0, 1] * g + _XYZ[0, 2] * b
    y = _XYZ[1, 0] * r + _XYZ[1, 1] * g + _XYZ[1, 2] * b
    z = _XYZ[2, 0] * r + _XYZ[2, 1] * g + _XYZ[2, 2] * b
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@njit(cache=True)
def _decoded(value):
    """`_linear`; from a table where an 8-bit file could hold the value."""
    index = int(value * 255 + 0.5)
    if 0 <= index < 256 and _BYTES[index] == value:
        return _LINEAR_BYTES[index]
    return _linear(float(value))


@njit(cache=True)
def _hunt_lab(y, cx, cz):
    """Filtered YCxCz, clamped to what a monitor shows, as L*, and a* and b* scaled by it (Hunt) [4.1]."""
    first = (y + 16.0) / 116
    x, z = first + cx / 500, first - cz / 200
    r = _LINEAR[0, 0] * x + _LINEAR[0, 1] * first + _LINEAR[0, 2] * z
    g = _LINEAR[1, 0] * x + _LINEAR[1, 1] * first + _LINEAR[1, 2] * z
    b = _LINEAR[2, 0] * x + _LINEAR[2, 1] * first + _LINEAR[2, 2] * z
    lightness, a, b = _lab(min(max(r, 0.0), 1.0), min(max(g, 0.0), 1.0), min(max(b, 0.0), 1.0))
    return lightness, 0.01 * lightness * a, 0.01 * lightness * b


@njit(cache=True)
def _lab(r, g, b):
    """Linear sRGB to CIELAB under D65."""
    x = _root(_XYZ[0, 0] * r + _XYZ[0, 1] * g + _XYZ[0, 2] * b)
    y = _root(_XYZ[1, 0] * r + _XYZ[1, 1] * g + _XYZ[1, 2] * b)
    z = _root(_XYZ[2, 0] * r + _XYZ[2, 1] * g + _XYZ[2, 2] * b)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@njit(cache=True)
def _root(value):
    return np.cbrt(value) if value > (6 / 29) ** 3 else value / (3 * (6 / 29) ** 2) + 4 / 29
