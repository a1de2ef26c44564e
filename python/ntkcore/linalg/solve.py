"""(K + ridge I) A = Y: by Cholesky, by one eigendecomposition for all ridges, or by conjugate gradients.

    factor = Cholesky(K, ridge); factor.solve(Y)          # one factorisation, many right-hand sides
    modes = Eigh(K); modes.path(Y, ridges); modes.leave_one_out(Y, ridges)
    cg(operator, Y, ridge).x                              # any operator of ntkcore.operators, all columns in one pass

Predictions are K_test_train @ A. A ridge is absolute, or times the mean diagonal with ``relative=True``.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, on_device, to_host
from ntkcore.engine.inputs import refuse_no_array
from ntkcore.engine.tiles import progress_bar
from ntkcore.linalg.operators import KernelOperator, as_operator, symmetric_operator
from ntkcore.linalg.symmetry import check_real, refuse_asymmetric
from ntkcore.store.files import check_place, writing

try:
    import scipy.linalg
    import scipy.sparse.linalg
except ImportError:
    raise ImportError('solvers need SciPy: pip install "ntkcore[sklearn]"') from None

Array = npt.NDArray[np.float64]
METHODS = ("cholesky", "eigh", "cg")
LARGEST_RANK = 5000  # of the preconditioner, by default
LARGEST_DENSE = 20_000  # points beyond which solve() takes conjugate gradients


class RidgeWarning(UserWarning):
    """The ridge lies below the rounding noise of the kernel's storage precision."""


def noise_floor(dtype: npt.DTypeLike, n: int, mean_diagonal: float) -> float:
    """4 eps sqrt(n) times the mean diagonal: independent rounding errors of n^2 entries have a 2-norm of that order.

    (Twice the standard deviation times sqrt(n), by the semicircle law; twice that for both roundings, of products and
    of storage.) About 1e-4 of the diagonal for 50 000 points in float32. No bound: a product's rounding also has a
    systematic part, several times larger along the leading eigenvectors, where no ridge is needed.
    """
    return float(4 * np.finfo(np.dtype(dtype)).eps * n**0.5 * mean_diagonal)


def _targets(Y: npt.ArrayLike, n: int) -> tuple[Array, bool]:
    """Y as (n, outputs), and whether it was a vector."""
    given = np.asarray(Y)
    if given.ndim not in (1, 2) or len(given) != n or not given.size:
        raise ValueError(f"Y must have shape ({n},) or ({n}, outputs) for {n} points, not {given.shape}")
    check_real(given, "Y")
    data = np.asarray(given, np.float64)
    return (data[:, None], True) if data.ndim == 1 else (data, False)


def _check_ridge(ridge: Any) -> None:
    if np.ndim(ridge) or np.asarray(ridge).dtype.kind not in "fiu" or not np.isfinite(ridge) or ridge < 0:
        raise ValueError(f"ridge must be finite and at least 0, not {ridge!r}")


def _ridge(ridge: float, relative: bool, mean_diagonal: float, dtype: npt.DTypeLike, n: int) -> float:
    _check_ridge(ridge)
    value = float(ridge) * (mean_diagonal if relative else 1)
    floor = noise_floor(dtype, n, mean_diagonal)
    if np.dtype(dtype) == np.float32 and value < floor:
        warnings.warn(
            f"ridge {value:.2g} lies below {floor:.2g}, the rounding noise of {n} points in float32: what it resolves "
            "is noise; use a larger ridge or a float64 kernel",
            RidgeWarning,
            stacklevel=3,
        )
    return value


def _square(K: npt.ArrayLike) -> npt.NDArray[Any]:
    refuse_no_array(K, "K")
    matrix: npt.NDArray[Any] = array_module(K).asarray(K)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"K must be a square matrix, not of shape {matrix.shape}")
    check_real(matrix, "K")
    refuse_asymmetric(matrix, "K")
    return matrix


