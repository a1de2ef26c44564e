"""The layers, by neural-tangents' names and arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ntkcore.engine.kernels import kernel
from ntkcore.specs import activations, branches, convolutions, elementwise, layers, positions
from ntkcore.stax import moving, parts
from ntkcore.stax.axes import axes_of
from ntkcore.stax.combinators import Layer, triple
from ntkcore.stax.combinators import layer_of as _layer
from ntkcore.stax.support import check, in_order, letters, padding_name, scales, whole


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

    ``out_dim``: units of the finite layer; for the kernel it matters for a following "standard"
    layer only. ``s``: of "standard" alone: the input is s[0] times as wide as declared (as the
    layer before says), the finite layer has s[1] out_dim units (Sohl-Dickstein et al. 2020).
    """
    way = str(parameterization).lower()
    net = layers.Dense(W_std, b_std, way, whole("Dense", "out_dim", out_dim))
    axes = whole("Dense", "batch_axis", batch_axis), whole("Dense", "channel_axis", channel_axis)
    return triple(parts.Affine(net, *axes, s=scales(s, way == "standard", "Dense")))


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
    """Convolution over any number of axes, see `ntkcore.Conv`.

    ``dimension_numbers``: letters of the axes of inputs, weights and outputs, ("NHWC", "HWIO",
    "NHWC") by default for images; ``filter_shape`` and ``strides`` follow the weights' letters.
    ``out_chan``, ``s``: as out_dim and s in `Dense`. NotImplementedError for outputs whose spatial
    letters stand in another order than the inputs'.
    """
    given = out_chan, filter_shape, strides, padding, W_std, b_std, parameterization
    return _convolution(convolutions.Conv, given, dimension_numbers, s)


