"""From data to a model that predicts: the solver is chosen, its plan said, the result kept."""

from __future__ import annotations

import hashlib
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
from ntkcore.engine.inputs import KERNELS, PANEL, check_count, free_bytes, thread_count
from ntkcore.engine.kernels import kernel
from ntkcore.engine.streamed import Streamed, check_samples
from ntkcore.linalg.askotch import askotch
from ntkcore.linalg.cg import cg, check_rtol
from ntkcore.linalg.checks import check_positive, targets_of
from ntkcore.linalg.choice import (
    FitPlan,
    Machine,
    choose,
    operations_per_second,
    outcome_text,
    residual_teller,
)
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.classes import class_targets, labels_array, labels_of
from ntkcore.linalg.landmarks import check_determined
from ntkcore.linalg.matrix_free import MatrixFree
from ntkcore.linalg.noise import check_ridge
from ntkcore.linalg.restricted import Numbers, asked_landmarks, choose_landmarks, restricted
from ntkcore.specs.layers import Layer
from ntkcore.specs.text import from_json
from ntkcore.store.files import check_place, write, writing
from ntkcore.store.planning import seconds_per_pair

Array = npt.NDArray[Any]
MEMORY_SHARE = 0.5  # of what is free, by default
SECONDS = 3600.0  # by default


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
        same call, with the same data, goes on from it. "auto" then leaves out Cholesky, which keeps
        none.
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
        if method == "cholesky":
            raise ValueError(
                "Cholesky keeps no checkpoint: leave it out, or take method='cg' or 'auto', which"
                " then chooses among the methods that keep one"
            )
    if np.shape(y)[:1] != (len(samples),):
        raise ValueError(
            f"y must have shape ({len(samples)}, …), a row a sample, not {np.shape(y)}; in a CSV of"
            " labels a line of names counts too"
        )
    targets, classes = class_targets(labels_array(y)) if classify else (np.asarray(y), None)
    Y, flat = targets_of(targets, len(samples), "y")
    chosen, n_landmarks = asked_landmarks(n_landmarks, landmarks, len(samples))

    def measured() -> FitPlan:
        workers = thread_count(threads) if executor is None else Remote(executor).threads
        machine = _machine(net, samples, get, memory, seconds, max(workers, 1))
        itemsize, streamed = samples.dtype.itemsize, isinstance(samples, Streamed)
        held = math.prod(samples.shape) * itemsize
        about = (itemsize, held, machine, method, n_landmarks, streamed, checkpoint is not None)
        return choose(len(Y), Y.shape[1], *about)

    if checkpoint is None:
        plan = measured()
    else:
        asked = [samples.shape, Y.shape[1], method, n_landmarks, memory, seconds]
        plan = _remembered(checkpoint, asked, _digest(samples, Y), measured)
    check_determined(len(samples), plan.landmarks, ridge)
    say = say or (lambda text: None)
    say(f"{plan}")
    job = _Fit(
        net, samples, Y, ridge, plan, get, rtol, threads, executor, seed, checkpoint, progress, say
    )
    if plan.method == "landmarks":
        at, solution = job.restricted(chosen, landmarks)
        kept = samples[at]
    else:
        solution, kept = job.whole(), np.asarray(samples)
    say(job.outcome)
    return KernelModel(net, get, kept, solution[:, 0] if flat else solution, classes)


def _digest(samples: Array | Streamed, Y: Array) -> str:
    """Tells data apart, read once."""
    found = hashlib.blake2b(Y.tobytes())
    step = max(1, PANEL // math.prod(samples.shape[1:]))
    for i in range(0, len(samples), step):
        found.update(np.ascontiguousarray(samples[i : i + step]).data)
    return found.hexdigest()


def _remembered(
    checkpoint: Path, asked: list[Any], data: str, measured: Callable[[], FitPlan]
) -> FitPlan:
    """The plan that a checkpoint was begun with, kept beside it: measured anew, it would be another
    one. A new one where something else was asked for; ValueError for other data.
    """
    file, key = Path(f"{checkpoint}.plan"), json.dumps(asked, default=str)
    known = _kept_in(file) if checkpoint.exists() and file.exists() else None
    if known is not None and known[1] != data:
        raise ValueError(
            f"{checkpoint} was begun with other data: go on with those, or choose another file"
        )
    if known is not None and known[0] == key:
        return known[2]
    plan = measured()
    write(file, json.dumps({"asked": key, "data": data, "plan": asdict(plan)}))
    return plan


def _kept_in(file: Path) -> tuple[str, str, FitPlan] | None:
    """What was asked for, the data's digest and the plan; None of a file that is none of ours."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return known["asked"], known["data"], FitPlan(**known["plan"])
    except (ValueError, KeyError, TypeError):
        return None


def memory_share() -> float:
    """Bytes that may be used by default."""
    free = free_bytes()
    return np.inf if free is None else MEMORY_SHARE * free


def _machine(
    net: Layer,
    x: Array | Streamed,
    get: str,
    memory: float | None,
    seconds: float,
    workers: int,
) -> Machine:
    """The limits, looked at, and what a pair and an operation cost here."""
    memory = memory_share() if memory is None else memory
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

    @property
    def operator(self) -> MatrixFree:
        """The kernel of all samples."""
        options: dict[str, Any] = {"threads": self.threads, "executor": self.executor}
        return MatrixFree(self.net, self.x, None, self.get, progress=False, **options)

    @property
    def options(self) -> dict[str, Any]:
        """Those of every iteration."""
        return {
            "relative": True,
            "rtol": self.rtol,
            "seed": self.seed,
            "checkpoint": self.checkpoint,
            "progress": self.progress,
            "callback": residual_teller(self.say, self.plan.method),
        }

    def whole(self) -> Array:
        """Coefficients of all samples."""
        method = self.plan.method
        if method == "cholesky":
            x = np.asarray(self.x)
            options: dict[str, Any] = {"threads": self.threads, "progress": self.progress}
            K = kernel(self.net, x, None, self.get, **options)
            self.outcome = outcome_text(method, 0.0, 1.0)
            return Cholesky(K, self.ridge, relative=True, overwrite=True).solve(self.Y)
        if method == "cg":
            result = cg(self.operator, self.Y, self.ridge, rank=self.plan.rank, **self.options)
        else:
            result = askotch(self.operator, self.Y, self.ridge, **self.options)
        residual = float(result.residuals.max())
        if not result.converged:
            raise RuntimeError(
                f"the residual is {residual:.1e} after {result.passes:.0f} passes: raise rtol or"
                " the ridge"
            )
        self.outcome = outcome_text(method, residual, result.passes)
        return result.x

    def restricted(self, at: Numbers | None, how: str) -> tuple[Numbers, Array]:
        """Landmarks, given or chosen, and their coefficients."""
        K = self.operator
        if at is None:
            at = choose_landmarks(K, self.plan.landmarks, how, self.seed)
        at, found = restricted(K, at, self.Y, self.ridge, **self.options)
        self.outcome = outcome_text("landmarks", self.rtol, found.passes, len(at))
        return at, found.coefficients
