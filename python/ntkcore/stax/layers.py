"""The layers and combinators, by neural-tangents' names and arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, cast

from ntkcore.specs import activations, branches, convolutions, layers
from ntkcore.stax.kernel_fn import KernelFn
from ntkcore.stax.support import check

MOST_LAYERS = 100_000


class Layer(NamedTuple):
    """The triple of neural-tangents."""

    init_fn: Callable[..., NoReturn]
    apply_fn: Callable[..., NoReturn]
    kernel_fn: KernelFn


def _no_finite_network(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "init_fn and apply_fn belong to finite networks: ntkcore.stax computes the infinite"
        " network's kernel_fn; ntkcore.finite.to_torch(kernel_fn.net, width) makes a finite one"
    )


def _layer(net: layers.Layer) -> Layer:
    return Layer(_no_finite_network, _no_finite_network, KernelFn(net))


def _net(part: Layer, combinator: str) -> layers.Layer:
    kernel_fn = part[2] if isinstance(part, tuple) and len(part) == 3 else None
    if not isinstance(kernel_fn, KernelFn):
        raise TypeError(
            f"stax.{combinator} takes layers such as stax.Relu() (called:"
            f" mind the brackets), not {part!r}"
        )
    return kernel_fn.net


def serial(*parts: Layer) -> Layer:
    """Layers one after another. ValueError without any."""
    if not parts:
        raise ValueError("stax.serial needs at least one layer")
    return _layer(layers.Serial(*(_net(part, "serial") for part in parts)))


def parallel(*parts: Layer) -> Layer:
    """One layer for every branch of `FanOut`."""
    return _layer(branches.Parallel(*(_net(part, "parallel") for part in parts)))


def repeat(layer: Layer, n: int) -> Layer:
    """The layer ``n`` times, one after another; 0 times: the identity.
    ValueError for a negative ``n``.
    """
    if not 0 <= operator.index(n) <= MOST_LAYERS:
        raise ValueError(
            f"stax.repeat: n must be a number of times from 0 to {MOST_LAYERS}, not {n!r}"
        )
    return _layer(layers.Serial(*[_net(layer, "repeat")] * n) if n else layers.Identity())


def batch(
    kernel_fn: KernelFn, batch_size: int = 0, device_count: int = -1, store_on_device: bool = True
) -> KernelFn:
    """The same ``kernel_fn``: any number of samples goes,
    because `ntkcore.kernel` always works tile by tile.

    ``batch_size``: a number of samples, which bounds memory in neural-tangents; tiles do here,
    whatever it is. ``device_count``: -1 or 0. TypeError for anything but a ``kernel_fn`` of this
    module, ValueError for a negative size, NotImplementedError for a number of devices.
    """
    check("batch", device_count=device_count, store_on_device=store_on_device)
    if operator.index(batch_size) < 0:
        raise ValueError(
            f"stax.batch: batch_size must be a number of samples, 0 or more, not {batch_size!r}"
        )
    if not isinstance(kernel_fn, KernelFn):
        raise TypeError(
            "stax.batch takes a kernel_fn, the last of a layer's three, not"
            f" {type(kernel_fn).__name__}"
        )
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
    """Fully connected layer, see `ntkcore.Dense`.
    ``out_dim`` matters for a following "standard" layer only.
    """
    check("Dense", batch_axis=batch_axis, channel_axis=channel_axis, s=s)
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
    """2-D convolution over NHWC images, see `ntkcore.Conv`.
    ``out_chan`` matters as ``out_dim`` does in `Dense`.
    """
    check("Conv", dimension_numbers=dimension_numbers, s=s)
    shape, steps = cast(Any, (filter_shape, strides))
    channels = operator.index(out_chan)
    return _layer(
        convolutions.Conv(shape, steps, padding, W_std, b_std, parameterization.lower(), channels)
    )


def _pool_padding(layer: str, padding: str) -> str:
    if padding.upper() == "CIRCULAR":
        raise NotImplementedError(
            f"stax.{layer}: padding='CIRCULAR' is not supported: use 'SAME' or 'VALID'"
        )
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
    check("AvgPool", batch_axis=batch_axis, channel_axis=channel_axis)
    shape, steps = cast(Any, (window_shape, strides))
    return _layer(
        convolutions.AvgPool(shape, steps, _pool_padding("AvgPool", padding), normalize_edges)
    )


def SumPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Sum over windows, see `ntkcore.SumPool`."""
    check("SumPool", batch_axis=batch_axis, channel_axis=channel_axis)
    shape, steps = cast(Any, (window_shape, strides))
    return _layer(convolutions.SumPool(shape, steps, _pool_padding("SumPool", padding)))


def GlobalAvgPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Mean over all pixels, see `ntkcore.GlobalAvgPool`."""
    check("GlobalAvgPool", batch_axis=batch_axis, channel_axis=channel_axis)
    return _layer(convolutions.GlobalAvgPool())


def GlobalSumPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Sum over all pixels, see `ntkcore.GlobalSumPool`."""
    check("GlobalSumPool", batch_axis=batch_axis, channel_axis=channel_axis)
    return _layer(convolutions.GlobalSumPool())


