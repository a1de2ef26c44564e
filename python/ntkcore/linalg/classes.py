"""Classification by regression: labels, the targets that stand for them, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.linalg.checks import check_real

Array = npt.NDArray[Any]


def labels_array(y: npt.ArrayLike) -> Array:
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
