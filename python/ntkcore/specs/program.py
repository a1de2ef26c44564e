"""A program of plain ops under construction: what a layer calls to say what it does to K and T.

A signal is a vector (shape ``(d,)``) or has features at positions, an image (shape
``(h, w, channels)``) or a sequence (``(length, channels)``): vector ops act on the slots of a
`Program` or of an image program's head, plane ops on displacement planes. A sequence is an image
one pixel high. See ``csrc/program/program.h`` and ``csrc/program/plane_program.h``.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.specs.series import Array, Series
from ntkcore.specs.windows import Shape, Window, same_window

Pair = tuple[int, int]


class Law(enum.Enum):
    """What is known of a signal's features over random parameters;
    every op says it of its result.
    """

    GAUSSIAN = "centred and jointly Gaussian, all features alike: a dual activation may follow"
    MIXED = (
        "centred and Gaussian, but features, being of different pixels or branches, differ in"
        " covariance; K is its mean"
    )
    OTHER = "anything else: data, or the output of a nonlinearity"


@dataclass(frozen=True)
class Unread:
    """A read-out that waits: the vector's features are still the
    pixels of an image on displacement planes.
    """

    image: Shape
    half: int  # half width of the pixel pairs that count (-1: all of them)
    scale: float  # of their sum


@dataclass(frozen=True)
class Value:
    """A slot of the program and what is known of the signal in it.

    ``sources``: the affine layers (and 0, the data) that it depends on without further weights in
    between; signals without a common source are independent. ``centred``: of mean 0 given all else,
    so that its product with an independent signal vanishes. ``alike``: have all features (of a
    pixel) the same covariance, K? ``width``: number of units or channels, where declared (needed by
    the standard parameterization and by concatenations); ``pixels``: those of a flattened image
    among them. ``unread``: a flattened image, kept on its planes as long as a nonlinearity may
    follow.
    """

    slot: int
    shape: Shape
    law: Law = Law.OTHER
    sources: frozenset[int] = frozenset({0})
    centred: bool = False
    alike: bool = True
    width: int | None = None
    variance: float = math.inf  # bound on q of any sample, pixel by pixel
    pixels: int = 1
    # Of an image, since the last pool: the step in the displacement planes between two pixels.
    stride: Shape = ()
    unread: Unread | None = None
    mask: int = -1  # of masked data: its number in the program

    @property
    def image(self) -> Shape:
        """Sizes of the axes of positions, such as height and width."""
        return self.unread.image if self.unread else self.shape[:-1]

    @property
    def is_image(self) -> bool:
        """Is it an image, or has it other positions, to a layer?"""
        return len(self.shape) > 1

    @property
    def on_planes(self) -> bool:
        """Does it live on displacement planes, with covariances between pixels?"""
        return self.is_image or self.unread is not None

    @property
    def steps(self) -> Shape:
        """Its strides; a side of one pixel has displacement 0 alone,
        which is the same whatever the stride.
        """
        return tuple(s if n > 1 else 1 for n, s in zip(self.image, self.stride, strict=True))


Program = _core.Program | _core.ImageProgram | _core.FullProgram
Side = npt.NDArray[np.int32]  # (taps, outputs) of one axis: which position is read, -1 for none
Matrix = npt.NDArray[np.float64]  # (outputs, positions)
Op = tuple[str, str, int, int, Sequence[float]]
PlaneOp = tuple[str, str, int, int, Sequence[float], Sequence[int]]


@dataclass
class _Slots:
    """Numbers of slots, used again when given back."""

    count: int = 0
    free: list[int] = field(default_factory=list)

    def take(self, fresh: bool = False) -> int:
        if self.free and not fresh:
            return self.free.pop()
        self.count += 1
        return self.count - 1

    @property
    def in_use(self) -> int:
        return self.count - len(self.free)


@dataclass(frozen=True, eq=False)
class Attention:
    """What a sample's attention G follows from: softmax, ReLU, … of scale K(x, x) + grid."""

    mechanism: str
    scale: float
    grid: Matrix | None = None


