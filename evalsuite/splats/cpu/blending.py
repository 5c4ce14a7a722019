"""One view's blending and its gradient table, in ranges of tiles that bound the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from evalsuite.splats.cpu import compositor, tiles

MAX_ENTRIES = 1 << 21
"""Tile-list entries held at once (about 80 bytes each with their gradients): what bounds the memory."""


class TileRange(NamedTuple):
    """Lists of a range of tiles (see `tiles.tile_lists`); ``whole`` if these are all tiles."""

    whole: bool
    first: int
    starts: np.ndarray
    entries: np.ndarray
    spans: np.ndarray
    slots: np.ndarray
    offsets: np.ndarray


class Image(NamedTuple):
    """One view, float32: rgb [H, W, 3], alpha [H, W], and depth [H, W], not normalised by alpha, or None."""

    rgb: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray | None


class Lists(NamedTuple):
    """What the forward pass leaves for the backward pass: the depth order, and the lists where one range is all."""

    order: np.ndarray
    kept: TileRange | None


class TableMemory:
    """Rows of a gradient table, kept from one to the next: fresh memory costs a tenth of what fills it."""

    def __init__(self) -> None:
        self._rows = np.empty((0, compositor.SUMS), np.float32)

    def rows(self, count: int) -> np.ndarray:
        """[count, SUMS] float32; what was in the last rows is lost."""
        if len(self._rows) < count:
            self._rows = np.empty((count + count // 4, compositor.SUMS), np.float32)
        return self._rows[:count]


def _tile_ranges(order: np.ndarray, splats: np.ndarray, width: int, height: int) -> Iterator[TileRange]:
    """Lists of all tiles, in ranges of at most `MAX_ENTRIES` entries (or one tile)."""
    bounds = tiles.ellipse_bounds(splats, width, height)
    counts = tiles.count_entries(order, splats, bounds, width, height)
    until = counts.sum(axis=0).cumsum()
    first = 0
    while first < len(until):
        before = until[first - 1] if first else 0
        last = max(int(np.searchsorted(until, before + MAX_ENTRIES, side="right")), first + 1)
        yield TileRange(
            last - first == len(until),
            first,
            *tiles.tile_lists(order, splats, bounds, width, height, counts, first, last),
        )
        first = last


def blend(splats: np.ndarray, background: np.ndarray, image: Image) -> Lists:
    """Blend splats [N, 12] over a background [3] into ``image``."""
    height, width = image.alpha.shape
    order = tiles.depth_order(splats)
    kept = None
    for part in _tile_ranges(order, splats, width, height):
        compositor.composite_forward(
            part.first, part.starts, part.entries, part.spans, splats, background, width, height, *image
        )
        kept = part if part.whole else None
    return Lists(order, kept)


def gradient_tables(
    splats: np.ndarray, background: np.ndarray, image: Image, cotangents: Image, lists: Lists,
    absgrad: bool, v_background: np.ndarray, memory: TableMemory,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Offsets [N + 1] and gradient table [E, SUMS] of every range of tiles (see `compositor.composite_backward`).

    Args:
        splats, background, image: of `blend`.
        cotangents: of ``image``; without depth, those of alpha are not read.
        v_background: [tiles, 3] output.
        memory: of the tables; one holds until the next is asked for.
    """
    height, width = image.alpha.shape
    v_alpha = None if cotangents.depth is None else cotangents.alpha
    for part in [lists.kept] if lists.kept else _tile_ranges(lists.order, splats, width, height):
        table = memory.rows(len(part.entries))
        compositor.composite_backward(
            part.first, part.starts, part.entries, part.spans, part.slots, splats, background, width, height,
            *image, cotangents.rgb, v_alpha, cotangents.depth, absgrad, table, v_background,
        )  # fmt: skip
        yield part.offsets, table


def tile_count(image: Image) -> int:
    """Tiles of an image: rows of ``v_background``."""
    height, width = image.alpha.shape
    return int(-(-width // tiles.TILE) * -(-height // tiles.TILE))
