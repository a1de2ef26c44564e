"""Data for a comparison: seeded generators, and a user's own arrays.

    split = sparse_parity(seed=0, n=1500)               # a task: seed and keywords -> Split
    task = Arrays(x, y); task(seed=3, n=500, noise=0.1)

A task is any function ``(seed, **axis) -> Split``; a seed fixes the test and validation samples
whatever ``n`` is, and smaller training sets are parts of larger ones. Those defined here are listed
in TASKS.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from ntkcore.datasets import digits
from ntkcore.theory.sphere import legendre, random_points

Array = npt.NDArray[np.float64]
Task = Callable[..., "Split"]

TASKS: dict[str, Task] = {}


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and targets for training, validation and test; targets (n, outputs), float64.

    Targets (n, …, tokens, classes) are laid out as (n, outputs), and ``classes`` remembers how many
    outputs in a row are one token's; 0: all are.

    ValueError where they do not fit together, are not finite,
    or all targets of a part are the same.
    """

    x: npt.NDArray[Any]
    y: Array
    x_val: npt.NDArray[Any]
    y_val: Array
    x_test: npt.NDArray[Any]
    y_test: Array
    classes: int = 0

    def __post_init__(self) -> None:
        if np.ndim(self.y) > 2:
            object.__setattr__(self, "classes", np.shape(self.y)[-1])
        axes = np.shape(self.y)[1:]
        if self.classes < 0 or (self.classes and math.prod(axes) % self.classes):
            raise ValueError(f"targets {axes} are not rows of {self.classes} classes")
        for x, y in (("x", "y"), ("x_val", "y_val"), ("x_test", "y_test")):
            samples, targets = (np.asarray(getattr(self, name)) for name in (x, y))
            if targets.dtype.kind not in "fiub" or samples.dtype.kind not in "fiub":
                raise TypeError(
                    f"{x} and {y} must hold real numbers, not {samples.dtype} and {targets.dtype}"
                )
            if len(samples) != len(targets) or not len(samples):
                raise ValueError(
                    f"{x} holds {len(samples)} samples, {y} {len(targets)}:"
                    " as many, and at least one"
                )
            if samples.shape[1:] != np.shape(self.x)[1:] or (targets.shape[1:] or (1,)) != (
                axes or (1,)
            ):
                raise ValueError(
                    f"{x} {samples.shape} or {y} {targets.shape} has other axes than the"
                    " training set"
                )
            targets = targets.astype(np.float64).reshape(len(targets), -1)
            if not (np.isfinite(samples).all() and np.isfinite(targets).all()):
                raise ValueError(f"{x} or {y} holds NaN or infinity: impute or drop such samples")
            if (targets == targets[0]).all():
                raise ValueError(
                    f"all {len(targets)} targets {y} are the same: nothing is to be learned"
                )
            object.__setattr__(self, x, samples)
            object.__setattr__(self, y, targets)

    @property
    def arrays(self) -> dict[str, Any]:
        """All six by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)[:6]}

    def tokens(self, y: Array) -> Array:
        """Targets or outputs (n, outputs), a row for each token: (n tokens, classes)."""
        return y.reshape(-1, self.classes or self.y.shape[1])


def register(task: Task) -> Task:
    """Into TASKS, by its name."""
    TASKS[task.__name__] = task
    return task


def _cut(x: npt.NDArray[Any], y: Array, n: int, validation: int, test: int) -> Split:
    """Test first, then validation, then training: so that those stay when n grows."""
    a, b = test, test + validation
    return Split(x[b : b + n], y[b : b + n], x[a:b], y[a:b], x[:a], y[:a])


# --- generators


@register
def sparse_parity(
    seed: int, *, n: int = 1500, d: int = 30, k: int = 3, validation: int = 300, test: int = 500
) -> Split:
    """x in {-1, 1}^d, y = x_1 … x_k."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (n + validation + test, d))
    return _cut(x, x[:, :k].prod(axis=1), n, validation, test)


