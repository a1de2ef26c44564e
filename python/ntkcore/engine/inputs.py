"""What a caller hands over, checked before any work: data, names of kernels, threads, memory."""

from __future__ import annotations

import functools
import os
import warnings
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Get = str | Sequence[str]

KERNELS = ("nngp", "ntk")
PANEL = 2**24  # numbers that are looked at together
PRECISIONS = (np.dtype(np.float32), np.dtype(np.float64))


def kernel_names(get: Get) -> tuple[str, ...]:
    """The kernels that ``get`` names, in its order.
    ValueError for anything but distinct "nngp" and "ntk".
    """
    names = (get,) if isinstance(get, str) else tuple(get) if isinstance(get, Sequence) else ()
    if not all(isinstance(name, str) for name in names):
        names = ()
    if not names or len(set(names)) < len(names) or not set(names) <= set(KERNELS):
        raise ValueError(f"get must be 'nngp', 'ntk' or a tuple of them, not {get!r}")
    return names


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> Callable[..., Any]:
    return cast(Callable[..., Any], namedtuple("Kernel", names))


def packed(get: Get, results: dict[str, Array]) -> Any:
    """One array for a string, a namedtuple in the asked order for a tuple."""
    if isinstance(get, str):
        return results[get]
    names = tuple(get)
    return _tuple_type(names)(*(results[name] for name in names))


def _natural_dtype(array: np.ndarray[Any, Any], name: str) -> np.dtype[Any]:
    """float64 data and integers are computed in float64, float32 and float16 in float32."""
    if array.dtype.kind not in "fiub":
        why = {
            "c": "complex data have no kernel",
            "O": "is it ragged, or does it hold None or text?",
        }
        hint = why.get(array.dtype.kind, "text and dates have no kernel")
        raise TypeError(f"{name} must hold real numbers, not dtype {array.dtype}: {hint}")
    small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return PRECISIONS[0] if small else PRECISIONS[1]


def _array(x: Any, name: str, xp: Any) -> Any:
    if xp is not np and isinstance(x, xp.ndarray):
        return x
    return as_array(x, name)


def as_array(x: Any, name: str) -> np.ndarray[Any, Any]:
    """NumPy's array of what a caller has: lists, Dask's and Zarr's arrays, tensors (also with
    gradients, bfloat16), pandas with nullable columns (missing values are NaN). TypeError or
    ValueError, naming it, for all that is none.
    """
    refuse_no_array(x, name)
    if isinstance(x, np.ndarray):
        return x
    try:
        array = np.asarray(_readable(x))
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {_line(error)}") from None
    except Exception as error:  # whatever this type's owner raises
        raise TypeError(
            f"{name}, a {type(x).__name__}, cannot be read as an array: {_line(error)}"
        ) from None
    return array


def refuse_no_array(x: Any, name: str) -> None:
    """TypeError, with the way on, for objects that NumPy would read
    as something else than their owner means.
    """
    problem = _no_array(x)
    if problem:
        raise TypeError(f"{name} must be an array, not {problem}")


