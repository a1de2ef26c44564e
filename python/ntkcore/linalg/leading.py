"""The leading eigenpairs of any kernel operator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import to_host
from ntkcore.engine.inputs import check_count
from ntkcore.linalg.checks import check_share
from ntkcore.linalg.eigen import decomposed
from ntkcore.linalg.krylov import EPS, block_krylov, power_of_two
from ntkcore.linalg.operators import KernelOperator, symmetric_operator
from ntkcore.store.files import check_place

Array = npt.NDArray[np.float64]


def eigs(
    K: Any,
    k: int,
    *,
    method: str = "auto",
    tolerance: float = 1e-10,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    return_residuals: bool = False,
) -> tuple[Array, ...]:
    """The k largest eigenvalues of a kernel, and their eigenvectors.

    Parameters
    ----------
    K : array_like or operator of shape (n, n)
        Symmetric.
    k : int
        From 1 to n.
    method : {"auto", "krylov", "eigh", "lanczos"}, default="auto"
        "krylov": randomised block Krylov (Musco & Musco 2015): each pass multiplies k + 10 vectors,
        so that there are few of them; holds 8 (k + 10) vectors. "eigh": all of them, from a matrix.
        "lanczos": SciPy's, a vector a pass; of an eigenvalue of high multiplicity it may miss some.
        "auto": "krylov" for k below n/10, else "eigh".
    tolerance : float, default=1e-10
        Of the residuals |K v - value v|, relative to the largest eigenvalue. Where it is loose,
        above about n^-1/2, larger eigenvalues may go unnoticed.
    seed : int, default=0
        Of the start vectors.
    checkpoint : path, optional
        For "krylov": a file (.npz) that keeps the state after each pass; the same call goes on.
    return_residuals : bool, default=False

    Returns
    -------
    values : ndarray of shape (k,)
        Descending.
    vectors : ndarray of shape (n, k)
    residuals : ndarray of shape (k,)
        If asked for: |K v - value v|, rounding included; within it of each value there is an
        eigenvalue.

    Raises
    ------
    ValueError
        For a k or method that is none, and for a kernel that is not symmetric.
    MemoryError
        Before any work, where "eigh" does not fit.
    RuntimeError
        Where the iteration does not converge.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import eigs
    >>> eigs(np.diag([1.0, 3.0, 2.0]), 2)[0]
    array([3., 2.])
    """
    operator = symmetric_operator(K)
    n = operator.shape[0]
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n:
        raise ValueError(f"k must be a whole number between 1 and {n}, not {k!r}")
    check_share(tolerance, "tolerance")
    check_count("seed", seed, 0)
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, not {method!r}")
    if method == "auto":
        method = "krylov" if k < n // 10 else "eigh"
    if checkpoint is not None and method != "krylov":
        raise ValueError(f"{method!r} keeps no checkpoint: leave it out, or take method='krylov'")
    if method == "krylov":
        place = None if checkpoint is None else check_place(checkpoint)
        found = block_krylov(operator, int(k), tolerance=tolerance, seed=seed, checkpoint=place)
        values, vectors = found.values, to_host(found.vectors)
        return (values, vectors, found.residuals) if return_residuals else (values, vectors)
    values, vectors = OTHERS[method](operator, int(k), tolerance, seed)
    order = np.argsort(values)[::-1][:k]
    values, vectors = values[order], vectors[:, order]
    if not return_residuals:
        return values, vectors
    return values, vectors, _residuals(operator, values, vectors)


def _residuals(operator: KernelOperator, values: Array, vectors: Array) -> Array:
    """By one more product; squares of what is near 1 neither overflow nor vanish."""
    unit = power_of_two(values)
    scaled = values / unit
    apart = operator @ vectors / unit - vectors * scaled
    rounding = math.sqrt(vectors.size) * EPS * float(np.abs(scaled).max())
    out: Array = unit * (np.linalg.norm(apart, axis=0) + rounding)
    return out


def _eigh(operator: KernelOperator, k: int, *_: Any) -> tuple[Array, Array]:
    matrix = operator.rows(np.arange(operator.shape[0])).astype(np.float64, copy=False)
    values, vectors = decomposed(matrix)
    return to_host(values[-k:]), to_host(vectors[:, -k:])


def _lanczos(operator: KernelOperator, k: int, tolerance: float, seed: int) -> tuple[Array, Array]:
    from scipy.sparse.linalg import eigsh

    n = operator.shape[0]
    start = np.random.default_rng(seed).standard_normal(n)
    image = operator @ start
    if k == n or not image.any():  # SciPy's has none there
        return _eigh(operator, k)
    unit = power_of_two(image)
    values, vectors = eigsh(operator * (1 / unit), k, which="LA", tol=tolerance, v0=start)
    return values * unit, vectors


OTHERS = {"eigh": _eigh, "lanczos": _lanczos}
METHODS = ("auto", "krylov", *OTHERS)
