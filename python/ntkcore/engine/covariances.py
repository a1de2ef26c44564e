"""Kernels of vectors that are known by their covariances alone, not as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine.backends import cpu_backends, resolve
from ntkcore.engine.inputs import KERNELS, thread_count
from ntkcore.engine.scales import check_tile
from ntkcore.engine.tiles import Tile, run, tiles
from ntkcore.engine.vectors import BLOCK, check_variances

Matrix = npt.NDArray[np.float64]


def of_covariances(
    program: _core.Program,
    nngp: Matrix,
    cov1: Matrix,
    cov2: Matrix | None,
    names: Sequence[str],
    *,
    threads: int | None = None,
    backend: str | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """The kernels ``names`` (n1, n2), and the variances "cov1", "cov2" after the program, of
    points whose covariances ``nngp`` (n1, n2) and variances (n1,) and (n2,) are given.

    ``cov2=None``: of the same points; the diagonal is then exact. ValueError where nngp is no
    covariance; others as of `ntkcore.kernel`.
    """
    workers = thread_count(threads)
    name = resolve(backend)
    name = cpu_backends()[0] if name == "cuda" else name
    sides = [cov1] if cov2 is None else [cov1, cov2]
    points = [_core.Vectors.of_norms(program, cov, 1, True, workers) for cov in sides]
    for side in points:
        check_variances({"nngp": side.nngp, "ntk": side.ntk}, nngp.dtype)
    rows, cols = points[0], points[-1]
    correlation = _correlation(nngp, sides[0], sides[-1])
    found = {kernel: np.empty(nngp.shape) for kernel in names}

    def evaluate(task: Tile) -> None:
        i0, i1, j0, j1 = task
        dot = np.zeros((i1 - i0, -(-(j1 - j0) // BLOCK) * BLOCK))
        dot[:, : j1 - j0] = correlation[i0:i1, j0:j1]
        nngp_out, ntk_out = ([found[k][i0:i1, j0:j1]] if k in found else [None] for k in KERNELS)
        bad = _core.evaluate(
            name, rows, i0, cols, j0, dot, nngp_out, ntk_out, [None], [None], False
        )
        check_tile(bad, i0, j0, nngp.dtype)

    if names:
        run(
            tiles(len(nngp), nngp.shape[1], BLOCK, 4 * BLOCK, False),
            lambda: evaluate,
            workers,
            progress,
        )
    if cov2 is None:
        for kernel in names:
            np.fill_diagonal(found[kernel], getattr(rows, kernel)[0])
    return {**found, "cov1": rows.nngp[0], "cov2": None if cov2 is None else cols.nngp[0]}


def _correlation(nngp: Matrix, cov1: Matrix, cov2: Matrix) -> Matrix:
    """nngp over the roots of both variances, 0 where one of them is 0; ValueError beyond 1."""
    scale = np.sqrt(cov1)[:, None] * np.sqrt(cov2)
    correlation = np.divide(nngp, scale, out=np.zeros_like(nngp), where=scale > 0)
    bad = ~(np.abs(correlation) <= 1 + 1e-6)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise ValueError(
            f"nngp[{i}, {j}] = {nngp[i, j]:g} is no covariance of variances {cov1[i]:g} and"
            f" {cov2[j]:g}: it must not be larger than the root of their product"
        )
    bounded: Matrix = np.clip(correlation, -1, 1)
    return bounded
