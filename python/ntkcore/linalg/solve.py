"""(K + ridge I) A = Y: by Cholesky, by one eigendecomposition for all ridges,
or by conjugate gradients.

    factor = Cholesky(K, ridge); factor.solve(Y)          # one factorisation, many right-hand sides
    modes = Eigh(K); modes.path(Y, ridges); modes.leave_one_out(Y, ridges)
    cg(operator, Y, ridge).x                              # any operator, all columns in one pass

Predictions are K_test_train @ A. A ridge is absolute,
or times the mean diagonal with ``relative=True``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import on_device
from ntkcore.linalg.cg import cg
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.eigen import Eigh

Array = npt.NDArray[np.float64]
METHODS = ("cholesky", "eigh", "cg")
LARGEST_DENSE = 20_000  # points beyond which solve() takes conjugate gradients


def solve(
    K: Any, Y: npt.ArrayLike, ridge: float = 0.0, *, method: str = "auto", **options: Any
) -> Array:
    """A of (K + ridge I) A = Y.

    Parameters
    ----------
    K : array_like or operator of shape (n, n)
        A kernel of one data set.
    Y : array_like of shape (n,) or (n, outputs)
        Targets.
    ridge : float, default=0
        At least 0.
    method : {"auto", "cholesky", "eigh", "cg"}, default="auto"
        "auto": Cholesky for a matrix of up to 20 000 points,
        conjugate gradients for operators, stores and larger matrices.
    **options
        Those of `Cholesky`, of `Eigh.solve`, or of `cg`; ``relative=True`` for all of them.

    Returns
    -------
    ndarray of the shape of Y
        CuPy's if K and Y are. Predictions are K_test_train @ A.

    Raises
    ------
    TypeError, ValueError
        For what does not fit; where the system is singular.
    RuntimeError
        Where conjugate gradients do not converge.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import solve
    >>> solve(np.diag([1.0, 3.0]), [2.0, 2.0], ridge=1.0)
    array([1. , 0.5])
    """
    dense = isinstance(K, (np.ndarray, list)) or on_device(K)
    if method == "auto":
        method = "cholesky" if dense and len(K) <= LARGEST_DENSE else "cg"
    if method not in METHODS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}, not {method!r}")
    if method == "cholesky":
        return Cholesky(K, ridge, **options).solve(Y)
    if method == "eigh":
        return Eigh(K).solve(Y, ridge, **options)
    result = cg(K, Y, ridge, **options)
    if not result.converged:
        raise RuntimeError(
            f"conjugate gradients stopped after {result.iterations} iterations at a relative"
            f" residual of {result.residuals.max():.1e}: raise maxiter, rank, rtol (rounding may"
            " allow no less) or the ridge"
        )
    return result.x
