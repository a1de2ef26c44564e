"""Quadratic forms and many times at once, in the basis of the eigenmodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def compressed(learned: Array) -> tuple[Array, Array | None]:
    """1 - rho (times, k) as (A B^T)^T, A (k, q) and B (times, q), or None for the identity.

    Many times of a smooth decay span few dimensions. Every time is exact to rounding of its own
    largest mode, and exactly 0 where nothing is learned.
    """
    count = len(learned)
    if count <= 32:
        return learned.T, None
    size = np.linalg.norm(learned, axis=1, keepdims=True)
    u, s, v = np.linalg.svd((learned / np.where(size > 0, size, 1.0)).T, full_matrices=False)
    q = max(int((s > np.finfo(float).eps * s[0]).sum()), 1)
    return (learned.T, None) if 2 * q > count else (u[:, :q] * s[:q], size * v[:q].T)


def each(rows: Array, function: Callable[[Array], Array]) -> Array:
    """One time after the other: what a time needs may be as large as a kernel."""
    return np.stack([function(row) for row in rows]) if len(rows) else np.empty(0)


def product(b: Array, root: Array, lower: bool, block: int = 256) -> Array:
    """B R, without the zeros of a lower triangular R."""
    if not lower:
        return b @ root
    out = np.empty((len(b), len(root)))
    for j in range(0, len(root), block):
        out[:, j : j + block] = b[:, j:] @ root[j:, j : j + block]
    return out


def sandwich(b: Array, root: tuple[Array, bool], diagonal: bool) -> Array:
    """B S B^T, S = R R^T in the modes' basis, or its diagonal."""
    half = product(b, *root)
    return np.einsum("ij,ij->i", half, half) if diagonal else half @ half.T


def spectral(basis: Array, factor: Array, diagonal: bool) -> Array:
    """P diag(factor) P^T, or its diagonal."""
    return basis**2 @ factor if diagonal else (basis * factor) @ basis.T
