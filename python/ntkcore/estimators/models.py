"""What all estimators share: their network, their kernel, and validated data."""

from __future__ import annotations

from numbers import Integral
from typing import Any, cast

import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, validation
from sklearn.utils.multiclass import check_classification_targets

from ntkcore.engine.inputs import KERNELS, PRECISIONS, free_bytes, refuse_no_array, size_text
from ntkcore.linalg.checks import check_real
from ntkcore.specs.beside import GraphInput
from ntkcore.specs.layers import Layer
from ntkcore.specs.lowering import flat
from ntkcore.specs.nets import mlp

# A function since scikit-learn 1.6, a method with the same arguments before.
_validate_data = getattr(validation, "validate_data", None) or BaseEstimator._validate_data


def net_of(model: Any) -> Layer:
    """The network that a model's parameters describe."""
    if model.net is not None:
        return cast(Layer, model.net)
    # A grid gives NumPy integers.
    depth = int(model.depth) if isinstance(model.depth, Integral) else model.depth
    return mlp(depth, model.W_std, model.b_std)


def takes_graphs(net: Layer) -> bool:
    """Does it begin with `GraphInput`?"""
    return isinstance(net, Layer) and isinstance(next(iter(flat(net)), None), GraphInput)


def kernel_of(model: Any) -> str:
    """The name of its kernel."""
    if model.get not in KERNELS:
        raise ValueError(
            f"get must be 'ntk' or 'nngp', not {model.get!r}:"
            f" {type(model).__name__} uses one kernel"
        )
    return cast(str, model.get)


def refuse_large(what: str, need: int, hint: str) -> None:
    """MemoryError, before the work, for what does not fit."""
    free = free_bytes()
    if free is not None and need > free:
        raise MemoryError(f"{what} needs {size_text(need)}, but {size_text(free)} are free: {hint}")


def samples_of(model: Any, X: npt.ArrayLike, **options: Any) -> Any:
    """Validated data: X (n_samples, n_features) or images (n_samples, h, w, channels) or the like;
    (X, y) if ``y`` is an option.
    """
    refuse_no_array(X, "X")
    dtype = getattr(X, "dtype", None)
    if getattr(dtype, "kind", "f") in "mM":
        raise TypeError(f"X must hold real numbers, not dtype {dtype}: dates have no kernel")
    if "y" in options:
        refuse_no_array(options["y"], "y")
    graphs = hasattr(model, "net") and takes_graphs(net_of(model))
    if graphs and isinstance(X, (list, tuple)) and any(isinstance(pair, tuple) for pair in X):
        raise ValueError(
            f"X must be graphs packed by ntkcore.pack_graphs, not a {type(X).__name__} of pairs;"
            " ntkcore.estimators.GraphKernel takes these, before a support vector machine"
        )
    if graphs and options.get("reset") is False:
        # Graphs may have more nodes than those of `fit`.
        return check_array(X, dtype=PRECISIONS[::-1], allow_nd=True)
    return _validate_data(
        model, X, dtype=PRECISIONS[::-1], allow_nd=getattr(X, "ndim", 2) > 2, **options
    )


def regression_data(model: Any, X: npt.ArrayLike, y: npt.ArrayLike, **options: Any) -> Any:
    """`samples_of`, and targets (n_samples,) or (n_samples, n_targets)."""
    x, targets = samples_of(model, X, y=y, multi_output=True, y_numeric=True, **options)
    check_real(targets, "y")  # scikit-learn reads None as NaN
    return x, targets


def classification_data(model: Any, X: npt.ArrayLike, y: npt.ArrayLike, **options: Any) -> Any:
    """`samples_of`, and labels (n_samples,)."""
    x, labels = samples_of(model, X, y=y, **options)
    check_classification_targets(labels)
    return x, validation.column_or_1d(labels, warn=True)
