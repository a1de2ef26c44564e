"""Exact derivatives of kernel values: by every W_std and b_std, and by the inputs,
for networks of vectors.

A reverse sweep of the engine over a pair's program (csrc/cpu/gradient.h) gives the derivatives by
the constants of all dense layers and by the three scalars the kernel starts from, k = <x, x'>/d, q
= |x|^2/d and q' = |x'|^2/d. Then

    dK(x, x')/dx = (dK/dk x' + 2 dK/dq x) / d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine.backends import cpu_backends, resolve
from ntkcore.engine.inputs import Array, allocate, as_array, check_data, kernel_names, thread_count
from ntkcore.engine.kernels import kernel, program_for
from ntkcore.engine.tiles import Tile, run, tiles
from ntkcore.engine.vectors import BLOCK, points_of
from ntkcore.specs.layers import Dense, Layer
from ntkcore.specs.parameters import (
    NAMES,
    dense_layers,
    names_of,
)

Knob = tuple[int, int, Sequence[float]]


def _slopes(dense: Dense, name: str) -> tuple[float, float, float, float]:
    """Derivatives of `Dense.coefficients` (a, b, e, f) by W_std or b_std."""
    twice = 2.0 * getattr(dense, name)
    tangent = twice if dense.parameterization == "ntk" else 0.0  # standard: e and f are counts
    return (twice, 0.0, tangent, 0.0) if name == "W_std" else (0.0, twice, 0.0, tangent)


def _backend(backend: str | None) -> str:
    """As `resolve`; where the environment asks for a GPU, the CPU's fastest,
    and where the caller does, ValueError.
    """
    name = resolve(backend)
    if name in cpu_backends():
        return name
    if backend is not None:
        raise ValueError(
            f"gradients are computed on the CPU, not by {backend!r}: one of"
            f" {', '.join(cpu_backends())}"
        )
    return cpu_backends()[0]


class _Pairs:
    """The derivatives' engine for two data sets: a network, one of its kernels, a backend."""

    def __init__(
        self,
        net: Layer,
        x1: npt.ArrayLike,
        x2: npt.ArrayLike | None,
        get: str,
        threads: int | None,
        backend: str | None,
    ) -> None:
        if not isinstance(get, str):
            raise TypeError(
                "get must be 'nngp' or 'ntk':"
                f" the derivatives are those of one kernel, not of {get!r}"
            )
        (self.get,) = kernel_names(get)
        self.a, self.b = check_data(x1, x2, np.float64)
        if self.a.ndim != 2:
            raise ValueError(
                "gradients are there for vectors (samples, features), not for images of shape"
                f" {self.a.shape[1:]}: flatten them with x.reshape(len(x), -1) and use a fully"
                " connected network"
            )
        self.backend, self.threads = _backend(backend), thread_count(threads)
        self.program = cast(_core.Program, program_for(net, (self.a, self.b), self.get == "ntk"))
        rows = points_of(self.program, self.a)
        cols = rows if self.b is None else points_of(self.program, self.b)
        self._units = rows.unit, cols.unit
        self._rows = _core.VectorSlopes(rows)
        self._cols = self._rows if self.b is None else _core.VectorSlopes(cols)
        self.x2 = self.a if self.b is None else self.b
        self.shape = (len(self.a), len(self.x2))

    def derive(self, task: Tile, knobs: Sequence[Knob], results: Sequence[Array | None]) -> None:
        """The tile's derivatives by the knobs, then by k, q and q', into ``results`` (None:
        not wanted).
        """
        i0, i1, j0, j1 = task
        dot = self._units[0][i0:i1] @ self._units[1][j0:j1].T
        _core.gradient(
            self.backend, self._rows, i0, self._cols, j0, dot, self.get == "ntk", knobs, results
        )

    def by_inputs(self, task: Tile) -> tuple[Array, Array]:
        """(dK/dk, 2 dK/dq) / d of a tile's pairs."""
        i0, i1, j0, j1 = task
        by_k, by_q = np.empty((2, i1 - i0, j1 - j0))
        self.derive(task, [], [by_k, by_q, None])
        width = self.a.shape[1]
        return by_k / width, by_q * (2 / width)

    def run(self, work: list[Tile], do: Callable[[Tile], None], progress: bool | None) -> None:
        run(work, lambda: do, self.threads, progress)


