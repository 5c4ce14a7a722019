"""Geometry metrics on samples of surfaces: pure functions of two sets of points with normals.

All distances are Euclidean, not squared, in units of the diagonal of the true mesh's bounding box; no alignment unless
a metric's id ends in ``.icp``. Each function checks what it is given and raises `ShapeError` (shape, range, zero
diagonal, no points) or `NonFiniteError` (NaN, infinity).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from evalsuite.core.errors import NonFiniteError, ShapeError, Status
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import SurfaceSamples
from evalsuite.metrics.kernels import nearest
from evalsuite.metrics.spec import F_SCORE_PERCENTS, geometry_metrics
from evalsuite.records.schema import Reading

_ORDER_BITS = 10


@dataclass(frozen=True)
class IndexedSurface:
    """Samples of a surface along a Morton curve, and the tree that finds the nearest of them (see `index`)."""

    samples: SurfaceSamples
    tree: tuple[np.ndarray, np.ndarray, np.ndarray]

    def nearest(
        self, queries: Float[np.ndarray, "Q 3"], starts: Int[np.ndarray, "Q"] | None = None
    ) -> tuple[Float[np.ndarray, "Q"], Int[np.ndarray, "Q"]]:
        """Distance to the nearest sample and its index; ``starts``: a near one of each, if that is known."""
        if starts is None:
            starts = np.full(len(queries), -1)
        return nearest.search(self.samples.points, *self.tree, queries.astype(np.float64), starts)


Side = SurfaceSamples | IndexedSurface
"""A surface; indexed, if it is measured against more than once."""


def index(samples: SurfaceSamples, name: str = "true") -> IndexedSurface:
    """Sort and index the samples of a surface: once for a truth, however many results are measured against it.

    Args:
        name: of the side, for messages.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    ordered = _sorted(_checked(name, samples))
    return IndexedSurface(ordered, nearest.tree(ordered.points))


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


def neighbours(pred: Side, true: Side, diagonal: float) -> Neighbours:
    """Match two sampled surfaces, each point with its nearest neighbour on the other side.

    Args:
        pred, true: samples in the same frame and unit.
        diagonal: of the true mesh's bounding box, > 0, in the samples' unit.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    _check_diagonal(diagonal)
    p, t = _indexed("pred", pred), _indexed("true", true)
    forth, nearest_true = t.nearest(p.samples.points)
    back, nearest_pred = p.nearest(t.samples.points)
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


def aligned_chamfer(pred: Side, true: Side, diagonal: float, rule: GeometryRule) -> float:
    """`chamfer` after point-to-point ICP of predicted onto true points, from the identity (Besl and McKay 1992).

    Rotation and shift only. Fitted and measured at every k-th point of either side, k so that about
    ``rule.icp_samples`` are left, each against all points of the other side.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    _check_diagonal(diagonal)
    p, t = _indexed("pred", pred), _indexed("true", true)
    few_p, few_t = (_every(side, rule.icp_samples) for side in (p, t))
    turn, shift = _registration(few_p, t, rule.icp_iterations)
    forth, _ = t.nearest(_turned(few_p, turn) + shift)
    back, _ = p.nearest(_turned(few_t - shift, turn.T))  # the truth moved back: as far from the prediction as it moved
    return float(forth.mean() + back.mean()) / (2 * diagonal)


def geometry_readings(pred: Side | None, true: Side | None, diagonal: float, rule: GeometryRule) -> dict[str, Reading]:
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
    pred, true = _indexed("pred", pred), _indexed("true", true)
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


def _sorted(samples: SurfaceSamples) -> SurfaceSamples:
    """The samples along a Morton curve: results do not depend on their order, and look-ups find near memory warm."""
    points = samples.points
    extent = float(np.ptp(points, axis=0).max())
    cells = ((points - points.min(axis=0)) * ((1 << _ORDER_BITS) - 1) / (extent or 1.0)).astype(np.int64)
    codes = nearest.interleave(cells)
    order = np.argsort(codes)
    if not nearest.settle(order, codes, points):  # many points in few cells
        order = np.lexsort((*points.T, codes))
    return SurfaceSamples(np.ascontiguousarray(points[order]), samples.normals[order])


def _indexed(name: str, side: Side) -> IndexedSurface:
    return side if isinstance(side, IndexedSurface) else index(side, name)


def _every(surface: IndexedSurface, count: int) -> Float[np.ndarray, "Q 3"]:
    """Every k-th point, k so that about as many are left."""
    points = surface.samples.points
    return points[:: -(-len(points) // count)].astype(np.float64)


def _registration(
    points: Float[np.ndarray, "Q 3"], true: IndexedSurface, iterations: int
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Rotation and shift that ICP finds; it ends where the mean square of the distances no longer falls."""
    turn, shift, before = np.eye(3), np.zeros(3), np.inf
    matched = None
    for _ in range(iterations):
        _, matched = true.nearest(_turned(points, turn) + shift, matched)
        targets = true.samples.points[matched].astype(np.float64)
        turn, shift = _rigid(points, targets)
        error = float(np.square(_turned(points, turn) + shift - targets).sum(axis=1).mean())
        if not error < before:
            break
        before = error
    return turn, shift


def _rigid(
    points: Float[np.ndarray, "Q 3"], targets: Float[np.ndarray, "Q 3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Rotation, no reflection, and shift of least squares (Kabsch 1976)."""
    centre, goal = points.mean(axis=0), targets.mean(axis=0)
    u, _, v = np.linalg.svd(np.einsum("qi,qj->ij", targets - goal, points - centre))
    turn = (u * [1.0, 1.0, np.linalg.det(u) * np.linalg.det(v)]) @ v
    return turn, goal - turn @ centre


def _turned(points: Float[np.ndarray, "Q 3"], turn: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "Q 3"]:
    """Not by BLAS, whose sums may depend on the number of threads."""
    return np.einsum("qj,ij->qi", points, turn)


def _cosines(a: Float[np.ndarray, "P 3"], b: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "P"]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.abs(np.einsum("ij,ij->i", a, b)) / np.maximum(lengths, 1e-12)
