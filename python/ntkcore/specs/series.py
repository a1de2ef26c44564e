"""Hermite coefficients of any activation, tabulated over the variance, for csrc/math/series.h.

With normalised Hermite polynomials h_n, d_n(q) = E[phi'(sqrt(q) z) h_n(z)] and a_0(q) = E[phi]:

    E[phi' phi'] = sum_n d_n(q) d_n(q') c^n,
    E[phi phi']  = a_0(q) a_0(q') + K sum_n d_n(q) d_n(q') c^n / (n + 1)      (Mehler's formula)

What is left out of N terms is at most sum_{n >= N} d_n(q)^2 = E[phi'^2] - sum_{n < N} d_n(q)^2 at
q = q' and, by Cauchy and Schwarz, the geometric mean of both tails elsewhere: the error is known.
Kinks at 0, jumps of phi' and its derivatives, are taken out of the sum and added in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev, legendre

Array = npt.NDArray[np.float64]
Function = Callable[[Array], Array]

OCTAVES = 80  # of the variance; below them functions of it are taken as linear
SIZE = 16  # Chebyshev coefficients per octave of the variance
MOST_TERMS = 1024
LEAST = 1e-12  # of the largest D: what is less, where phi' has a root at 0, is compared with this
WORST = 1e-6  # error beyond which a kernel is refused
NODES, WEIGHTS = legendre.leggauss(16)
# A sum of n terms or more is good enough with such an error: few functions need many terms.
ENOUGH = ((192, 1e-11), (384, 1e-9), (768, 1e-7))
Goal = tuple[tuple[int, float], ...]  # (terms, error): so many or more may stop at this error


@dataclass(frozen=True)
class Series:
    """A table for csrc/math/series.h.

    ``kinks``: k0 … k3 of u(z) = k0 sgn z + k1 |z| + k2 z |z| + k3 |z|^3, the part of phi' that is
    not smooth at 0. ``error``: bound on what is left out, relative to
    sqrt(D(q, q) D(q', q')) of D = E[phi' phi'], and so for E[phi phi'], up to `variance`; D counts
    as `LEAST` of its largest where it is less.
    """

    table: Array
    kinks: tuple[float, ...]
    terms: int
    variance: float
    error: float
    largest: float  # E[phi^2] there


def tabulate(
    phi: Function, derivative: Function, kinks: tuple[float, ...], variance: float, wanted: float
) -> Series:
    """The series of an activation for variances below `variance`.

    Of as few terms as hold the error `wanted`, or what is ENOUGH, and at most MOST_TERMS.
    """
    goal: Goal = ((0, wanted), *ENOUGH)
    tables: list[_Octave] = []
    least = 0.0
    for octave in range(OCTAVES):
        low = variance / 2 ** (octave + 1)
        if octave == 0:
            table = _octave(phi, derivative, kinks, low, MOST_TERMS, goal, wanted)
            _check_finite(table, 2 * low)
            least = LEAST * float(table.moments[:, 1].max())
        else:  # against a variance near the top, what is left out here counts by its root
            most, goal = tables[0].terms, ((0, wanted**2),)
            table = _octave(phi, derivative, kinks, low, most, goal, wanted, least)
        if not table.error <= WORST:
            raise ValueError(
                f"at variances up to {2 * low:.3g} {table.terms} Hermite coefficients leave an"
                f" error of {table.error:.1e}: phi has a kink beside 0 or is too steep for them;"
                " rescale the data or reduce W_std"
            )
        tables.append(table)
    shown = _parities(tables[0])
    octaves = np.stack([table.functions(shown, any(kinks)) for table in reversed(tables)])
    zero = _at_zero(phi, derivative, kinks, shown, octaves.shape[2])
    even, odd = len(shown[0]), len(shown[1])
    header = np.array([OCTAVES, SIZE, octaves.shape[2], even, odd, variance])
    # From values at the nodes of every octave to coefficients.
    coefficients = np.einsum("kn,onf->ofk", _TO_COEFFICIENTS, octaves)
    return Series(
        np.concatenate([header, zero, coefficients.ravel()]),
        kinks,
        even + odd,
        variance,
        max(table.error for table in tables),
        1.01 * float(octaves[:, :, 0].max()),
    )


def _check_finite(table: _Octave, variance: float) -> None:
    if not np.isfinite(table.moments[:, :3]).all():
        raise ValueError(
            f"at variances up to {variance:.3g} the second moment of phi or of its derivative is"
            " beyond float64: scale phi, rescale the data or reduce W_std"
        )


_POINTS = np.cos(np.pi * (np.arange(SIZE) + 0.5) / SIZE)
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_POINTS, SIZE - 1))


@dataclass(frozen=True)
class _Octave:
    """Values at `SIZE` variances: E[phi^2], E[phi'^2], E[phi] and the terms of each parity that are
    needed; and, per term, r_n and u_n.
    """

    moments: Array  # [variance][4]
    smooth: Array  # [variance][terms]: d_n - u_n
    kinked: Array  # [variance][terms]: u_n
    error: float

    @property
    def terms(self) -> int:
        return len(self.smooth.T)

    def functions(self, shown: tuple[list[int], list[int]], kinked: bool) -> Array:
        """[variance][function] in the table's order, an even number of functions."""
        columns = list(self.moments.T)
        for n in (*shown[0], *shown[1]):
            root = math.sqrt(n + 1)
            r, u = self._column(self.smooth, n) / root, self._column(self.kinked, n) / root
            columns += [r, u + r / 2] if kinked else [r]
        if len(columns) % 2:
            columns.append(np.zeros(SIZE))
        return np.stack(columns, axis=1)

    def _column(self, values: Array, n: int) -> Array:
        return values[:, n] if n < values.shape[1] else np.zeros(SIZE)


def _parities(top: _Octave) -> tuple[list[int], list[int]]:
    """The even and the odd terms that count, each from its first on."""
    size = np.abs(top.smooth).max(axis=0) * (
        np.abs(top.smooth).max(axis=0) + 2 * np.abs(top.kinked).max(axis=0)
    )
    counts = size > 1e-17 * top.moments[:, 1].max()
    lists = []
    for parity in (0, 1):
        which = np.flatnonzero(counts[parity::2])
        last = which[-1] + 1 if len(which) else 0
        lists.append(list(range(parity, parity + 2 * last, 2)))
    return lists[0], lists[1]


def _nodes(root: float, terms: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes z > 0 and weights, fine enough for functions of `root` z, and as far as
    Hermite functions of this number go.
    """
    reach = 2 * math.sqrt(terms) + 7
    edges = np.linspace(0, reach, math.ceil(reach / min(0.5, 0.25 / root)) + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + NODES)).ravel(), (half * WEIGHTS).ravel()


def kink_part(z: Array, kinks: tuple[float, ...]) -> Array:
    """u(z)."""
    if not any(kinks):
        return np.zeros_like(z)
    sign, size = np.sign(z), np.abs(z)
    even, odd = kinks[1] * size + kinks[3] * size**3, kinks[0] * sign + kinks[2] * sign * size**2
    return np.asarray(even + odd)


def cancellation(derivative: Function, kinks: tuple[float, ...], variance: float) -> float:
    """E[u^2]/E[phi'^2] at a variance: how much larger than phi' that is which cancels in a sum."""
    z, weight = _nodes(math.sqrt(variance), 1)
    both = np.concatenate([-z, z]) * math.sqrt(variance)
    density = np.tile(weight * np.exp(-(z**2) / 2), 2)
    size, whole = (density @ f**2 for f in (kink_part(both, kinks), derivative(both)))
    return float(size) / max(float(whole), 1e-300)


def _octave(
    phi: Function,
    derivative: Function,
    kinks: tuple[float, ...],
    low: float,
    most: int,
    goal: Goal,
    wanted: float,
    least: float = 0.0,
) -> _Octave:
    """The variances low (1 + (1 + x)/2) of Chebyshev's points x: terms that reach the goal, and
    how many of them hold the error `wanted` of a pair of such variances.
    """
    roots = np.sqrt(low * (1.5 + _POINTS / 2))
    for terms in sorted({min(128, most), most}):
        z, weight = _nodes(float(roots.max()), terms)
        scaled, root_density = roots[:, None] * z, np.exp(-(z**2) / 4) / (2 * math.pi) ** 0.25
        values, slopes, kink = (
            [f(side * scaled) * root_density for side in (1, -1)]
            for f in (phi, derivative, lambda z: kink_part(z, kinks))
        )
        full = np.maximum((slopes[0] ** 2 + slopes[1] ** 2) @ weight, least)
        r, u, error = _coefficients(slopes, kink, root_density, z, weight, terms, goal, full)
        if _reached(goal, r.shape[1], error):
            break
    moments = [
        (values[0] ** 2 + values[1] ** 2) @ weight,
        (slopes[0] ** 2 + slopes[1] ** 2) @ weight,
        (values[0] + values[1]) @ (weight * root_density),
        _needed(r, u, full, max(error, wanted)),
    ]
    return _Octave(np.stack(moments, axis=1), r, u, error)


def _needed(r: Array, u: Array, full: Array, error: float) -> Array:
    """Terms of each parity that hold the error, bounded from above by a line over the octave."""
    tails = [np.cumsum((g**2)[:, ::-1], axis=1)[:, ::-1] for g in (r, r + 2 * u)]
    above = np.sqrt(tails[0] * tails[1]) > error * full[:, None]
    terms = np.where(above.any(axis=1), r.shape[1] - np.argmax(above[:, ::-1], axis=1), 1)
    pairs = (terms + 1) // 2
    slope = max(float(pairs[0] - pairs[-1]), 0.0) / float(_POINTS[0] - _POINTS[-1])
    line = slope * _POINTS
    return np.asarray(line + (pairs - line).max() + 1e-6)


def _reached(goal: Goal, terms: int, error: float) -> bool:
    return any(terms >= least and error < bound for least, bound in goal)


def _coefficients(
    slopes: list[Array],
    kink: list[Array],
    root_density: Array,
    z: Array,
    weight: Array,
    most: int,
    goal: Goal,
    full: Array,
) -> tuple[Array, Array, float]:
    """r_n and u_n, from phi' and u on both halves of the line times the root of the density, until
    the `goal` is reached relative to `full`.
    """
    # Even and odd parts, of r and of r + 2u: h_n is even or odd. What terms leave of them shrinks.
    halves = [np.concatenate([slope - u, slope + u]) for slope, u in zip(slopes, kink, strict=True)]
    left = [(halves[0] + sign * halves[1]) / 2 for sign in (1, -1)]
    before, here = np.zeros_like(z), root_density
    terms = np.empty((2 * SIZE, 0))
    error = math.inf
    while (first := terms.shape[1]) < most and not _reached(goal, first, error):
        hermite = np.empty((min(8 + first // 32 * 8, most - first), len(z)))
        for n, row in enumerate(hermite, first):
            row[:] = here
            before, here = here, (z * here - math.sqrt(n) * before) / math.sqrt(n + 1)
        found = np.empty((2 * SIZE, len(hermite)))
        for parity in (0, 1):
            functions = hermite[parity::2]
            found[:, parity::2] = 2 * left[parity] @ (weight * functions).T
            left[parity] -= found[:, parity::2] @ functions
        terms = np.concatenate([terms, found], axis=1)
        tail = 2 * sum((part**2) @ weight for part in left)
        error = float((np.sqrt(tail[:SIZE] * tail[SIZE:]) / np.maximum(full, 1e-300)).max())
    r = terms[:SIZE]
    return r, (terms[SIZE:] - r) / 2, error


def _at_zero(
    phi: Function,
    derivative: Function,
    kinks: tuple[float, ...],
    shown: tuple[list[int], list[int]],
    functions: int,
) -> Array:
    """The functions at q = 0, where phi' is the mean of its values on either side."""
    least = np.full(1, 1e-100)
    at = float(phi(np.zeros(1))[0])
    slope = float((derivative(least)[0] + derivative(-least)[0]) / 2)
    zero = np.zeros(functions)
    zero[:4] = at**2, slope**2, at, 1
    if 0 in shown[0]:
        zero[4] = slope
        if any(kinks):
            zero[5] = slope / 2
    return zero