class BeyondPlanesError(Exception):
    """Something that displacement planes cannot do: full covariances can."""


@dataclass(frozen=True)
class Range:
    """What tables of a program must hold: variances |x|^2/channels of the data up to this, to
    double or to single precision.
    """

    variance: float = 1.0
    single: bool = False


class Builder:
    """Collects ops for an input of shape ``(d,)``, ``(length, channels)`` or
    ``(h, w, channels)``.
    """

    most_axes: ClassVar[float] = 2  # of positions

    def __init__(self, input_shape: Shape, wants_ntk: bool, data: Range | None = None) -> None:
        self.wants_ntk = wants_ntk
        self.single = (data or Range()).single
        self.path: list[str] = []
        self.errors: dict[str, float] = {}  # bounds of tables, by the layer
        self._ops: list[Op] = []
        self._plane_ops: list[PlaneOp] = []
        self._vectors, self._planes = _Slots(), _Slots()
        self._tables: list[Array] = []
        if len(input_shape) - 1 > self.most_axes:
            raise BeyondPlanesError
        self._start(input_shape, (data or Range()).variance)

    def _start(self, input_shape: Shape, variance: float) -> None:
        ones = (1,) * (len(input_shape) - 1)
        self.input = Value(
            0, input_shape, alike=False, width=input_shape[-1], stride=ones, variance=variance
        )
        self._slots_of(self.input).take()
        self._segment = self.input.image  # image size after the last pool
        self._period = (0,) * len(ones)  # of circular padding since then, in its pixels
        self._affine_layers = 0

    def _name(self, layer: object) -> str:
        """Its place and its spelling."""
        return f"layer {'.'.join(self.path) or '0'}, {layer!r}"

    def error(self, layer: object, problem: str) -> ValueError:
        """The error of one layer."""
        return ValueError(f"{self._name(layer)}: {problem}")

    def bound(self, layer: object, error: float) -> None:
        """What the layer's table leaves out is at most this."""
        self.errors[self._name(layer)] = error

    def affine(
        self, value: Value, a: float, b: float, e: float, f: float, width: int | None
    ) -> Value:
        """K <- a K + b, T <- a T + e K + f."""
        if value.is_image:
            window = Window.of_one(value.image)
            return self._with_weights(self._window_mean(value, window, False, (a, b, e, f)), width)
        value = self.read(value)
        self._append("affine", value, params=(a, b, e, f))
        return self._with_weights(replace(value, variance=a * value.variance + b), width)

    def conv(
        self,
        value: Value,
        window: Window,
        circular: bool,
        params: Sequence[float],
        width: int | None,
    ) -> Value:
        """K <- a A[K] + b, T <- a A[T] + e A[K] + f, A the mean over the filter window.

        Circular padding with strides that do not divide the image picks pixels of the convolution
        at every pixel.
        """
        if not (circular and window.wraps(value.image)):
            value = self._window_mean(value, window, False, params)
        else:
            value = self._start_segment(value)
            if all(n % s == 0 for n, s in zip(value.image, window.strides, strict=True)):
                value = self._window_mean(value, window, True, params)
            else:
                ones = (1,) * len(value.image)
                everywhere = replace(window, strides=ones, out=value.image)
                value = self._window_mean(value, everywhere, True, params)
                picked = replace(window, size=ones, low=(0,) * len(ones), dilation=ones)
                value = self._window_mean(value, picked, False, (1.0,))
        return self._with_weights(value, width)

    def conv_by_taps(
        self, value: Value, sides: Sequence[Side], params: Sequence[float], width: int | None
    ) -> Value:
        """The same, A the mean over taps that read where `sides` say, one for each axis."""
        raise BeyondPlanesError

    def conv_local(
        self,
        value: Value,
        window: Window,
        circular: bool,
        params: Sequence[float],
        width: int | None,
    ) -> Value:
        """`conv` with weights and biases of its own at every position: K = T = 0 off p = p'."""
        raise BeyondPlanesError

    def pick(self, value: Value, sides: Sequence[Side], shape: Shape) -> Value:
        """Positions picked along every axis; of this shape then. () leaves a vector."""
        raise BeyondPlanesError

    def mix(self, value: Value, matrix: Matrix, shape: Shape, axis: int | None = None) -> Value:
        """K, T <- L K L', L T L', L acting on one axis of positions, or on all of them flattened;
        of this shape then. () leaves a vector.
        """
        raise BeyondPlanesError

    def take_beside(self, layer: object, value: Value, pattern: bool) -> Value:
        """The data without what they hold beside their features, in channels that follow them: a
        mask of positions (1: in use) and, with `pattern`, a matrix of positions.
        """
        raise BeyondPlanesError

    def attend(self, value: Value, attention: Attention) -> Value:
        """K, T <- G K G'', G T G'' with the attention of every sample."""
        raise BeyondPlanesError

    def embed(self, value: Value, weight: float, grid: Matrix) -> Value:
        """K, T <- K, T + weight R, R the covariance of what positions add."""
        raise BeyondPlanesError

    def aggregate(self, layer: object, value: Value) -> Value:
        """K, T <- P K P'', P T P'' with the pattern that every sample holds."""
        raise BeyondPlanesError

    def relate(self, value: Value, other: Value) -> Value:
        """K, T <- s K, s' K + s (T + 4 K), s = sum K K2, s' = sum K2 T + K T2 over all pairs of
        positions, K2 and T2 those of `other`, whose slot is given back.
        """
        raise BeyondPlanesError

    def _window_mean(
        self, value: Value, window: Window, circular: bool, params: Sequence[float]
    ) -> Value:
        self._append("conv", value, params=params, window=window, circular=circular)
        stride = tuple(a * b for a, b in zip(value.stride, window.strides, strict=True))
        a, b = (*params, 0.0)[:2]
        return replace(
            value,
            shape=(*window.out, value.shape[-1]),
            stride=stride,
            variance=a * value.variance + b,
        )

    def _with_weights(self, value: Value, width: int | None) -> Value:
        """The signal after weights of its own."""
        self._affine_layers += 1
        return replace(
            value,
            law=Law.GAUSSIAN,
            sources=frozenset({self._affine_layers}),
            centred=True,
            alike=True,
            width=width,
            pixels=1,
        )

    def _start_segment(self, value: Value) -> Value:
        """Circular padding pairs a plane d with its mates d +- period,
        the size times the strides before it.

        A segment's planes are closed under one period, not less than the image. For another one, a
        pool of one pixel, which changes nothing, starts a new segment.
        """
        period = self._period_of(value)
        sides = zip(period, self._period, self._segment, strict=True)
        if not all(p == 0 or (p >= size and known in (0, p)) for p, known, size in sides):
            value = self.pool(value, Window.of_one(value.image), 1.0, False)
            period = self._period_of(value)
        self._period = tuple(known or p for p, known in zip(period, self._period, strict=True))
        return value

    @staticmethod
    def _period_of(value: Value) -> Shape:
        """0 for a side of one pixel, which wraps onto itself."""
        return tuple(n * s if n > 1 else 0 for n, s in zip(value.image, value.stride, strict=True))

    def dual(self, value: Value, name: str, params: Sequence[float]) -> Value:
        """K, T <- E[phi phi'], E[dphi dphi'] T; of a flattened image pixel by pixel,
        before its read-out.
        """
        value = self._before_dual(value)
        self._append("dual", value, dual=name, params=params)
        return self._after_dual(value, largest_variance(name, tuple(params), value.variance))

    def series(self, value: Value, series: Series) -> Value:
        """The same of an activation that a table holds."""
        value = self._before_dual(value)
        self._append("series", value, len(self._tables), params=series.kinks)
        self._tables.append(series.table)
        return self._after_dual(value, series.largest)

    def kinks(self, value: Value, table: tuple[float, ...]) -> Value:
        """The same of a polynomial with two kinks, whose table is csrc/math/kinks.h's."""
        value = self._before_dual(value)
        self._append("kinks", value, len(self._tables))
        self._tables.append(np.asarray(table, np.float64))
        return self._after_dual(value, largest_variance("kinks", table, value.variance))

    def _before_dual(self, value: Value) -> Value:
        if value.unread and value.unread.half > 0:
            return self._pool_unread(value, value.unread)
        return value

    @staticmethod
    def _after_dual(value: Value, variance: float) -> Value:
        return replace(value, law=Law.OTHER, centred=False, variance=variance)

    def _pool_unread(self, value: Value, unread: Unread) -> Value:
        """Local average pooling as a pool and the read-out of a flattened image."""
        size, pixels = 2 * unread.half + 1, math.prod(unread.image)
        image = replace(value, shape=(*unread.image, value.shape[0]), unread=None)
        rank = len(unread.image)
        window = same_window((size,) * rank, unread.image, (1,) * rank)
        pooled = self.pool(image, window, unread.scale * pixels, False)
        return replace(pooled, shape=value.shape, unread=Unread(unread.image, 0, 1 / pixels))

    def normalize(self, value: Value, eps: float, over: Sequence[bool]) -> Value:
        """K, T <- K, T / sqrt((q + eps)(q' + eps)), q the mean over those axes of positions of
        which `over` says so.
        """
        value = self.read(value)
        self._append_normalize(value, eps, over)
        # A pixel's q is at most the sum of those whose mean divides it.
        most = math.prod(n for n, mean in zip(value.shape[:-1], over, strict=True) if mean)
        return replace(value, variance=float(most))

    def _append_normalize(self, value: Value, eps: float, over: Sequence[bool]) -> None:
        on_plane = _on_plane(tuple(map(int, over)), 0) if any(over) else (0, 0)
        self._append("normalize", value, params=(eps, *on_plane))

    def dropout(self, value: Value, rate: float) -> Value:
        """q, T <- q/rate, T/rate of a sample with itself, of an image pixel by pixel."""
        value = self.read(value)
        self._append("dropout", value, params=(rate,))
        return replace(value, law=Law.OTHER, variance=value.variance / rate)

    def pool(
        self,
        value: Value,
        window: Window,
        scale: float,
        normalize_edges: bool,
        circular: bool = False,
    ) -> Value:
        """Windows in p and in p': their sum times `scale`,
        or divided by the pixels inside the image.

        A pool needs the displacement planes of its signal in another order than what lives beside
        it.
        """
        if circular or not self._may_pool(value):
            raise BeyondPlanesError
        self._append("pool", value, params=(scale,), window=window, normalize_edges=normalize_edges)
        rank = len(window.out)
        self._segment, self._period = window.out, (0,) * rank
        most = 1.0 if normalize_edges else scale * math.prod(window.size) ** 2
        return replace(
            value,
            shape=(*window.out, value.shape[-1]),
            stride=(1,) * rank,
            variance=most * value.variance,
        )

    def _may_pool(self, image: Value) -> bool:
        return image.slot == 0 and self._planes.in_use == 1

    def readout(self, value: Value, half: int, scale: float, last: bool) -> Value:
        """An image to a vector: the sum over pixel pairs within `half` of a common centre (-1:
        all pairs), scaled.

        It waits while a nonlinearity may follow: phi(Flatten(z)) = Flatten(phi(z)),
        pixels differing in variance.
        """
        # A flattened image has features per pixel.
        pixels = math.prod(value.image) if half >= 0 else 1
        width = None if value.width is None else value.width * pixels
        # Pairs of pixels that a window of side 2 half + 1 holds, at every pixel.
        side = (2 * half + 1) ** (2 * len(value.image)) if half >= 0 else math.prod(value.image)
        count = math.prod(value.image) * side
        flat = replace(
            value,
            shape=value.shape[-1:],
            width=width,
            pixels=pixels,
            unread=Unread(value.image, half, scale),
            variance=count * scale * value.variance,
        )
        return flat if value.law is Law.GAUSSIAN and pixels > 1 else self.read(flat, last)

    def read(self, value: Value, last: bool = True) -> Value:
        """The vector that a flattened image is, off its planes,
        which are given back at their `last` use.
        """
        if value.unread is None:
            return value
        # All read-outs are filled before the head's first op runs.
        slot, half = self._vectors.take(fresh=True), value.unread.half
        self._append_readout(value, value.unread, slot)
        if last:
            self.release(value)
        alike = value.alike and not (half >= 0 and math.prod(value.image) > 1)
        law = Law.MIXED if value.law is Law.GAUSSIAN and not alike else value.law
        return replace(value, slot=slot, unread=None, stride=(), law=law, alike=alike)

    def _append_readout(self, value: Value, unread: Unread, slot: int) -> None:
        (h, w), half = _on_plane(unread.image, 1), unread.half
        geometry = (h, w, h, w, half, half, 1, 1, 0, 0, 0, 0, 1, 1)
        self._plane_ops.append(
            ("readout", "", value.slot, slot, (unread.scale, 0.0, 0.0, 0.0), geometry)
        )

    def fan_out(self, value: Value, num: int) -> tuple[Value, ...]:
        """The same signal ``num`` times; local pooling, which a branch could not do any more,
        comes first.
        """
        if value.unread and value.unread.half > 0 and self._may_pool(value):
            value = self._pool_unread(value, value.unread)
        return (value, *(self.copy(value) for _ in range(num - 1)))

    def copy(self, value: Value) -> Value:
        """A second slot with the same content."""
        slot = self._slots_of(value).take()
        self._append("copy", replace(value, slot=slot), value.slot)
        return replace(value, slot=slot)

    def add(self, value: Value, other: Value) -> Value:
        """K, T of `value` <- sum with those of `other`, independent of it,
        whose slot is given back.
        """
        if value.unread != other.unread or (value.unread and value.steps != other.steps):
            value, other = self.read(value), self.read(other)
        # Pixels apart by d are apart by another d in the input where strides differ.
        if value.on_planes and value.steps != other.steps:
            raise BeyondPlanesError
        self._append("add", value, other.slot)
        self.release(other)
        laws = {value.law, other.law}
        return replace(
            value,
            law=next(law for law in (Law.OTHER, Law.MIXED, Law.GAUSSIAN) if law in laws),
            sources=value.sources | other.sources,
            centred=value.centred and other.centred,
            alike=value.alike and other.alike,
            variance=value.variance + other.variance,
        )

    def multiply(self, layer: object, value: Value, other: Value) -> Value:
        """K, T of `value` <- K K', T K' + K T' with those of `other`, independent of it, whose slot
        is given back. Of flattened images pixel by pixel, before their read-out.
        """
        together = value.unread and value.unread == other.unread and value.steps == other.steps
        if not together or value.unread.half > 0:  # type: ignore[union-attr]
            value, other = self.read(value), self.read(other)
        if not (value.alike or other.alike):
            raise self.error(
                layer,
                "features differ in variance in two branches (data, flattened images or"
                " concatenations), and the mean of their kernels' products is not the product of"
                " their means: put an affine layer (Dense, Conv) into all branches but one",
            )
        self._append("multiply", value, other.slot)
        self.release(other)
        return replace(
            value,
            law=Law.OTHER,
            sources=value.sources | other.sources,
            centred=value.centred or other.centred,
            alike=value.alike and other.alike,
            variance=value.variance * other.variance,
        )

    def concat(self, values: Sequence[Value], sizes: Sequence[int]) -> Value:
        """The features of all of them, ``sizes`` many of each: K, T <- their weighted means."""
        shares = [size / sum(sizes) for size in sizes]
        parts = [
            self.scaled(self.read(part), share) for part, share in zip(values, shares, strict=True)
        ]
        total = functools.reduce(self.add, parts)
        gaussian = all(part.law is not Law.OTHER for part in parts)
        widths = [part.width for part in parts if part.width is not None]
        return replace(
            total,
            law=total.law if len(parts) == 1 else Law.MIXED if gaussian else Law.OTHER,
            alike=total.alike and len(parts) == 1,
            width=sum(widths) if len(widths) == len(parts) else None,
            pixels=sum(part.pixels for part in parts),
        )

    def scaled(self, value: Value, a: float) -> Value:
        """K, T <- a K, a T."""
        self._append("scale", value, params=(a,))
        return replace(value, variance=a * value.variance)

    def release(self, value: Value) -> None:
        """Give a slot back."""
        self._slots_of(value).free.append(value.slot)

    def emit(
        self, value: Value, output: int, affine: Sequence[float] = (1.0, 0.0, 0.0, 0.0)
    ) -> None:
        """Output number `output` <- the slot,
        after an affine layer that leaves the slot as it is.
        """
        self._append("emit", value, output, params=affine)

    def build(self, outputs: int) -> Program:
        """The finished program."""
        if not self.input.is_image:
            return _core.Program(self._ops, self._vectors.count, outputs, self._tables)
        h, w = _on_plane(self.input.image, 1)
        return _core.ImageProgram(
            self._plane_ops,
            self._planes.count,
            self._ops,
            self._vectors.count,
            outputs,
            (h, w, self.input.shape[-1]),
            self._tables,
        )

    def _slots_of(self, value: Value) -> _Slots:
        return self._planes if value.on_planes else self._vectors

    def _append(
        self,
        kind: str,
        value: Value,
        other: int = 0,
        dual: str = "",
        params: Sequence[float] = (),
        window: Window | None = None,
        circular: bool = False,
        normalize_edges: bool = False,
    ) -> None:
        padded = (*map(float, params), 0.0, 0.0, 0.0, 0.0)[:4]
        if not value.on_planes:
            self._ops.append((kind, dual, value.slot, other, padded))
        else:
            op = kind, dual, value.slot, other, padded
            self._append_plane_op(op, value, window, circular, normalize_edges)

    def _append_plane_op(
        self, op: Op, value: Value, window: Window | None, circular: bool, normalize_edges: bool
    ) -> None:
        at = window or Window.of_one(value.image)
        size, low = _on_plane(at.size, 1), _on_plane(at.low, 0)
        if op[0] == "conv" and not circular and _three_in_a_row(at, value.image):
            # The fast path is 3 x 3: on one row the same sums, of three times as many pixels.
            kind, dual, slot, other, (a, b, e, f) = op
            op = kind, dual, slot, other, (3 * a, b, 3 * e, f)
            size, low = (3, 3), (1, 1)
        geometry = (
            *_on_plane(value.image, 1),
            *_on_plane(at.out, 1),
            *size,
            *_on_plane(at.strides, 1),
            *low,
            int(circular),
            int(normalize_edges),
            *_on_plane(at.dilation, 1),
        )
        self._plane_ops.append((*op, geometry))


