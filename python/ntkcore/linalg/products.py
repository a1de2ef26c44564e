"""Products of a kernel, group of tiles by group of tiles, here or on workers.

A group's sum runs tile by tile; the sums of the groups are added in the order of the groups, which
depend on the kernel's shape and tile alone. So the bits are the same wherever the groups are done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, to_host
from ntkcore.engine.executors import Kept, Remote, in_order, opened
from ntkcore.engine.tiles import Tile, one_blas_thread, pairs_in, tiles

PANEL = 2**18  # float64 entries that stay in a core's cache


class Group(NamedTuple):
    """Tiles that are done together, inside these rows and columns; of a ``symmetric`` kernel those
    above its diagonal stand for their mirror images too.
    """

    rows: slice
    cols: slice
    tiles: list[Tile]
    symmetric: bool

    @property
    def pairs(self) -> int:
        """Pairs of its tiles."""
        return sum(map(pairs_in, self.tiles))


def square_groups(shape: tuple[int, int], tile: int, symmetric: bool) -> list[Group]:
    """Of all tiles: squares of some quarter of the root of their number, so that for n points the
    groups are as n, and the vectors that travel as n^1.5; the largest first, so that workers end
    together.
    """
    count = -(-shape[0] // tile) * -(-shape[1] // tile)
    side = math.ceil(count**0.25 / 2) * tile
    parts = tiles(*shape, side, side, symmetric)
    groups = [_group(part, (tile, tile), symmetric) for part in parts]
    return sorted(groups, key=lambda group: -group.pairs)


def row_groups(shape: tuple[int, int], tile: int) -> list[Group]:
    """The same of tiles that are whole rows."""
    n, m = shape
    across = -(-m // tile)
    height = math.ceil((-(-n // tile) * across) ** 0.5 / 4 / across) * tile
    return [_group(part, (tile, m), False) for part in tiles(n, m, height, m, False)]


def _group(part: Tile, size: tuple[int, int], symmetric: bool) -> Group:
    top, bottom, first, last = part
    inside = tiles(bottom - top, last - first, *size, symmetric and top == first)
    moved = [(top + i0, top + i1, first + j0, first + j1) for i0, i1, j0, j1 in inside]
    return Group(slice(top, bottom), slice(first, last), moved, symmetric)


def in_double(block: Any, start: int = 0) -> Iterator[tuple[slice, Any]]:
    """A block in float64 by its rows, counted from ``start``: of one in single precision on the
    host a few at a time, in the same memory, which two products then find in the cache.
    """
    if block.dtype == np.float64 or array_module(block) is not np:
        yield slice(start, start + len(block)), block.astype(np.float64, copy=False)
        return
    step = max(1, PANEL // block.shape[1])
    buffer = np.empty((min(step, len(block)), block.shape[1]))
    for i in range(0, len(block), step):
        panel = buffer[: len(block) - i]
        panel[:] = block[i : i + step]
        yield slice(start + i, start + i + len(panel)), panel


def both_sides(group: Group, blocks: Iterable[Any], X: Any, Z: Any) -> tuple[Any, Any]:
    """K X and K^T Z of a group, float64, for X of its columns and Z of its rows; None for None."""
    xp, at = array_module(Z if X is None else X), group.rows.start
    KX, KZ = (
        None if V is None else xp.zeros((side.stop - side.start, V.shape[1]), np.float64)
        for V, side in ((X, group.rows), (Z, group.cols))
    )
    for (i0, _, j0, j1), tile in zip(group.tiles, blocks, strict=True):
        cols = slice(j0 - group.cols.start, j1 - group.cols.start)
        for rows, block in in_double(xp.asarray(tile), i0 - at):
            if KX is not None:
                KX[rows] += block @ X[cols]
            if KZ is not None and not (group.symmetric and i0 == j0):
                KZ[cols] += block.T @ Z[rows]
    return KX, KZ


def gram(group: Group, blocks: Iterable[Any], V: Any) -> tuple[Any]:
    """K^T (K V) of a group of whole rows, float64."""
    out = array_module(V).zeros(V.shape, np.float64)
    for tile in blocks:
        for _, block in in_double(tile):
            out += block.T @ (block @ V)
    return (out,)


Sum = Callable[..., tuple[Any, ...]]  # of a group, its blocks and its vectors; Nones stay None


class Source(Protocol):
    """Whose tiles; ``xp`` is where they lie."""

    xp: Any

    def at_work(self) -> Source:
        """The same where a worker computes."""

    def blocks(self, work: Sequence[Tile]) -> Iterator[npt.NDArray[Any]]:
        """The blocks of these tiles, in order."""


class RemoteGroups(Remote):
    """An executor's workers, with whom a kernel stays."""

    def __init__(self, executor: Any, kernel: Source) -> None:
        super().__init__(executor)
        self._kernel = Kept(self, kernel)

    def died(self, error: BaseException) -> bool:
        """Is the error that of a worker, not of its group?"""
        found = super().died(error)
        if found:
            self._kernel.look()
        return found

    def sums(
        self,
        work: Sequence[Group],
        function: Sum,
        vectors: Callable[[Group], tuple[Any, ...]],
        done: Callable[[Group, Any], object],
    ) -> None:
        """``function`` of every group; ``done`` of each and its result, in order."""

        def start(group: Group) -> Future[Any]:
            return self.call(_sum, self._kernel.handle(), function, group, *vectors(group))

        kept = "; a solver with a checkpoint goes on from it"
        in_order(work, start, self, done, kept)


def _sum(kernel: Any, function: Sum, group: Group, *vectors: Any) -> tuple[Any, ...]:
    """On a worker: vectors come and go as NumPy's."""
    with one_blas_thread:
        source = opened(kernel).at_work()
        there = (None if V is None else source.xp.asarray(V) for V in vectors)
        parts = function(group, source.blocks(group.tiles), *there)
        return tuple(None if part is None else to_host(part) for part in parts)
