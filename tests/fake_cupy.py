"""As much of CuPy as ntkcore.cuda uses, on NumPy: its arrays "lie on a device", its streams do everything at once."""

from types import SimpleNamespace

import numpy as np


class ndarray(np.ndarray):  # noqa: N801
    @property
    def __cuda_array_interface__(self):
        return {"data": (self.ctypes.data, False), "shape": self.shape, "typestr": self.dtype.str, "version": 3}

    def get(self, stream=None, out=None, blocking=True):
        out[...] = self
        return out

    def set(self, x, stream=None):
        self[...] = x


def asarray(x, dtype=None):
    return np.array(x, dtype).view(ndarray)


def asnumpy(x):
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


triu = np.triu
arange = np.arange
isfinite = np.isfinite


def _cholesky(a):
    try:
        return np.linalg.cholesky(a).view(ndarray)
    except np.linalg.LinAlgError:
        return np.full(a.shape, np.nan).view(ndarray)


linalg = SimpleNamespace(cholesky=_cholesky, eigh=lambda a: [part.view(ndarray) for part in np.linalg.eigh(a)])


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
    runtime=SimpleNamespace(getDeviceCount=lambda: 2, memGetInfo=lambda: (2**30, 2**30)),
)


def get_default_memory_pool():
    return SimpleNamespace(free_all_blocks=lambda: None, free_bytes=lambda: 0)
