"""A program of plain ops under construction: what a layer calls to say what it does to K and T.

A signal is a vector (shape ``(d,)``) or an image (shape ``(h, w, channels)``): vector ops act on the slots of a
`Program` or of an image program's head, plane ops on displacement planes. See ``csrc/program.h`` and
``csrc/plane_program.h``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ntkcore import _core

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Value:
    """A slot of the program and what is known of the signal in it.

    ``gaussian``: jointly Gaussian over parameters, so that a dual activation may follow. ``independent``: produced by
    weights of its own since the last fan-out, so that a sum with other branches has no cross terms. ``width``: number
    of units or channels, where declared (needed by the standard parameterization only).
    """

    slot: int
    shape: Shape
    gaussian: bool = False
    independent: bool = False
    width: int | None = None
    stride: Pair = (1, 1)  # of an image, since the last pool: what one of its pixels is to the displacement planes

    @property
    def image(self) -> Pair:
        """Height and width."""
        return self.shape[0], self.shape[1]

    @property
    def is_image(self) -> bool:
        """Does it live on displacement planes, with covariances between pixels?"""
        return len(self.shape) == 3


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


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution or a pool: per axis (height, width)."""

    size: Pair
    strides: Pair
    low: Pair  # padding before the first row, column
    out: Pair  # image size after it


