"""As much of CuPy as ntkcore uses, on NumPy: its arrays "lie on a device",
its streams do everything at once.

``traffic`` lists what crosses ("up", "down") and what is copied or converted on the device,
with the number of entries.
"""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

traffic = []


def _plain(x):
    return x.view(np.ndarray) if isinstance(x, ndarray) else x


class ndarray(np.ndarray):  # noqa: N801
    number = 0  # of its device

    def __array_finalize__(self, base):
        self.number = getattr(base, "number", None)
        if self.number is None:
            self.number = Device().id

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
        return {
            "data": (self.ctypes.data, False),
            "shape": self.shape,
            "typestr": self.dtype.str,
            "version": 3,
        }

    def __dlpack_device__(self):
        return 2, self.number

    def get(self, stream=None, out=None, blocking=True):
        if self.dtype != out.dtype:
            raise TypeError("dtype of out")
        if self.shape != out.shape:
            raise ValueError("shape of out")
        if not (out.flags.c_contiguous and self.flags.c_contiguous):
            raise RuntimeError("CuPy would copy first, and fail where out is not contiguous")
        out[...] = self
        return out

    def set(self, x, stream=None):
        self[...] = x


def on_current(x):
    """CuPy's arrays on another device are not to be read here."""
    if isinstance(x, ndarray) and x.number != Device().id:
        raise AssertionError(f"an array of device {x.number} is used on device {Device().id}")
    return x


def new(x):
    out = x.view(ndarray)
    out.number = Device().id
    return out


def asarray(x, dtype=None):
    if isinstance(x, ndarray) and x.number == Device().id:
        return x if dtype is None else x.astype(dtype, copy=False)
    traffic.append(("up", np.size(x)))
    return new(np.array(x, dtype))


def ascontiguousarray(x, dtype=None):
    return new(np.ascontiguousarray(on_current(x), dtype))


def asnumpy(x):
    traffic.append(("down", x.size))
    return np.array(x)


def from_dlpack(x):
    return new(np.array(x))


def empty(shape, dtype):
    return new(np.full(shape, np.nan, dtype))


def zeros(shape, dtype):
    return new(np.zeros(shape, dtype))


def empty_like(x):
    return empty(x.shape, x.dtype)


def where(*parts):
    return new(np.where(*map(on_current, parts)))


def matmul(a, b, out):
    if compute_types[out.dtype.char] == "TF32":
        raise AssertionError("the factors would be rounded to 11 bits")
    if not out.flags.c_contiguous:
        raise AssertionError("CuPy would allocate another array and copy")
    return np.matmul(on_current(a), on_current(b), out=on_current(out))


class _Kernel:
    """Expressions that are C++ and Python alike."""

    def __init__(self, inputs, output, expression):
        self.names = [name.split()[1] for name in inputs.split(",")]
        self.dtype, self.expression = output.split()[0], expression

    def map(self, arguments):
        given = {
            name: np.asarray(on_current(x)) for name, x in zip(self.names, arguments, strict=True)
        }
        dtype = arguments[0].dtype if self.dtype == "T" else self.dtype
        calls = {"fabs": np.abs, "double": np.float64}
        return eval(self.expression, calls, given).astype(dtype)


class ReductionKernel(_Kernel):
    def __init__(self, inputs, output, expression, reduction, last, start, name):
        super().__init__(inputs, output, expression)
        self.reduction = {"a + b": np.sum, "max(a, b)": np.max}[reduction]

    def __call__(self, *arguments, axis, keepdims):
        return new(self.reduction(self.map(arguments), axis=axis, keepdims=keepdims))


class ElementwiseKernel(_Kernel):
    def __init__(self, inputs, output, expression, name):
        super().__init__(inputs, output, expression.removeprefix("y = "))

    def __call__(self, *arguments):
        arguments[-1][...] = self.map(arguments[:-1])


compute_types = {"f": "TF32", "d": "DEFAULT"}  # as with CUPY_TF32=1
_core = SimpleNamespace(
    get_compute_type=lambda dtype: compute_types[dtype.char],
    set_compute_type=lambda dtype, value: compute_types.update({dtype.char: value}),
    _routines_linalg=SimpleNamespace(COMPUTE_TYPE_DEFAULT="DEFAULT"),
)


sqrt = np.sqrt


def eye(n):
    return np.eye(n).view(ndarray)


def arange(n):
    return np.arange(n).view(ndarray)


def stack(arrays):
    return np.stack(arrays).view(ndarray)


triu = np.triu
isfinite = np.isfinite


# --- linear algebra: its failures are silent, with finite entries, unless errstate asks for more

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


class Device:
    entered = threading.local()  # every thread has a current device of its own

    def __init__(self, number=None):
        self.id = self.stack()[-1] if number is None else number

    def stack(self):
        if not hasattr(self.entered, "stack"):
            self.entered.stack = [0]
        return self.entered.stack

    def __enter__(self):
        self.stack().append(self.id)
        return self

    def __exit__(self, *error):
        self.stack().pop()


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


pool_calls = []  # of CUDA's own pools, and of CuPy's
cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    get_current_stream=Stream,
    alloc_pinned_memory=bytearray,
    runtime=SimpleNamespace(
        getDeviceCount=lambda: 2,
        memGetInfo=lambda: (2**30, 2**30),
        deviceGetDefaultMemPool=lambda device: f"pool {device}",
        memPoolSetAttribute=lambda *given: pool_calls.append(("set", *given)),
        memPoolTrimTo=lambda *given: pool_calls.append(("trim", *given)),
    ),
)


def get_default_memory_pool():
    return SimpleNamespace(
        free_all_blocks=lambda: pool_calls.append(("free",)), free_bytes=lambda: 0
    )


get_default_pinned_memory_pool = get_default_memory_pool