def ConvLocal(
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
    """`Conv` with weights and biases of its own at every position, see `ntkcore.ConvLocal`.

    Its ``params`` have shapes of their own: (out, in, …, positions) and (out, positions).
    """
    given = out_chan, filter_shape, strides, padding, W_std, b_std, parameterization
    return _convolution(convolutions.ConvLocal, given, dimension_numbers, s)


def ConvTranspose(
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
    """Transposed convolution, see `ntkcore.ConvTranspose`; arguments as of `Conv`."""
    given = out_chan, filter_shape, strides, padding, W_std, b_std, parameterization
    return _convolution(convolutions.ConvTranspose, given, dimension_numbers, s)


def _convolution(
    kind: Any, given: tuple[Any, ...], numbers: Sequence[str] | None, s: Sequence[int]
) -> Layer:
    out_chan, filter_shape, strides, padding, W_std, b_std, parameterization = given
    rank = len(filter_shape) if hasattr(filter_shape, "__len__") else 2
    lhs, rhs, out = letters(numbers, rank, kind.__name__)
    sizes, steps = (in_order(one, rhs, lhs) for one in (filter_shape, strides or (1,) * rank))
    way, width = str(parameterization).lower(), whole(kind.__name__, "out_chan", out_chan)
    if rank:
        net = kind(sizes, steps, padding_name(padding), W_std, b_std, way, width)
    else:  # of vectors
        net = layers.Dense(W_std, b_std, way, width)
    places = lhs.index("N"), lhs.index("C"), rhs, lhs.replace("N", "").replace("C", "")
    local = rank > 0 and kind is convolutions.ConvLocal
    gives = out.index("N"), out.index("C")
    part = (parts.AffineLocal if local else parts.Affine)(
        net, *places, scales(s, way == "standard", kind.__name__), gives
    )
    return triple(part)


def ImageResize(
    shape: Sequence[int],
    method: str,
    antialias: bool = True,
    precision: Any = None,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Resizes images as `jax.image.resize`, see `ntkcore.ImageResize`; ``precision`` is of no
    effect. ``shape``: of the whole batch, -1 for what stays: samples and channels at least.
    """
    if not hasattr(shape, "__len__"):
        raise TypeError(f"stax.ImageResize: shape must hold a size for every axis, not {shape!r}")
    sizes = list(shape)
    axes = axes_of((batch_axis, channel_axis), len(sizes), "ImageResize")
    if sizes[axes.batch] != -1 or sizes[axes.channel] != -1:
        raise NotImplementedError(
            f"stax.ImageResize: shape={tuple(shape)} must hold -1 for samples (axis {axes.batch})"
            f" and channels (axis {axes.channel}): only positions are resized"
        )
    left = [size for at, size in enumerate(sizes) if at not in (axes.batch, axes.channel)]
    name = str(getattr(method, "name", method)).lower()
    net = positions.ImageResize(tuple(left), RESIZING.get(name, name), antialias)
    return triple(parts.Placed(net, batch_axis, channel_axis))


# jax.image's other names.
RESIZING = {
    **dict.fromkeys(("bilinear", "trilinear", "triangle"), "linear"),
    **dict.fromkeys(("bicubic", "tricubic"), "cubic"),
}


def Index(idx: Any, batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """``x[idx]`` of a whole batch, see `ntkcore.Index`; ``idx`` as `Slice` makes it.

    NotImplementedError for an index of channels but ``:``, and a number for samples.
    """
    return triple(moving.Indexed.of(idx, batch_axis, channel_axis))


def DotGeneral(
    *,
    lhs: Any = None,
    rhs: Any = None,
    dimension_numbers: Any = (((), ()), ((), ())),
    precision: Any = None,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """The product with a constant array, see `ntkcore.DotGeneral`; ``precision`` is of no effect.

    ``dimension_numbers``: axes of a whole batch, counted from its first, neither samples nor
    channels among them (NotImplementedError).
    """
    if lhs is None and rhs is None:
        return Identity()
    if lhs is not None and rhs is not None:
        raise ValueError("stax.DotGeneral: give one of lhs and rhs, the other being the samples")
    return triple(moving.Dotted.of(lhs, rhs, dimension_numbers, batch_axis, channel_axis))


def AvgPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    normalize_edges: bool = False,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Mean over windows, see `ntkcore.AvgPool`."""
    shape, steps = cast(Any, (window_shape, strides or ()))
    net = convolutions.AvgPool(shape, steps, padding_name(padding), normalize_edges)
    return triple(parts.Placed(net, batch_axis, channel_axis))


def SumPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Sum over windows, see `ntkcore.SumPool`."""
    shape, steps = cast(Any, (window_shape, strides or ()))
    net = convolutions.SumPool(shape, steps, padding_name(padding))
    return triple(parts.Placed(net, batch_axis, channel_axis))


def GlobalAvgPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Mean over all pixels, see `ntkcore.GlobalAvgPool`."""
    return triple(parts.GlobalPool(convolutions.GlobalAvgPool(), batch_axis, channel_axis))


def GlobalSumPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Sum over all pixels, see `ntkcore.GlobalSumPool`."""
    return triple(parts.GlobalPool(convolutions.GlobalSumPool(), batch_axis, channel_axis))


def Flatten(batch_axis: int = 0, batch_axis_out: int = 0) -> Layer:
    """Image to vector, see `ntkcore.Flatten`.

    ``batch_axis_out``: 0 or 1, the axis of the samples after it; ValueError for others.
    """
    if batch_axis_out not in (0, 1, -1, -2):
        raise ValueError(f"stax.Flatten: batch_axis_out must be 0 or 1, not {batch_axis_out!r}")
    return triple(parts.Flat(convolutions.Flatten(), batch_axis, batch_axis_out=batch_axis_out % 2))


def LayerNorm(
    axis: int | Sequence[int] = -1, eps: float = 1e-12, batch_axis: int = 0, channel_axis: int = -1
) -> Layer:
    """Normalisation over features or channels, and rows and columns of images if so said, see
    `ntkcore.LayerNorm`.
    """
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    ends = batch_axis, channel_axis
    moved = tuple(_channels_last(one, *ends) if isinstance(one, int) else one for one in axes)
    return triple(parts.Placed(layers.LayerNorm(eps, moved), *ends))


def _channels_last(axis: int, batch_axis: int, channel_axis: int) -> int:
    """An axis of data as it is called with samples first and channels last."""
    if axis in (batch_axis, channel_axis):
        return 0 if axis == batch_axis else -1
    ends = (batch_axis, channel_axis)
    if axis < 0:
        return axis - 1 + sum(axis < end < 0 for end in ends)
    return axis + 1 - sum(0 <= end < axis for end in ends)


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
    """x Phi(x); ``approximate``: by a tanh in the finite layer, while the kernel is exact."""
    net = activations.Gelu()
    return triple((parts.ApproximateGelu if approximate else parts.Part)(net))


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
    return _layer(activations.Monomial(whole("Monomial", "degree", degree)))


def RectifiedMonomial(degree: int) -> Layer:
    """x^degree for x > 0, else 0. The derivative of degree 0 counts as 0, as that of `Sign`."""
    return _layer(
        activations.RectifiedMonomial(whole("RectifiedMonomial", "degree", degree), frozen=True)
    )


def Polynomial(coef: Sequence[float]) -> Layer:
    """coef[0] + coef[1] x + …, see `ntkcore.Polynomial`."""
    return _layer(activations.Polynomial(cast(Any, coef)))


def Hermite(degree: int) -> Layer:
    """The normalised Hermite polynomial, for inputs of any variance, see `ntkcore.Hermite`."""
    return _layer(activations.Hermite(whole("Hermite", "degree", degree)))


def ExpNormalized(gamma: float = 1, shift: float = -1, do_clip: bool = False) -> Layer:
    """sqrt(qq') exp(gamma (c + shift)), see `ntkcore.ExpNormalized`; correlations c are as good
    clipped as not.
    """
    check("ExpNormalized", do_clip=do_clip)
    return _layer(activations.ExpNormalized(gamma, float(shift)))


def Gabor() -> Layer:
    """exp(-x^2) sin(x)."""
    return _layer(activations.Gabor())


def Elementwise(fn: Any = None, nngp_fn: Any = None, d_nngp_fn: Any = None) -> Layer:
    """Any activation, by its function of arrays or its name, see `ntkcore.Elementwise`, which finds
    the kernel itself; ``nngp_fn`` and ``d_nngp_fn``, functions of (cov12, var1, var2), are compared
    with it.

    ``apply_fn`` takes names and functions, with derivatives for a name and a ``fn`` of torch
    tensors. NotImplementedError without ``fn``, ValueError for the kernel of another function.
    """
    if fn is None:
        raise NotImplementedError(
            "stax.Elementwise: a kernel nngp_fn without its activation is not supported: give fn,"
            " whose kernel is found from its Hermite coefficients"
        )
    net = elementwise.Elementwise(fn)
    _check_dual(net, nngp_fn, d_nngp_fn)
    return _layer(net)


def _check_dual(net: elementwise.Elementwise, nngp_fn: Any, d_nngp_fn: Any) -> None:
    """ValueError where given kernels are not the layer's at some covariances."""
    both = layers.Serial(layers.Dense(), net)
    for c, q1, q2 in ((0.5, 1.0, 1.0), (-0.2, 0.5, 1.5)) if nngp_fn or d_nngp_fn else ():
        x, y = [(2 * q1) ** 0.5, 0.0], [c * (2 / q1) ** 0.5, (2 * q2 - 2 * c**2 / q1) ** 0.5]
        found = kernel(both, [x], [y], ("nngp", "ntk"), dtype="float64")
        for name, given, ours in (
            ("nngp_fn", nngp_fn, found.nngp[0, 0]),
            ("d_nngp_fn", d_nngp_fn, found.ntk[0, 0] / c),
        ):
            if given is not None and not abs((value := _at(name, given, c, q1, q2)) - ours) < 1e-4:
                raise ValueError(
                    f"stax.Elementwise: {name}({c}, {q1}, {q2}) is {value:.6g}, but the kernel of"
                    f" fn is {ours:.6g} there: leave {name} out"
                )


def _at(name: str, given: Any, *covariances: float) -> float:
    try:
        return float(given(*covariances))
    except Exception as problem:
        raise ValueError(
            f"stax.Elementwise: {name}{covariances} raised {type(problem).__name__}: {problem};"
            f" leave {name} out"
        ) from problem


def ElementwiseNumerical(fn: Any, deg: int, df: Any = None) -> Layer:
    """Any activation, see `ntkcore.Elementwise`; ``deg`` is not needed: the error is bounded."""
    if whole("ElementwiseNumerical", "deg", deg) < 1:
        raise ValueError(f"stax.ElementwiseNumerical: deg must be positive, not {deg!r}")
    return _layer(elementwise.Elementwise(fn, df))


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
