"""Pairs of nearly equal, or opposite, directions in float32: once more in float64.

A step of sqrt(1 - c) turns a rounding error r of the correlation c into r / sqrt(1 - c), and into sqrt(r) at c = 1. Where
1 - |c| of the inputs is below a bound, a pair is worth twice the arithmetic. Which pairs those are, and their bits,
depend on the pair alone, not on its tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.inputs import Array

VECTORS = 2.0**-9  # 1 - |c| below which a pair is near
IMAGES = 2.0**-5  # many layers of sums over windows round more
LANES = 8  # columns that the engine takes side by side in float64
_SLACK = 1e-5  # of a product of unit vectors by BLAS in float32

Pairs = npt.NDArray[np.bool_]
Views = Sequence[Sequence[Array | None]]  # nngp, ntk: of every output its part, None where not wanted


def of_vectors(dot: Array, opposite_only: bool, diagonal: bool) -> Pairs | None:
    """Which scalar products of unit vectors are near 1 or -1 (-1 alone, if so said); None for none."""
    bound = 1 - VECTORS
    if dot.min() > -bound and (opposite_only or dot.max() < bound):
        return None
    near = dot < -bound if opposite_only else np.abs(dot) > bound
    return _some(np.triu(near, 1) if diagonal else near)


def of_images(a: Array, b: Array, diagonal: int | None) -> Pairs | None:
    """Which pairs of images are near as vectors; None for none. ``diagonal``: only columns from row + diagonal on."""
    u, v = _units(a), _units(b)
    near: Pairs = np.abs(u.astype(np.float32) @ v.T.astype(np.float32)) > 1 - IMAGES - _SLACK
    if diagonal is not None:
        near = np.triu(near, diagonal)
    for i in np.flatnonzero(near.any(axis=1)):
        j = np.flatnonzero(near[i])
        near[i, j] = np.minimum(_defect(u[i], v[j]), _defect(-u[i], v[j])) < IMAGES
    return _some(near)


def evaluate_vectors(program: _core.Program, backend: str, a: Array, b: Array, near: Pairs, *places: Views) -> None:
    """Write the near pairs of the rows of `a` and `b` into all `places`, from float64."""
    rows, cols = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    near = near[np.ix_(rows, cols)]
    points = [_core.Points(program, x.astype(np.float64)) for x in (a[rows], b[cols])]
    u, v = points[0].unit, points[1].unit
    dot = np.zeros((len(rows), -(-len(cols) // _core.STRIP) * _core.STRIP))
    for i in range(len(rows)):
        j = np.flatnonzero(near[i])
        same = u[i] @ v[j[0]] > 0
        dot[i, j] = 1 - _defect(u[i], v[j]) if same else _defect(-u[i], v[j]) - 1
    results, nothing = _results(places[0], near.shape)
    _core.evaluate(backend, points[0], 0, points[1], 0, dot, *results, nothing, nothing, False)
    i, j = np.nonzero(near)
    _write(places, results, (i, j), (rows[i], cols[j]))


def evaluate_images(
    program: _core.ImageProgram,
    backend: str,
    images: tuple[Array, Array],
    heads: tuple[Any, Any],
    near: Pairs,
    *places: Views,
) -> None:
    """The same of images (rows, columns), with the features of their heads, if any: only groups with a near pair."""
    rows, cols = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    near = near[np.ix_(rows, cols)]
    a, b = (
        _core.Images(program, backend, x[at].astype(np.float64), None if h is None else np.ascontiguousarray(h[:, at]))
        for x, h, at in zip(images, heads, (rows, cols), strict=True)
    )
    for first in range(0, len(cols), LANES):
        group = near[:, first : first + LANES]
        for row in np.flatnonzero(group.any(axis=1)):
            results, nothing = _results(places[0], (1, group.shape[1]))
            _core.evaluate_images(backend, a, int(row), b, first, *results, nothing, nothing, False)
            j = np.flatnonzero(group[row])
            _write(places, results, (0, j), (rows[row], cols[first + j]))


def transposed(views: Views) -> Views:
    """The same places, columns first."""
    return [[None if view is None else view.T for view in kind] for kind in views]


def _units(x: Array) -> npt.NDArray[np.float64]:
    flat = x.reshape(len(x), -1).astype(np.float64)
    norm = np.sqrt((flat * flat).sum(axis=1, keepdims=True))
    return np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0)


def _defect(u: Any, v: Any) -> Any:
    """1 - u.v of unit vectors, by difference; pair by pair in the same order, unlike BLAS."""
    return ((u - v) ** 2).sum(axis=-1) / 2


def _some(near: Pairs) -> Pairs | None:
    return near if near.any() else None


def _results(like: Views, shape: tuple[int, ...]) -> tuple[Views, list[None]]:
    """Arrays for what `like` holds, and no mirror."""
    results = [[None if out is None else np.empty(shape) for out in kind] for kind in like]
    return results, [None] * len(results[0])


def _write(places: tuple[Views, ...], results: Views, source: Any, target: Any) -> None:
    for place in places:
        for kind, values in zip(place, results, strict=True):
            for out, value in zip(kind, values, strict=True):
                if out is not None and value is not None:
                    out[target] = value[source]
