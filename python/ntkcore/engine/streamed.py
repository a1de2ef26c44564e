"""Samples that are read when they are needed: Zarr, HDF5, Dask, memory maps of another dtype."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import PANEL, Array, check_data, checked


class Streamed:
    """An array of samples whose rows are read and converted when they are asked for.

    It has ``shape``, ``ndim``, ``dtype`` and ``len``; indexed by a slice or by whole numbers it
    gives NumPy's C-contiguous arrays.
    """

    def __init__(self, source: Any, dtype: np.dtype[Any]) -> None:
        self.source, self.dtype = source, dtype
        self.shape, self.ndim = tuple(source.shape), len(source.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice | npt.ArrayLike) -> Array:
        found = self.given(rows)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(found, dtype=self.dtype)

    def given(self, rows: slice | npt.ArrayLike) -> npt.NDArray[Any]:
        """Rows as the source has them."""
        if isinstance(rows, slice):
            return np.asarray(self.source[rows])
        # HDF5 reads rising numbers only, each once.
        numbers, back = np.unique(np.asarray(rows), return_inverse=True)
        found: npt.NDArray[Any] = np.asarray(self.source[numbers])[back]
        return found

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return self[:].astype(dtype or self.dtype, copy=False)

    def slices(self) -> Iterator[slice]:
        """All rows, some at a time."""
        step = max(1, PANEL // int(np.prod(self.shape[1:], dtype=np.int64)))
        for i in range(0, len(self), step):
            yield slice(i, i + step)

    def panels(self) -> Iterator[Array]:
        """Those rows."""
        return (self[rows] for rows in self.slices())


def check_samples(
    x1: Any, x2: Any, dtype: npt.DTypeLike | None
) -> tuple[Array | Streamed, Array | Streamed | None]:
    """`check_data`, where those that can be streamed are, after one pass that looks at them."""
    given = [(x, f"x{i}") for i, x in ((1, x1), (2, x2)) if x is not None]
    if not any(_is_streamed(x) for x, _ in given):
        return check_data(x1, x2, dtype)
    heads = [x[:1] if _is_streamed(x) else x for x, _ in given]
    first, second = check_data(heads[0], heads[1] if len(heads) > 1 else None, dtype)
    rows = [
        _looked_at(x, name, head.dtype) if _is_streamed(x) else head
        for (x, name), head in zip(given, (first, second), strict=False)
        if head is not None
    ]
    return rows[0], rows[1] if len(rows) > 1 else None


def _is_streamed(x: Any) -> bool:
    """Rows can be had by slices, and the whole is not in memory."""
    if isinstance(x, np.ndarray):
        return x.size > 0 and _is_mapped(x)
    shape: Any = getattr(x, "shape", ())
    chunked = hasattr(x, "chunks") and hasattr(x, "dtype") and len(shape) > 1 and shape[0] > 0
    return isinstance(x, Streamed) or chunked


def _is_mapped(x: np.ndarray[Any, Any]) -> bool:
    base: Any = x
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return isinstance(base, mmap.mmap)


def _looked_at(x: Any, name: str, dtype: np.dtype[Any]) -> Array | Streamed:
    if isinstance(x, Streamed) and x.dtype == dtype:
        return x
    if isinstance(x, np.ndarray) and x.dtype == dtype and x.flags.c_contiguous:
        return checked(x, name, dtype, np)  # without a copy
    rows = Streamed(x.source if isinstance(x, Streamed) else x, dtype)
    for some in rows.slices():
        checked(rows.given(some), name, dtype, np, some.start)
    return rows
