"""Derivatives of a scalar function by its values alone: piecewise Chebyshev series."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

Array = npt.NDArray[np.float64]
Function = Callable[[Array], Array]

WIDTH = 0.25  # of a piece
DEGREE = 14
_NODES = np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_NODES, DEGREE))


def _pieces(function: Function, first: int, last: int) -> Array:
    """Chebyshev coefficients on the pieces [k WIDTH, (k + 1) WIDTH], first <= k < last."""
    centres = (np.arange(first, last) + 0.5) * WIDTH
    pieces = np.asarray(_TO_COEFFICIENTS @ function(centres + WIDTH / 2 * _NODES[:, None]))
    pieces[np.abs(pieces) < 1e-15 * np.abs(pieces).max(axis=0)] = 0  # rounding
    return pieces


def derivative(function: Function, reach: float) -> Function:
    """Its derivative for |z| <= `reach`, in pieces with an edge at 0; ValueError where a piece is
    not smooth, or the function jumps at 0.
    """
    count = min(math.ceil(reach / WIDTH), 4096)
    pieces = _pieces(function, -count, count)
    _check_smooth(pieces, count)
    _check_continuous(pieces, count)
    slopes = chebyshev.chebder(pieces, scl=2 / WIDTH)

    def at(z: Array) -> Array:
        number = np.clip(np.floor(z / WIDTH), -count, count - 1)
        x = np.clip(2 * (z / WIDTH - number) - 1, -1, 1)
        own = slopes[:, number.astype(int) + count]
        return np.asarray(chebyshev.chebval(x, own, tensor=False))

    return at


def _sizes(pieces: Array) -> Array:
    """Of each piece, what is small counting for more than it is."""
    own = np.abs(pieces).max(axis=0)
    return np.asarray(own + 1e-3 * min(1.0, float(own.max())))


def _check_smooth(pieces: Array, count: int) -> None:
    rough = np.abs(pieces[-2:]).max(axis=0) > 1e-9 * _sizes(pieces)
    if rough.any():
        worst = int(np.argmin(np.where(rough, np.abs(np.arange(-count, count) + 0.5), np.inf)))
        low = (worst - count) * WIDTH
        raise ValueError(
            f"phi is not smooth between {low:g} and {low + WIDTH:g}: a jump or a kink beside 0 has"
            " no table here; give dphi if it is only steep"
        )


def _check_continuous(pieces: Array, count: int) -> None:
    left, right = (np.asarray(chebyshev.chebval(x, pieces)) for x in (1.0, -1.0))
    size = _sizes(pieces)
    jumps = np.abs(left[:-1] - right[1:]) > 1e-8 * np.maximum(size[:-1], size[1:])
    if jumps.any():
        edges = np.arange(1 - count, count)
        k = int(np.argmin(np.where(jumps, np.abs(edges), np.inf)))
        raise ValueError(
            f"phi jumps at {edges[k] * WIDTH:g}, from {left[k]:.6g} to {right[k + 1]:.6g}: the"
            " derivative of a step has no second moment and the NTK is infinite; see ArcCosine(0)"
            " for a step's NNGP"
        )


def jumps_at_zero(function: Function) -> list[float]:
    """Jumps at 0 of phi' = `function` and its first three derivatives.

    0 where they are rounding; what is given here too little or too much stays in the series.
    """
    left, right = _pieces(function, -1, 1).T
    scale = float(np.abs([left, right]).max())
    jumps = []
    for order in range(4):
        low = chebyshev.chebval(1.0, chebyshev.chebder(left, order, scl=2 / WIDTH))
        high = chebyshev.chebval(-1.0, chebyshev.chebder(right, order, scl=2 / WIDTH))
        jump = float(high - low)
        jumps.append(jump if abs(jump) > 1e-6 * 30**order * (scale + abs(high)) else 0.0)
    return jumps
