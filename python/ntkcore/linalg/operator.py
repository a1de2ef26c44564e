"""What all kernel operators share: products tile by tile, each tile serving twice where it can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, to_host
from ntkcore.engine.inputs import check_count
from ntkcore.engine.tiles import Tile, progress_bar, tiles

try:
    from scipy.sparse.linalg import LinearOperator
except ImportError:
    raise ImportError('operators need SciPy: pip install "ntkcore[sklearn]"') from None

Array = npt.NDArray[np.float64]


PANEL = 2**18  # float64 entries that stay in a core's cache


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


class KernelOperator(LinearOperator):  # type: ignore[misc]
    """Base: a kernel of shape (n, m), dtype float64, read tile by tile;
    of a ``symmetric`` one the upper half of the tiles.
    """

    chunked = False  # a row is read with all others of its chunks

    def __init__(
        self, shape: tuple[int, int], tile: int, symmetric: bool, progress: bool | None
    ) -> None:
        check_count("tile", tile, 1)
        super().__init__(np.dtype(np.float64), shape)
        if symmetric and shape[0] != shape[1]:
            raise ValueError(f"a kernel of shape {shape} is not symmetric: pass symmetric=False")
        self.tile, self.symmetric, self.progress = tile, symmetric, progress
        self.passes = 0.0

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:
        """The block of the kernel in these rows and columns."""
        raise NotImplementedError

    def diagonal(self) -> Array:
        """The diagonal, (n,), float64."""
        return np.concatenate([np.diagonal(self.read(s, s)) for s in self._row_slices()]).astype(
            np.float64
        )

    def rows(self, indices: npt.ArrayLike) -> Any:
        """K[indices, :], in its own precision, an array of ``xp``; counted in ``passes``."""
        raise NotImplementedError

    def submatrix(self, indices: npt.ArrayLike) -> Any:
        """K[indices, indices], an array of ``xp``."""
        return self.rows(indices)[:, self.xp.asarray(indices)]

    def row_product(self, indices: Any, X: Any) -> Any:
        """K[indices, :] X, float64, where X lies; counted in ``passes``."""
        step = max(1, 2**25 // self.shape[1])  # rows that are held at a time: 256 MB at most
        out = self.xp.empty((len(indices), X.shape[1]), np.float64)
        for i in range(0, len(indices), step):
            for at, block in in_double(self.rows(indices[i : i + step]), i):
                out[at] = block @ X
        return out

    def blocks(self, work: Sequence[Tile]) -> Iterator[npt.NDArray[Any]]:
        """The blocks of these tiles, in order."""
        for i0, i1, j0, j1 in work:
            yield self.read(slice(i0, i1), slice(j0, j1))

    def _row_slices(self) -> Iterator[slice]:
        for i in range(0, self.shape[0], self.tile):
            yield slice(i, min(i + self.tile, self.shape[0]))

    xp: Any = np  # NumPy, or CuPy where the tiles lie on a GPU

    def product(self, X: Any, transposed: bool = False) -> Any:
        """K X (or K^T X) for a matrix X, a NumPy or CuPy array of float64;
        the result is of the same kind.
        """
        xp = array_module(X)
        n, m = self.shape[::-1] if transposed and not self.symmetric else self.shape
        if X.ndim != 2 or len(X) != m:
            raise ValueError(f"a matrix of {m} rows is needed, not of shape {X.shape}")
        out = xp.zeros((n, X.shape[1]), np.float64)
        work: list[Tile] = tiles(self.shape[0], self.shape[1], self.tile, self.tile, self.symmetric)
        with progress_bar(sum((t[1] - t[0]) * (t[3] - t[2]) for t in work), self.progress) as count:
            for (i0, i1, j0, j1), tile in zip(work, self.blocks(work), strict=True):
                for rows, block in in_double(xp.asarray(tile), i0):
                    if not transposed or self.symmetric:
                        out[rows] += block @ X[j0:j1]
                    if (transposed and not self.symmetric) or (self.symmetric and i0 != j0):
                        out[j0:j1] += block.T @ X[rows]
                count((i1 - i0) * (j1 - j0))
        self.passes += 1
        return out

    def _matmat(self, X: npt.ArrayLike) -> Array:
        return self._product_of(X, transposed=False)

    def _rmatmat(self, X: npt.ArrayLike) -> Array:
        return self._product_of(X, transposed=True)

    def _product_of(self, X: npt.ArrayLike, transposed: bool) -> Array:
        if np.iscomplexobj(X):
            raise TypeError(
                "a kernel's products are with real numbers: multiply .real and .imag apart"
            )
        out: Array = to_host(self.product(self.xp.asarray(X, np.float64), transposed))
        return out

    def _matvec(self, x: npt.ArrayLike) -> Array:
        return self._matmat(np.asarray(x).reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: npt.ArrayLike) -> Array:
        return self._rmatmat(np.asarray(x).reshape(-1, 1))[:, 0]
