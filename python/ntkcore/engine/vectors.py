"""Kernels of vectors: covariances by BLAS, block by block, then the recursion while a block is in cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntkcore import _core
from ntkcore.engine import near_pairs
from ntkcore.engine.inputs import KERNELS, Array
from ntkcore.engine.scales import check_tile
from ntkcore.engine.tiles import Tile, run, tiles

# One BLAS call covers one block of this many rows and columns, anchored at (0, 0): its shape, and with it every bit of
# the result, does not depend on the number of threads or on the tiling.
BLOCK = _core.STRIP
Parts = dict[str, list[Array]]
Views = near_pairs.Views


def check_variances(diagonals: dict[str, Any], dtype: np.dtype[Any], first: int = 0) -> None:
    """ValueError naming the sample, counted from `first`, whose kernel with itself is not finite in `dtype`."""
    largest = np.finfo(dtype).max
    for values in diagonals.values():
        bad = ~(np.abs(values) <= largest)
        if bad.any():
            sample = first + int(np.argwhere(bad)[0][-1])
            raise ValueError(
                f"sample {sample} has a variance that is not finite in {dtype}: rescale the data "
                "or reduce W_std, or use dtype='float64'; Gaussian(a, b) needs 4 b q < 1 for every variance q"
            )


def views(parts: Parts, levels: int, rows: slice, cols: slice) -> near_pairs.Place:
    """Per kernel (nngp, ntk) and output: the part of the result in these rows and columns, None where not wanted."""
    nngp, ntk = ([p[rows, cols] for p in parts[name]] if name in parts else [None] * levels for name in KERNELS)
    return nngp, ntk


def points_of(program: _core.Program, x: Array) -> _core.Points:
    """What depends on one row only; ValueError where a variance is not finite."""
    points = _core.Points(program, x)
    check_variances({"nngp": points.nngp, "ntk": points.ntk}, x.dtype)
    return points


def fill(
    program: _core.Program,
    a: Array,
    b: Array | None,
    parts: Parts,
    backend: str,
    threads: int,
    tile: int | None,
    progress: bool | None,
    flip: bool,
) -> None:
    """Write the kernels between rows of `a` and `b` (None: `a`) into `parts`."""
    width = 4 * BLOCK if tile is None else tile
    if not isinstance(width, (int, np.integer)) or width < BLOCK or width % BLOCK:
        raise ValueError(f"tile must be a positive multiple of {BLOCK} for vectors, not {tile!r}")
    symmetric = b is None
    rows = points_of(program, a)
    cols = rows if b is None else points_of(program, b)
    columns = a if b is None else b
    units = rows.unit, cols.unit
    levels = len(next(iter(parts.values())))
    bounds = near_pairs.VectorBounds(program, backend, rows, cols) if a.dtype == np.float32 else None

    def make_worker() -> Any:
        dot = np.empty((BLOCK, width + 16), a.dtype)  # rows a power of two apart would fight for the same cache sets

        def evaluate(task: Tile) -> None:
            i0, i1, j0, j1 = task
            diagonal = symmetric and i0 == j0
            near: list[tuple[int, int, near_pairs.Pairs]] = []
            for j in range(j0, j1, BLOCK):
                end = min(j + BLOCK, j1)
                block = dot[: i1 - i0, j - j0 : end - j0]
                np.matmul(units[0][i0:i1], units[1][j:end].T, out=block)
                if bounds is not None and bounds.reached(block):
                    near.append((j, end, bounds.near(block, slice(i0, i1), slice(j, end), diagonal)))
            here = views(parts, levels, slice(i0, i1), slice(j0, j1))
            mirror = views(parts if symmetric and not diagonal else {}, levels, slice(j0, j1), slice(i0, i1))
            found = _core.evaluate(backend, rows, i0, cols, j0, dot, *here, *mirror, diagonal)
            check_tile(found, i0, j0, a.dtype)
            for j, end, pairs in near:
                places = [views(parts, levels, slice(i0, i1), slice(j, end))]
                if symmetric:
                    places.append(near_pairs.transposed(views(parts, levels, slice(j, end), slice(i0, i1))))
                near_pairs.evaluate_vectors(program, backend, a[i0:i1], columns[j:end], pairs, *places)

        return evaluate

    work = tiles(len(a), len(a if b is None else b), BLOCK, int(width), symmetric)
    run(work, make_worker, threads, progress, lambda t: (t[1] - t[0]) * (t[3] - t[2]))


def diagonal(program: _core.Program, x: Array, backend: str, threads: int, flip: bool) -> dict[str, Any]:
    """Kernels of every row with itself, float64, shape (outputs, n)."""
    points = points_of(program, x)
    return {"nngp": points.nngp, "ntk": points.ntk}
