"""(K + ridge I) A = Y: by Cholesky, by one eigendecomposition for all ridges,
by conjugate gradients or by ASkotch.

    factor = Cholesky(K, ridge); factor.solve(Y)          # one factorisation, many right-hand sides
    modes = Eigh(K); modes.path(Y, ridges); modes.leave_one_out(Y, ridges)
    cg(operator, Y, ridge).x                              # any operator, all columns in one pass

Predictions are K_test_train @ A. A ridge is absolute,
or times the mean diagonal with ``relative=True``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import on_device, to_host
from ntkcore.engine.inputs import size_text
from ntkcore.linalg.askotch import askotch
from ntkcore.linalg.cg import MEMORY, cg
from ntkcore.linalg.checks import check_positive, square_kernel, targets_of
from ntkcore.linalg.choice import (
    EXACT,
    FitPlan,
    Machine,
    Workload,
    fastest,
    operations_per_second,
    outcome_text,
    residual_teller,
)
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.eigen import Eigh
from ntkcore.linalg.landmarks import LandmarkRegression, check_determined
from ntkcore.linalg.noise import check_ridge
from ntkcore.linalg.operators import InMemory, KernelOperator, MatrixFree, symmetric_operator
from ntkcore.linalg.restricted import asked_landmarks, choose_landmarks, restricted

Array = npt.NDArray[np.float64]
METHODS = ("cholesky", "eigh", "cg", "askotch", "landmarks")
LARGEST_DENSE = 20_000  # points of a matrix beyond which "auto" looks at what is fastest
RTOL = 1e-6  # of iterations that "auto" takes


def _parameters(call: Any, *more: str) -> set[str]:
    return {*inspect.signature(call).parameters, *more}


OPTIONS = {
    "cholesky": _parameters(Cholesky),
    "eigh": {"relative"},
    "cg": _parameters(cg),
    "askotch": _parameters(askotch),
    "landmarks": _parameters(LandmarkRegression, "relative", "n_landmarks", "landmarks"),
}


def solve(
    K: Any,
    Y: npt.ArrayLike,
    ridge: float = 0.0,
    *,
    method: str = "auto",
    memory: float | None = None,
    seconds: float | None = None,
    say: Callable[[str], None] | None = None,
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
    method : {"auto", "cholesky", "eigh", "cg", "askotch", "landmarks"}, default="auto"
        "auto": Cholesky for a matrix of up to 20 000 points; else the fastest of Cholesky,
        conjugate gradients and ASkotch, by the cost of a pair, which is measured. "landmarks"
        solves the problem restricted to some points: all other rows of A are 0.
    memory : float, default=4 GiB
        Bytes, beside K, that the method may take.
    seconds : float, optional
        What it may take, by estimate. Where no exact method is so fast, "auto" takes landmarks.
    say : callable, optional
        Called with the plan before the work, the residual as it goes, and what the answer is.
    **options
        Those of `Cholesky`, `Eigh.solve`, `cg`, `askotch` or `LandmarkRegression`;
        ``relative=True`` for all; of landmarks ``n_landmarks`` and ``landmarks`` as for `fit`. For
        "auto" they leave the methods that take them.

    Returns
    -------
    ndarray of the shape of Y
        CuPy's if K and Y are. Predictions are K_test_train @ A.

    Raises
    ------
    TypeError, ValueError
        For what does not fit, the memory or the time among it; where the system is singular.
    RuntimeError
        Where an iteration does not converge.

    Warns
    -----
    UserWarning
        Where "auto" took landmarks, and no ``say`` tells so.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import solve
    >>> solve(np.diag([1.0, 3.0]), [2.0, 2.0], ridge=1.0)
    array([1. , 0.5])
    """
    if method not in ("auto", *METHODS):
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}, not {method!r}")
    for name, value in (("memory", memory), ("seconds", seconds)):
        if value is not None:
            check_positive(value, name)
    if method != "auto" and (unknown := set(options) - OPTIONS[method]):
        raise TypeError(f"method={method!r} takes no {', '.join(sorted(unknown))}: leave it out")
    if method == "eigh":
        if (memory, seconds, say) != (None, None, None):
            raise ValueError("memory, seconds and say have no effect with method='eigh'")
        return Eigh(K).solve(Y, ridge, **options)
    small = method == "auto" and _is_small(K, memory or MEMORY, options)
    known = small or (method not in ("auto", "landmarks") and memory is None)
    if known and seconds is None and say is None:  # nothing to plan
        return _run("cholesky" if small else method, K, Y, ridge, options, None)
    plan = _plan(K, Y, ridge, method, memory, seconds, options)
    if say is not None:
        say(f"{plan}")
    elif plan.reason:
        warnings.warn(
            f"the answer is that of the problem restricted to {plan.landmarks} landmarks"
            f" ({plan.reason}): give more memory or seconds for the whole",
            stacklevel=2,
        )
    if plan.method == "cg":
        options = {"rank": plan.rank, **options}
    elif plan.method == "askotch":
        options = {"rtol": RTOL, **options}
    elif plan.method == "landmarks":
        options = {**options, "n_landmarks": plan.landmarks}
    return _run(plan.method, K, Y, ridge, options, say)


def _is_matrix(K: Any) -> bool:
    return isinstance(K, (np.ndarray, list)) or on_device(K)


def _is_small(K: Any, memory: float, options: dict[str, Any]) -> bool:
    """Is it a matrix that Cholesky takes, whatever else would be faster?"""
    if not _is_matrix(K) or not set(options) <= OPTIONS["cholesky"] or not np.ndim(K):
        return False
    return len(K) <= LARGEST_DENSE and 8 * len(K) ** 2 <= memory