@register
def staircase(
    seed: int, *, n: int = 1500, d: int = 30, k: int = 4, validation: int = 300, test: int = 500
) -> Split:
    """x in {-1, 1}^d, y = (x_1 + x_1 x_2 + … + x_1 … x_k)/sqrt(k) (Abbe et al. 2021)."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (n + validation + test, d))
    return _cut(x, x[:, :k].cumprod(axis=1).sum(axis=1) / math.sqrt(k), n, validation, test)


@register
def single_index(
    seed: int, *, n: int = 1500, d: int = 100, validation: int = 300, test: int = 500
) -> Split:
    """x ~ N(0, 1)^d, y = ((w.x)^2 - 1)/sqrt(2), |w| = 1."""
    rng = np.random.default_rng(seed)
    w = random_points(1, d, rng)[0]
    x = rng.standard_normal((n + validation + test, d))
    return _cut(x, ((x @ w) ** 2 - 1) / math.sqrt(2), n, validation, test)


@register
def modular_addition(seed: int, *, n: int = 317, p: int = 23, validation: int = 60) -> Split:
    """Pairs (a, b) one-hot, class a + b mod p one-hot about its mean;
    all pairs not trained on are test.

    By default 60 % of the p^2 pairs are in the training set.
    """
    a, b = np.divmod(np.random.default_rng(seed).permutation(p * p), p)
    one_hot = np.eye(p)
    x, y = np.concatenate([one_hot[a], one_hot[b]], axis=1), one_hot[(a + b) % p] - 1 / p
    end = validation + n
    return Split(
        x[validation:end], y[validation:end], x[:validation], y[:validation], x[end:], y[end:]
    )


@register
def three_neurons(
    seed: int, *, n: int = 500, d: int = 50, validation: int = 200, test: int = 1000
) -> Split:
    """x on the sphere of radius sqrt(d), y a sum of three ReLU neurons of random signs,
    of unit variance.

    The mean stays: a constant would be a fourth neuron, and a hard one.
    """
    rng = np.random.default_rng(seed)
    w, sign = random_points(3, d, rng), rng.choice([-1.0, 1.0], 3)
    x = random_points(n + validation + test, d, rng) * math.sqrt(d)
    y = np.maximum(x @ w.T, 0) @ sign
    return _cut(x, y / y[:test].std(), n, validation, test)


@register
def harmonic(
    seed: int, *, n: int = 500, d: int = 10, k: int = 2, validation: int = 100, test: int = 500
) -> Split:
    """x on the unit sphere, y = P_k(zeta.x),
    the Legendre polynomial of degree k in d dimensions, of unit variance.
    """
    rng = np.random.default_rng(seed)
    zeta = random_points(1, d, rng)[0]
    x = random_points(n + validation + test, d, rng)
    y = legendre(k + 1, x @ zeta, d)[k]
    return _cut(x, y / np.sqrt((y**2).mean()), n, validation, test)


# --- real digits


@functools.cache
def _digits() -> tuple[Array, Array]:
    """20 000 digits of MNIST, or scikit-learn's: rows about their mean, of mean square norm d;
    and classes.
    """
    x, label, _ = digits()
    x = x[:20_000] / np.max(x)
    x -= x.mean(axis=0)
    return x * np.sqrt(x.shape[1] / (x**2).sum(axis=1).mean()), label[:20_000]


@register
def digit_parity(
    seed: int,
    *,
    n: int = 800,
    noise: float = 0.0,
    validation: int = 200,
    test: int = 500,
    components: int = 0,
) -> Split:
    """Even against odd digits: MNIST where it is found, else scikit-learn's.

    ``noise``: share of the labels flipped, test labels excepted;
    ``components``: so many principal components instead of pixels.
    """
    x, label = _components(components) if components else _digits()
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(x))
    if n + validation + test > len(rows):
        raise ValueError(f"there are {len(rows)} digits, fewer than {n} + {validation} + {test}")
    rows = rows[: n + validation + test]
    split = _cut(x[rows], 1.0 - 2.0 * (label[rows] % 2), n, validation, test)
    return _flipped(split, noise, rng)


@functools.cache
def _components(count: int) -> tuple[Array, Array]:
    x, label = _digits()
    with threadpool_limits(1, user_api="blas"):  # the same numbers whatever the threads
        _, vectors = np.linalg.eigh(x.T @ x)
        x = x @ vectors[:, : -count - 1 : -1]
    return x * np.sqrt(count / (x**2).sum(axis=1).mean()), label


def _flipped(split: Split, noise: float, rng: np.random.Generator) -> Split:
    """A share of the targets of training and validation: of two values the other one,
    of more classes exchanged at random.
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is a share of the labels between 0 and 1, not {noise!r}")
    if not noise:
        return split
    one, arrays = split.y.shape[1] == 1, split.arrays
    values = np.unique(np.concatenate([split.y, split.y_val]))
    if one and len(values) > 2:
        raise ValueError("noise is a share of wrong classes, and the targets are numbers")
    for name in ("y", "y_val"):
        y = arrays[name].copy()
        rows = rng.permutation(len(y))[: round(noise * len(y))]
        y[rows] = values.sum() - y[rows] if one else y[rng.integers(len(y), size=len(rows))]
        arrays[name] = y
    return replace(split, **arrays)


