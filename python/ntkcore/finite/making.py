"""From a spec's layers to torch modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import Module

from ntkcore.finite import attention, beside, modules
from ntkcore.finite.activations import FUNCTIONS, Nonlinearity
from ntkcore.finite.parameterizations import ABC
from ntkcore.specs import activations, branches, positions, recurrent
from ntkcore.specs import attention as attention_specs
from ntkcore.specs import beside as beside_specs
from ntkcore.specs import convolutions as images
from ntkcore.specs import layers as specs
from ntkcore.specs.full import middles, pool_matrices, sides_of
from ntkcore.specs.lowering import flat
from ntkcore.specs.program import Side
from ntkcore.specs.windows import Shape


@dataclass(frozen=True)
class Features:
    """What a layer is handed; ``pixels`` of a flattened image; ``raw``: the data themselves;
    ``beside``: channels of the tensor behind those of features (see `beside`).
    """

    channels: int
    image: Shape | None = None
    pixels: int = 1
    raw: bool = True
    beside: int = 0


class Maker:
    """Modules of layers, following the signal's shape."""

    def __init__(self, width: int, abc: ABC, heads: int | None = None) -> None:
        self.width, self.abc, self.heads = width, abc, heads

    def network(self, net: specs.Layer, signal: Any) -> Module:
        """All layers, the last being the read-out;
        ValueError where the network does not end with a Dense.
        """
        *hidden, last = flat(net) or [net]
        if not isinstance(last, specs.Dense):
            raise ValueError(
                f"a finite network ends with Dense(), its outputs; this one ends with {last!r}"
            )
        body, signal = self._serial(specs.Serial(*hidden), signal)
        shape = (last.width or 1, signal.channels * signal.pixels)
        std = last.W_std, last.b_std
        readout = modules.Dense(shape, signal.pixels, std, "output", signal.raw, self.abc)
        readout.on_vectors = True
        if signal.beside:
            body.append(beside.Drop(signal.beside))
        return body.append(readout)

    def make(self, layer: specs.Layer, signal: Any) -> tuple[Module, Any]:
        """The layer's module and the signal after it;
        ValueError naming a layer without a finite counterpart.
        """
        inside = isinstance(layer, (specs.Serial, branches.Residual, branches.FanOut))
        if isinstance(signal, Features) and signal.beside and not inside:
            return self._beside(layer, signal)
        if isinstance(layer, activations.Activation) and type(layer).__name__ in FUNCTIONS:
            return Nonlinearity(layer), signal
        maker = MAKERS.get(type(layer))
        if maker is None:
            raise ValueError(
                f"{layer!r} has no finite counterpart: there is none of a {type(layer).__name__}"
            )
        return maker(self, layer, signal)

    def _beside(self, layer: specs.Layer, signal: Features) -> tuple[Module, Features]:
        """The module of a layer whose signal has more channels behind its features."""
        count = signal.beside
        if isinstance(layer, images.LocalAvgPool):
            window = (layer.window,) * len(_image(signal))
            pool = images.AvgPool(window, padding="SAME")
            return self._serial(specs.Serial(pool, images.Flatten()), signal)
        module, after = self.make(layer, replace(signal, beside=0))
        if isinstance(layer, images.GlobalAvgPool):
            return beside.Mean(count), after
        if isinstance(layer, images.Flatten) and signal.image:
            return beside.Flatten(count), replace(after, beside=math.prod(signal.image))
        pointwise = isinstance(layer, (activations.Activation, specs.Dropout, specs.Identity))
        if after.image is None and hasattr(module, "sees"):
            return beside.Read(module, count), after
        if after.image is None and not pointwise:
            return torch.nn.Sequential(beside.Drop(count), module), after
        middle = _middle(layer, signal.image) if signal.image else None
        if middle is None:
            return beside.Beside(module, count), replace(after, beside=count)
        return beside.Beside(module, count, middle, _image(after)), replace(after, beside=1)

    def _input(self, layer: specs.Layer, signal: Features) -> tuple[Module, Features]:
        pattern = isinstance(layer, beside_specs.GraphInput)
        count = 1 + (math.prod(_image(signal)) if pattern else 0)
        after = replace(signal, channels=signal.channels - count, beside=count)
        return beside.Input(count), after

    def _attention(
        self, layer: attention_specs.GlobalSelfAttention, signal: Features
    ) -> tuple[Module, Features]:
        """By default one head where keys must be wide for the limit, and as many as there is width
        where there must be many heads.
        """
        heads = self.heads or (1 if layer.linear_scaling else self.width)
        added = None
        if layer.pos_emb_type != "none":
            channels = layer.pos_emb_channels if layer.pos_emb_type == "concat" else None
            count = signal.channels if channels is None else channels
            R = layer.position_covariance(_image(signal))
            added = attention.Positions(count, R, layer.W_pos_emb_std, self.abc)
        out = layer.width or self.width
        sizes = (signal.channels, out), (heads, max(1, self.width // heads))
        module = attention.SelfAttention(layer, added, *sizes, _role(signal), self.abc)
        return module, Features(out, signal.image, raw=False)

    def _dense(self, layer: specs.Dense, signal: Features) -> tuple[Module, Features]:
        out = layer.width or self.width
        shape, std = (out, signal.channels * signal.pixels), (layer.W_std, layer.b_std)
        module = modules.Dense(shape, signal.pixels, std, _role(signal), False, self.abc)
        module.on_vectors = signal.image is None
        return module, Features(out, signal.image, raw=False)

    def _recurrent(self, layer: recurrent.Recurrent, signal: Features) -> tuple[Module, Features]:
        out, std = layer.width or self.width, (layer.U_std, layer.b_std)
        inputs = modules.Dense((out, signal.channels), 1, std, _role(signal), False, self.abc)
        states = modules.Dense((out, out), 1, (layer.W_std, None), "hidden", False, self.abc)
        phi, _ = self.make(layer.activation, signal)
        made = modules.Recurrent(inputs, states, phi, not layer.return_sequences)
        return made, Features(out, signal.image if layer.return_sequences else None, raw=False)

    def _conv(self, layer: images.Conv, signal: Features) -> tuple[Module, Features]:
        window, image = images.window_of(layer, _image(signal)), _image(signal)
        around = layer.padding == "CIRCULAR"
        if len(image) not in modules.CONVOLUTIONS:
            return self._by_taps(layer, signal, sides_of(window, image, around))
        module = modules.Conv(window, around, image, *self._weights(layer, signal))
        return module, Features(module.weight.shape[0], window.out, raw=False)

    def _weights(self, layer: images.Convolution, signal: Features) -> tuple[Any, ...]:
        """What `modules.Affine` takes of a convolution."""
        shape = (layer.channels or self.width, signal.channels, *layer.window)
        std = layer.W_std, layer.b_std
        return shape, math.prod(layer.window), std, _role(signal), False, self.abc

    def _by_taps(
        self, layer: images.Convolution, signal: Features, sides: list[Side]
    ) -> tuple[Module, Features]:
        local = isinstance(layer, images.ConvLocal)
        kind = modules.ConvLocal if local else modules.ConvByTaps
        module = kind(sides, _image(signal), *self._weights(layer, signal))
        return module, Features(module.weight.shape[0], module.out, raw=False)

    def _local_conv(self, layer: images.ConvLocal, signal: Features) -> tuple[Module, Features]:
        window = images.window_of(layer, _image(signal))
        sides = sides_of(window, _image(signal), layer.padding == "CIRCULAR")
        return self._by_taps(layer, signal, sides)

    def _transposed(self, layer: images.ConvTranspose, signal: Features) -> tuple[Module, Features]:
        return self._by_taps(layer, signal, layer.sides(_image(signal)))

    def _pool(self, layer: Any, signal: Features) -> tuple[Module, Features]:
        image, around = _image(signal), layer.padding == "CIRCULAR"
        window = images.window_of(layer, image)
        scale = math.prod(window.size) if isinstance(layer, images.SumPool) else 1.0
        edges = getattr(layer, "normalize_edges", False) and not around
        after = replace(signal, image=window.out)
        if len(image) not in modules.POOLS:
            averages = pool_matrices(sides_of(window, image, around), image, edges)
            scale = 1.0 if edges else scale / math.prod(window.size)
            return modules.Mix([scale * averages[0], *averages[1:]], window.out, False), after
        return modules.Pool(window, image, scale, edges, around), after

    def _resize(self, layer: positions.ImageResize, signal: Features) -> tuple[Module, Features]:
        image = _image(signal)
        sizes = zip(layer.shape, image, strict=True)
        shape = tuple(n if size == -1 else size for size, n in sizes)
        return modules.Mix(layer.matrices(image), shape, False), replace(signal, image=shape)

    def _index(self, layer: positions.Index, signal: Features) -> tuple[Module, Features]:
        image, picked = _image(signal), layer.picked(_image(signal))
        assert not isinstance(picked, str)  # lower() has looked
        matrices = [np.eye(n)[at] for n, (at, _) in zip(image, picked, strict=True)]
        shape = tuple(len(at) for at, kept in picked if kept)
        return modules.Mix(matrices, shape, False), replace(signal, image=shape or None)

    def _dot(self, layer: positions.DotGeneral, signal: Features) -> tuple[Module, Features]:
        if layer.scale is not None:
            return modules.Scale(layer.scale), signal
        found = layer.matrix(_image(signal))
        assert not isinstance(found, str)  # lower() has looked
        matrix, shape = found
        return modules.Mix([matrix], shape, True), replace(signal, image=shape or None)

    def _local(self, layer: images.LocalAvgPool, signal: Features) -> tuple[Module, Features]:
        window = (layer.window,) * len(_image(signal))
        pool, signal = self._pool(images.AvgPool(window, padding="SAME"), signal)
        flat, signal = self._flatten(layer, signal)
        return torch.nn.Sequential(pool, flat), signal

    def _flatten(self, layer: specs.Layer, signal: Features) -> tuple[Module, Features]:
        pixels = math.prod(signal.image) if signal.image else signal.pixels
        return torch.nn.Flatten(), replace(signal, image=None, pixels=pixels)

    def _global_pool(self, layer: specs.Layer, signal: Features) -> tuple[Module, Features]:
        scale = math.prod(_image(signal)) if isinstance(layer, images.GlobalSumPool) else 1.0
        return modules.GlobalPool(scale), replace(signal, image=None)

    def _serial(self, layer: specs.Serial, signal: Any) -> tuple[Module, Any]:
        made = []
        for inner in layer.layers:
            module, signal = self.make(inner, signal)
            made.append(module)
        return torch.nn.Sequential(*made), signal

    def _parallel(self, layer: branches.Parallel, signal: Any) -> tuple[Module, Any]:
        made = [
            self.make(branch, part) for branch, part in zip(layer.branches, signal, strict=True)
        ]
        return modules.Parallel([module for module, _ in made]), tuple(after for _, after in made)

    def _fan_in(self, layer: specs.Layer, signal: tuple[Features, ...]) -> tuple[Module, Features]:
        if len({(part.channels, part.pixels) for part in signal}) > 1:
            raise ValueError(
                f"{layer!r}: the branches have {', '.join(str(part.channels) for part in signal)}"
                " channels and cannot be joined feature by feature: a shortcut from the data needs"
                " a Dense or Conv of its own, and declared widths must agree"
            )
        join = modules.FanInSum if isinstance(layer, branches.FanInSum) else modules.FanInProd
        after = replace(signal[0], raw=all(part.raw for part in signal))
        return _joined(join(), signal), after

    def _concat(
        self, layer: branches.FanInConcat, signal: tuple[Features, ...]
    ) -> tuple[Module, Features]:
        image = signal[0].image
        axis = layer.of(len(image) + 1) if image else None
        if image and axis is not None and axis < len(image):
            length = sum(_image(part)[axis] for part in signal)
            larger = (*image[:axis], length, *image[axis + 1 :])  # never of masked data
            return modules.FanInConcat(axis + 2), replace(signal[0], image=larger)
        pixels = {part.pixels for part in signal}
        common = pixels.pop() if len(pixels) == 1 else 1
        channels = sum(part.channels * part.pixels for part in signal) // common
        raw = all(part.raw for part in signal)
        joined = Features(channels, signal[0].image, common, raw, signal[0].beside)
        return _joined(modules.FanInConcat(), signal), joined

    def _layer_norm(self, layer: specs.LayerNorm, signal: Features) -> tuple[Module, Features]:
        rank = 2 + len(
            signal.image or ()
        )  # (samples, positions, channels); of modules channels second
        axes = [1 if axis == rank - 1 else axis + 1 for axis in layer.axes(rank)]
        return modules.LayerNorm(layer.eps, tuple(sorted(axes))), signal

    def _dropout(self, layer: specs.Dropout, signal: Features) -> tuple[Module, Features]:
        dropped = layer.mode == "train"
        return (modules.Dropout(layer.rate) if dropped else torch.nn.Identity()), signal

    def _residual(self, layer: branches.Residual, signal: Features) -> tuple[Module, Features]:
        both = branches.Parallel(layer.shortcut, specs.Serial(*layer.branch))
        return self._serial(specs.Serial(branches.FanOut(2), both, branches.FanInSum()), signal)


MAKERS: dict[type[specs.Layer], Callable[[Maker, Any, Any], tuple[Module, Any]]] = {
    specs.Dense: Maker._dense,
    specs.Identity: lambda maker, layer, signal: (torch.nn.Identity(), signal),
    specs.LayerNorm: Maker._layer_norm,
    specs.Dropout: Maker._dropout,
    specs.Serial: Maker._serial,
    branches.FanOut: lambda maker, layer, signal: (
        modules.FanOut(layer.num),
        (signal,) * layer.num,
    ),
    branches.Parallel: Maker._parallel,
    branches.FanInSum: Maker._fan_in,
    branches.FanInProd: Maker._fan_in,
    branches.FanInConcat: Maker._concat,
    branches.Residual: Maker._residual,
    recurrent.Recurrent: Maker._recurrent,
    images.Conv: Maker._conv,
    images.ConvLocal: Maker._local_conv,
    images.ConvTranspose: Maker._transposed,
    positions.ImageResize: Maker._resize,
    positions.Index: Maker._index,
    positions.DotGeneral: Maker._dot,
    images.AvgPool: Maker._pool,
    images.SumPool: Maker._pool,
    images.LocalAvgPool: Maker._local,
    images.Flatten: Maker._flatten,
    images.GlobalAvgPool: Maker._global_pool,
    images.GlobalSumPool: Maker._global_pool,
    attention_specs.GlobalSelfAttention: Maker._attention,
    beside_specs.MaskedInput: Maker._input,
    beside_specs.GraphInput: Maker._input,
    beside_specs.Aggregate: lambda maker, layer, signal: (beside.Aggregate(), signal),
}


def _joined(module: Module, signal: tuple[Features, ...]) -> Module:
    counts = tuple(part.beside for part in signal)
    return beside.Join(module, counts) if any(counts) else module


def _middle(layer: specs.Layer, image: Shape) -> npt.NDArray[np.int32] | None:
    """The positions in the middle of the windows of a layer; None where all stay."""
    if isinstance(layer, images.ConvTranspose):
        sides = layer.sides(image)
    elif isinstance(layer, positions.Index):
        picked = layer.picked(image)
        assert not isinstance(picked, str)  # lower() has looked
        sides = [np.array([at], np.int32) for at, _ in picked]
    elif isinstance(layer, (images.Conv, images.ConvLocal, images.AvgPool, images.SumPool)):
        sides = sides_of(images.window_of(layer, image), image, layer.padding == "CIRCULAR")
    else:
        return None
    middle = middles(sides, image)
    return None if np.array_equal(middle, np.arange(math.prod(image))) else middle


def _role(signal: Features) -> str:
    return "input" if signal.raw else "hidden"


def _image(signal: Features) -> Shape:
    assert signal.image is not None  # lower() has looked
    return signal.image