def _knobs(net: Layer, ops: list[int], wrt: Sequence[str] | None) -> tuple[list[Knob], int]:
    """What every dense layer's constants depend on, and the number of derivatives."""
    knobs: list[Knob] = []
    count = 0 if wrt is None else len(wrt)
    # A program without a read-out ends with an emit.
    for op, (_, dense) in zip(ops, dense_layers(net), strict=False):
        for name in names_of(dense):
            if wrt is None:
                knobs.append((op, count, _slopes(dense, name)))
                count += 1
            elif name in wrt:
                knobs.append((op, wrt.index(name), _slopes(dense, name)))
    return knobs, count


def _check_names(wrt: Any) -> None:
    listed = (
        isinstance(wrt, (tuple, list))
        and all(name in NAMES for name in wrt)
        and len(set(wrt)) == len(wrt)
    )
    if wrt is not None and not listed:
        raise ValueError(
            f"wrt must be None or a tuple of distinct names among {NAMES}, not {wrt!r}"
        )


def kernel_gradient(
    net: Layer,
    x1: npt.ArrayLike,
    x2: npt.ArrayLike | None = None,
    get: str = "ntk",
    *,
    wrt: Sequence[str] | None = None,
    threads: int | None = None,
    backend: str | None = None,
    progress: bool | None = None,
) -> tuple[Array, Array]:
    """A kernel matrix and its exact derivatives by the standard deviations of weights and biases.

    Parameters
    ----------
    net
        A network of vectors; "ntk" or "standard" parameterization.
    x1, x2
        Vectors (n1, d) and (n2, d). ``x2=None`` means ``x1``: the result is symmetric,
        its diagonal exact.
    get
        "ntk" or "nngp".
    wrt
        None: by each of `parameters(net)`. A tuple of "W_std" and "b_std": one derivative for all
        of that name together, as for a network whose layers share them (the sum over layers).
    threads, backend, progress
        As for `ntkcore.kernel`, on the CPU. Results do not depend on ``threads``.

    Returns
    -------
    K of shape (n1, n2) and dK of shape (n1, n2, p), float64; dK[..., i] is stored contiguously for
    every i. The derivative by a b_std of 0 is 0.

    Raises
    ------
    TypeError, ValueError
        For data, networks or options that do not fit: the message names them.
    MemoryError
        If the results would not fit into the memory that is free, before any work.

    Notes
    -----
    A reverse sweep over every pair gives all derivatives at once: measured at n = 2000, d = 20,
    three hidden layers on one core with AVX-512, eight of them cost 8 times the kernel matrix
    alone, two (``wrt``) 5 times.

    The derivative of kappa0, the dual of ReLU's derivative, is infinite at correlation 1. A pair of
    equal vectors is therefore followed as a point with itself, whose kernel is smooth in the
    parameters. Of the NTK of a ReLU network at parallel or almost equal vectors, about half the
    digits are right (errors of 1e-8 of the value).

    References
    ----------
    Griewank & Walther 2008, Evaluating derivatives, ch. 3 (the reverse sweep); Rasmussen & Williams
    2006, eq. 5.9 (its use in the marginal likelihood).
    """
    _check_names(wrt)
    pairs = _Pairs(net, x1, x2, get, threads, backend)
    knobs, count = _knobs(net, pairs.program.dense_ops, wrt)
    symmetric = pairs.b is None
    derivatives = allocate(None, "ntk", (count, *pairs.shape), np.dtype(np.float64))["ntk"]

    def do(task: Tile) -> None:
        i0, i1, j0, j1 = task
        here = derivatives[:, i0:i1, j0:j1]
        pairs.derive(task, knobs, [*here, None, None, None])
        if symmetric and i0 == j0:
            here[:] = np.triu(here) + np.triu(here, 1).transpose(0, 2, 1)
        elif symmetric:
            derivatives[:, j0:j1, i0:i1] = here.transpose(0, 2, 1)

    if count:
        pairs.run(tiles(*pairs.shape, BLOCK, 4 * BLOCK, symmetric), do, progress)
    K = kernel(
        net, pairs.a, pairs.b, get, threads=threads, backend=pairs.backend, progress=progress
    )
    return K, np.moveaxis(derivatives, 0, -1)


