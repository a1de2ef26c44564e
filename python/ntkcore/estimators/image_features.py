"""Random features of convolutional networks, pixel by pixel: linear in pixels, where the kernel of
global average pooling is quadratic.

Every pixel p has features phi(p) of the NNGP kernel, K(p, p') = <phi(p), phi'(p')>, and psi(p) of
the NTK. A layer makes of them

    Conv:   phi <- [a patches(phi), b],   psi <- [phi, a patches(psi)],   a = W_std/sqrt(taps)
    pools:  sums or means over windows
    phi(z): z = G phi, G Gaussian;
            phi <- [odd phi, even sqrt(2/pi) N, even R],   psi <- [odd psi, even S]

with N = |phi|, R = (|z| - sqrt(2/pi) N)/sqrt(m) and S = sketch(psi) sign(z) as in `feature_plan`.
Patches are the taps' features one after another, or a sketch of them; Flatten is one patch of the
whole image, Dense a convolution of one tap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.estimators import sketches
from ntkcore.estimators.feature_plan import unknown_features, zero_kernel
from ntkcore.estimators.sketches import (
    MEAN_ABS,
    Block,
    PatchSketch,
    Sketch,
    Sources,
    row_scales,
    write_scaled,
)
from ntkcore.specs.activations import Activation
from ntkcore.specs.convolutions import (
    AvgPool,
    Conv,
    Flatten,
    GlobalAvgPool,
    GlobalSumPool,
    SumPool,
    Windowed,
    window_of,
)
from ntkcore.specs.layers import Dense, Identity, Layer
from ntkcore.specs.lowering import check_net, flat, lower
from ntkcore.specs.windows import Shape

Array = npt.NDArray[Any]
FEWEST = 256  # columns of a hidden layer, at least
PHI, PSI = 4, 4  # it has n_components over this many columns of phi and of psi


@dataclass(repr=False, eq=False)
class Signal:
    """Features of some images: phi (n, pixels, columns), psi (the NNGP's: None), and the constant
    1 (n, 1, 1) in units of the images' scales.
    """

    phi: Array
    psi: Array | None
    one: Array

    def through(self, linear: Callable[[Array], Array]) -> None:
        """The same for phi and psi."""
        self.phi = linear(self.phi)
        self.psi = None if self.psi is None else linear(self.psi)


@dataclass(frozen=True, repr=False, eq=False)
class Affine:
    """Conv, Dense, Flatten."""

    a: float
    b: float
    of_phi: PatchSketch
    of_psi: PatchSketch | None
    learns: bool  # has weights, whose gradients are features too

    def __call__(self, signal: Signal) -> None:
        """In place."""
        signal.phi = self.a * self.of_phi(signal.phi)
        if self.b:
            ones = np.broadcast_to(self.b * signal.one, (*signal.phi.shape[:2], 1))
            signal.phi = np.concatenate([signal.phi, ones], axis=2)
        if signal.psi is not None and self.of_psi is not None:
            before = self.a * self.of_psi(signal.psi)
            signal.psi = np.concatenate([signal.phi, before], axis=2) if self.learns else before


@dataclass(frozen=True, repr=False, eq=False)
class Pooled:
    """Sums over windows, with a weight for every output."""

    sources: Sources
    weights: Array

    def __call__(self, signal: Signal) -> None:
        """In place."""
        signal.through(self._of)

    def _of(self, v: Array) -> Array:
        out = np.zeros((len(v), self.sources.shape[1], v.shape[2]), v.dtype)
        for source in self.sources:
            part = v[:, source]
            part[:, source < 0] = 0
            out += part
        out *= self.weights[:, None]
        return out


@dataclass(frozen=True, repr=False, eq=False)
class Averaged:
    """All pixels summed, times a weight."""

    weight: float

    def __call__(self, signal: Signal) -> None:
        """In place."""
        signal.through(lambda v: self.weight * v.sum(axis=1, keepdims=True))


@dataclass(frozen=True, repr=False, eq=False)
class Nonlinear:
    """ReLU, or another of two slopes."""

    odd: float
    even: float
    gaussian: Array
    spread: int  # columns of R
    sketch: Sketch | None  # of psi

    def __call__(self, signal: Signal) -> None:
        """In place."""
        n, pixels, width = signal.phi.shape
        phi = signal.phi.reshape(-1, width)
        norm = np.linalg.norm(phi, axis=1, keepdims=True)
        z = phi @ self.gaussian
        away = np.abs(z[:, : self.spread]) - MEAN_ABS * norm
        parts = [self.odd * phi, self.even * MEAN_ABS * norm]
        parts.append(away * (self.even / math.sqrt(max(1, self.spread))))
        signal.phi = np.concatenate(parts, axis=1).reshape(n, pixels, -1)
        if signal.psi is not None and self.sketch is not None:
            psi = signal.psi.reshape(len(phi), -1)
            turned = self.sketch(psi)
            turned *= self.even * np.sign(z[:, : turned.shape[1]])
            signal.psi = np.concatenate([self.odd * psi, turned], axis=1).reshape(n, pixels, -1)


@dataclass(frozen=True, repr=False, eq=False)
class ImageFeatures:
    """A network's features of images of one shape, drawn."""

    shape: Shape
    dtype: np.dtype[Any]
    steps: tuple[Callable[[Signal], None], ...]
    get: str
    size: int
    ending: Sketch | None  # where there would be more columns

    @classmethod
    def of(
        cls,
        net: Layer,
        shape: Shape,
        n_components: int,
        get: str,
        owner: str,
        rng: np.random.Generator,
        dtype: Any,
    ) -> ImageFeatures:
        """ValueError names the layer whose features are not known."""
        layers = _known(net, owner)
        lower(net, shape, wants_ntk=get == "ntk")  # refuses what has no kernel
        growing = _Growing(layers, shape, n_components, get == "ntk", rng, dtype)
        if not any(block.energy for block in growing.features):
            raise ValueError(zero_kernel(owner))
        width, ending = width_of(growing.features), None
        if width > n_components:
            ending = Sketch.of(width, n_components, rng, dtype)
        steps, size = tuple(growing.steps), min(width, n_components)
        return cls(shape, np.dtype(dtype), steps, get, size, ending)

    @property
    def rows(self) -> int:
        """Images that are as many pixels as a batch of vectors."""
        return max(1, sketches.BATCH // prod(self.shape[:-1]))

    def into(self, out: Array, x: Array) -> None:
        """The features of some images. They are homogeneous in (x, 1): see `row_scales`."""
        n, *image, channels = x.shape
        pixels = x.reshape(n, prod(image), channels)
        biased = any(isinstance(step, Affine) and step.b for step in self.steps)
        scale = row_scales(x.reshape(n, -1), biased)[:, :, None]
        one = 1 / scale if biased else 0 * scale
        psi = pixels[..., :0] if self.get == "ntk" else None
        signal = Signal(pixels / scale / math.sqrt(channels), psi, one)
        for step in self.steps:
            step(signal)
        found = signal.phi if signal.psi is None else signal.psi
        joined = found.reshape(n, -1)
        write_scaled(out, joined if self.ending is None else self.ending(joined), scale[:, 0])


class _Growing:
    """The steps of a network, and the blocks of features behind the last of them, with their mean
    squares where that of x is 1, away from borders.
    """

    def __init__(
        self,
        layers: list[Layer],
        shape: Shape,
        n_components: int,
        ntk: bool,
        rng: np.random.Generator,
        dtype: Any,
    ) -> None:
        self.image, self.size, self.ntk = shape[:-1], n_components, ntk
        self.rng, self.dtype, self.steps = rng, dtype, list[Callable[[Signal], None]]()
        self.phi, self.psi = [Block(shape[-1], 1.0)], list[Block]()
        for at, layer in enumerate(layers):
            rest = layers[at + 1 :]
            self.hidden = any(isinstance(other, Activation) for other in rest)
            self.learns = ntk and any(isinstance(other, (Conv, Dense)) for other in rest)
            self._add(layer)

    @property
    def features(self) -> list[Block]:
        """Blocks of the kernel that is asked for."""
        return self.psi if self.ntk else self.phi

    def _add(self, layer: Layer) -> None:
        if isinstance(layer, Activation):
            self._nonlinear(layer)
        elif isinstance(layer, (AvgPool, SumPool)):
            self._pooled(layer)
        elif isinstance(layer, (GlobalAvgPool, GlobalSumPool)):
            pixels = prod(self.image)
            self.steps.append(Averaged(1 / pixels if isinstance(layer, GlobalAvgPool) else 1.0))
            self.image = ()
        elif isinstance(layer, Flatten):
            self._affine(np.arange(prod(self.image))[:, None], 1.0, 0.0, False)
            self.image = ()
        elif isinstance(layer, Conv):
            taps = sources_of(layer, self.image)
            self._affine(taps, layer.W_std, layer.b_std or 0.0, True)
            self.image = window_of(layer, self.image).out
        elif isinstance(layer, Dense):
            taps = np.arange(prod(self.image))[None]
            self._affine(taps, layer.W_std, layer.b_std or 0.0, True)

    @property
    def _most(self) -> tuple[int, int]:
        """Columns of phi and psi behind a linear layer: what the next nonlinearity gets, or what
        makes the features together.
        """
        if self.hidden:
            return max(FEWEST, self.size // PHI), max(FEWEST, self.size // PSI)
        if not self.ntk or not self.learns:
            return self.size, self.size
        return max(1, self.size // 3), max(1, self.size - self.size // 3 - 1)

    def _affine(self, taps: Sources, W_std: float, b_std: float, learns: bool) -> None:
        count, (most_phi, most_psi), drawn = len(taps), self._most, (self.rng, self.dtype)
        if count == 1 and not self.hidden:  # nothing to bring together
            most_phi, most_psi = width_of(self.phi), width_of(self.psi)
        of_phi = PatchSketch.of(taps, self.phi, most_phi, *drawn)
        self.phi = _times(of_phi.blocks, W_std**2) + [Block(1, b_std**2)] * (b_std != 0)
        of_psi = None
        if self.ntk:
            of_psi = PatchSketch.of(taps, self.psi, most_psi, *drawn)
            self.psi = (self.phi if learns else []) + _times(of_psi.blocks, W_std**2)
        self.steps.append(Affine(W_std / math.sqrt(count), b_std, of_phi, of_psi, learns))

    def _nonlinear(self, layer: Activation) -> None:
        low, high = layer.constants()
        odd, even = (high + low) / 2, (high - low) / 2
        spread, turned = self._columns() if even else (0, 0)
        width = width_of(self.phi), max(spread, turned)
        gaussian = self.rng.standard_normal(width).astype(self.dtype)
        sketch = (
            Sketch.of(width_of(self.psi), turned, *(self.rng, self.dtype)) if self.ntk else None
        )
        self.steps.append(Nonlinear(odd, even, gaussian, spread, sketch))
        k, t = (even**2 * sum(block.energy for block in part) for part in (self.phi, self.psi))
        mean = Block(1, k * MEAN_ABS**2), Block(spread, k * (1 - MEAN_ABS**2))
        self.phi = [*_times(self.phi, odd**2), *mean]
        self.psi = [*_times(self.psi, odd**2), Block(turned, t)] if self.ntk else []

    def _columns(self) -> tuple[int, int]:
        """Of R and S: those of the last nonlinearity fill what the others leave."""
        if self.hidden:
            return self._most[0], self._most[1] if self.ntk else 0
        phi, psi, least = width_of(self.phi), width_of(self.psi), max(self.size // 4, 3)
        if not self.ntk:
            return max(self.size - phi - 1, least), 0
        if not self.learns:
            return 0, max(self.size - psi, least)
        spare = max(self.size - phi - psi - 2, least)
        return spare // 3, spare - spare // 3

    def _pooled(self, layer: AvgPool | SumPool) -> None:
        taps = sources_of(layer, self.image)
        weights = np.ones(taps.shape[1])
        if isinstance(layer, AvgPool):
            weights /= (taps >= 0).sum(0) if layer.normalize_edges else len(taps)
        self.steps.append(Pooled(taps, weights.astype(self.dtype)))
        self.image = window_of(layer, self.image).out


def width_of(blocks: Sequence[Block]) -> int:
    """Their columns."""
    return sum(block.width for block in blocks)


def _times(blocks: Sequence[Block], scale: float) -> list[Block]:
    return [Block(block.width, scale * block.energy) for block in blocks]


def sources_of(layer: Windowed, image: Shape) -> Sources:
    """The pixel that each tap of a layer's window reads for each output, -1 outside."""
    window = window_of(layer, image)
    sources, inside = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    axes = zip(
        image, window.size, window.dilation, window.out, window.strides, window.low, strict=True
    )
    for n, taps, dilation, outputs, stride, low in axes:
        at = np.arange(taps)[:, None] * dilation + np.arange(outputs) * stride - low
        if layer.padding == "CIRCULAR":
            at %= n
        shape = len(sources) * taps, sources.shape[1] * outputs
        here = (at >= 0) & (at < n)
        sources = (sources[:, None, :, None] * n + at[None, :, None]).reshape(shape)
        inside = (inside[:, None, :, None] & here[None, :, None]).reshape(shape)
    return np.where(inside, sources, -1)


def of_images(net: Layer) -> bool:
    """Does a network take samples with positions?"""
    check_net(net)
    return not all(isinstance(layer, (Dense, Identity, Activation)) for layer in flat(net))


def _known(net: Layer, owner: str) -> list[Layer]:
    """The layers; ValueError naming the first whose features are not known."""
    check_net(net)
    layers = [layer for layer in flat(net) if not isinstance(layer, Identity)]
    plain = AvgPool, SumPool, Flatten, GlobalAvgPool, GlobalSumPool
    for layer in layers:
        learns = isinstance(layer, (Conv, Dense)) and layer.parameterization == "ntk"
        two_slopes = isinstance(layer, Activation) and layer.dual == "abrelu"
        if not (learns or two_slopes or isinstance(layer, plain)):
            raise ValueError(unknown_features(layer, owner))
    return layers