def real_array(x: Any, name: str) -> npt.NDArray[np.float64]:
    """`as_array` in float64; TypeError for anything but real numbers."""
    array = as_array(x, name)
    _natural_dtype(array, name)
    return array.astype(np.float64)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _no_array(x: Any) -> str | None:
    """What an object is that NumPy would read as something else, and the way on."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        return "one with masked entries, for which there is no place here: fill or drop them"
    if isinstance(x, (str, bytes, os.PathLike)):
        return f"the path or text {x!r:.80}: open it and pass what it holds"
    if hasattr(x, "toarray"):
        return f"the sparse {type(x).__name__}: pass x.toarray()"
    if hasattr(x, "array_keys") or isinstance(x, Mapping):
        return f'a {type(x).__name__} of arrays: pass one of them, such as x["ntk"]'
    if (hasattr(x, "ntk") and hasattr(x, "nngp")) or (
        isinstance(x, tuple) and hasattr(x, "_fields")
    ):
        return (
            f"the {type(x).__name__} of several kernels:"
            " pass one of them, such as its .ntk or .nngp"
        )
    if hasattr(x, "matmat") and not hasattr(x, "__array__"):
        return f"the operator {type(x).__name__}: this needs the matrix itself"
    return None


def _readable(x: Any) -> Any:
    """Tensors without their gradients, bfloat16 (which NumPy lacks) as float32,
    nullable columns as float64.
    """
    if hasattr(x, "detach") and hasattr(x, "requires_grad"):
        x = x.detach().cpu()
        return x.float() if str(x.dtype) == "torch.bfloat16" else x
    if hasattr(x, "to_numpy") and hasattr(x, "convert_dtypes") and np.asarray(x).dtype == object:
        kinds = np.atleast_1d(np.asarray(x.dtypes, dtype=object))
        if all(getattr(kind, "kind", "O") in "fiub" for kind in kinds):
            return x.to_numpy(dtype=np.float64, na_value=np.nan)
    return x


def check_data(
    x1: Any, x2: Any, dtype: npt.DTypeLike | None, xp: Any = np
) -> tuple[Array, Array | None]:
    """Both data sets as C-contiguous arrays of one dtype, float32 or float64,
    with the same features.

    With ``xp`` CuPy they are its arrays on the current device,
    and arrays that lie there are not moved.
    """
    a = _array(x1, "x1", xp)
    b = None if x2 is None else _array(x2, "x2", xp)
    natural = [
        _natural_dtype(array, name) for array, name in ((a, "x1"), (b, "x2")) if array is not None
    ]
    try:
        wanted = np.result_type(*natural) if dtype is None else np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, not {dtype!r}") from None
    if wanted not in PRECISIONS:
        raise ValueError(f"dtype must be float32 or float64, not {wanted}")
    first = checked(a, "x1", wanted, xp)
    second = None if b is None else checked(b, "x2", wanted, xp)
    if second is not None and second.shape[1:] != first.shape[1:]:
        raise ValueError(
            f"x1 and x2 differ in features: samples of shape {first.shape[1:]} and"
            f" {second.shape[1:]}; both must be the same kind of data"
        )
    return first, second


def checked(array: Any, name: str, dtype: np.dtype[Any], xp: Any, start: int = 0) -> Array:
    """Samples, C-contiguous and of this dtype; ValueError for what are none, or not finite.
    ``start``: the number of the first of them.
    """
    if array.ndim < 2:
        raise ValueError(
            f"{name} must be a matrix of vectors (samples, features) or a batch of images (samples,"
            f" height, width, channels) or the like, got {array.ndim} dimension(s); use"
            " x.reshape(-1, 1) for one feature or x.reshape(1, -1) for one sample"
        )
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    _look_at_channels(array, name)
    with np.errstate(over="ignore"):
        data = xp.ascontiguousarray(xp.asarray(array), dtype=dtype)
    row = first_bad_row(data, xp)
    if row is not None:
        own = array.dtype.kind == "f" and not bool(xp.isfinite(xp.asarray(array[row])).all())
        bad = "NaN or infinity" if own else f"values beyond the range of {dtype}"
        raise ValueError(
            f"{name} holds {bad} in row {start + row}, counted from 0: impute or drop such samples,"
            " or rescale the features"
        )
    return cast(Array, data)


def first_bad_row(data: Any, xp: Any, panel: int = PANEL) -> int | None:
    """The first row that holds NaN or infinity; None where there is none. By panels of so many
    numbers.
    """
    step = max(1, panel * len(data) // max(data.size, 1))
    for i in range(0, len(data), step):
        finite = xp.isfinite(data[i : i + step])
        if not bool(finite.all()):
            return i + int(finite.reshape(len(finite), -1).all(axis=1).argmin())
    return None


def _look_at_channels(array: Any, name: str) -> None:
    """A warning where square images of one or three channels seem to have them first."""
    if array.ndim == 4 and array.shape[1] in (1, 3) and 8 <= array.shape[2] == array.shape[3]:
        warnings.warn(
            f"{name} of shape {array.shape} looks like images with their channels first; here they"
            f" are last, and these would have {array.shape[3]}: most likely np.moveaxis({name}, 1,"
            " -1) is missing",
            stacklevel=5,
        )


def check_sequence(values: Any, name: str, kind: type | tuple[type, ...]) -> None:
    """TypeError unless ``values`` is None or a sequence of ``kind``."""
    if values is None:
        return
    if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(f"{name} must be a sequence such as [1, 2], not {values!r}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, kind):
            raise TypeError(
                f"{name} holds {value!r}, which is not of the kinds it takes, as in [1, 2]"
            )


def check_count(name: str, count: Any, least: int) -> None:
    """ValueError for what is no whole number of at least ``least``."""
    if isinstance(count, bool) or not isinstance(count, Integral) or count < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {count!r:.60}")


def thread_count(threads: int | None) -> int:
    """``threads``, else $NTKCORE_NUM_THREADS or $OMP_NUM_THREADS,
    else the cores this process may use.
    """
    if threads is None:
        available = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        own = os.environ.get("NTKCORE_NUM_THREADS", "")
        if own and not (own.isdecimal() and int(own) > 0):
            raise ValueError(
                f"NTKCORE_NUM_THREADS must be a positive whole number, not {own!r}:"
                " mend or unset it"
            )
        given = (own, os.environ.get("OMP_NUM_THREADS", ""))
        threads = next((int(text) for text in given if text.isdigit()), available)
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise ValueError(f"threads must be a positive number, not {threads!r}")
    return int(threads)


def free_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            return next(
                int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
            )
    except (OSError, StopIteration):
        return None


def size_text(size: float) -> str:
    """Bytes in the unit that shows three digits: 512 bytes, 1.5 KiB, 20 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB" if size < 1000 else f"{size:,.0f} TiB"


def allocate(out: Any, get: Get, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Array]:
    """The result's arrays, new or the caller's ``out``. MemoryError, before allocating,
    if new ones would not fit.
    """
    names = kernel_names(get)
    if out is not None:
        return _given(out, names, get, shape, dtype)
    need, free = len(names) * int(np.prod(shape, dtype=object)) * dtype.itemsize, free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            f"the result needs {size_text(need)} ({len(names)} of shape {shape}, {dtype}), but"
            f" {size_text(free)} are free: use fewer points, dtype='float32', one kernel at a time,"
            " or pass a memory-mapped array as out"
        )
    return {name: np.empty(shape, dtype) for name in names}


def _given(
    out: Any, names: tuple[str, ...], get: Get, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> dict[str, Array]:
    if not isinstance(get, str) and not isinstance(out, Sequence):
        raise TypeError(
            f"out must be a tuple of arrays, one for each of get={get!r}, not {type(out).__name__}"
        )
    arrays = (out,) if isinstance(get, str) else tuple(out)
    if len(arrays) != len(names):
        raise ValueError(
            f"out must hold {len(names)} array(s), one for each of get={get!r}, not {len(arrays)}"
        )
    for array in arrays:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"out must be a NumPy array, not {type(array).__name__}")
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"out must have shape {shape} and dtype {dtype}, not {array.shape} and"
                f" {array.dtype}"
            )
        if not array.flags.writeable or not array.flags.c_contiguous:
            raise ValueError("out must be writeable and C-contiguous")
    if len(arrays) == 2 and np.shares_memory(*arrays):
        raise ValueError("the arrays of out overlap: each kernel needs one of its own")
    return dict(zip(names, arrays, strict=True))
