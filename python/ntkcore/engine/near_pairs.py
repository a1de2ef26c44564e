"""Pairs of nearly equal, or opposite, directions in float32: once more in float64.

The root of 1 - c in a dual turns a rounding error r of the correlation c into r / sqrt(1 - c), and
sqrt(r) at c = 1. Pairs whose inputs' |c| is above a bound are therefore worth the arithmetic of
float64. Which those are depends on the pair alone, not on its tile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine.inputs import Array
from ntkcore.engine.jobs import Place, Views
from ntkcore.engine.scales import not_finite

VECTORS = 2.0**-9  # 1 - |c| below which a pair is near, in any network
IMAGES = 2.0**-5  # many layers of sums over windows round more
LANES = 8  # columns that the engine takes side by side in float64
ERROR = 1.5e-6  # of the largest entry: what float32 may lose
_ROUNDING = 2e-7  # of a product of unit vectors by BLAS in float32
_SLACK = 1e-4  # far above it
_PROBES = 32  # pairs at each distance
_SKETCH = 256  # numbers of an image

Pairs = npt.NDArray[np.bool_]


class VectorBounds:
    """From which |c| on a pair of vectors is near, by the binary order of their variances.

    Found by trying: an activation may be steep, or bring all its inputs near c = 1 before a ReLU.
    Plain ReLU networks, which follow the defect 1 - c, lose digits near c = -1 alone.
    """

    def __init__(
        self, program: _core.Program, backend: str, rows: _core.Vectors, cols: _core.Vectors
    ) -> None:
        self._program, self._backend, self._below_only = program, backend, program.is_relu_chain
        self._rows = self._of(rows)
        self._cols = self._rows if cols is rows else self._of(cols)
        self._least = float(min(self._rows.min(), self._cols.min()))

    def reached(self, dot: Array) -> bool:
        """May any of these scalar products of unit vectors be beyond its bound?"""
        low, high = _core.extremes(self._backend, dot)
        return low <= -self._least or (not self._below_only and high >= self._least)

    def near(self, dot: Array, rows: slice, cols: slice, diagonal: bool) -> Pairs:
        """Which are beyond the bounds of their row and column; above the diagonal only,
        if so said.
        """
        near: Pairs = (-dot if self._below_only else np.abs(dot)) >= np.minimum.outer(
            self._rows[rows], self._cols[cols]
        )
        return np.triu(near, 1) if diagonal else near

    def _of(self, points: _core.Vectors) -> Array:
        """The bound of every point."""
        size = points.nngp.shape[1]
        roots = points.arrays[0][:size].astype(np.float64)
        orders = np.zeros(size, int) if self._below_only else np.frexp(roots**2)[1]
        distinct, inverse = np.unique(orders, return_inverse=True)
        return np.array([self._bound(int(order)) for order in distinct], np.float32)[inverse]

    def _bound(self, order: int) -> float:
        return 1 - VECTORS if self._below_only else _tried(self._program, self._backend, order)


@functools.lru_cache(maxsize=1024)
def _tried(program: _core.Program, backend: str, order: int) -> float:
    """1 - y of the largest y = 2^-9 … 1 where pairs with rounded products lose more than ERROR."""
    levels = 2.0 ** np.arange(-8, 1)
    rng = np.random.default_rng(0)
    y = np.repeat(levels, _PROBES)
    y *= rng.uniform(0.5, 1.0, len(y))
    c = (1 - y) * np.where(np.arange(len(y)) % 4 == 0, -1, 1)
    q = 2.0**order * rng.uniform(0.5, 1.0, len(y))
    rounded = c + _ROUNDING * rng.uniform(-1, 1, len(y))
    with np.errstate(all="ignore"):  # a variance of this order may have no finite kernel
        single, _ = _probe(program, backend, q, rounded.astype(np.float32))
        double, largest = _probe(program, backend, q, c)
        lost = (
            np.nan_to_num(np.abs(single - double) / largest)
            .max(axis=0)
            .reshape(len(levels), -1)
            .max(axis=1)
        )
    bad = levels[lost > ERROR]
    if not bad.size:
        return 1 - VECTORS
    return -1.0 if bad[-1] == 1 else float(1 - bad[-1])


def _probe(
    program: _core.Program, backend: str, q: npt.NDArray[np.float64], dot: Array
) -> tuple[Array, Array]:
    """Kernels of one point with others of variances q, (outputs and kernels, n),
    and their largest entries.
    """
    double = dot.dtype == np.float64
    row = _core.Vectors.of_norms(program, q[:1].copy(), 1, double, 1)
    cols = _core.Vectors.of_norms(program, q, 1, double, 1)
    size = len(q)
    padded = np.zeros((1, -(-size // _core.STRIP) * _core.STRIP), dot.dtype)
    padded[0, :size] = dot
    outputs = len(cols.nngp)
    nngp, ntk = ([np.empty((1, size), dot.dtype) for _ in range(outputs)] for _ in range(2))
    nothing: Views = [None] * outputs
    _core.evaluate(backend, row, 0, cols, 0, padded, nngp, ntk, nothing, nothing, False)
    largest = np.concatenate([cols.nngp, cols.ntk]).max(axis=1, keepdims=True)
    return np.concatenate([*nngp, *ntk]).astype(np.float64), largest


class ImageSketches:
    """Images as vectors: lengths, and sums of neighbouring features over the length.

    Sums over sqrt(group) are a projection: those of near images are near,
    and few products tell most pairs apart.
    """

    def __init__(self, x: Array) -> None:
        self.x = x.reshape(len(x), -1)
        group = max(1, self.x.shape[1] // _SKETCH)
        with np.errstate(over="ignore", invalid="ignore"):
            self.lengths = np.sqrt(np.einsum("ij,ij->i", self.x, self.x))
            sums = np.add.reduceat(self.x, np.arange(0, self.x.shape[1], group), axis=1) / np.sqrt(
                group, dtype=x.dtype
            )
            self.sums = np.nan_to_num(
                sums / np.maximum(self.lengths, np.finfo(x.dtype).tiny)[:, None]
            )
        self.parts = np.einsum("ij,ij->i", self.sums, self.sums)


def of_images(
    a: ImageSketches, rows: slice, b: ImageSketches, cols: slice, diagonal: int | None
) -> Pairs | None:
    """Which pairs of these images are near as vectors; None for none.

    ``diagonal``: only columns from row + diagonal on.
    """
    parts = np.add.outer(a.parts[rows] / 2, b.parts[cols] / 2)
    near: Pairs = np.abs(a.sums[rows] @ b.sums[cols].T) > parts - (IMAGES + _SLACK)
    if diagonal is not None:
        near = np.triu(near, diagonal)
    if not near.any():
        return None
    u, v = a.x[rows], b.x[cols]
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.multiply.outer(a.lengths[rows], b.lengths[cols] * (1 - IMAGES - _SLACK))
        near &= ~(np.abs(u @ v.T) < lengths)  # what overflows is looked at below
    for i in np.flatnonzero(near.any(axis=1)):
        j = np.flatnonzero(near[i])
        near[i, j] = _sine2(u[i : i + 1], v[j]) < 2 * IMAGES
    return near if near.any() else None


def evaluate_vectors(
    program: _core.Program, backend: str, a: Array, b: Array, near: Pairs, *places: Place
) -> None:
    """Write the near pairs of the rows of `a` and `b`, of one block each, into all `places`,
    from float64.
    """
    if not near.any():
        return
    rows, cols = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    near = near[np.ix_(rows, cols)]
    points = [_core.Vectors(program, x.astype(np.float64)) for x in (a[rows], b[cols])]
    dot = np.zeros((len(rows), -(-len(cols) // _core.STRIP) * _core.STRIP))
    np.matmul(points[0].unit, points[1].unit.T, out=dot[:, : len(cols)])
    results, nothing = _results(places[0], near.shape)
    _core.evaluate(backend, points[0], 0, points[1], 0, dot, *results, nothing, nothing, False)
    i, j = np.nonzero(near)
    _write(places, results, (i, j), (rows[i], cols[j]))


def evaluate_images(
    program: Any,
    backend: str,
    make: Callable[..., Any],
    images: tuple[Array, Array],
    heads: tuple[Any, Any],
    near: Pairs,
    *places: Place,
) -> None:
    """The same of images (rows, columns), with the features of their heads, if any:
    only groups with a near pair. `make` makes their tables.
    """
    rows, cols = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    near = near[np.ix_(rows, cols)]
    a, b = (
        make(
            program,
            backend,
            x[at].astype(np.float64),
            None if h is None else np.ascontiguousarray(h[:, at]),
        )
        for x, h, at in zip(images, heads, (rows, cols), strict=True)
    )
    for first in range(0, len(cols), LANES):
        group = near[:, first : first + LANES]
        for row in np.flatnonzero(group.any(axis=1)):
            results, nothing = _results(places[0], (1, group.shape[1]))
            _core.evaluate_images(backend, a, int(row), b, first, *results, nothing, nothing, False)
            j = np.flatnonzero(group[row])
            _write(places, results, (0, j), (rows[row], cols[first + j]))


def transposed(place: Place) -> Place:
    """The same places, columns first."""
    nngp, ntk = ([None if view is None else view.T for view in kind] for kind in place)
    return nngp, ntk


def _sine2(u: Array, v: Array) -> Array:
    """1 - c^2 of the row u with rows v; in the same order whatever else is in v, unlike BLAS."""
    u, v = u.astype(np.float64), v.astype(np.float64)
    square = [(x * y).sum(axis=1) for x, y in ((u, v), (u, u), (v, v))]
    sine2: Array = 1 - square[0] ** 2 / np.maximum(square[1] * square[2], np.finfo(float).tiny)
    return sine2


def _results(like: Place, shape: tuple[int, ...]) -> tuple[Place, Views]:
    """Arrays for what `like` holds, and no mirror."""
    nngp, ntk = ([None if out is None else np.empty(shape) for out in kind] for kind in like)
    return (nngp, ntk), [None] * len(nngp)


def _write(places: tuple[Place, ...], results: Place, source: Any, target: Any) -> None:
    for place in places:
        for kind, values in zip(place, results, strict=True):
            for out, value in zip(kind, values, strict=True):
                if out is None or value is None:
                    continue
                with np.errstate(over="ignore"):
                    rounded = value[source].astype(out.dtype)
                if not np.isfinite(rounded).all():
                    raise not_finite("two samples of nearly one direction", out.dtype)
                out[target] = rounded
