"""(K + ridge I) A = Y: by Cholesky, by one eigendecomposition for all ridges,
by conjugate gradients or by ASkotch.

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
from ntkcore.engine.inputs import size_text
from ntkcore.linalg.askotch import askotch, default_block
from ntkcore.linalg.cg import MEMORY, cg
from ntkcore.linalg.checks import check_positive
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.eigen import Eigh
from ntkcore.linalg.operators import as_operator

Array = npt.NDArray[np.float64]
METHODS = ("cholesky", "eigh", "cg", "askotch")
LARGEST_DENSE = 20_000  # points beyond which solve() takes conjugate gradients
LEAST_RANK = 100  # points a column of a preconditioner that is of use, at most


def solve(
    K: Any,
    Y: npt.ArrayLike,
    ridge: float = 0.0,
    *,
    method: str = "auto",
    memory: float = MEMORY,
    **options: Any,
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
    method : {"auto", "cholesky", "eigh", "cg", "askotch"}, default="auto"
        "auto": Cholesky for a matrix of up to 20 000 points whose factor fits ``memory``;
        conjugate gradients for operators, stores and larger matrices, with the rank that fits;
        ASkotch where that is less than n/100. From data, `fit` chooses by time too.
    memory : float, default=4 GiB
        Bytes for "auto", beside K and a few vectors.
    **options
        Those of `Cholesky`, of `Eigh.solve`, of `cg` or of `askotch`; ``relative=True`` for all.

    Returns
    -------
    ndarray of the shape of Y
        CuPy's if K and Y are. Predictions are K_test_train @ A.

    Raises
    ------
    TypeError, ValueError
        For what does not fit; where the system is singular.
    RuntimeError
        Where an iteration does not converge.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import solve
    >>> solve(np.diag([1.0, 3.0]), [2.0, 2.0], ridge=1.0)
    array([1. , 0.5])
    """
    if method == "auto":
        method, options = _chosen(K, memory, options)
    if method not in METHODS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}, not {method!r}")
    if method == "cholesky":
        return Cholesky(K, ridge, **options).solve(Y)
    if method == "eigh":
        return Eigh(K).solve(Y, ridge, **options)
    result = (cg if method == "cg" else askotch)(K, Y, ridge, **options)
    if not result.converged:
        more = "maxiter, rank" if method == "cg" else "max_passes"
        raise RuntimeError(
            f"{method} stopped after {result.iterations} iterations at a relative residual of"
            f" {result.residuals.max():.1e}: raise {more}, rtol (rounding may allow no less) or the"
            " ridge"
        )
    return result.x


def _chosen(K: Any, memory: float, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method that the memory allows, and its options."""
    check_positive(memory, "memory")
    dense = isinstance(K, (np.ndarray, list)) or on_device(K)
    direct = set(options) <= {"relative", "overwrite"}  # others are an iteration's
    if dense and direct and len(K) <= LARGEST_DENSE and 8 * len(K) ** 2 <= memory:
        return "cholesky", options
    operator = as_operator(K)
    n, itemsize = operator.shape[0], operator.storage_dtype.itemsize
    rank = int(min(n // 4, memory // (n * itemsize)))
    if rank * LEAST_RANK >= n or "rank" in options or n < LEAST_RANK:
        return "cg", {"rank": rank, **options}
    held = 8 * default_block(n) ** 2
    if held > memory:
        raise ValueError(
            f"{size_text(memory)} of memory are too little for {n} points: even ASkotch takes"
            f" {size_text(held)}"
        )
    return "askotch", {"rtol": 1e-6, **options}
