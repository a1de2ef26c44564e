"""neural-tangents' spelling of the same calls: a script changes its import and runs.

    from ntkcore import stax
    init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(512, W_std=1.5, b_std=.1), stax.Relu(), stax.Dense(1))
    ntk = kernel_fn(x1, x2, "ntk")

Names, order and defaults of arguments are those of neural-tangents 0.6.5 (Novak et al. 2020); the work is done by
`ntkcore.kernel`. An argument that ntkcore does not know raises NotImplementedError, saying what to do instead. Finite
networks (``init_fn``, ``apply_fn``) are not here yet.

An argument that would have no effect is refused likewise. ``do_stabilize`` may be either: it keeps covariances from
overflowing before a dual, as the duals here, working on correlations with variances in float64, always do.
"""

from __future__ import annotations

import functools
import operator
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import KERNELS, check_data
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.specs import activations, branches, convolutions, layers
from ntkcore.specs.program import Builder, Law, Shape

Array = npt.NDArray[Any]
MOST_LAYERS = 100_000


@dataclass(frozen=True, eq=False)
class Kernel:
    """What ``kernel_fn(x1, x2)`` gives without ``get``.

    ``nngp``, ``ntk``: shape (n1, n2). ``cov1``, ``cov2``: every sample's NNGP variance, shape (n1,) and (n2,); ``cov2``
    is None for ``x2=None``. ``x1_is_x2``: are both data sets equal. ``is_gaussian``: are the outputs jointly Gaussian,
    i.e. does the network end with an affine layer. ``shape1``, ``shape2``: shapes of the network's outputs.
    """

    nngp: Array
    ntk: Array
    cov1: Array
    cov2: Array | None
    x1_is_x2: bool
    is_gaussian: bool
    shape1: Shape
    shape2: Shape


