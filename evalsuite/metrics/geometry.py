"""Geometry metrics on samples of surfaces: pure functions of two sets of points with normals.

All distances are Euclidean, not squared, in units of the diagonal of the true mesh's bounding box; no alignment unless
a metric's id ends in ``.icp``. Each function checks what it is given and raises `ShapeError` (shape, range, zero
diagonal, no points) or `NonFiniteError` (NaN, infinity).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from trimesh.registration import icp
from trimesh.transformations import transform_points

from evalsuite.core.errors import NonFiniteError, ShapeError, Status
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import SurfaceSamples
from evalsuite.metrics.spec import F_SCORE_PERCENTS, geometry_metrics
from evalsuite.records.schema import Reading

_LEAF = 64
_SIDES = 3
"""Sampled surfaces whose index is kept: the truths of two scenes, and a result."""

_ORDER_BITS = 10


@dataclass(frozen=True)
class Neighbours:
    """For every point of either side, the nearest of the other.

    Attributes:
        to_true, to_pred: distances from predicted to true points, and back, in units of the diagonal.
        cosines_to_true, cosines_to_pred: absolute cosines between the normals of those pairs.
    """

    to_true: Float[np.ndarray, "P"]
    to_pred: Float[np.ndarray, "Q"]
    cosines_to_true: Float[np.ndarray, "P"]
    cosines_to_pred: Float[np.ndarray, "Q"]


def neighbours(pred: SurfaceSamples, true: SurfaceSamples, diagonal: float) -> Neighbours:
    """Match two sampled surfaces, each point with its nearest neighbour on the other side.

    Args:
        pred, true: samples in the same frame and unit.
        diagonal: of the true mesh's bounding box, > 0, in the samples' unit.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    _check_diagonal(diagonal)
    p, t = _indexed("pred", pred), _indexed("true", true)
    forth, nearest_true = t.tree.query(p.samples.points)
    back, nearest_pred = p.tree.query(t.samples.points)
    return Neighbours(
        forth / diagonal,
        back / diagonal,
        _cosines(p.samples.normals, t.samples.normals[nearest_true]),
        _cosines(t.samples.normals, p.samples.normals[nearest_pred]),
    )


def chamfer(pairs: Neighbours) -> float:
    """Mean of the two mean nearest-neighbour distances, not squared, in units of the diagonal: >= 0."""
    return float(pairs.to_true.mean() + pairs.to_pred.mean()) / 2