def _failing_aloud(matrix: Any) -> AbstractContextManager[None]:
    """In it CuPy's decompositions raise LinAlgError, as NumPy's do: by default a failure passes in silence."""
    if not on_device(matrix):
        return nullcontext()
    import cupyx

    context: AbstractContextManager[None] = cupyx.errstate(linalg="raise")
    return context


def _library_factor(A: Any) -> Any:
    """The lower Cholesky factor by NumPy's or CuPy's own call; LinAlgError where there is none."""
    with _failing_aloud(A):
        return array_module(A).linalg.cholesky(A)


def _lower_solve(L: Any, B: Any, transposed: bool = False) -> Any:
    """L^-1 B, or L^-T B, for a lower triangle L, where both lie."""
    if not on_device(L):
        return scipy.linalg.solve_triangular(L, B, lower=True, trans=int(transposed), check_finite=False)
    from cupyx.scipy.linalg import solve_triangular

    # CuPy copies a matrix that is not in Fortran's order: the transposed view of L is.
    return solve_triangular(L.T, B, lower=False, trans="N" if transposed else "T")


class Cholesky:
    """K + ridge I factorised once, in float64, on the GPU if K is CuPy's. ``overwrite``: in a float64 K's memory.

    On a GPU the factor is always new memory: K and one more matrix of float64 with ``overwrite`` (K's diagonal then
    keeps the ridge), else, while it factorises, one more.
    """

    def __init__(
        self, K: npt.ArrayLike, ridge: float = 0.0, *, relative: bool = False, overwrite: bool = False
    ) -> None:
        matrix = _square(K)
        n, mean = len(matrix), float(matrix.diagonal().mean())
        self.ridge = _ridge(ridge, relative, mean, matrix.dtype, n)
        work = matrix if overwrite and matrix.dtype == np.float64 else matrix.astype(np.float64)
        at = array_module(work).arange(n)
        work[at, at] += self.ridge
        try:
            self._factor = _factor(work)
        except np.linalg.LinAlgError as error:
            hint = max(noise_floor(matrix.dtype, n, abs(mean)), self.ridge * 10, np.finfo(float).tiny)
            raise ValueError(
                f"K + {self.ridge:.2g} I is not positive definite ({error}): duplicates or rounding leave no digits in "
                f"its smallest eigenvalues; try a ridge of {hint:.1g}, or Eigh"
            ) from None

    def solve(self, Y: npt.ArrayLike) -> Array:
        """A of (K + ridge I) A = Y, in the shape of Y; on the GPU if the factor and Y are there."""
        data, flat = _targets(to_host(Y), len(self._factor))
        out: Array
        if on_device(self._factor):
            half = _lower_solve(self._factor, array_module(self._factor).asarray(data))
            out = _beside(Y, _lower_solve(self._factor, half, transposed=True))
        else:
            out = scipy.linalg.cho_solve((self._factor, True), data, check_finite=False)
        return out[:, 0] if flat else out


def _beside(Y: Any, result: Any) -> Array:
    """The result on the GPU if it and Y are there, else NumPy's."""
    out: Array = result if on_device(Y) else to_host(result)
    return out


def _factor(work: Any) -> Any:
    """The lower Cholesky factor, on the host in work's lower triangle; LinAlgError where there is none."""
    if on_device(work):
        return _library_factor(work)
    _factorise(work)
    return work


def _factorise(A: Array, block: int = 2048) -> None:
    """The lower Cholesky factor of A in its lower triangle, by blocks.

    LAPACK's own call on the whole matrix ends in a segmentation fault at n = 20 000 with two threads in OpenBLAS 0.3.30
    and 0.3.31, NumPy's wheel and SciPy's alike.
    """
    n = len(A)
    for k in range(0, n, block):
        end = min(k + block, n)
        A[k:end, k:end] = np.linalg.cholesky(A[k:end, k:end])
        if end == n:
            return
        below = scipy.linalg.solve_triangular(A[k:end, k:end], A[end:, k:end].T, lower=True, check_finite=False).T
        A[end:, k:end] = below
        for i in range(end, n, block):
            stop = min(i + block, n)
            A[i:stop, end:stop] -= below[i - end : stop - end] @ below[: stop - end].T


