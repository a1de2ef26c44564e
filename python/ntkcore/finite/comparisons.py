"""Numbers that compare: a kernel with another, a kernel with targets, predictions.

Fort et al. 2020 (kernel distance and velocity), Cristianini et al. 2001 (alignment). Norms are
Frobenius norms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import real_array
from ntkcore.linalg.checks import check_matrix

Array = npt.NDArray[Any]


def kernel_movement(K_t: npt.ArrayLike, K_0: npt.ArrayLike) -> float:
    """||K_t - K_0||/||K_0||; 0 for a lazy network.

    Parameters
    ----------
    K_t, K_0 : array_like of shape (n, n)
        The kernel now, and before.

    Returns
    -------
    float

    Examples
    --------
    >>> from ntkcore.finite import kernel_movement
    >>> kernel_movement([[2.0]], [[1.0]])
    1.0
    """
    after, before = _kernels(K_t, K_0)
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def kernel_distance(K_t: npt.ArrayLike, K_0: npt.ArrayLike) -> float:
    """S = 1 - <K_t, K_0>/(||K_t|| ||K_0||), blind to the kernel's size.

    Parameters
    ----------
    K_t, K_0 : array_like of shape (n, n)
        The kernel now, and before.

    Returns
    -------
    float

    References
    ----------
    Fort et al. 2020, equation 2.

    Examples
    --------
    >>> from ntkcore.finite import kernel_distance
    >>> kernel_distance([[2.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]])
    0.0
    """
    after, before = _kernels(K_t, K_0)
    a, b = after / np.linalg.norm(after), before / np.linalg.norm(before)
    return float(((a - b) ** 2).sum() / 2)  # without cancellation


def kernel_velocity(K_t: npt.ArrayLike, K_s: npt.ArrayLike, dt: float) -> float:
    """S(s, t)/dt, the kernel's distance per unit of time.

    Parameters
    ----------
    K_t, K_s : array_like of shape (n, n)
        The kernel at times t and s.
    dt : float
        t - s > 0.

    Returns
    -------
    float

    References
    ----------
    Fort et al. 2020, equation 3.
    """
    if not dt > 0:
        raise ValueError(f"dt must be the time between both kernels, a positive number, not {dt!r}")
    return kernel_distance(K_t, K_s) / dt


def alignment(K: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """<K, y y^T>/(||K|| ||y y^T||); of one output y^T K y/(||K|| ||y||^2).

    Parameters
    ----------
    K : array_like of shape (n, n)
    y : array_like of shape (n,) or (n, outputs)

    Returns
    -------
    float

    Examples
    --------
    >>> from ntkcore.finite import alignment
    >>> alignment([[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0])
    1.0
    """
    kernel = check_matrix(K, "K", (None, None))
    targets = real_array(y, "y")
    if len(kernel) != kernel.shape[1] or targets.shape[:1] != kernel.shape[:1]:
        raise ValueError(
            f"K of shape {kernel.shape} and y of shape {targets.shape} must be (n, n) and (n, …)"
        )
    targets = targets.reshape(len(kernel), -1)
    norm = np.linalg.norm(kernel) * np.linalg.norm(targets.T @ targets)
    if not 0 < norm < math.inf:
        raise ValueError("the alignment needs a kernel and targets that are finite and not 0")
    return float(np.sum(targets * (kernel @ targets)) / norm)


def _kernels(K_t: npt.ArrayLike, K_0: npt.ArrayLike) -> tuple[Array, Array]:
    after, before = real_array(K_t, "K_t"), real_array(K_0, "K_0")
    if after.shape != before.shape:
        raise ValueError(f"the kernels differ in shape: {after.shape} and {before.shape}")
    if not (
        np.isfinite(after).all() and np.isfinite(before).all() and after.any() and before.any()
    ):
        raise ValueError("a kernel holds NaN or infinity, or is 0 everywhere")
    return after, before


def rms(values: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.asarray(values, np.float64) ** 2)))


# --- the function


def rms_deviation(f: npt.ArrayLike, f_lin: npt.ArrayLike) -> float:
    """RMS over samples and outputs of the difference of two predictions.

    Parameters
    ----------
    f, f_lin : array_like of one shape

    Returns
    -------
    float

    Examples
    --------
    >>> from ntkcore.finite import rms_deviation
    >>> rms_deviation([0.0, 0.0], [1.0, 1.0])
    1.0
    """
    a, b = real_array(f, "f"), real_array(f_lin, "f_lin")
    if a.shape != b.shape:
        raise ValueError(f"the predictions differ in shape: {a.shape} and {b.shape}")
    return rms(a - b)


def nmse(f: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """||f - y||^2/||y - mean y||^2: 0 is perfect, 1 the best constant.

    Parameters
    ----------
    f, y : array_like of shape (n,) or (n, outputs)
        Predictions and targets.

    Returns
    -------
    float

    Examples
    --------
    >>> from ntkcore.finite import nmse
    >>> nmse([0.0, 2.0], [1.0, 3.0])
    1.0
    """
    targets, outputs = real_array(y, "y"), real_array(f, "f")
    if outputs.size != targets.size or outputs.shape[:1] != targets.shape[:1]:
        raise ValueError(f"f of shape {outputs.shape} does not fit y of shape {targets.shape}")
    spread = ((targets - targets.mean(axis=0)) ** 2).sum()
    if not spread > 0:
        raise ValueError("the targets are constant: a relative error needs some that differ")
    return float(((outputs.reshape(targets.shape) - targets) ** 2).sum() / spread)
