"""Kernels held as arrays, as operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, to_host
from ntkcore.linalg.checks import check_real, is_symmetric, refuse_asymmetric
from ntkcore.linalg.operator import KernelOperator

Array = npt.NDArray[np.float64]


class InMemory(KernelOperator):
    """A kernel held as an array; it is converted to float64 block by block.

    Parameters
    ----------
    K : array_like of shape (n, m)
        Of NumPy or CuPy, float32 or float64.
    symmetric : bool, optional
        By default, whether it is, up to rounding.
    tile : int, default=1024
        Rows and columns of a block. On a GPU blocks are panels of whole rows, large enough to fill
        it, and a float64 kernel is multiplied as it is.

    Raises
    ------
    ValueError
        Where K is said to be symmetric and is not.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import InMemory
    >>> InMemory(np.eye(3, dtype="f4")) @ np.ones(3)
    array([1., 1., 1.])
    """

    panel = 2**26  # entries converted at once on a GPU: 0.5 GB

    def __init__(
        self, K: npt.ArrayLike, *, symmetric: bool | None = None, tile: int = 1024
    ) -> None:
        self.xp = array_module(K)
        matrix = self.xp.asarray(K)
        if matrix.ndim != 2 or matrix.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"K must be a float32 or float64 matrix, not {matrix.ndim}-D {matrix.dtype}"
            )
        check_real(matrix, "K")
        super().__init__(
            matrix.shape, tile, is_symmetric(matrix) if symmetric is None else symmetric, False
        )
        if symmetric:
            refuse_asymmetric(matrix, "K")
        self.storage_dtype = matrix.dtype
        self._K = matrix

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:  # noqa: D102
        block: npt.NDArray[Any] = self._K[rows, cols]
        return block

    def product(self, X: Any, transposed: bool = False) -> Any:  # noqa: D102
        if self.xp is np or X.ndim != 2 or len(X) != self.shape[0 if transposed else 1]:
            return super().product(X, transposed)  # for a wrong shape: the error
        self.passes += 1
        # Transposed, a panel adds to all rows: no short products with long sums.
        transposed = transposed or self.symmetric
        if self.storage_dtype == np.float64:
            return (self._K.T if transposed else self._K) @ X
        n, m = self.shape
        out = self.xp.zeros((m if transposed else n, X.shape[1]), np.float64)
        step = max(1, self.panel // m)
        for rows in (slice(i, min(i + step, n)) for i in range(0, n, step)):
            block = self._K[rows].astype(np.float64)
            if transposed:
                out += block.T @ X[rows]
            else:
                out[rows] = block @ X
        return out

    def diagonal(self) -> Array:  # noqa: D102
        return np.asarray(to_host(self._K.diagonal()), np.float64)

    def rows(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        out = self._K[self.xp.asarray(indices)]
        self.passes += len(out) / self.shape[0]
        return out

    def submatrix(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        at = self.xp.asarray(indices)
        return self._K[at[:, None], at]

    def columns(self, indices: npt.ArrayLike) -> InMemory:  # noqa: D102
        return InMemory(self._K[:, self.xp.asarray(indices)], symmetric=False, tile=self.tile)

    def principal(self, indices: npt.ArrayLike) -> InMemory:  # noqa: D102
        return InMemory(self.submatrix(indices), symmetric=True, tile=self.tile)
