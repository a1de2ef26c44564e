"""From data to a model that predicts: the solver is chosen, its plan said, the result kept."""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.backends import resolve
from ntkcore.engine.executors import Remote, check_executor
from ntkcore.engine.inputs import KERNELS, check_count, free_bytes, thread_count
from ntkcore.engine.kernels import kernel
from ntkcore.engine.streamed import Streamed, check_samples
from ntkcore.linalg.askotch import askotch
from ntkcore.linalg.cg import cg, check_rtol
from ntkcore.linalg.checks import check_positive, check_real, targets_of
from ntkcore.linalg.choice import POOL, FitPlan, Machine, choose, operations_per_second
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.landmarks import LandmarkRegression, check_determined
from ntkcore.linalg.matrix_free import MatrixFree
from ntkcore.linalg.noise import check_ridge, ridge_of
from ntkcore.linalg.rpcholesky import rpcholesky
from ntkcore.specs.layers import Layer
from ntkcore.specs.text import from_json
from ntkcore.store.files import check_place, write, writing
from ntkcore.store.planning import seconds_per_pair

Array = npt.NDArray[Any]
MEMORY_SHARE = 0.5  # of what is free, by default
SECONDS = 3600.0  # by default
LOOKS = 10  # iterations between two residuals that are said


@dataclass(frozen=True)
class KernelModel:
    """f(x) = K(x, samples) coefficients, of a network's kernel; see `fit`.

    Attributes
    ----------
    net : Layer
    get : {"ntk", "nngp"}
    samples : ndarray of shape (m, ...)
        Training samples, or the landmarks among them.
    coefficients : ndarray of shape (m,) or (m, outputs)
    classes : ndarray of shape (classes,) or None
        Of a classifier: what each output stands for.
    """

    net: Layer
    get: str
    samples: Array
    coefficients: Array
    classes: Array | None = None

    def outputs(self, x: npt.ArrayLike, threads: int | None = None) -> Array:
        """f(x), of shape (n,) or (n, outputs), for x of shape (n, ...)."""
        options: dict[str, Any] = {"dtype": self.samples.dtype, "threads": threads}
        operator = MatrixFree(self.net, x, self.samples, self.get, **options)
        found: Array = operator @ self.coefficients
        return found

    def predict(self, x: npt.ArrayLike, threads: int | None = None) -> Array:
        """`outputs`, or of a classifier the labels."""
        found = self.outputs(x, threads)
        return found if self.classes is None else labels_of(found, self.classes)

    def save(self, file: str | Path) -> Path:
        """Into one .npz file; whole, or as it was."""
        place = check_place(file, ".npz")
        parts: dict[str, Any] = {"samples": self.samples, "coefficients": self.coefficients}
        if self.classes is not None:
            parts["classes"] = self.classes
        with writing(place) as out:
            np.savez(out, net=self.net.to_json(), get=self.get, **parts)
        return place

    @classmethod
    def load(cls, file: str | Path) -> KernelModel:
        """What `save` wrote; nothing is unpickled."""
        try:
            with open(file, "rb") as raw, np.load(raw, allow_pickle=False) as found:
                net, get = from_json(str(found["net"])), str(found["get"])
                classes = found["classes"] if "classes" in found.files else None
                return cls(net, get, found["samples"], found["coefficients"], classes)
        except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{file} is no model of `ntkcore fit`, or damaged ({error}): fit it again"
            ) from None


