"""Losses, their targets and their gradients by the outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array
from ntkcore.linalg.checks import check_real

Array = npt.NDArray[np.float64]
Field = Callable[[Array], Array]

MOST_CLASSES = 100_000  # beyond, numbers are identifiers, no classes


def class_targets(y: Any, classes: int | None = None, name: str = "y") -> Array:
    """Targets of a cross-entropy as probabilities (…, classes), float64.

    ``y``: integers (n,), the classes' numbers from 0 on; or rows of numbers >= 0 that sum to 1,
    such as one-hot. ``classes``: how many there are; None: what the rows hold, or one more than the
    largest number. ValueError or TypeError for anything else.
    """
    array = as_array(y, name)
    check_real(np.atleast_1d(array), name)
    if array.ndim == 1:
        return _one_hot(array, classes, name)
    if array.ndim == 0 or array.shape[-1] < 2 or classes not in (None, array.shape[-1]):
        raise ValueError(
            f"{name} of shape {array.shape} is no target of a cross-entropy over"
            f" {classes or 'two or more'} classes:"
            " give class numbers (n,), or one-hot rows (n, classes)"
        )
    rows = array.astype(np.float64)
    if (rows < 0).any() or not np.allclose(rows.sum(axis=-1), 1, rtol=0, atol=1e-5):
        raise ValueError(
            f"{name}'s rows must be probabilities, at least 0 with the sum 1:"
            " give one-hot rows, or class numbers (n,)"
        )
    return rows


def _one_hot(numbers: npt.NDArray[Any], classes: int | None, name: str) -> Array:
    if numbers.dtype.kind not in "iu":
        raise TypeError(
            f"{name} (n,) must hold class numbers, integers from 0 on, not dtype {numbers.dtype}:"
            f" use {name}.astype(int), or one-hot rows (n, classes)"
        )
    low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    count = max(high + 1, 2) if classes is None else classes
    if low < 0 or high >= count or count < 2:
        raise ValueError(
            f"{name} holds class numbers from {low} to {high}, and they must lie in 0 … {count - 1}"
            f" for {count} outputs: labels such as -1 and 1 are numbered by numpy.unique(y,"
            " return_inverse=True)[1]"
        )
    if count > MOST_CLASSES:
        raise ValueError(
            f"{name} holds the class number {high}, of more than {MOST_CLASSES} classes: number"
            " labels by numpy.unique(y, return_inverse=True)[1]"
        )
    rows = np.zeros((len(numbers), count))
    rows[np.arange(len(numbers)), numbers] = 1
    return rows


@dataclass(frozen=True)
class CrossEntropy:
    """-sum_k y_k log softmax(f)_k, the mean over samples (and outputs, with ``average_outputs``).

    ``y``: class numbers (n,), or rows of probabilities (n, classes) such as one-hot; see
    `class_targets`. The last axis of f holds the classes.
    """

    average_outputs: bool = False

    def targets(self, y: Any, classes: int | None = None) -> Array:
        """What this loss takes for y, as probabilities."""
        return class_targets(y, classes)

    def __call__(self, f: Array, y: npt.ArrayLike) -> float:
        """The loss of outputs f (n, classes)."""
        shifted = f - f.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return float(((log_sum - shifted) * class_targets(y, f.shape[-1])).sum() / self._divisor(f))

    def gradient(self, f: Array, y: npt.ArrayLike) -> Array:
        """(softmax(f) - y)/n, shape of f."""
        odds = np.exp(f - f.max(axis=-1, keepdims=True))
        odds /= odds.sum(axis=-1, keepdims=True)
        return cast(Array, (odds - class_targets(y, f.shape[-1])) / self._divisor(f))

    def _divisor(self, f: Array) -> float:
        return f.size if self.average_outputs else f.size / f.shape[-1]


@dataclass(frozen=True)
class SquaredError:
    """||f - y||^2/(2n), the loss of `ntkcore.dynamics.Dynamics` (over outputs too,
    with ``average_outputs``).
    """

    average_outputs: bool = False

    def __call__(self, f: Array, y: Array) -> float:
        """The loss of outputs f, shape of y."""
        return float(((f - y) ** 2).sum() / (2 * self._divisor(f)))

    def gradient(self, f: Array, y: Array) -> Array:
        """(f - y)/n, shape of f."""
        return (f - y) / self._divisor(f)

    def _divisor(self, f: Array) -> float:
        return f.size if self.average_outputs else len(f)


def check_loss(loss: Any) -> None:
    """TypeError for what is no function, and for a class of losses in place of a loss."""
    if isinstance(loss, type):
        raise TypeError(f"the loss is the class {loss.__name__}: make one of it, {loss.__name__}()")
    if not callable(loss):
        raise TypeError(f"a loss is a function loss(f, y) of outputs and targets, not {loss!r:.60}")


def gradient_of(loss: Any, y: Array) -> Field:
    """f -> dl/df: the loss's own ``gradient(f, y)``; JAX's, if the program has imported JAX and the
    loss uses it; else central differences: 2 f.size evaluations of the loss, about 9 digits.

    TypeError for a loss that is not callable or does not give one float64 number.
    """
    check_loss(loss)
    if hasattr(loss, "gradient"):
        return lambda f: _of_shape(loss.gradient(f, y), f)
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(_tried(lambda: loss(y.copy(), y)), jax.Array):
        return _jax_gradient(jax, loss, y)
    value = loss(np.zeros_like(y), y)
    if np.shape(value) != () or getattr(value, "dtype", np.dtype(float)) != np.float64:
        raise TypeError(
            f"the loss gave {value!r:.60}, not one float64 number: it must be a scalar, and its"
            " differences need double precision; or give the loss a method gradient(f, y)"
        )
    return lambda f: _differences(loss, f, y)


def _of_shape(gradient: Any, f: Array) -> Array:
    found = np.asarray(gradient, dtype=np.float64)
    if found.shape != f.shape:
        raise ValueError(f"the loss's gradient has shape {found.shape}, and the outputs {f.shape}")
    return found


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception:  # whatever a foreign loss raises on these values, it is looked at below
        return None


def _jax_gradient(jax: Any, loss: Any, y: Array) -> Field:
    derivative = jax.grad(lambda f: loss(f, y))

    def gradient(f: Array) -> Array:
        with jax.experimental.enable_x64():
            return np.asarray(derivative(jax.numpy.asarray(f)), dtype=np.float64)

    return gradient


def _differences(loss: Any, f: Array, y: Array) -> Array:
    """(l(f + h e) - l(f - h e))/2h, h = 6e-6 max(1, |f|): truncation and rounding balance."""
    gradient, moved = np.empty_like(f), f.copy()
    for index in np.ndindex(f.shape):
        h = 6e-6 * max(1.0, abs(float(f[index])))
        moved[index] = f[index] + h
        above = loss(moved, y)
        moved[index] = f[index] - h
        gradient[index] = (above - loss(moved, y)) / (2 * h)
        moved[index] = f[index]
    return gradient
