"""As much of CuPy as ntkcore uses, on NumPy: its arrays "lie on a device", its streams do everything at once.

``traffic`` lists what crosses ("up", "down") and what is copied or converted on the device, with the number of entries.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

traffic = []


def _plain(x):
    return x.view(np.ndarray) if isinstance(x, ndarray) else x


class ndarray(np.ndarray):  # noqa: N801
    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if any(type(x) is np.ndarray and x.ndim for x in inputs):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")  # as CuPy
        if "out" in options:
            options["out"] = tuple(map(_plain, options["out"]))
        result = getattr(ufunc, method)(*map(_plain, inputs), **options)
        return result.view(ndarray) if isinstance(result, np.ndarray) else result

    def astype(self, dtype, copy=True):
        if copy or self.dtype != dtype:
            traffic.append(("copy", self.size))
        return super().astype(dtype, copy=copy)

    @property
    def __cuda_array_interface__(self):
        return {"data": (self.ctypes.data, False), "shape": self.shape, "typestr": self.dtype.str, "version": 3}

    def get(self, stream=None, out=None, blocking=True):
        out[...] = self
        return out


def asarray(x, dtype=None):
    if isinstance(x, ndarray):
        return x if dtype is None else x.astype(dtype, copy=False)
    traffic.append(("up", np.size(x)))
    return np.array(x, dtype).view(ndarray)


def asnumpy(x):
    traffic.append(("down", x.size))
    return np.array(x)


def from_dlpack(x):
    return asarray(np.from_dlpack(x))


def empty(shape, dtype):
    return np.full(shape, np.nan, dtype).view(ndarray)


def zeros(shape, dtype):
    return np.zeros(shape, dtype).view(ndarray)


def empty_like(x):
    return empty(x.shape, x.dtype)


def matmul(a, b):
    return np.ascontiguousarray(np.matmul(a, b)).view(ndarray)


def eye(n):
    return np.eye(n).view(ndarray)


def arange(n):
    return np.arange(n).view(ndarray)


def stack(arrays):
    return np.stack(arrays).view(ndarray)


triu = np.triu
isfinite = np.isfinite


# --- linear algebra: its failures are silent, the result has finite entries, unless errstate asks for more

_failures = "ignore"


@contextmanager
def errstate(*, linalg):
    """cupyx.errstate."""
    global _failures
    before, _failures = _failures, linalg
    try:
        yield
    finally:
        _failures = before


def _cholesky(a):
    traffic.append(("copy", a.size))
    try:
        return np.linalg.cholesky(a).view(ndarray)
    except np.linalg.LinAlgError:
        if _failures == "raise":
            raise
        return np.tril(a)


def solve_triangular(a, b, trans=0, lower=False):
    """cupyx.scipy.linalg.solve_triangular."""
    import scipy.linalg

    assert isinstance(a, ndarray)
    assert isinstance(b, ndarray)
    traffic.append(("copy", b.size if a.flags.f_contiguous else a.size + b.size))
    return scipy.linalg.solve_triangular(a, b, trans, lower).view(ndarray)


def _eigh(a):
    traffic.append(("copy", a.size))
    return [part.view(ndarray) for part in np.linalg.eigh(a)]


linalg = SimpleNamespace(cholesky=_cholesky, eigh=_eigh)


class _Context:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Device(_Context):
    def __init__(self, number=0):
        self.id = number


class Stream(_Context):
    ptr = 0

    def __init__(self, non_blocking=False):
        pass

    def synchronize(self):
        pass

    def record(self):
        return None

    def wait_event(self, event):
        pass


cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    get_current_stream=Stream,
    alloc_pinned_memory=bytearray,
    runtime=SimpleNamespace(getDeviceCount=lambda: 2),
)


def get_default_memory_pool():
    return SimpleNamespace(free_all_blocks=lambda: None)