def _three_in_a_row(window: Window, image: Shape) -> bool:
    """Is it a filter of 3 along a sequence, under SAME and without strides?"""
    return len(image) == 1 and window == same_window((3,), image, (1,))


def _on_plane(sides: Shape, one: int) -> Pair:
    """(height, width) of an image, or of a sequence, which is `one` pixel high."""
    h, w = (one,) * (2 - len(sides)) + sides
    return h, w


@functools.lru_cache(maxsize=1024)
def largest_variance(dual: str, params: tuple[float, ...], variance: float) -> float:
    """Bound on E[phi(z)^2] of z with variances up to this one: an exact dual's, on a grid that is
    fine near 0 too, where functions that fall again have their peak.
    """
    if not math.isfinite(variance):
        return math.inf
    kinks = dual == "kinks"
    kind, name, constants = ("kinks", "", ()) if kinks else ("dual", dual, params)
    p0, p1, p2, p3 = (*constants, 0.0, 0.0, 0.0, 0.0)[:4]
    ops = [(kind, name, 0, 0, (p0, p1, p2, p3)), ("emit", "", 0, 0, (1.0, 0.0, 0.0, 0.0))]
    program = _core.Program(ops, 1, 1, [np.array(params)] if kinks else [])
    grid = np.concatenate([np.linspace(0, 1, 257), np.geomspace(1e-20, 1, 1025)]) * variance
    found = _core.Vectors(program, np.sqrt(grid)[:, None]).nngp
    return 1.01 * float(found.max()) if np.isfinite(found).all() else math.inf