def input_gradient(
    net: Layer,
    x1: npt.ArrayLike,
    x2: npt.ArrayLike | None = None,
    get: str = "ntk",
    *,
    threads: int | None = None,
    backend: str | None = None,
    progress: bool | None = None,
) -> Array:
    """The derivatives of K(x1_i, x2_j) by the features of its first argument.

    Where n1 n2 d values are too many, `input_vjp` sums over j on the way.

    Parameters
    ----------
    net : Layer
    x1 : array_like of shape (n1, d)
    x2 : array_like of shape (n2, d), or None
        None: x1, held fixed.
    get, threads, backend, progress
        As for `kernel_gradient`.

    Returns
    -------
    ndarray of shape (n1, n2, d), float64

    Notes
    -----
    The NTK of ReLU networks has a kink |x - x'| at x = x', and there is no derivative there; the
    NNGP kernel and all kernels of smooth activations have one. Returned is, for equal vectors, half
    the derivative of K(x, x) by x: the derivative where there is one, and the mean of the one-sided
    ones at the kink. Near the kink, at a relative distance r, the NTK's derivative has a relative
    error of about 1e-16/r^2. At the zero vector, where a ReLU network without biases has another
    kink, the derivative of its nonlinearity's dual is taken as 0.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import Dense
    >>> from ntkcore.gradients import input_gradient
    >>> input_gradient(Dense(), np.array([[1.0, 2.0]]), np.array([[4.0, 6.0]]), "nngp")
    array([[[2., 3.]]])
    """
    pairs = _Pairs(net, x1, x2, get, threads, backend)
    width = pairs.a.shape[1]
    out = allocate(None, "ntk", (*pairs.shape, width), np.dtype(np.float64))["ntk"]

    def do(task: Tile) -> None:
        i0, i1, j0, j1 = task
        by_k, by_q = pairs.by_inputs(task)
        here = out[i0:i1, j0:j1]
        np.multiply(by_k[:, :, None], pairs.x2[None, j0:j1], out=here)
        here += by_q[:, :, None] * pairs.a[i0:i1, None]

    pairs.run(tiles(*pairs.shape, BLOCK, BLOCK, False), do, progress)
    return out


def input_vjp(
    net: Layer,
    x1: npt.ArrayLike,
    x2: npt.ArrayLike | None,
    G: npt.ArrayLike,
    get: str = "ntk",
    *,
    threads: int | None = None,
    backend: str | None = None,
    progress: bool | None = None,
) -> Array:
    """The derivatives of sum_ij G_ij K(x1_i, x2_j) by x1, with little memory beside.

    Parameters
    ----------
    net : Layer
    x1 : array_like of shape (n1, d)
    x2 : array_like of shape (n2, d), or None
        None: both arguments of K(x1_i, x1_j) move.
    G : array_like of shape (n1, n2)
        The derivatives of some loss by the kernel's values.
    get, threads, backend, progress
        As for `kernel_gradient`.

    Returns
    -------
    ndarray of shape (n1, d), float64

    Notes
    -----
    At equal vectors: as for `input_gradient`.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import Dense
    >>> from ntkcore.gradients import input_vjp
    >>> input_vjp(Dense(), np.array([[1.0, 2.0]]), np.array([[4.0, 6.0]]), [[1.0]], "nngp")
    array([[2., 3.]])
    """
    pairs = _Pairs(net, x1, x2, get, threads, backend)
    weights = as_array(G, "G")
    if (
        weights.shape != pairs.shape
        or weights.dtype.kind not in "fiub"
        or not np.isfinite(weights).all()
    ):
        raise ValueError(
            f"G must hold finite numbers in the kernel's shape {pairs.shape}, not {weights.dtype}"
            f" of {weights.shape}"
        )
    if pairs.b is None:
        weights = weights + weights.T  # K is symmetric
    out = np.zeros_like(pairs.a)

    def do(task: Tile) -> None:
        i0, i1, _, end = task
        for j0 in range(0, end, 4 * BLOCK):
            j1 = min(j0 + 4 * BLOCK, end)
            by_k, by_q = pairs.by_inputs((i0, i1, j0, j1))
            g = weights[i0:i1, j0:j1]
            out[i0:i1] += (g * by_k) @ pairs.x2[j0:j1] + (g * by_q).sum(axis=1)[:, None] * pairs.a[
                i0:i1
            ]

    pairs.run(tiles(*pairs.shape, BLOCK, pairs.shape[1], False), do, progress)
    return out
