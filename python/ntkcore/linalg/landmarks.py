"""Kernel regression on landmarks, for more samples than any n x n kernel has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import to_host
from ntkcore.linalg.checks import check_matrix, square_kernel, targets_of
from ntkcore.linalg.cholesky import Cholesky, lower_solve
from ntkcore.linalg.noise import check_ridge, noise_floor
from ntkcore.linalg.operators import as_operator

Array = npt.NDArray[np.float64]


class LandmarkRegression:
    """Kernel regression on m landmarks, for n beyond any n x n kernel.

    Minimises |K_nm a - Y|^2 + ridge a^T K_mm a, on the host: of a kernel on a GPU each chunk of
    rows travels once. Predictions are K_test_m @ coefficients.

    Parameters
    ----------
    K_nm : array_like or operator of shape (n, m)
        The kernel between samples and landmarks; one product with it per chunk of rows.
    K_mm : array_like of shape (m, m)
        The kernel between landmarks.
    Y : array_like of shape (n,) or (n, outputs)
        Targets.
    ridge : float
        At least 0.

    Attributes
    ----------
    coefficients : ndarray of shape (m,) or (m, outputs)

    Raises
    ------
    ValueError
        For shapes that do not fit, and for a K_mm that is not positive definite.

    References
    ----------
    Rudi, Carratino & Rosasco 2017, "FALKON", equation 8 (Nyström).

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import LandmarkRegression, kernel, mlp
    >>> x = np.random.default_rng(0).standard_normal((200, 3))
    >>> K_nm, K_mm = kernel(mlp(1), x, x[:20]), kernel(mlp(1), x[:20])
    >>> LandmarkRegression(K_nm, K_mm, x[:, 0], 1e-3).coefficients.shape
    (20,)
    """

    def __init__(self, K_nm: Any, K_mm: npt.ArrayLike, Y: npt.ArrayLike, ridge: float) -> None:
        inner = to_host(square_kernel(K_mm)).astype(np.float64)
        operator = as_operator(K_nm)
        n, m = operator.shape
        if m != len(inner):
            raise ValueError(f"K_nm has {m} landmarks, K_mm {len(inner)}")
        data, flat = targets_of(to_host(Y), n)
        check_ridge(ridge)
        floor = noise_floor(operator.storage_dtype, m, np.trace(inner) / m)
        try:
            root = np.linalg.cholesky(inner + np.eye(m) * floor)
        except np.linalg.LinAlgError:
            raise ValueError(
                "K_mm is not positive definite: is it the kernel of the landmarks?"
            ) from None
        gram, right = np.zeros((m, m)), np.zeros((m, data.shape[1]))
        for i in range(0, n, operator.tile):
            rows = slice(i, min(i + operator.tile, n))
            block = np.asarray(to_host(operator.read(rows, slice(0, m))), np.float64)
            whitened = lower_solve(root, block.T)
            gram += whitened @ whitened.T
            right += whitened @ data[rows]
        operator.passes += 1
        inside = Cholesky(gram, ridge, overwrite=True).solve(right)
        coefficients = lower_solve(root, inside, transposed=True)
        self.coefficients: Array = coefficients[:, 0] if flat else coefficients

    def predict(self, K_test: npt.ArrayLike) -> Array:
        """Predictions from the kernel between test samples and landmarks."""
        cross = check_matrix(to_host(K_test), "K_test", (None, len(self.coefficients)))
        out: Array = cross @ self.coefficients
        return out
