"""Arrays on a GPU, by CuPy: whose they are, how they come and go,
and what is computed of them before any tile.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from ntkcore.engine.backends import cuda_problem
from ntkcore.engine.inputs import Array, Get, kernel_names

CUDA_TYPES = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
COLUMNS = 4  # products have rows of a multiple of so many values: loads of 16 bytes


def whole(count: int) -> int:
    """Rounded up to whole COLUMNS."""
    return -(-count // COLUMNS) * COLUMNS


def cupy_module() -> Any:
    """CuPy; ValueError that says why where GPUs cannot be used."""
    problem = cuda_problem()
    if problem:
        raise ValueError(f"the backend 'cuda' cannot run here: {problem}")
    return importlib.import_module("cupy")


def on_device(x: object) -> bool:
    """Does the array lie on a CUDA device (CuPy, PyTorch,
    anything with DLPack or __cuda_array_interface__)?
    """
    # First, because JAX's arrays on a CPU have __cuda_array_interface__ too, in their class.
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[0]) in CUDA_TYPES
    return hasattr(x, "__cuda_array_interface__")


def device_of(x: Any) -> int:
    """The number of the device that an array lies on."""
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[1])
    return int(cupy_module().cuda.runtime.pointerGetAttributes(address(x)).device)


def on_device_of(*data: Any) -> AbstractContextManager[Any]:
    """Makes the device of the first array that lies on one the current device."""
    first = next(filter(on_device, data), None)
    if first is None:
        return nullcontext()
    device: AbstractContextManager[Any] = cupy_module().cuda.Device(device_of(first))
    return device


def _as_cupy(x: Any) -> Any:
    """An array on a device as CuPy's on the current one; by DLPack, which orders streams,
    where there is a choice.
    """
    cupy = cupy_module()
    if not isinstance(x, cupy.ndarray) and hasattr(x, "__dlpack__"):
        x = cupy.from_dlpack(x)
    return cupy.asarray(x)


def to_host(x: Any) -> Any:
    """A device array as NumPy's; anything else as it is."""
    if x is None or not on_device(x):
        return x
    with on_device_of(x):
        return cupy_module().asnumpy(_as_cupy(x))


def to_device(array: Array) -> Any:
    """A NumPy array as CuPy's, on the current device."""
    return cupy_module().asarray(array)


def gathered(*data: Any) -> tuple[Any, list[Any]]:
    """The module and the data for it: vectors stay on their device, images come to the host,
    where tables are made.
    """
    given = [_as_cupy(x) if on_device(x) else x for x in data]
    if any(on_device(x) and x.ndim == 2 for x in given):
        return cupy_module(), given
    return np, [to_host(x) for x in given]


def array_module(x: object) -> Any:
    """CuPy for an array on a device, NumPy for anything else."""
    return cupy_module() if on_device(x) else np


def allocate(out: Any, get: Get, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The result's arrays on the current device, new or the caller's ``out``."""
    names = kernel_names(get)
    cupy = cupy_module()
    if out is None:
        return {name: cupy.empty(shape, dtype) for name in names}
    arrays = (out,) if isinstance(get, str) else tuple(out)
    if len(arrays) != len(names) or any(not isinstance(array, cupy.ndarray) for array in arrays):
        raise TypeError(
            f"out must be a CuPy array for each of get={get!r}, as the data lie on a GPU"
        )
    device = cupy.cuda.Device().id
    for array in arrays:
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous, of shape {shape} and dtype {dtype}")
        if device_of(array) != device:
            raise ValueError(
                f"out must lie on the data's device {device}, not on {device_of(array)}"
            )
    return dict(zip(names, arrays, strict=True))


def address(array: Any) -> int:
    """Where a device array begins."""
    return int(array.__cuda_array_interface__["data"][0])


def pinned(cupy: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Memory of the host that devices copy to by themselves."""
    count = int(np.prod(shape))
    memory = cupy.cuda.alloc_pinned_memory(count * dtype.itemsize)
    array: Array = np.frombuffer(memory, dtype, count).reshape(shape)
    return array


@functools.cache
def _row_kernels() -> tuple[Any, Any, Any]:
    """Of rows: the largest |x|; the sum of (x / big)^2 in double; x / big / length."""
    cupy = cupy_module()
    largest = cupy.ReductionKernel(
        "T x", "T y", "fabs(x)", "max(a, b)", "y = a", "0", "ntkcore_largest"
    )
    square = "double(x) / big * (double(x) / big)"
    squares = cupy.ReductionKernel(
        "T x, float64 big", "float64 y", square, "a + b", "y = a", "0", "ntkcore_squares"
    )
    unit = cupy.ElementwiseKernel(
        "T x, float64 big, float64 length", "T y", "y = double(x) / big / length", "ntkcore_unit"
    )
    return largest, squares, unit


def unit_rows(x: Any) -> tuple[Any, Any]:
    """Rows divided by their length (zero rows stay), below them zero rows up to whole COLUMNS;
    and |x|^2 in float64.

    Computed on the device, nothing waits. Rows are divided by their largest entry first,
    so that no square overflows.
    """
    cupy = cupy_module()
    largest, squares, divide = _row_kernels()
    big = largest(x, axis=1, keepdims=True).astype(np.float64)
    safe = cupy.where(big > 0, big, 1.0)
    norm2 = squares(x, safe, axis=1, keepdims=True)
    unit = cupy.zeros((whole(len(x)), x.shape[1]), x.dtype)
    divide(x, safe, cupy.where(norm2 > 0, cupy.sqrt(norm2), 1.0), unit[: len(x)])
    return unit, (norm2 * big * big).reshape(-1)


@contextmanager
def _full_precision(cupy: Any, dtype: np.dtype[Any]) -> Iterator[None]:
    """Undoes CUPY_TF32=1, which would round the factors of float32 products to 11 bits."""
    before = cupy._core.get_compute_type(dtype)
    cupy._core.set_compute_type(dtype, cupy._core._routines_linalg.COMPUTE_TYPE_DEFAULT)
    try:
        yield
    finally:
        cupy._core.set_compute_type(dtype, before)


def product(rows: Any, cols: Any, buffer: Any) -> Any:
    """rows @ cols.T, at the beginning of the flat ``buffer``."""
    cupy = cupy_module()
    shape = len(rows), len(cols)
    out = buffer[: shape[0] * shape[1]].reshape(shape)
    with _full_precision(cupy, out.dtype):
        cupy.matmul(rows, cols.T, out=out)
    return out


def beside(Y: Any, result: Any) -> Any:
    """The result on the GPU if it and Y are there, else NumPy's."""
    return result if on_device(Y) else to_host(result)


def failing_aloud(matrix: Any) -> AbstractContextManager[None]:
    """In it CuPy's decompositions raise LinAlgError, as NumPy's do:
    by default a failure passes in silence.
    """
    if not on_device(matrix):
        return nullcontext()
    import cupyx

    context: AbstractContextManager[None] = cupyx.errstate(linalg="raise")
    return context
