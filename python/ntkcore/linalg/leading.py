"""The leading eigenpairs of any kernel operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import failing_aloud, to_host
from ntkcore.linalg.operators import symmetric_operator

Array = npt.NDArray[np.float64]


def eigs(K: Any, k: int, *, method: str = "auto", seed: int = 0) -> tuple[Array, Array]:
    """The k largest eigenvalues of a kernel, and their eigenvectors.

    Parameters
    ----------
    K : array_like or operator of shape (n, n)
        Symmetric.
    k : int
        From 1 to n.
    method : {"auto", "eigh", "lanczos", "lobpcg", "randomised"}, default="auto"
        "eigh": all of them, from a matrix; "lanczos" and "lobpcg": SciPy's, through the operator;
        "randomised": subspace iteration, 8 passes (Halko, Martinsson & Tropp 2011, algorithm 4.4).
        "auto": Lanczos for k below n/10, else "eigh".
    seed : int, default=0
        Of the start vectors.

    Returns
    -------
    values : ndarray of shape (k,)
        Descending.
    vectors : ndarray of shape (n, k)

    Raises
    ------
    ValueError
        For a k or method that is none, and for a kernel that is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import eigs
    >>> eigs(np.diag([1.0, 3.0, 2.0]), 2)[0]
    array([3., 2.])
    """
    import scipy.sparse.linalg

    operator = symmetric_operator(K)
    n = operator.shape[0]
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n:
        raise ValueError(f"k must be a whole number between 1 and {n}, not {k!r}")
    if method == "auto":
        method = "lanczos" if k < n // 10 else "eigh"
    start = np.random.default_rng(seed).standard_normal((n, min(n, k + 10)))
    largest = float(np.abs(operator.diagonal()).max())
    # Iterations stop at absolute sizes, and overflow: a power of 2 rounds nothing.
    unit = 2.0 ** np.clip(np.frexp(largest)[1], -1000, 1000)
    scaled = operator * (1 / unit)
    if (method == "lanczos" and (k == n or largest == 0)) or (method == "lobpcg" and n < 5 * k):
        method = "eigh"  # SciPy's have none there
    if method == "eigh":
        matrix = operator.rows(np.arange(n)).astype(np.float64, copy=False)
        with failing_aloud(matrix):
            values, vectors = operator.xp.linalg.eigh(matrix)
        values, vectors = to_host(values[n - k :]) / unit, to_host(vectors[:, n - k :])
    elif method == "lanczos":
        values, vectors = scipy.sparse.linalg.eigsh(scaled, k, which="LA", v0=start[:, 0])
    elif method == "lobpcg":
        values, vectors = scipy.sparse.linalg.lobpcg(
            scaled, start[:, :k], largest=True, tol=1e-10, maxiter=200
        )
    elif method == "randomised":
        basis = np.linalg.qr(start)[0]
        for _ in range(7):
            basis = np.linalg.qr(scaled @ basis)[0]
        values, small = np.linalg.eigh(basis.T @ (scaled @ basis))
        vectors = basis @ small
    else:
        raise ValueError(
            f"method must be 'eigh', 'lanczos', 'lobpcg' or 'randomised', not {method!r}"
        )
    order = np.argsort(values)[::-1][:k]
    return values[order] * unit, vectors[:, order]