def Flatten(batch_axis: int = 0, batch_axis_out: int = 0) -> Layer:
    """Image to vector, see `ntkcore.Flatten`."""
    check("Flatten", batch_axis=batch_axis, batch_axis_out=batch_axis_out)
    return _layer(convolutions.Flatten())


def LayerNorm(
    axis: int | Sequence[int] = -1, eps: float = 1e-12, batch_axis: int = 0, channel_axis: int = -1
) -> Layer:
    """Normalisation over features or channels, and rows and columns of images if so said, see
    `ntkcore.LayerNorm`.
    """
    check("LayerNorm", batch_axis=batch_axis, channel_axis=channel_axis)
    return _layer(layers.LayerNorm(eps, axis if isinstance(axis, int) else tuple(axis)))


def Dropout(rate: float, mode: str = "train") -> Layer:
    """Keeps features with probability ``rate``, see `ntkcore.Dropout`."""
    return _layer(layers.Dropout(rate, mode))


def Relu(do_stabilize: bool = False) -> Layer:
    """max(x, 0)."""
    check("Relu", do_stabilize=do_stabilize)
    return _layer(activations.Relu())


def LeakyRelu(alpha: float, do_stabilize: bool = False) -> Layer:
    """x for x > 0, alpha x otherwise."""
    check("LeakyRelu", do_stabilize=do_stabilize)
    return _layer(activations.LeakyRelu(alpha))


def Abs(do_stabilize: bool = False) -> Layer:
    """|x|."""
    check("Abs", do_stabilize=do_stabilize)
    return _layer(activations.Abs())


def ABRelu(a: float, b: float, do_stabilize: bool = False) -> Layer:
    """a x for x < 0, b x otherwise."""
    check("ABRelu", do_stabilize=do_stabilize)
    return _layer(activations.ABRelu(a, b))


def Erf(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """a erf(b x) + c."""
    return _layer(activations.Erf(a, b, c))


def Sigmoid_like() -> Layer:
    """0.5 erf(x / 2.4020563531719796) + 0.5, close to a sigmoid."""
    return _layer(activations.Sigmoid_like())


def Gelu(approximate: bool = False) -> Layer:
    """x Phi(x); ``approximate`` is for finite networks, so that only False goes."""
    check("Gelu", approximate=approximate)
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


def Sign() -> Layer:
    """sign x, whose derivative counts as 0, as in neural-tangents:
    layers before it do not train.
    """
    return _layer(activations.Sign(frozen=True))


def Monomial(degree: int) -> Layer:
    """x^degree."""
    return _layer(activations.Monomial(operator.index(degree)))


def RectifiedMonomial(degree: int) -> Layer:
    """x^degree for x > 0, else 0. The derivative of degree 0 counts as 0, as that of `Sign`."""
    return _layer(activations.RectifiedMonomial(operator.index(degree), frozen=True))


def Polynomial(coef: Sequence[float]) -> Layer:
    """coef[0] + coef[1] x + …, see `ntkcore.Polynomial`."""
    return _layer(activations.Polynomial(tuple(coef)))


def Hermite(degree: int) -> Layer:
    """The normalised Hermite polynomial, for inputs of any variance, see `ntkcore.Hermite`."""
    return _layer(activations.Hermite(operator.index(degree)))


def ExpNormalized(gamma: float = 1, shift: float = -1, do_clip: bool = False) -> Layer:
    """sqrt(qq') exp(gamma (c + shift)), see `ntkcore.ExpNormalized`; correlations c are as good
    clipped as not.
    """
    check("ExpNormalized", do_clip=do_clip)
    return _layer(activations.ExpNormalized(gamma, shift))


def Gabor() -> Layer:
    """exp(-x^2) sin(x)."""
    return _layer(activations.Gabor())


def Identity() -> Layer:
    """Nothing."""
    return _layer(layers.Identity())


def FanOut(num: int) -> Layer:
    """The input, for ``num`` branches."""
    return _layer(branches.FanOut(num))


def FanInSum() -> Layer:
    """Sum of the branches, exact where at most one of them lacks weights of its own,
    see `ntkcore.FanInSum`.

    kernel_fn raises ValueError elsewhere (neural-tangents warns and
    adds correlated branches as if independent).
    """
    return _layer(branches.FanInSum())


def FanInProd() -> Layer:
    """Product of the branches, exact where they share no signal but through weights of their own,
    see `ntkcore.FanInProd`. kernel_fn raises ValueError elsewhere (neural-tangents warns).
    """
    return _layer(branches.FanInProd())


def FanInConcat(axis: int = -1) -> Layer:
    """The branches' features or channels side by side, see `ntkcore.FanInConcat`: their widths
    (``out_dim``, ``out_chan``) are their weights.
    """
    return _layer(branches.FanInConcat(axis))