FIELDS = tuple(field.name for field in fields(Kernel))


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
        threads: int | None = None,
        dtype: npt.DTypeLike | None = None,
        backend: str | None = None,
        progress: bool | None = None,
    ) -> Any:
        """The kernel between ``x1`` and ``x2`` (None: ``x1``), vectors (n, d) or images (n, height, width, channels).

        ``get``: the name of a `Kernel` field ("ntk", "nngp", "cov1", …; any case) for its value, a tuple of names for a
        namedtuple in that order, None for a `Kernel`. Only what is asked for is computed. ``diagonal_batch``: None or
        True, ``cov1`` and ``cov2`` being diagonals; ``diagonal_spatial``: None or False, covariances between pixels
        being followed wherever the network needs them.
        ``threads``, ``dtype``, ``backend``, ``progress``: as for `ntkcore.kernel`, whose errors are raised.

        KeyError for an unknown name; ValueError for an empty or repeated one; TypeError for a `Kernel` as ``x1``;
        NotImplementedError for ``pattern`` and ``mask_constant``, and for other diagonals.
        """
        if pattern is not None or mask_constant is not None:
            raise NotImplementedError(
                "kernel_fn: pattern and mask_constant (graphs, masked inputs) are not supported: leave them None"
            )
        _check("kernel_fn", diagonal_batch=diagonal_batch, diagonal_spatial=diagonal_spatial)
        if isinstance(x1, Kernel) or isinstance(x2, Kernel):
            raise TypeError(
                "kernel_fn takes data, not a Kernel: join the layers with stax.serial and call its kernel_fn once"
            )
        names = FIELDS if get is None else _names(get)
        values = self._values(names, x1, x2, dtype, progress, {"threads": threads, "backend": backend})
        if get is None:
            return Kernel(**values)
        return values[names[0]] if isinstance(get, str) else _tuple_type(names)(*(values[name] for name in names))

    def _values(
        self, names: Sequence[str], x1: Any, x2: Any, dtype: Any, progress: bool | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        a, b = check_data(x1, x2, dtype)
        found: dict[str, Any] = {}
        matrices = tuple(name for name in names if name in KERNELS)
        if matrices:
            other = None if x2 is x1 else b
            found.update(kernel(self.net, a, other, matrices, progress=progress, **options)._asdict())
        for name, x in (("cov1", a), ("cov2", b)):
            if name in names:
                found[name] = None if x is None else kernel_diag(self.net, x, "nngp", **options)
        if "x1_is_x2" in names:
            found["x1_is_x2"] = b is None or (a.shape == b.shape and bool((np.abs(a - b) < 1e-12).all()))
        if not found.keys() >= set(names):
            gaussian, shape = self._output(a.shape[1:])
            found.update(is_gaussian=gaussian, shape1=(len(a), *shape), shape2=(len(a if b is None else b), *shape))
        return found

    def _output(self, input_shape: Shape) -> tuple[bool, Shape]:
        """Is the output Gaussian, and its shape for one sample."""
        builder = Builder(input_shape, wants_ntk=False)
        end = builder.read(layers.single(self.net, builder, self.net.lower(builder, builder.input)))
        return end.law is Law.GAUSSIAN, (*end.shape[:-1], end.width or end.shape[-1])


def _names(get: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(str(name).lower() for name in ((get,) if isinstance(get, str) else get))
    if not names or names == ("",):
        raise ValueError(f'"get" must be non-empty: one of {", ".join(FIELDS)}, or a tuple of them')
    if len(set(names)) < len(names):
        raise ValueError(f'All entries in "get" must be unique. Got {get!r}')
    unknown = [name for name in names if name not in FIELDS]
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: kernel_fn gives {', '.join(FIELDS)}")
    return names


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> Callable[..., Any]:
    return cast(Callable[..., Any], namedtuple("AnalyticKernel", names))


class Layer(NamedTuple):
    """The triple of neural-tangents."""

    init_fn: Callable[..., NoReturn]
    apply_fn: Callable[..., NoReturn]
    kernel_fn: KernelFn


def _no_finite_network(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "init_fn and apply_fn belong to finite networks, which are not here yet: ntkcore.stax computes the infinite "
        "network's kernel_fn; build the finite one in JAX or PyTorch"
    )


def _layer(net: layers.Layer) -> Layer:
    return Layer(_no_finite_network, _no_finite_network, KernelFn(net))


def _net(part: Layer, combinator: str) -> layers.Layer:
    kernel_fn = part[2] if isinstance(part, tuple) and len(part) == 3 else None
    if not isinstance(kernel_fn, KernelFn):
        raise TypeError(f"stax.{combinator} takes layers such as stax.Relu() (called: mind the brackets), not {part!r}")
    return kernel_fn.net


# What an argument may be, and what to do for other values.
SUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "batch_axis": ((0,), "samples lie along axis 0; move them there with np.moveaxis"),
    "batch_axis_out": ((0,), "samples stay along axis 0"),
    "channel_axis": ((-1,), "features or channels lie along the last axis; move them there with np.moveaxis"),
    "axis": ((-1, (-1,)), "only features or channels (axis=-1) are normalised over"),
    "dimension_numbers": (
        (None, ("NHWC", "HWIO", "NHWC")),
        "images are NHWC; move their channels to the end with np.moveaxis(x, 1, -1)",
    ),
    "s": (((1, 1),), "give every layer its own width as out_dim or out_chan, and leave s out"),
    "diagonal_batch": ((None, True), "cov1 is every sample's variance; for all pairs ask for 'nngp' of x1 alone"),
    "diagonal_spatial": ((None, False), "pixels are followed as the network needs them: leave it out"),
    "do_stabilize": ((False, True), "say True or False"),
    "approximate": ((False,), "it concerns finite networks, which are not here, and leaves the kernel as it is"),
    "device_count": ((-1, 0), "name GPUs by backend='cuda' and devices= of ntkcore.kernel, and leave it out"),
    "store_on_device": ((True, False), "say True or False; kernels are NumPy arrays either way"),
}


def _check(layer: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        allowed, advice = SUPPORTED[name]
        value = tuple(value) if isinstance(value, list) else value
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            raise NotImplementedError(f"stax.{layer}: {name}={value!r} is not supported: {advice}")


def serial(*parts: Layer) -> Layer:
    """Layers one after another. ValueError without any."""
    if not parts:
        raise ValueError("stax.serial needs at least one layer")
    return _layer(layers.Serial(*(_net(part, "serial") for part in parts)))


def parallel(*parts: Layer) -> Layer:
    """One layer for every branch of `FanOut`."""
    return _layer(branches.Parallel(*(_net(part, "parallel") for part in parts)))


def repeat(layer: Layer, n: int) -> Layer:
    """The layer ``n`` times, one after another; 0 times: the identity. ValueError for a negative ``n``."""
    if not 0 <= operator.index(n) <= MOST_LAYERS:
        raise ValueError(f"stax.repeat: n must be a number of times from 0 to {MOST_LAYERS}, not {n!r}")
    return _layer(layers.Serial(*[_net(layer, "repeat")] * n) if n else layers.Identity())


def batch(kernel_fn: KernelFn, batch_size: int = 0, device_count: int = -1, store_on_device: bool = True) -> KernelFn:
    """The same ``kernel_fn``: any number of samples goes, because `ntkcore.kernel` always works tile by tile.

    ``batch_size``: a number of samples, which bounds memory in neural-tangents; tiles do here, whatever it is.
    ``device_count``: -1 or 0. TypeError for anything but a ``kernel_fn`` of this module, ValueError for a negative
    size, NotImplementedError for a number of devices.
    """
    _check("batch", device_count=device_count, store_on_device=store_on_device)
    if operator.index(batch_size) < 0:
        raise ValueError(f"stax.batch: batch_size must be a number of samples, 0 or more, not {batch_size!r}")
    if not isinstance(kernel_fn, KernelFn):
        raise TypeError(f"stax.batch takes a kernel_fn, the last of a layer's three, not {type(kernel_fn).__name__}")
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
    """Fully connected layer, see `ntkcore.Dense`. ``out_dim`` matters for a following "standard" layer only."""
    _check("Dense", batch_axis=batch_axis, channel_axis=channel_axis, s=s)
    return _layer(layers.Dense(W_std, b_std, parameterization.lower(), operator.index(out_dim)))


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
    """2-D convolution over NHWC images, see `ntkcore.Conv`. ``out_chan`` matters as ``out_dim`` does in `Dense`."""
    _check("Conv", dimension_numbers=dimension_numbers, s=s)
    shape, steps = cast(Any, (filter_shape, strides))
    channels = operator.index(out_chan)
    return _layer(convolutions.Conv(shape, steps, padding, W_std, b_std, parameterization.lower(), channels))


def _pool_padding(layer: str, padding: str) -> str:
    if padding.upper() == "CIRCULAR":
        raise NotImplementedError(f"stax.{layer}: padding='CIRCULAR' is not supported: use 'SAME' or 'VALID'")
    return padding


def AvgPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    normalize_edges: bool = False,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Mean over windows, see `ntkcore.AvgPool`."""
    _check("AvgPool", batch_axis=batch_axis, channel_axis=channel_axis)
    shape, steps = cast(Any, (window_shape, strides))
    return _layer(convolutions.AvgPool(shape, steps, _pool_padding("AvgPool", padding), normalize_edges))


def SumPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Sum over windows, see `ntkcore.SumPool`."""
    _check("SumPool", batch_axis=batch_axis, channel_axis=channel_axis)
    shape, steps = cast(Any, (window_shape, strides))
    return _layer(convolutions.SumPool(shape, steps, _pool_padding("SumPool", padding)))


def GlobalAvgPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Mean over all pixels, see `ntkcore.GlobalAvgPool`."""
    _check("GlobalAvgPool", batch_axis=batch_axis, channel_axis=channel_axis)
    return _layer(convolutions.GlobalAvgPool())


def GlobalSumPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Sum over all pixels, see `ntkcore.GlobalSumPool`."""
    _check("GlobalSumPool", batch_axis=batch_axis, channel_axis=channel_axis)
    return _layer(convolutions.GlobalSumPool())


def Flatten(batch_axis: int = 0, batch_axis_out: int = 0) -> Layer:
    """Image to vector, see `ntkcore.Flatten`."""
    _check("Flatten", batch_axis=batch_axis, batch_axis_out=batch_axis_out)
    return _layer(convolutions.Flatten())


def LayerNorm(axis: int | Sequence[int] = -1, eps: float = 1e-12, batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Normalisation over features (per pixel, for images), see `ntkcore.LayerNorm`."""
    _check("LayerNorm", axis=axis, batch_axis=batch_axis, channel_axis=channel_axis)
    return _layer(layers.LayerNorm(eps))


def Relu(do_stabilize: bool = False) -> Layer:
    """max(x, 0)."""
    _check("Relu", do_stabilize=do_stabilize)
    return _layer(activations.Relu())


def LeakyRelu(alpha: float, do_stabilize: bool = False) -> Layer:
    """x for x > 0, alpha x otherwise."""
    _check("LeakyRelu", do_stabilize=do_stabilize)
    return _layer(activations.LeakyRelu(alpha))


def Abs(do_stabilize: bool = False) -> Layer:
    """|x|."""
    _check("Abs", do_stabilize=do_stabilize)
    return _layer(activations.Abs())


def ABRelu(a: float, b: float, do_stabilize: bool = False) -> Layer:
    """a x for x < 0, b x otherwise."""
    _check("ABRelu", do_stabilize=do_stabilize)
    return _layer(activations.ABRelu(a, b))


def Erf(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """a erf(b x) + c."""
    return _layer(activations.Erf(a, b, c))


def Sigmoid_like() -> Layer:
    """0.5 erf(x / 2.4020563531719796) + 0.5, close to a sigmoid."""
    return Erf(a=0.5, b=1 / 2.4020563531719796, c=0.5)


def Gelu(approximate: bool = False) -> Layer:
    """x Phi(x); ``approximate`` is for finite networks, so that only False goes."""
    _check("Gelu", approximate=approximate)
    return _layer(activations.Gelu())


def Sin(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """a sin(b x + c)."""
    return _layer(activations.Sin(a, b, c))


def Cos(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """a cos(b x + c)."""
    return _layer(activations.Cos(a, b, c))


def Exp(a: float = 1, b: float = 1) -> Layer:
    """a exp(b x)."""
    return _layer(activations.Exp(a, b))


def Gaussian(a: float = 1, b: float = -1) -> Layer:
    """a exp(b x^2)."""
    return _layer(activations.Gaussian(a, b))


def Rbf(gamma: float = 1.0) -> Layer:
    """sqrt(2) sin(sqrt(2 gamma) x + pi/4): exp(-gamma |x - x'|^2) for its dual."""
    return _layer(activations.Rbf(gamma))


def Identity() -> Layer:
    """Nothing."""
    return _layer(layers.Identity())


def FanOut(num: int) -> Layer:
    """The input, for ``num`` branches."""
    return _layer(branches.FanOut(num))


def FanInSum() -> Layer:
    """Sum of the branches, exact where at most one of them lacks weights of its own, see `ntkcore.FanInSum`.

    kernel_fn raises ValueError elsewhere (neural-tangents warns and adds correlated branches as if independent).
    """
    return _layer(branches.FanInSum())