def fit(
    net: Layer,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    ridge: float = 1e-3,
    *,
    method: str = "auto",
    n_landmarks: int | None = None,
    landmarks: Any = "rpcholesky",
    classify: bool = False,
    memory: float | None = None,
    seconds: float = SECONDS,
    get: str = "ntk",
    rtol: float = 1e-6,
    dtype: npt.DTypeLike | None = None,
    threads: int | None = None,
    executor: Any = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> KernelModel:
    """Kernel ridge regression with a network's kernel, by the solver that fits the problem.

    The cost of a pair and of a product of matrices is measured on the spot. The fastest exact
    method within ``memory`` and ``seconds`` is taken (Cholesky, conjugate gradients, ASkotch);
    where there is none, the problem restricted to landmarks is solved instead.

    Parameters
    ----------
    net : Layer
    x : array_like of shape (n, d) or (n, height, width, channels)
        Samples. Those of chunked arrays (Zarr, HDF5, Dask) and memory maps are read when they are
        needed; a memory map of the kernel's dtype is not copied.
    y : array_like of shape (n,) or (n, outputs)
        Targets; of a classifier labels, numbers or strings, of shape (n,).
    ridge : float, default=1e-3
        Times the kernel's mean diagonal.
    method : {"auto", "cholesky", "cg", "askotch", "landmarks"}, default="auto"
    n_landmarks : int, optional
        Asks for landmarks, so many of them; by default 10 sqrt(n), or what fits.
    landmarks : {"rpcholesky", "uniform"} or array_like of int, default="rpcholesky"
        How they are chosen (by RPCholesky on 3 n_landmarks random samples), or which they are.
    classify : bool, default=False
        Regress on the classes, as `NTKClassifier` does.
    memory : float, optional
        Bytes; half of what is free by default.
    seconds : float, default=3600
        What an exact method may take, by estimate.
    get : {"ntk", "nngp"}, default="ntk"
    rtol : float, default=1e-6
        Of the residuals, for the iterative methods.
    dtype, threads
        As for `ntkcore.kernel`.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Whose workers do the products of iterations, see `MatrixFree`; all else is done here.
    seed : int, default=0
    checkpoint : path, optional
        A file (.npz) that keeps an iteration's state, and beside it a file (.plan) the plan: the
        same call goes on from it.
    progress : bool, optional
    say : callable, optional
        Called with the plan before the work, the residual as it goes, and what came out.

    Returns
    -------
    KernelModel

    Raises
    ------
    TypeError, ValueError
        For data or options that do not fit, before any long work; where no method fits the memory.
    RuntimeError
        Where the iterations do not converge.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import fit, mlp
    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> model = fit(mlp(2, b_std=1.0), x, np.sin(3 * x[:, 0]), ridge=1e-6)
    >>> bool(abs(model.predict([[0.5]]) - np.sin(1.5)).max() < 1e-2)
    True
    """
    if get not in KERNELS:
        raise ValueError(f"get must be 'ntk' or 'nngp', not {get!r}")
    check_rtol(rtol)
    check_ridge(ridge)
    check_count("seed", seed, 0)
    check_executor(executor)
    samples, _ = check_samples(x, None, dtype)
    if checkpoint is not None:
        checkpoint = check_place(checkpoint)
    if np.shape(y)[:1] != (len(samples),):
        raise ValueError(
            f"y must have shape ({len(samples)}, …), a row a sample, not {np.shape(y)}; in a CSV of"
            " labels a line of names counts too"
        )
    targets, classes = class_targets(_labels(y)) if classify else (np.asarray(y), None)
    Y, flat = targets_of(targets, len(samples), "y")
    chosen = _landmarks_of(landmarks, len(samples))
    if chosen is not None:
        n_landmarks = len(chosen)
    if n_landmarks is not None:
        check_count("n_landmarks", n_landmarks, 1)
        if n_landmarks > len(samples):
            raise ValueError(f"{n_landmarks} landmarks are more than the {len(samples)} samples")

    def measured() -> FitPlan:
        workers = thread_count(threads) if executor is None else Remote(executor).threads
        machine = _machine(net, samples, get, memory, seconds, max(workers, 1))
        itemsize, streamed = samples.dtype.itemsize, isinstance(samples, Streamed)
        held = math.prod(samples.shape) * itemsize
        return choose(len(Y), Y.shape[1], itemsize, held, machine, method, n_landmarks, streamed)

    asked = [samples.shape, Y.shape[1], method, n_landmarks, memory, seconds]
    plan = measured() if checkpoint is None else _remembered(checkpoint, asked, measured)
    check_determined(len(samples), plan.landmarks, ridge)
    say = say or (lambda text: None)
    say(f"{plan}")
    job = _Fit(
        net, samples, Y, ridge, plan, get, rtol, threads, executor, seed, checkpoint, progress, say
    )
    if plan.method == "landmarks":
        at = job.choose_landmarks(landmarks) if chosen is None else chosen
        solution, kept = job.restricted(at), samples[at]
    else:
        solution, kept = job.whole(), np.asarray(samples)
    say(job.outcome)
    return KernelModel(net, get, kept, solution[:, 0] if flat else solution, classes)


def _remembered(checkpoint: Path, asked: list[Any], measured: Callable[[], FitPlan]) -> FitPlan:
    """The plan that a checkpoint was begun with, kept beside it: measured anew, it would be another
    one. A new one where something else was asked for.
    """
    file, key = Path(f"{checkpoint}.plan"), json.dumps(asked, default=str)
    if checkpoint.exists() and file.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # not a file of ours
            known = json.loads(file.read_text(encoding="utf-8"))
            if known["asked"] == key:
                return FitPlan(**known["plan"])
    plan = measured()
    write(file, json.dumps({"asked": key, "plan": asdict(plan)}))
    return plan


def _labels(y: npt.ArrayLike) -> Array:
    """Of one kind, which a model file holds; columns of pandas hold strings as objects."""
    given = np.asarray(y)
    if given.dtype.kind not in "OT":
        return given
    if all(isinstance(label, str) for label in given.flat):
        return given.astype(str)
    found = np.array(given.tolist())
    if found.dtype.kind not in "fiub":
        raise TypeError("y must hold labels of one kind, numbers or strings: is one missing?")
    return found


def class_targets(labels: npt.ArrayLike) -> tuple[Array, Array]:
    """Targets of a regression on classes, and the classes, sorted.

    One-hot vectors minus their mean over the classes; of two classes -1 and +1.
    """
    given = np.asarray(labels)
    given = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
    if given.ndim != 1 or not len(given):
        raise ValueError(f"labels must have shape (n,), not {given.shape}")
    if given.dtype.kind == "f":
        check_real(given, "labels")
    classes, codes = np.unique(given, return_inverse=True)
    count = len(classes)
    if count < 2:
        raise ValueError(f"y holds one class only ({classes[0]}): a classifier needs two or more")
    return coded_targets(codes, count), classes


def coded_targets(codes: Array, count: int) -> Array:
    """Targets of classes given by their numbers."""
    return 2.0 * codes - 1 if count == 2 else np.eye(count)[codes] - 1 / count


def labels_of(outputs: Array, classes: Array) -> Array:
    """The class of the largest output; of two classes by the sign."""
    winners = outputs.argmax(axis=1) if outputs.ndim == 2 else (outputs > 0).astype(int)
    labels: Array = classes[winners]
    return labels


def _landmarks_of(landmarks: Any, n: int) -> Array | None:
    """Given numbers of samples, looked at; None for a way of choosing them."""
    if isinstance(landmarks, str):
        if landmarks not in ("rpcholesky", "uniform"):
            raise ValueError(
                f"landmarks must be 'rpcholesky', 'uniform' or numbers of samples,"
                f" not {landmarks!r}"
            )
        return None
    at = np.asarray(landmarks)
    if at.ndim != 1 or not len(at) or at.dtype.kind not in "iu":
        raise ValueError(f"landmarks must be whole numbers of samples, not {landmarks!r:.60}")
    if at.min() < 0 or at.max() >= n:
        raise ValueError(f"landmarks must be from 0 to {n - 1}, not {at.min()} to {at.max()}")
    if len(np.unique(at)) < len(at):
        raise ValueError("landmarks hold a sample more than once: each may be given once")
    return at


def _machine(
    net: Layer,
    x: Array | Streamed,
    get: str,
    memory: float | None,
    seconds: float,
    workers: int,
) -> Machine:
    """The limits, looked at, and what a pair and an operation cost here."""
    if memory is None:
        free = free_bytes()
        memory = np.inf if free is None else MEMORY_SHARE * free
    for name, value in (("memory", memory), ("seconds", seconds)):
        check_positive(value, name)
    pair = seconds_per_pair(net, x[:512], (get,), resolve(None)) / workers
    return Machine(pair, operations_per_second(), float(memory), float(seconds))


@dataclass
class _Fit:
    """One fit whose plan is made."""

    net: Layer
    x: Array | Streamed
    Y: Array
    ridge: float
    plan: FitPlan
    get: str
    rtol: float
    threads: int | None
    executor: Any
    seed: int
    checkpoint: str | Path | None
    progress: bool | None
    say: Callable[[str], None]
    outcome: str = ""

    def look(self, done: float, residuals: Array) -> None:
        """Says the residual of an iteration, every tenth time; ASkotch looks as rarely itself."""
        if self.plan.method == "askotch" or done % LOOKS == 0:
            unit = "passes" if self.plan.method == "askotch" else "iterations"
            self.say(f"{done:.0f} {unit}: residual {residuals.max():.1e}")

    def whole(self) -> Array:
        """Coefficients of all samples."""
        options: dict[str, Any] = {"threads": self.threads}
        if self.plan.method == "cholesky":
            x = np.asarray(self.x)
            K = kernel(self.net, x, None, self.get, progress=self.progress, **options)
            self.outcome = "exact"
            return Cholesky(K, self.ridge, relative=True, overwrite=True).solve(self.Y)
        options |= {"progress": False, "executor": self.executor}
        operator = MatrixFree(self.net, self.x, None, self.get, **options)
        common: dict[str, Any] = {
            "relative": True,
            "rtol": self.rtol,
            "seed": self.seed,
            "checkpoint": self.checkpoint,
            "progress": self.progress,
            "callback": self.look,
        }
        if self.plan.method == "cg":
            result = cg(operator, self.Y, self.ridge, rank=self.plan.rank, **common)
        else:
            result = askotch(operator, self.Y, self.ridge, **common)
        residual = float(result.residuals.max())
        if not result.converged:
            raise RuntimeError(
                f"the residual is {residual:.1e} after {result.passes:.0f} passes: raise rtol or"
                " the ridge"
            )
        self.outcome = f"exact to a residual of {residual:.1e}, {result.passes:.1f} passes"
        return result.x

    def choose_landmarks(self, how: str) -> Array:
        """Numbers of samples."""
        rng, m, n = np.random.default_rng(self.seed), self.plan.landmarks, len(self.x)
        if how == "uniform":
            return np.sort(rng.choice(n, m, replace=False))
        pool = np.sort(rng.choice(n, min(n, POOL * m), replace=False))
        operator = MatrixFree(self.net, self.x[pool], None, self.get, threads=self.threads)
        return np.sort(pool[rpcholesky(operator, m, seed=self.seed).landmarks])

    def restricted(self, at: Array) -> Array:
        """Coefficients of the landmarks."""
        z = np.asarray(self.x[at])
        whole = MatrixFree(self.net, self.x, None, self.get, threads=self.threads)
        mean = float(whole.diagonal().mean())
        options: dict[str, Any] = {"threads": self.threads, "executor": self.executor}
        found = LandmarkRegression(
            MatrixFree(self.net, self.x, z, self.get, progress=False, **options),
            kernel(self.net, z, None, self.get, dtype="float64", threads=self.threads),
            self.Y,
            ridge_of(self.ridge, True, mean, self.x.dtype, len(at)),
            rtol=self.rtol,
            seed=self.seed,
            checkpoint=self.checkpoint,
            progress=self.progress,
            callback=self.look,
        )
        self.outcome = (
            f"the restricted problem of {len(at)} landmarks to a residual of {self.rtol:.0e},"
            f" {found.passes:.0f} passes"
        )
        return found.coefficients
