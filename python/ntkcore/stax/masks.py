"""Masked data: entries that count as 0, samples without any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array

Mask = npt.NDArray[np.bool_]


def masked(x: Any, constant: float | None) -> tuple[Any, Mask | None]:
    """The data (samples first, channels last) with masked entries 0,
    and which samples are masked, (n, 1).

    NotImplementedError for an image of which some pixels are masked.
    """
    if x is None or constant is None:
        return x, None
    array = as_array(x, "x")
    if array.ndim < 2:
        return x, None  # `check_data` says what to do
    hidden = np.isnan(array) if np.isnan(constant) else array == constant
    pixels = hidden.all(axis=-1)
    samples = pixels.reshape(len(array), -1).all(axis=1)
    if (pixels.reshape(len(array), -1).any(axis=1) & ~samples).any():
        raise NotImplementedError(
            f"kernel_fn: mask_constant={constant} masks single pixels, which is not supported: only"
            " channels of a pixel that has others, or all of a sample, may be masked"
        )
    return np.where(hidden, 0, array), samples[:, None]


def without_masked(
    values: dict[str, Any], mask1: Mask | None, mask2: Mask | None
) -> dict[str, Any]:
    """Kernels and variances, those of masked samples 0."""
    if mask1 is None:
        return values
    one = mask1[:, 0]
    two = one if mask2 is None else mask2[:, 0]
    rows_and_columns = {
        "nngp": (one, two),
        "ntk": (one, two),
        "cov1": (one, one),
        "cov2": (two, two),
    }
    out = dict(values)
    for name, (rows, columns) in rows_and_columns.items():
        if values.get(name) is not None:
            out[name] = values[name].copy()
            out[name][rows] = 0
            if out[name].ndim == 2:
                out[name][:, columns] = 0
    return out
