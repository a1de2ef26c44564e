"""Fully connected networks on the sphere S^(d-1),
where their kernels depend on the angle alone: K(x, x') = K(t).

    modes = sphere_spectrum(net, d, 30)      # eigenvalue and number of harmonics of every order
    legendre(4, t, d)                        # P_k(t), P_k(1) = 1: zonal harmonics P_k(<zeta, x>)
    order_power(x, residual, [0, 1, 2], d)   # how much of a function, known at samples, has order k

For the uniform distribution on the sphere the eigenvalue of order k is eta_k = E[K(t) P_k(t)], with
N_k harmonics, and K(1) = sum_k N_k eta_k (Funk-Hecke; Bordelon et al. 2020, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import check_count, check_sequence, real_array
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.linalg.checks import check_matrix
from ntkcore.specs.layers import Layer
from ntkcore.theory.rules import positive

Array = npt.NDArray[np.float64]
MOST_NODES = 2**12


def degeneracy(k: int, d: int) -> int:
    """The number of independent harmonics of order k on S^(d-1), exact.

    Parameters
    ----------
    k : int
        Order.
    d : int
        Dimension of the space.

    Returns
    -------
    int

    Examples
    --------
    >>> from ntkcore.sphere import degeneracy
    >>> degeneracy(2, 3)
    5
    """
    check_count("k", k, 0)
    check_count("d", d, 2)
    return math.comb(k + d - 1, d - 1) - (math.comb(k + d - 3, d - 1) if k >= 2 else 0)


def legendre(orders: int, t: npt.ArrayLike, d: int) -> Array:
    """Legendre polynomials in d dimensions, P_k(1) = 1.

    (k + d - 2) P_(k+1) = (2k + d - 2) t P_k - k P_(k-1); on the circle, d = 2, P_k = cos(k angle):
    Fourier modes.

    Parameters
    ----------
    orders : int
        P_0 to P_(orders - 1).
    t : array_like
        In [-1, 1].
    d : int
        Dimension.

    Returns
    -------
    ndarray of shape (orders, *t.shape)

    Examples
    --------
    >>> from ntkcore.sphere import legendre
    >>> legendre(3, 0.5, 3)
    array([ 1.   ,  0.5  , -0.125])
    """
    check_count("orders", orders, 0)
    check_count("d", d, 2)
    x = real_array(t, "t")
    if not (np.abs(x) <= 1 + 1e-6).all():
        raise ValueError("t must lie in [-1, 1]: it is the cosine of an angle")
    x = np.clip(x, -1, 1)  # rounding
    out = np.empty((orders, *x.shape))
    for k in range(orders):
        if k < 2:
            out[k] = x if k else 1.0
        else:
            out[k] = ((2 * k + d - 4) * x * out[k - 1] - (k - 1) * out[k - 2]) / (k + d - 3)
    return out


def dot_product_kernel(
    net: Layer, angles: npt.ArrayLike, d: int, get: str = "ntk", *, norm: float = 1.0
) -> Array:
    """The kernel at pairs of vectors of one length, by their angle.

    Parameters
    ----------
    net : Layer
    angles : array_like
        In [0, pi].
    d : int
        Dimension.
    get : {"ntk", "nngp"}, default="ntk"
    norm : float, default=1
        Length of the vectors.

    Returns
    -------
    ndarray of the shape of angles, float64
    """
    check_count("d", d, 2)
    positive("norm", norm)
    theta = real_array(angles, "angles")
    x = np.zeros((theta.size + 1, d))
    x[0, 0] = norm
    x[1:, 0], x[1:, 1] = norm * np.cos(theta.ravel()), norm * np.sin(theta.ravel())
    values = kernel(net, x[:1], x[1:], get, dtype=np.float64, threads=1, progress=False)[0]
    return cast(Array, np.asarray(values).reshape(theta.shape))


@dataclass(frozen=True, eq=False)
class SphereSpectrum:
    """Eigenvalues by order: ``eigenvalues`` (orders,), ``degeneracies`` (orders,),
    float64; ``total`` = K(1).

    ``errors``: bounds of the eigenvalues' errors by rounding and quadrature;
    eigenvalues within theirs are 0.
    """

    d: int
    eigenvalues: Array
    degeneracies: Array
    errors: Array
    total: float

    @property
    def powers(self) -> Array:
        """N_k eta_k, what order k contributes to K(1)."""
        return self.degeneracies * self.eigenvalues

    @property
    def tail(self) -> float:
        """K(1) - sum N_k eta_k: what the orders beyond hold."""
        return max(self.total - float(self.powers.sum()), 0.0)


def sphere_spectrum(
    net: Layer, d: int, orders: int = 30, get: str = "ntk", *, norm: float = 1.0
) -> SphereSpectrum:
    """Eigenvalues, order by order, of a fully connected net's kernel on a sphere.

    By Gauss-Legendre quadrature in the angle, where K is smooth; its roots at t = +-1 would slow
    Gauss-Jacobi in t down to powers of the number of nodes. Nodes are doubled until nothing changes
    beyond rounding.

    Parameters
    ----------
    net : Layer
    d : int
        Dimension of the space, at least 2.
    orders : int, default=30
        Orders 0 to orders - 1.
    get : {"ntk", "nngp"}, default="ntk"
    norm : float, default=1
        Radius.

    Returns
    -------
    SphereSpectrum

    Raises
    ------
    ValueError
        For d < 2, orders < 1, and nets that `ntkcore.kernel` refuses for vectors of d features.

    References
    ----------
    Bordelon et al. 2020, section 3.

    Examples
    --------
    >>> from ntkcore import mlp
    >>> from ntkcore.sphere import sphere_spectrum
    >>> sphere_spectrum(mlp(1), 3, 4).eigenvalues.round(3)
    array([0.333, 0.222, 0.052, 0.   ])
    """
    check_count("d", d, 2)
    check_count("orders", orders, 1)
    positive("norm", norm)
    counts = np.array([float(degeneracy(k, d)) for k in range(orders)])
    one = np.zeros((1, d))
    one[0, 0] = norm
    total = float(np.asarray(kernel_diag(net, one, get, dtype=np.float64))[0])
    nodes = 4 * (orders + d) + 64
    before, _ = _project(net, d, orders, get, norm, nodes)
    while True:
        nodes *= 2
        values, size = _project(net, d, orders, get, norm, nodes)
        errors = 64 * np.finfo(float).eps * size / np.sqrt(counts)  # |P_k| is about N_k^(-1/2)
        change = np.abs(values - before)
        if (change <= errors).all() or nodes > MOST_NODES:
            break
        before = values
    errors = np.maximum(errors, change)
    return SphereSpectrum(
        d, np.where(np.abs(values) > 4 * errors, values, 0.0), counts, errors, total
    )


def _project(
    net: Layer, d: int, orders: int, get: str, norm: float, nodes: int
) -> tuple[Array, float]:
    """E[K P_k], and the root of E[K^2]."""
    from scipy.special import roots_legendre

    points, weights = roots_legendre(nodes)
    theta = (points + 1) * (np.pi / 2)
    density = weights * np.sin(theta) ** (d - 2)
    density /= density.sum()
    K = dot_product_kernel(net, theta, d, get, norm=norm)
    values: Array = legendre(orders, np.cos(theta), d) @ (density * K)
    return values, math.sqrt(float(density @ K**2))


def order_power(
    x: npt.ArrayLike, values: npt.ArrayLike, orders: Sequence[int], d: int | None = None
) -> Array:
    """The squared norm of each order's part of a function known at random points of the sphere.

    N_k times the mean over pairs i != j of values_i values_j P_k(<x_i, x_j>): unbiased, so it may
    come out negative where the order is absent.

    Parameters
    ----------
    x : array_like of shape (n, d)
        Normalised to the sphere.
    values : array_like of shape (n,)
    orders : sequence of int
    d : int, optional
        By default x's.

    Returns
    -------
    ndarray of shape (orders,)
    """
    points = check_matrix(x, "x", (None, None))
    f = check_matrix(values, "values", (len(points),))
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    if len(points) < 2 or not (lengths > 0).all():
        raise ValueError("x must hold two points or more, none of them 0")
    check_sequence(orders, "orders", Integral)
    unit, d = points / lengths, points.shape[1] if d is None else d
    P = legendre(max(orders, default=0) + 1, unit @ unit.T, d)
    pairs = len(f) * (len(f) - 1)
    return np.array([degeneracy(k, d) * (f @ P[k] @ f - f @ f) / pairs for k in orders])


def random_points(n: int, d: int, rng: np.random.Generator) -> Array:
    """Independent uniform points of S^(d-1).

    Parameters
    ----------
    n, d : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n, d)
    """
    x = rng.standard_normal((n, d))
    out: Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return out