class Eigh:
    """One eigendecomposition of K, in float64: every ridge after it costs two products.

    A CuPy K is decomposed on its GPU, where its vectors stay. Attributes: ``values`` ascending, of NumPy, ``vectors``.
    On the host N > 32767 takes a LAPACK that counts in 64 bits, as that of NumPy's own wheels; else refused by name.
    """

    def __init__(self, K: npt.ArrayLike) -> None:
        matrix = _square(K)
        if len(matrix) > 32767 and not on_device(matrix) and not _lapack_is_64_bit():
            raise ValueError(
                f"N = {len(matrix)} overflows the 32-bit workspace of this NumPy's LAPACK (N <= 32767): install "
                "NumPy's own wheel from PyPI, or use Cholesky or cg"
            )
        self.storage_dtype = matrix.dtype
        self._xp = array_module(matrix)
        with _failing_aloud(matrix):
            found = self._xp.linalg.eigh(matrix.astype(np.float64, copy=False))
        self.values: Array = to_host(found[0])
        self.vectors: Any = found[1]

    def _decayed(self, ridge: float, relative: bool) -> Array:
        value = _ridge(ridge, relative, float(self.values.mean()), self.storage_dtype, len(self.values))
        sums = self.values + value
        if sums.min() <= 0:
            raise ValueError(
                f"K + {value:.2g} I is singular: its smallest eigenvalue is {sums.min():.2g}; the ridge must exceed "
                f"{-self.values.min():.2g}"
            )
        out: Array = 1 / sums
        return out

    def _projected(self, data: Array) -> Array:
        """V^T Y, on the host."""
        out: Array = to_host(self.vectors.T @ self._xp.asarray(data))
        return out

    def solve(self, Y: npt.ArrayLike, ridge: float = 0.0, *, relative: bool = False) -> Array:
        """A of (K + ridge I) A = Y, in the shape of Y; on the GPU if K and Y are there."""
        data, flat = _targets(to_host(Y), len(self.values))
        weights = self._decayed(ridge, relative)[:, None] * self._projected(data)
        out = _beside(Y, self.vectors @ self._xp.asarray(weights))
        return out[:, 0] if flat else out

    def path(self, Y: npt.ArrayLike, ridges: Sequence[float], *, relative: bool = False) -> Array:
        """`solve` for every ridge: (ridges, *Y.shape)."""
        found = [self.solve(Y, ridge, relative=relative) for ridge in ridges]
        out: Array = array_module(found[0]).stack(found)
        return out

    def leave_one_out(self, Y: npt.ArrayLike, ridges: Sequence[float], *, relative: bool = False) -> Array:
        """Mean squared error of predicting each sample from the others, per ridge: of A_i / [(K + ridge)^-1]_ii."""
        projected = self._projected(_targets(to_host(Y), len(self.values))[0])
        errors = []
        for ridge in ridges:
            decayed = self._decayed(ridge, relative)
            A = to_host(self.vectors @ self._xp.asarray(decayed[:, None] * projected))
            errors.append(float(((A / self._inverse_diagonal(decayed)[:, None]) ** 2).mean()))
        return np.array(errors)

    def _inverse_diagonal(self, decayed: Array, step: int = 1024) -> Array:
        """sum_j V_ij^2 decayed_j, by panels of rows: no second matrix."""
        weights = self._xp.asarray(decayed)
        starts = range(0, len(decayed), step)
        return np.concatenate([to_host(self.vectors[i : i + step] ** 2 @ weights) for i in starts])

    def gcv(self, Y: npt.ArrayLike, ridges: Sequence[float], *, relative: bool = False) -> Array:
        """Generalised cross-validation, per ridge: the same with that diagonal's mean (Golub, Heath & Wahba 1979)."""
        projected = self._projected(_targets(to_host(Y), len(self.values))[0])
        decays = [self._decayed(ridge, relative) for ridge in ridges]
        return np.array([float(((d[:, None] * projected / d.mean()) ** 2).mean()) for d in decays])