@register
def random_labels(
    seed: int, *, n: int = 800, validation: int = 100, test: int = 200, components: int = 0
) -> Split:
    """Digits with labels ±1 that are coins."""
    split = digit_parity(seed, n=n, validation=validation, test=test, components=components)
    rng = np.random.default_rng([seed, 1])
    coins = {
        name: rng.choice([-1.0, 1.0], (len(split.arrays[name]), 1))
        for name in ("y", "y_val", "y_test")
    }
    return Split(**{**split.arrays, **coins})


# --- a user's own


class Arrays:
    """A task of given samples: ``Arrays(x, y)(seed, n=…, noise=…)`` draws training,
    validation and test parts.

    Parameters
    ----------
    x, y
        Samples (n, features) or (n, height, width, channels), and targets: numbers (n,) or (n,
        outputs), of several tokens (n, tokens, classes); or classes, as integers, booleans or
        strings: two become ±1, more become one-hot rows about their mean.
    x_test, y_test
        A test set; without one, a fifth of the samples is drawn by the seed.
    validation
        Share of the rest that tunes the arms.

    Raises
    ------
    ValueError, TypeError
        For arrays that do not fit together, are not finite, or too few.
    """

    def __init__(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        x_test: Any = None,
        y_test: Any = None,
        *,
        validation: float = 0.2,
    ) -> None:
        if (x_test is None) != (y_test is None):
            raise ValueError("give both x_test and y_test, or neither")
        if not 0 < validation < 1:
            raise ValueError(f"validation is a share between 0 and 1, not {validation!r}")
        self.x, given = (
            np.asarray(x),
            [np.asarray(y)] + ([] if y_test is None else [np.asarray(y_test)]),
        )
        targets = _targets(given)
        self.y, self.validation = targets[0], validation
        if len(self.x) != len(self.y) or len(self.x) < 10:
            raise ValueError(
                f"x holds {len(self.x)} samples, y {len(self.y)} targets:"
                " as many of both, at least 10"
            )
        self.test = None if x_test is None else (np.asarray(x_test), targets[1])
        self(0)  # whatever is wrong with the arrays is said now

    @property
    def limit(self) -> int:
        """How many training samples there can be."""
        return len(self.x) - self._parts()[1]

    def _parts(self) -> tuple[int, int]:
        """Where test samples end, and where validation samples do."""
        test = 0 if self.test else max(1, round(0.2 * len(self.x)))
        return test, test + max(1, round(self.validation * (len(self.x) - test)))

    def __call__(self, seed: int, *, n: int | None = None, noise: float = 0.0) -> Split:
        """The split of this seed, with the first ``n`` of its training samples,
        a share ``noise`` of labels wrong.
        """
        n = self.limit if n is None else int(n)
        if not 1 <= n <= self.limit:
            raise ValueError(
                f"n must lie between 1 and the {self.limit} training samples there are, not {n}"
            )
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(self.x))
        x, y, (a, b) = self.x[rows], self.y[rows], self._parts()
        return _flipped(
            Split(x[b : b + n], y[b : b + n], x[a:b], y[a:b], *(self.test or (x[:a], y[:a]))),
            noise,
            rng,
        )


def _targets(given: list[npt.NDArray[Any]]) -> list[Array]:
    """Classes become ±1 or centred one-hot rows; numbers stay."""
    if given[0].dtype.kind != "f":  # a column of classes
        given = [y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for y in given]
    if given[0].dtype.kind == "f" or given[0].ndim > 1:
        return [np.asarray(y, np.float64) for y in given]
    classes = np.unique(np.concatenate(given))
    if given[0].dtype.kind not in "biuOSU" or 2 * len(classes) > sum(map(len, given)):
        raise ValueError(
            f"y holds {len(classes)} different values of {given[0].dtype} among"
            f" {sum(map(len, given))}, too many for classes: give numbers as floats"
        )
    if len(classes) < 2:
        raise ValueError(f"y holds one class only, {classes.tolist()}: nothing is to be learned")
    if len(classes) == 2:
        return [np.where(y == classes[1], 1.0, -1.0)[:, None] for y in given]
    return [(y[:, None] == classes).astype(float) - 1 / len(classes) for y in given]