def f_score(pairs: Neighbours, threshold: float) -> float:
    """Harmonic mean of precision and recall (Knapitsch et al. 2017), in [0, 1]; 0 where both are 0.

    Precision is the share of predicted points no farther than the threshold from a true point, recall the reverse.

    Args:
        threshold: in units of the diagonal, > 0.

    Raises:
        ShapeError: the threshold is not above 0.
    """
    if not threshold > 0:
        raise ShapeError(f"threshold is {threshold}, expected > 0 in units of the diagonal")
    precision, recall = float((pairs.to_true <= threshold).mean()), float((pairs.to_pred <= threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def normal_consistency(pairs: Neighbours) -> float:
    """Mean absolute cosine between the normals of nearest neighbours, both directions averaged: in [0, 1].

    Absolute, since the winding of scans is not to be relied on; two unrelated surfaces have about 0.5.
    """
    return float(pairs.cosines_to_true.mean() + pairs.cosines_to_pred.mean()) / 2


def aligned_chamfer(pred: SurfaceSamples, true: SurfaceSamples, diagonal: float, rule: GeometryRule) -> float:
    """`chamfer` after point-to-point ICP of predicted onto true points, from the identity (Besl and McKay 1992).

    Rotation and shift only. Fitted and measured at every k-th point of either side, k so that about
    ``rule.icp_samples`` are left, each against all points of the other side.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    _check_diagonal(diagonal)
    sides = _indexed("pred", pred), _indexed("true", true)
    p, t = (side.samples.points.astype(np.float64) for side in sides)
    few_p, few_t = (points[:: -(-len(points) // rule.icp_samples)] for points in (p, t))
    motion, _, _ = icp(few_p, t, threshold=0.0, max_iterations=rule.icp_iterations, scale=False, reflection=False)
    forth, _ = sides[1].tree.query(transform_points(few_p, motion))
    back, _ = cKDTree(transform_points(p, motion), leafsize=_LEAF).query(few_t)
    return float(forth.mean() + back.mean()) / (2 * diagonal)


def geometry_readings(
    pred: SurfaceSamples | None, true: SurfaceSamples | None, diagonal: float, rule: GeometryRule
) -> dict[str, Reading]:
    """Readings of `geometry_metrics`, without values per view.

    Args:
        pred: None if the result shows no surface: every status is then ``no-surface``.
        true: None if the scene has no true mesh: every status is then ``unsupported``.
        diagonal: of the true mesh's bounding box, > 0; not read without a truth.
        rule: names the metrics and says how to align.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    specs = geometry_metrics(rule)
    if pred is None or true is None:
        status: Status = "unsupported" if true is None else "no-surface"
        return {spec.id: Reading(None, (), spec.version, status) for spec in specs.values()}
    pairs = neighbours(pred, true, diagonal)
    values = {
        "chamfer": chamfer(pairs),
        "chamfer.icp": aligned_chamfer(pred, true, diagonal, rule),
        "normals": normal_consistency(pairs),
        **{f"f-score-{percent}": f_score(pairs, float(percent) / 100) for percent in F_SCORE_PERCENTS},
    }
    return {spec.id: Reading(values[quantity], (), spec.version) for quantity, spec in specs.items()}


def _check_diagonal(diagonal: float) -> None:
    if not (np.isfinite(diagonal) and diagonal > 0):
        raise ShapeError(f"diagonal is {diagonal}, expected > 0: the true mesh has no extent, check its file")


def _checked(name: str, samples: SurfaceSamples) -> SurfaceSamples:
    shape = samples.points.shape
    if len(shape) != 2 or shape[0] == 0 or shape[1] != 3 or samples.normals.shape != shape:
        raise ShapeError(
            f"{name} has points {shape} and normals {samples.normals.shape}, expected P x 3 of both, P > 0: "
            "sample its surface first"
        )
    for field, values in (("points", samples.points), ("normals", samples.normals)):
        if not np.isfinite(values).all():
            raise NonFiniteError(f"{field} of {name} hold NaN or infinity, expected finite values: check its mesh")
    return samples


@dataclass(frozen=True)
class _Indexed:
    """Samples along a Morton curve, and the tree of their points."""

    samples: SurfaceSamples
    tree: cKDTree


_RECENT: deque[tuple[SurfaceSamples, _Indexed]] = deque(maxlen=_SIDES)


def _indexed(name: str, samples: SurfaceSamples) -> _Indexed:
    """Made once for the same object while it is among the last few: the truth serves every result of its scene."""
    for place, (seen, kept) in enumerate(_RECENT):
        if seen is samples:
            del _RECENT[place]
            _RECENT.append((seen, kept))
            return kept
    ordered = _sorted(_checked(name, samples))
    made = _Indexed(ordered, cKDTree(ordered.points, leafsize=_LEAF))
    _RECENT.append((samples, made))
    return made


def _sorted(samples: SurfaceSamples) -> SurfaceSamples:
    """The samples along a Morton curve: results do not depend on their order, and look-ups find near memory warm."""
    points = samples.points
    extent = float(np.ptp(points, axis=0).max())
    cells = ((points - points.min(axis=0)) * ((1 << _ORDER_BITS) - 1) / (extent or 1.0)).astype(np.int64)
    code = np.zeros(len(points), dtype=np.int64)
    for bit in range(_ORDER_BITS):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    order = np.lexsort((*points.T, code))
    return SurfaceSamples(points[order], samples.normals[order])


def _cosines(a: Float[np.ndarray, "P 3"], b: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "P"]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.abs(np.einsum("ij,ij->i", a, b)) / np.maximum(lengths, 1e-12)