def _lapack_is_64_bit() -> bool:
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    return "64" in blas.get("name", "") or "USE64BITINT" in blas.get("openblas configuration", "")


# --- conjugate gradients


class Nystrom:
    """Preconditioner (F F^T + shift I)^-1 with F from a randomly pivoted Cholesky factorisation of K.

    Pivots are drawn with probabilities of the residual's diagonal, block by block (Chen, Epperly, Tropp & Webber 2023);
    it costs ``rank`` rows of the kernel (Díaz et al. 2023), of a store the chunks that hold them. The shift is the
    ridge and the residual's mean diagonal: what F leaves of the kernel counts as if it were a multiple of I. F lies
    where the operator's tiles do.
    """

    def __init__(self, operator: KernelOperator, ridge: float, rank: int, seed: int = 0) -> None:
        xp, n, rng = operator.xp, operator.shape[0], np.random.default_rng(seed)
        residual = operator.diagonal()
        start = residual.sum()
        whole = xp.empty((rank, n), np.float64)  # F^T: its rows are found one block after the other
        found = 0
        while found < rank and residual.sum() > 1e-12 * start:
            size = min(operator.rows_at_a_time, rank - found)
            pivots = np.unique(rng.choice(n, size, p=residual / residual.sum()))
            at, F = xp.asarray(pivots), whole[:found]
            G = operator.rows(pivots)
            if found:
                G -= F[:, at].T @ F
            core = G[:, at]
            noise = np.finfo(operator.storage_dtype).eps * core.trace()
            core += (1e-12 * start / n + noise) * xp.eye(len(pivots))
            new = _lower_solve(_library_factor(core), G)
            whole[found : found + len(pivots)] = new
            found += len(pivots)
            residual = np.maximum(residual - to_host((new**2).sum(0)), 0)
            residual[pivots] = 0
        self.rank = found
        self._F, self._shift = whole[:found], ridge + float(residual.mean())
        inner = self._F @ self._F.T + self._shift * xp.eye(found)
        self._root = _lower_solve(_library_factor(inner), xp.eye(found))  # L^-1: a product solves, faster than L does

    def __call__(self, R: Any) -> Any:
        """The preconditioner times R."""
        inside = self._root.T @ (self._root @ (self._F @ R))
        return (R - self._F.T @ inside) / self._shift  # Woodbury


@dataclass(frozen=True)
class CGResult:
    """Solution in the shape of Y; per column the relative residual; iterations; passes over the kernel; success.

    The solution is CuPy's if the kernel and Y are.
    """

    x: Array
    residuals: Array
    iterations: int
    passes: float
    converged: bool