def _operator(K: Any) -> KernelOperator:
    """Of a kernel of one data set; matrices of any real dtype."""
    if not _is_matrix(K):
        return symmetric_operator(K)
    matrix = square_kernel(K)
    return InMemory(matrix if matrix.dtype.itemsize > 2 else matrix.astype(np.float64))


def _plan(
    K: Any,
    Y: npt.ArrayLike,
    ridge: float,
    method: str,
    memory: float | None,
    seconds: float | None,
    options: dict[str, Any],
) -> FitPlan:
    """The plan of a method, or that of "auto"; ValueError where memory or time do not suffice."""
    operator = _operator(K)
    n = operator.shape[0]
    data, _ = targets_of(to_host(Y), n)
    check_ridge(ridge)
    machine = Machine(
        operator.seconds_per_pair(data.shape[1]),
        operations_per_second(operator.xp),
        MEMORY if memory is None else float(memory),
        np.inf if seconds is None else float(seconds),
    )
    itemsize, free = operator.storage_dtype.itemsize, isinstance(operator, MatrixFree)
    work = Workload(n, data.shape[1], itemsize, machine, matrix=not free)
    names = _methods(options, ridge) if method == "auto" else [method]
    exact = [name for name in names if name in EXACT]
    if not exact:
        plan = _plan_of_landmarks(work, ridge, options)
    elif method != "auto":
        plan = work.plan(method)
    else:
        first = "cholesky" if _is_small(K, machine.memory, options) else ""
        found = fastest(work, exact, first)
        if found is None and (seconds is None or "landmarks" not in names):
            raise ValueError(
                f"{size_text(machine.memory)} of memory are too little for {n} points, or the time"
                f" is: {work.too_much(exact)}; landmarks take less"
            )
        return found or _plan_of_landmarks(work, ridge, options, work.too_much(exact))
    over = memory is not None and plan.memory > memory
    if over or (seconds is not None and plan.seconds > seconds):
        raise ValueError(
            f"{work.against(plan)}, more than is allowed: give more, or take another method"
        )
    return plan


def _methods(options: dict[str, Any], ridge: float) -> list[str]:
    """Those that take the options and, of exact ones, the ridge; TypeError where there is none."""
    names = [name for name in OPTIONS if name != "eigh" and set(options) <= OPTIONS[name]]
    if not names:
        raise TypeError(f"no method of solve() takes the options {', '.join(options)} together")
    return [name for name in names if ridge > 0 or name not in ("cg", "askotch")] or names


def _plan_of_landmarks(
    work: Workload, ridge: float, options: dict[str, Any], reason: str = ""
) -> FitPlan:
    given = options.get("n_landmarks"), options.get("landmarks", "rpcholesky")
    plan = work.landmarks(asked_landmarks(*given, work.n)[1], reason)
    check_determined(work.n, plan.landmarks, ridge)
    return plan


def _run(
    method: str,
    K: Any,
    Y: npt.ArrayLike,
    ridge: float,
    options: dict[str, Any],
    say: Callable[[str], None] | None,
) -> Array:
    """The solution, and what is said of it."""
    if method == "cholesky":
        if not _is_matrix(K):
            operator = symmetric_operator(K)
            K, own = _whole(operator), not isinstance(operator, InMemory)
            options = {"overwrite": own, **options}
        x, residual, passes, landmarks = Cholesky(K, ridge, **options).solve(Y), 0.0, 1.0, 0
    else:
        if say is not None:
            options = {"callback": residual_teller(say, method), **options}
        solver = _restricted if method == "landmarks" else _iterated
        x, residual, passes, landmarks = solver(method, K, Y, ridge, **options)
    if say is not None:
        say(outcome_text(method, residual, passes, landmarks))
    return x


def _whole(operator: KernelOperator) -> Any:
    """A kernel as a matrix: a store's in float64, read by its chunks."""
    n = operator.shape[0]
    if not operator.chunked:
        return operator.read(slice(n), slice(n))
    out = np.empty((n, n))
    for i in range(0, n, operator.tile):
        rows = slice(i, min(i + operator.tile, n))
        out[rows] = operator.read(rows, slice(n))
    return out


def _iterated(
    method: str, K: Any, Y: npt.ArrayLike, ridge: float, **options: Any
) -> tuple[Array, float, float, int]:
    result = (cg if method == "cg" else askotch)(K, Y, ridge, **options)
    residual = float(result.residuals.max())
    if not result.converged:
        more = "maxiter, rank" if method == "cg" else "max_passes"
        raise RuntimeError(
            f"{method} stopped after {result.iterations} iterations at a relative residual of"
            f" {residual:.1e}: raise {more}, rtol (rounding may allow no less) or the ridge"
        )
    return result.x, residual, result.passes, 0


def _restricted(
    method: str,
    K: Any,
    Y: npt.ArrayLike,
    ridge: float,
    *,
    n_landmarks: int,
    landmarks: Any = "rpcholesky",
    rtol: float = RTOL,
    seed: int = 0,
    **options: Any,
) -> tuple[Array, float, float, int]:
    """Coefficients of landmarks among zeros."""
    operator = _operator(K)
    data, flat = targets_of(to_host(Y), operator.shape[0])
    at, _ = asked_landmarks(n_landmarks, landmarks, operator.shape[0])
    if at is None:
        at = choose_landmarks(operator, n_landmarks, landmarks, seed)
    at, found = restricted(operator, at, data, ridge, rtol=rtol, seed=seed, **options)
    out = np.zeros(data.shape)
    out[at] = found.coefficients
    return out[:, 0] if flat else out, rtol, found.passes, len(at)
