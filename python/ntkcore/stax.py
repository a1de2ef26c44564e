"""neural-tangents' spelling of the same calls: a script changes its import and runs.

    from ntkcore import stax
    init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(512, W_std=1.5, b_std=.1), stax.Relu(), stax.Dense(1))
    ntk = kernel_fn(x1, x2, "ntk")

Names, order and defaults of arguments are those of neural-tangents 0.6.5 (Novak et al. 2020); the work is done by
`ntkcore.kernel`. Finite networks (``init_fn``, ``apply_fn``) are not here.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, cast

import numpy.typing as npt

from ntkcore import convolutions, layers
from ntkcore.kernels import kernel, kernel_diag

Array = npt.NDArray[Any]
FIELDS = ("nngp", "ntk", "cov1", "cov2", "x1_is_x2")


@dataclass(frozen=True)
class Kernel:
    """What ``kernel_fn(x1, x2)`` gives without ``get``: nngp, ntk of shape (n1, n2), and the variances of every sample.

    ``cov1``, ``cov2``: NNGP diagonals of shape (n1,) and (n2,); ``cov2`` is None for ``x2=None``.
    """

    nngp: Array
    ntk: Array
    cov1: Array
    cov2: Array | None
    x1_is_x2: bool


@dataclass(frozen=True)
class KernelFn:
    """``kernel_fn`` of a network; ``net`` is its ntkcore spec."""

    net: layers.Layer

    def __call__(
        self,
        x1: npt.ArrayLike,
        x2: npt.ArrayLike | None = None,
        get: str | Sequence[str] | None = None,
        *,
        pattern: None = None,
        mask_constant: None = None,
        diagonal_batch: bool | None = None,
        diagonal_spatial: bool | None = None,
        **options: Any,
    ) -> Any:
        """The kernel between ``x1`` and ``x2`` (None: ``x1``).

        ``get``: a name ("ntk", "nngp", "cov1", "cov2", "x1_is_x2"; any case) for one value, a tuple for a namedtuple in
        that order, None for a `Kernel`. ``diagonal_batch`` and ``diagonal_spatial`` are hints that need no heed here.
        Other keyword arguments (threads, dtype, backend, progress, …) go to `ntkcore.kernel`, whose errors are raised.
        """
        if pattern is not None or mask_constant is not None:
            raise NotImplementedError("pattern and mask_constant (graphs, masked inputs) are not supported")
        if isinstance(x1, Kernel):
            raise TypeError("kernel_fn takes data, not a Kernel: build the whole net with stax.serial and call it once")
        names = FIELDS if get is None else _names(get)
        values = self._values(names, x1, x2, options)
        if get is None:
            return Kernel(**values)
        if isinstance(get, str):
            return values[names[0]]
        return cast(Any, namedtuple("AnalyticKernel", names))(*(values[name] for name in names))

    def _values(self, names: Sequence[str], x1: Any, x2: Any, options: dict[str, Any]) -> dict[str, Any]:
        matrices = tuple(name for name in names if name in ("nngp", "ntk"))
        found: dict[str, Any] = {"x1_is_x2": x2 is None}
        if matrices:
            found.update(kernel(self.net, x1, x2, matrices, **options)._asdict())
        allowed = {key: value for key, value in options.items() if key in ("dtype", "threads", "backend")}
        for name, x in (("cov1", x1), ("cov2", x2)):
            if name in names:
                found[name] = None if x is None else kernel_diag(self.net, x, "nngp", **allowed)
        return found


def _names(get: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.lower() for name in ((get,) if isinstance(get, str) else get))
    if not names or names == ("",):
        raise ValueError('"get" must be non-empty: "ntk", "nngp", "cov1", "cov2", or a tuple of them')
    if len(set(names)) < len(names):
        raise ValueError(f'All entries in "get" must be unique. Got {get!r}')
    unknown = sorted(set(names) - set(FIELDS))
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: kernel_fn gives {', '.join(FIELDS)}")
    return names


class Layer(NamedTuple):
    """The triple of neural-tangents."""

    init_fn: Callable[..., NoReturn]
    apply_fn: Callable[..., NoReturn]
    kernel_fn: KernelFn


def _no_finite_network(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "init_fn and apply_fn belong to finite networks; ntkcore.stax computes infinite ones only: build the finite "
        "network in PyTorch or JAX, the kernel with kernel_fn"
    )


def _layer(net: layers.Layer) -> Layer:
    return Layer(_no_finite_network, _no_finite_network, KernelFn(net))


def _require(layer: str, **values: tuple[object, object]) -> None:
    """Arguments that ntkcore knows with their default only: name=(given, default)."""
    for name, (given, default) in values.items():
        if given != default:
            raise NotImplementedError(f"stax.{layer}: {name}={given!r} is not supported, only the default {default!r}")


def serial(*parts: Layer) -> Layer:
    """Layers one after another."""
    if not parts:
        raise ValueError("stax.serial needs at least one layer")
    return _layer(layers.Serial(*(part[2].net for part in parts)))


def parallel(*parts: Layer) -> Layer:
    """One layer per branch of `FanOut`."""
    return _layer(layers.Parallel(*(part[2].net for part in parts)))


def repeat(layer: Layer, n: int) -> Layer:
    """The layer ``n`` times, one after another."""
    return serial(*[layer] * n)


def batch(kernel_fn: KernelFn, batch_size: int = 0, device_count: int = -1, store_on_device: bool = True) -> KernelFn:
    """The same ``kernel_fn``: any number of samples goes, because `ntkcore.kernel` always works tile by tile."""
    return kernel_fn


def Dense(
    out_dim: int,
    W_std: float = 1.0,
    b_std: float | None = None,
    batch_axis: int = 0,
    channel_axis: int = -1,
    parameterization: str = "ntk",
    s: tuple[int, int] = (1, 1),
) -> Layer:
    """Fully connected layer, see `ntkcore.Dense`."""
    _require("Dense", batch_axis=(batch_axis, 0), channel_axis=(channel_axis, -1), s=(s, (1, 1)))
    return _layer(layers.Dense(W_std, b_std, parameterization.lower(), out_dim))


def Conv(
    out_chan: int,
    filter_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    W_std: float = 1.0,
    b_std: float | None = None,
    dimension_numbers: Sequence[str] | None = None,
    parameterization: str = "ntk",
    s: tuple[int, int] = (1, 1),
) -> Layer:
    """2-D convolution over NHWC images, see `ntkcore.Conv`."""
    if dimension_numbers is not None and tuple(dimension_numbers) != ("NHWC", "HWIO", "NHWC"):
        _require("Conv", dimension_numbers=(dimension_numbers, ("NHWC", "HWIO", "NHWC")))
    _require("Conv", s=(s, (1, 1)))
    strides = (1, 1) if strides is None else strides
    shape, steps = cast(Any, (tuple(filter_shape), tuple(strides)))
    return _layer(convolutions.Conv(shape, steps, padding, W_std, b_std, parameterization.lower(), out_chan))


def AvgPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    normalize_edges: bool = False,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Mean over windows, see `ntkcore.AvgPool`."""
    _require("AvgPool", batch_axis=(batch_axis, 0), channel_axis=(channel_axis, -1))
    shape, steps = cast(Any, (tuple(window_shape), (1, 1) if strides is None else tuple(strides)))
    return _layer(convolutions.AvgPool(shape, steps, padding, normalize_edges))


def SumPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Sum over windows, see `ntkcore.SumPool`."""
    _require("SumPool", batch_axis=(batch_axis, 0), channel_axis=(channel_axis, -1))
    shape, steps = cast(Any, (tuple(window_shape), (1, 1) if strides is None else tuple(strides)))
    return _layer(convolutions.SumPool(shape, steps, padding))


def GlobalAvgPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Mean over all pixels, see `ntkcore.GlobalAvgPool`."""
    _require("GlobalAvgPool", batch_axis=(batch_axis, 0), channel_axis=(channel_axis, -1))
    return _layer(convolutions.GlobalAvgPool())


def GlobalSumPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Sum over all pixels, see `ntkcore.GlobalSumPool`."""
    _require("GlobalSumPool", batch_axis=(batch_axis, 0), channel_axis=(channel_axis, -1))
    return _layer(convolutions.GlobalSumPool())


def Flatten(batch_axis: int = 0, batch_axis_out: int = 0) -> Layer:
    """Image to vector, see `ntkcore.Flatten`."""
    _require("Flatten", batch_axis=(batch_axis, 0), batch_axis_out=(batch_axis_out, 0))
    return _layer(convolutions.Flatten())


def LayerNorm(axis: int | Sequence[int] = -1, eps: float = 1e-12, batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Normalisation over features (per pixel, for images), see `ntkcore.LayerNorm`."""
    given = axis if isinstance(axis, int) else tuple(axis)
    if given not in (-1, (-1,)):
        _require("LayerNorm", axis=(axis, -1))
    _require("LayerNorm", batch_axis=(batch_axis, 0), channel_axis=(channel_axis, -1))
    return _layer(layers.LayerNorm(eps))


# do_stabilize guards neural-tangents' duals against overflow; the duals here need no guard.


def Relu(do_stabilize: bool = False) -> Layer:
    """max(x, 0)."""
    return _layer(layers.Relu())


def LeakyRelu(alpha: float, do_stabilize: bool = False) -> Layer:
    """x for x > 0, alpha x otherwise."""
    return _layer(layers.LeakyRelu(alpha))


def Abs(do_stabilize: bool = False) -> Layer:
    """|x|."""
    return _layer(layers.Abs())


def ABRelu(a: float, b: float, do_stabilize: bool = False) -> Layer:
    """a x for x < 0, b x otherwise."""
    return _layer(layers.ABRelu(a, b))


def Erf(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """a erf(b x) + c."""
    return _layer(layers.Erf(a, b, c))


def Sigmoid_like() -> Layer:
    """0.5 erf(x / 2.4020563531719796) + 0.5, close to a sigmoid."""
    return Erf(a=0.5, b=1 / 2.4020563531719796, c=0.5)


def Gelu(approximate: bool = False) -> Layer:
    """x Phi(x); ``approximate`` concerns finite networks only."""
    return _layer(layers.Gelu())


def Sin(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """a sin(b x + c)."""
    return _layer(layers.Sin(a, b, c))


def Cos(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """a cos(b x + c)."""
    return _layer(layers.Cos(a, b, c))


def Exp(a: float = 1, b: float = 1) -> Layer:
    """a exp(b x)."""
    return _layer(layers.Exp(a, b))


def Gaussian(a: float = 1, b: float = -1) -> Layer:
    """a exp(b x^2)."""
    return _layer(layers.Gaussian(a, b))


def Rbf(gamma: float = 1.0) -> Layer:
    """sqrt(2) sin(sqrt(2 gamma) x + pi/4): exp(-gamma |x - x'|^2) for its dual."""
    return _layer(layers.Rbf(gamma))


def Identity() -> Layer:
    """Nothing."""
    return _layer(layers.Identity())


def FanOut(num: int) -> Layer:
    """The input, for ``num`` branches."""
    return _layer(layers.FanOut(num))


def FanInSum() -> Layer:
    """Sum of the branches, see `ntkcore.FanInSum`."""
    return _layer(layers.FanInSum())