def cg(
    K: Any,
    Y: npt.ArrayLike,
    ridge: float,
    *,
    relative: bool = False,
    rtol: float = 1e-6,
    maxiter: int = 1000,
    rank: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 10,
    progress: bool | None = None,
    callback: Callable[[int, Array], None] | None = None,
) -> CGResult:
    """Preconditioned conjugate gradients for (K + ridge I) X = Y, all columns of Y in each pass over K.

    Vectors and sums are float64, whatever the kernel's dtype, and lie where its tiles do, on a GPU for a CuPy kernel.

    Parameters
    ----------
    K
        A matrix, a chunked array or an operator of `ntkcore.operators`; symmetric.
    rtol
        A column is done when its residual is below ``rtol`` times its right-hand side. That is the residual itself,
        computed by one more pass, not the recursion's; where rounding allows no less, the result says so.
    rank
        Of the Nyström preconditioner; default min(n/4, 5000), 0 for none.
    checkpoint, every
        A file (.npz) that holds the state, written atomically every so many iterations; the same call again goes on
        from it. A file of another problem is refused: a pass tells kernels apart.
    callback
        Called with the iteration's number and the relative residuals.

    Raises
    ------
    ValueError
        For shapes, a ridge that is not positive, a checkpoint of another problem.
    """
    operator = symmetric_operator(K)
    data, flat = _targets(to_host(Y), operator.shape[0])
    if isinstance(every, bool) or every < 1:
        raise ValueError(f"every must be at least 1, a number of iterations, not {every!r}")
    if isinstance(maxiter, bool) or maxiter < 0:
        raise ValueError(f"maxiter must be a number of iterations, not {maxiter!r}")
    place = None if checkpoint is None else check_place(checkpoint)
    n, diagonal, xp = operator.shape[0], operator.diagonal(), operator.xp
    value = _ridge(ridge, relative, float(diagonal.mean()), operator.storage_dtype, n)
    if value <= 0:
        raise ValueError(
            "conjugate gradients need a positive ridge: without one the error cannot be bounded by residuals"
        )
    start = operator.passes
    size = min(n // 4, LARGEST_RANK) if rank is None else int(rank)
    problem = _Problem(operator, data, value, size, seed, place)
    state = problem.load()
    precondition: Callable[[Any], Any] = Nystrom(operator, value, size, seed) if size > 0 else lambda R: R
    Y_ = xp.asarray(problem.scaled)
    norms = np.maximum(np.linalg.norm(problem.scaled, axis=0), np.finfo(float).tiny)
    X, R, P, rz, done = _first(Y_, precondition) if state is None else _placed(xp, state)
    residuals, reached = _lengths(R) / norms, np.inf
    with progress_bar(maxiter, progress) as count:
        while True:
            while residuals.max() > rtol and done < maxiter:
                open_ = residuals > rtol
                active = slice(None) if open_.all() else xp.asarray(np.flatnonzero(open_))
                Q = operator.product(P[:, active]) + value * P[:, active]
                alpha = rz[active] / _dots(P[:, active], Q)
                X[:, active] += alpha * P[:, active]
                R[:, active] -= alpha * Q
                Z = precondition(R[:, active])
                new = _dots(R[:, active], Z)
                P[:, active] = Z + new / rz[active] * P[:, active]
                rz[active] = new
                residuals = _lengths(R) / norms
                done += 1
                if done % every == 0:
                    problem.save(X, R, P, rz, done)
                count(1)
                if callback is not None:
                    callback(done, residuals)
            # R drifts from the residual by rounding: what counts is the residual itself, and from there it goes on.
            R = Y_ - operator.product(X) - value * X
            residuals = _lengths(R) / norms
            if residuals.max() <= rtol or done >= maxiter or not residuals.max() < reached / 2:
                break
            reached = residuals.max()
            P = precondition(R)
            rz = _dots(R, P)
    solution = X * xp.asarray(problem.scale)
    solution = _beside(Y, solution[:, 0] if flat else solution)
    return CGResult(solution, residuals, done, operator.passes - start, bool(residuals.max() <= rtol))


State = tuple[Any, Any, Any, Any, int]


def _dots(A: Any, B: Any) -> Any:
    """Scalar products of columns."""
    return (A * B).sum(0)


def _lengths(R: Any) -> Array:
    """Norms of columns, on the host: all that an iteration waits for."""
    out: Array = np.sqrt(to_host(_dots(R, R)))
    return out


def _first(Y: Any, precondition: Callable[[Any], Any]) -> State:
    Z = precondition(Y)
    return array_module(Y).zeros(Y.shape, np.float64), Y.copy(), Z.copy(), _dots(Y, Z), 0


def _placed(xp: Any, state: State) -> State:
    """A state's arrays where the tiles lie."""
    X, R, P, rz, done = state
    return xp.asarray(X), xp.asarray(R), xp.asarray(P), xp.asarray(rz), done


class _Problem:
    """What is solved, with columns of Y scaled to about 1 (by powers of 2, so without rounding), and its checkpoint."""

    def __init__(
        self, operator: KernelOperator, Y: Array, ridge: float, rank: int, seed: int, file: Path | None
    ) -> None:
        largest = np.abs(Y).max(0)
        self.scale: Array = np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1))))
        self.scaled: Array = Y / self.scale
        self.file = file
        if file is not None:
            about = [Y.tobytes(), operator.diagonal().tobytes(), repr((ridge, rank, seed, Y.shape)).encode()]
            self.fingerprint = hashlib.sha256(b"".join(about)).hexdigest()
            self.probe = _probe(operator)

    def save(self, *state: Any) -> None:
        """To a file beside it, then renamed: all or nothing."""
        if self.file is None:
            return
        X, R, P, rz, done = (to_host(part) for part in state)
        with writing(self.file) as file:
            np.savez(file, fingerprint=self.fingerprint, probe=self.probe, X=X, R=R, P=P, rz=rz, done=done)

    def load(self) -> State | None:
        """The state in the file, if there is one; ValueError for that of another problem, or none."""
        if self.file is None or not self.file.exists():
            return None
        try:
            with open(self.file, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                found = {name: file[name] for name in ("fingerprint", "probe", "X", "R", "P", "rz", "done")}
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.file} is no whole checkpoint of cg ({error}): delete it to begin anew, or choose another file"
            ) from None
        same = str(found["fingerprint"]) == self.fingerprint and found["probe"].shape == self.probe.shape
        if not same or np.abs(found["probe"] - self.probe).max() > 1e-5 * np.abs(self.probe).max():
            raise ValueError(
                f"{self.file} is the checkpoint of another problem (kernel, Y, ridge or rank): choose another file"
            )
        shape = self.scaled.shape
        whole = all(found[name].shape == shape and np.isfinite(found[name]).all() for name in "XRP")
        if not whole or found["rz"].shape != shape[1:] or found["done"].shape != ():
            raise ValueError(f"{self.file} is a damaged checkpoint: delete it to begin anew, or choose another file")
        return found["X"], found["R"], found["P"], found["rz"], int(found["done"])


