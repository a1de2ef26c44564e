"""Masked data: entries that count as 0, and positions without any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array

Mask = npt.NDArray[np.bool_]


def masked(x: Any, constant: float | None) -> tuple[Any, Mask | None]:
    """The data (samples first, channels last) with masked entries 0, and which positions have no
    channel that is not masked, (n, P).
    """
    if x is None or constant is None or np.ndim(x) < 2:
        return x, None
    if np.ndim(constant) or np.asarray(constant).dtype.kind not in "fiub":
        raise TypeError(f"kernel_fn: mask_constant must be a real number, not {constant!r}")
    array = as_array(x, "x")
    hidden = np.isnan(array) if np.isnan(constant) else array == constant
    return np.where(hidden, 0, array), hidden.all(axis=-1).reshape(len(array), -1)


def with_mask(x: Any, mask: Mask) -> Any:
    """Data with the channel that `MaskedInput` reads."""
    seen = ~mask.reshape(*x.shape[:-1], 1)
    return np.concatenate([x, seen], -1, dtype=x.dtype)