class Builder:
    """Collects ops for an input of shape ``(d,)`` or ``(h, w, channels)``."""

    def __init__(self, input_shape: Shape, wants_ntk: bool) -> None:
        self.wants_ntk = wants_ntk
        self.path: list[str] = []
        self._ops: list[Op] = []
        self._plane_ops: list[PlaneOp] = []
        self._vectors, self._planes = _Slots(), _Slots()
        self.input = Value(0, input_shape, width=input_shape[-1])
        self._slots_of(self.input).take()
        self._segment = self.input.shape[:2]  # image size after the last pool

    def error(self, layer: object, problem: str) -> ValueError:
        """The error of one layer, named by its place and its spelling."""
        return ValueError(f"layer {'.'.join(self.path) or '0'}, {layer!r}: {problem}")

    def affine(self, value: Value, a: float, b: float, e: float, f: float, width: int | None) -> Value:
        """K <- a K + b, T <- a T + e K + f."""
        if value.is_image:
            return self.conv(value, Window((1, 1), (1, 1), (0, 0), value.image), False, (a, b, e, f), width)
        self._append("affine", value, params=(a, b, e, f))
        return replace(value, gaussian=True, independent=True, width=width)

    def conv(self, value: Value, window: Window, circular: bool, params: Sequence[float], width: int | None) -> Value:
        """K <- a A[K] + b, T <- a A[T] + e A[K] + f, A the mean over the filter window."""
        self._append("conv", value, params=params, window=window, circular=circular)
        shape, (h, w) = (*window.out, value.shape[2]), window.strides
        stride = value.stride[0] * h, value.stride[1] * w
        return replace(value, shape=shape, gaussian=True, independent=True, width=width, stride=stride)

    def start_segment(self, layer: object, value: Value) -> Value:
        """Circular padding pairs a plane with its mates d +- size, so the size must be that of the segment's start.

        Where it is not, a pool of one pixel, which changes nothing, starts a new segment.
        """
        if value.image == self._segment:
            return value
        return self.pool(layer, value, Window((1, 1), (1, 1), (0, 0), value.image), 1.0, False)

    def dual(self, value: Value, name: str, params: Sequence[float]) -> Value:
        """K, T <- E[phi phi'], E[dphi dphi'] T."""
        self._append("dual", value, dual=name, params=params)
        return replace(value, gaussian=False, independent=False)

    def normalize(self, value: Value, eps: float) -> Value:
        """K, T <- K, T / sqrt((q + eps)(q' + eps))."""
        self._append("normalize", value, params=(eps,))
        return value

    def pool(self, layer: object, value: Value, window: Window, scale: float, normalize_edges: bool) -> Value:
        """Windows in p and in p': their sum times `scale`, or divided by the pixels inside the image."""
        if value.slot != 0 or self._planes.in_use > 1:
            raise self.error(
                layer,
                "pooling, or circular padding after a change of the image's size, is not supported inside parallel "
                "branches (or in a read-out under depths=): put it before FanOut or after FanInSum",
            )
        self._append("pool", value, params=(scale,), window=window, normalize_edges=normalize_edges)
        self._segment = window.out
        return replace(value, shape=(*window.out, value.shape[2]), stride=(1, 1))

    def readout(self, value: Value, half: int, scale: float, last: bool) -> Value:
        """An image to a vector: the sum over pixel pairs within `half` of a common centre (-1: all pairs), scaled."""
        slot = self._vectors.take(fresh=True)  # all read-outs are filled before the head's first op runs
        geometry = (*value.image, *value.image, half, half, 1, 1, 0, 0, 0, 0)
        self._plane_ops.append(("readout", "", value.slot, slot, (scale, 0.0, 0.0, 0.0), geometry))
        if last:
            self.release(value)
        pixels = math.prod(value.image) if half >= 0 else 1  # a flattened image has features per pixel
        width = None if value.width is None else value.width * pixels
        return replace(value, slot=slot, shape=(value.shape[2],), width=width)

    def copy(self, value: Value) -> Value:
        """A second slot with the same content."""
        slot = self._slots_of(value).take()
        self._append("copy", replace(value, slot=slot), value.slot)
        return replace(value, slot=slot)

    def add(self, value: Value, other: Value) -> Value:
        """K, T of `value` <- sum with those of `other`, whose slot is given back."""
        self._append("add", value, other.slot)
        self.release(other)
        both = value.gaussian and other.gaussian
        return replace(value, gaussian=both, independent=value.independent and other.independent)

    def release(self, value: Value) -> None:
        """Give a slot back."""
        self._slots_of(value).free.append(value.slot)

    def emit(self, value: Value, output: int, affine: Sequence[float] = (1.0, 0.0, 0.0, 0.0)) -> None:
        """Output number `output` <- the slot, after an affine layer that leaves the slot as it is."""
        self._append("emit", value, output, params=affine)

    def build(self, outputs: int) -> _core.Program | _core.ImageProgram:
        """The finished program."""
        if not self.input.is_image:
            return _core.Program(self._ops, self._vectors.count, outputs)
        h, w, channels = self.input.shape
        return _core.ImageProgram(
            self._plane_ops, self._planes.count, self._ops, self._vectors.count, outputs, (h, w, channels)
        )

    def _slots_of(self, value: Value) -> _Slots:
        return self._planes if value.is_image else self._vectors

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
        if not value.is_image:
            self._ops.append((kind, dual, value.slot, other, padded))
            return
        size = value.image
        at = window or Window((1, 1), (1, 1), (0, 0), size)
        geometry = (*size, *at.out, *at.size, *at.strides, *at.low, int(circular), int(normalize_edges))
        self._plane_ops.append((kind, dual, value.slot, other, padded, geometry))


def same_window(size: Pair, image: Pair, strides: Pair) -> Window:
    """SAME padding: out = ceil(n / stride); the smaller half of the padding stands before the first pixel."""
    out = (math.ceil(image[0] / strides[0]), math.ceil(image[1] / strides[1]))
    totals = [max((o - 1) * s + k - n, 0) for o, s, k, n in zip(out, strides, size, image, strict=True)]
    return Window(size, strides, (totals[0] // 2, totals[1] // 2), out)


def valid_window(size: Pair, image: Pair, strides: Pair) -> Window:
    """No padding: out = (n - k) // stride + 1, which is below 1 where the window does not fit."""
    out = ((image[0] - size[0]) // strides[0] + 1, (image[1] - size[1]) // strides[1] + 1)
    return Window(size, strides, (0, 0), out)