def _probe(operator: KernelOperator) -> Array:
    """K times a vector that is always the same: tells kernels apart whose diagonals agree, at the price of a pass."""
    vector = np.random.default_rng(0).standard_normal((operator.shape[0], 1))
    out: Array = to_host(operator.product(operator.xp.asarray(vector)))
    return out


# --- front doors


def solve(K: Any, Y: npt.ArrayLike, ridge: float = 0.0, *, method: str = "auto", **options: Any) -> Array:
    """A of (K + ridge I) A = Y, in the shape of Y.

    ``method``: "cholesky" (default for a matrix of up to 20 000 points), "eigh", or "cg" (operators, stores, larger
    matrices); ``options`` go to it. A RuntimeError says so if conjugate gradients do not converge.
    """
    dense = isinstance(K, (np.ndarray, list)) or on_device(K)
    if method == "auto":
        method = "cholesky" if dense and len(K) <= LARGEST_DENSE else "cg"
    if method not in METHODS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}, not {method!r}")
    if method == "cholesky":
        return Cholesky(K, ridge, **options).solve(Y)
    if method == "eigh":
        return Eigh(K).solve(Y, ridge, **options)
    result = cg(K, Y, ridge, **options)
    if not result.converged:
        raise RuntimeError(
            f"conjugate gradients stopped after {result.iterations} iterations at a relative residual of "
            f"{result.residuals.max():.1e}: raise maxiter, rank, rtol (rounding may allow no less) or the ridge"
        )
    return result.x


