"""Kernels of vectors: covariances by BLAS, block by block,
then the recursion while a block is in cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ntkcore import _core
from ntkcore.engine import near_pairs
from ntkcore.engine.inputs import Array
from ntkcore.engine.jobs import Job, nowhere
from ntkcore.engine.scales import check_tile
from ntkcore.engine.tiles import Tile, run, tiles

# One BLAS call covers one block of this many rows and columns, anchored at (0, 0): its shape, and
# with it every bit of the result, does not depend on the number of threads or on the tiling.
BLOCK = _core.STRIP


def check_variances(diagonals: dict[str, Any], dtype: np.dtype[Any], first: int = 0) -> None:
    """ValueError naming the sample, counted from `first`,
    whose kernel with itself is not finite in `dtype`.
    """
    largest = np.finfo(dtype).max
    for values in diagonals.values():
        bad = ~(np.abs(values) <= largest)
        if bad.any():
            sample = first + int(np.argwhere(bad)[0][-1])
            raise ValueError(
                f"sample {sample} has a variance that is not finite in {dtype}: rescale the data or"
                " reduce W_std, or use dtype='float64';"
                " Gaussian(a, b) needs 4 b q < 1 for every variance q"
            )


def points_of(program: _core.Program, x: Array) -> _core.Vectors:
    """What depends on one row only; ValueError where a variance is not finite."""
    points = _core.Vectors(program, x)
    check_variances({"nngp": points.nngp, "ntk": points.ntk}, x.dtype)
    return points


def write(job: Job, backend: str) -> None:
    """Compute the job's kernels on the CPU."""
    width = job.tile_of(BLOCK) or 4 * BLOCK
    tasks = tiles(len(job.a), len(job.columns), BLOCK, width, job.symmetric)
    kernels = _Vectors(job, backend)
    run(tasks, lambda: kernels.worker(width), job.threads, job.progress)


class _Vectors:
    """Tiles of pairs of vectors."""

    def __init__(self, job: Job, backend: str) -> None:
        self.job, self.backend = job, backend
        self.rows = points_of(job.program, job.a)
        self.cols = self.rows if job.symmetric else points_of(job.program, job.b)
        self.units = self.rows.unit, self.cols.unit
        in_float32 = job.a.dtype == np.float32
        self.bounds = (
            near_pairs.VectorBounds(job.program, backend, self.rows, self.cols)
            if in_float32
            else None
        )

    def worker(self, width: int) -> Callable[[Tile], None]:
        """What computes tiles in a buffer of its own."""
        # Rows a power of two apart would fight for the same cache sets.
        dot = np.empty((BLOCK, width + 16), self.job.a.dtype)
        return lambda task: self.evaluate(task, dot)

    def evaluate(self, task: Tile, dot: Array) -> None:
        """A tile, and where the matrix is symmetric its mirror image."""
        job, (i0, i1, j0, j1) = self.job, task
        rows, cols = slice(i0, i1), slice(j0, j1)
        diagonal = job.symmetric and i0 == j0
        near = self.products(task, dot, diagonal)
        here = job.views(rows, cols)
        mirror = job.views(cols, rows) if job.symmetric and not diagonal else nowhere(job.parts)
        found = _core.evaluate(
            self.backend, self.rows, i0, self.cols, j0, dot, *here, *mirror, diagonal
        )
        check_tile(found, i0, j0, job.a.dtype)
        for block, pairs in near:
            places = [job.views(rows, block)]
            if job.symmetric:
                places.append(near_pairs.transposed(job.views(block, rows)))
            data = job.a[rows], job.columns[block]
            near_pairs.evaluate_vectors(job.program, self.backend, *data, pairs, *places)

    def products(
        self, task: Tile, dot: Array, diagonal: bool
    ) -> list[tuple[slice, near_pairs.Pairs]]:
        """Scalar products of a tile's unit vectors, block by block;
        the near pairs by their block.
        """
        i0, i1, j0, j1 = task
        near = []
        for j in range(j0, j1, BLOCK):
            end = min(j + BLOCK, j1)
            block = dot[: i1 - i0, j - j0 : end - j0]
            np.matmul(self.units[0][i0:i1], self.units[1][j:end].T, out=block)
            if self.bounds is not None and self.bounds.reached(block):
                cols = slice(j, end)
                near.append((cols, self.bounds.near(block, slice(i0, i1), cols, diagonal)))
        return near


def diagonal(
    program: _core.Program, x: Array, backend: str, threads: int, flip: bool
) -> dict[str, Any]:
    """Kernels of every row with itself, float64, shape (outputs, n)."""
    points = points_of(program, x)
    return {"nngp": points.nngp, "ntk": points.ntk}