def eigs(K: Any, k: int, *, method: str = "auto", seed: int = 0) -> tuple[Array, Array]:
    """The k largest eigenvalues, descending, and their eigenvectors (n, k).

    ``method``: "eigh" (all of them, from a matrix), "lanczos" and "lobpcg" (SciPy's, through the operator) or
    "randomised" (subspace iteration, 8 passes; Halko, Martinsson & Tropp 2011).
    """
    operator = symmetric_operator(K)
    n = operator.shape[0]
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n:
        raise ValueError(f"k must be a whole number between 1 and {n}, not {k!r}")
    if method == "auto":
        method = "lanczos" if k < n // 10 else "eigh"
    start = np.random.default_rng(seed).standard_normal((n, min(n, k + 10)))
    if method == "eigh":
        matrix = operator.rows(np.arange(n))
        with _failing_aloud(matrix):
            values, vectors = operator.xp.linalg.eigh(matrix)
        values, vectors = to_host(values[n - k :]), to_host(vectors[:, n - k :])
    elif method == "lanczos":
        values, vectors = scipy.sparse.linalg.eigsh(operator, k, v0=start[:, 0])
    elif method == "lobpcg":
        values, vectors = scipy.sparse.linalg.lobpcg(operator, start[:, :k], largest=True, tol=1e-10, maxiter=200)
    elif method == "randomised":
        basis = np.linalg.qr(start)[0]
        for _ in range(7):
            basis = np.linalg.qr(operator @ basis)[0]
        values, small = np.linalg.eigh(basis.T @ (operator @ basis))
        vectors = basis @ small
    else:
        raise ValueError(f"method must be 'eigh', 'lanczos', 'lobpcg' or 'randomised', not {method!r}")
    order = np.argsort(values)[::-1][:k]
    return values[order], vectors[:, order]


class LandmarkRegression:
    """Kernel regression on m landmarks for n beyond any n x n kernel: minimises |K_nm a - Y|^2 + ridge a^T K_mm a.

    It is solved on the host: of a kernel on a GPU each chunk of rows travels once.

    ``K_nm``: kernel between samples and landmarks, an array or an operator (one product with it per chunk of rows);
    ``K_mm``: between landmarks. Predictions are K_test_m @ coefficients. (Nyström; Rudi, Carratino & Rosasco 2017.)
    """

    def __init__(self, K_nm: Any, K_mm: npt.ArrayLike, Y: npt.ArrayLike, ridge: float) -> None:
        inner = to_host(_square(K_mm)).astype(np.float64)
        operator = as_operator(K_nm)
        n, m = operator.shape
        if m != len(inner):
            raise ValueError(f"K_nm has {m} landmarks, K_mm {len(inner)}")
        data, flat = _targets(to_host(Y), n)
        _check_ridge(ridge)
        floor = noise_floor(operator.storage_dtype, m, np.trace(inner) / m)
        try:
            root = np.linalg.cholesky(inner + np.eye(m) * floor)
        except np.linalg.LinAlgError:
            raise ValueError("K_mm is not positive definite: is it the kernel of the landmarks?") from None
        gram, right = np.zeros((m, m)), np.zeros((m, data.shape[1]))
        for i in range(0, n, operator.tile):
            rows = slice(i, min(i + operator.tile, n))
            block = np.asarray(to_host(operator.read(rows, slice(0, m))), np.float64)
            whitened = scipy.linalg.solve_triangular(root, block.T, lower=True)
            gram += whitened @ whitened.T
            right += whitened @ data[rows]
        operator.passes += 1
        gram.flat[:: m + 1] += ridge
        inside = scipy.linalg.solve(gram, right, assume_a="pos")
        coefficients = scipy.linalg.solve_triangular(root.T, inside, lower=False)
        self.coefficients: Array = coefficients[:, 0] if flat else coefficients

    def predict(self, K_test: npt.ArrayLike) -> Array:
        """Predictions from the kernel between test samples and landmarks."""
        out: Array = np.asarray(to_host(K_test), np.float64) @ self.coefficients
        return out
