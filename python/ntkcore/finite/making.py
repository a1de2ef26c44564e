"""From a spec's layers to torch modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import Module

from ntkcore.finite import modules
from ntkcore.finite.activations import FUNCTIONS, Nonlinearity
from ntkcore.finite.parameterizations import ABC
from ntkcore.specs import activations, branches, positions, recurrent
from ntkcore.specs import convolutions as images
from ntkcore.specs import layers as specs
from ntkcore.specs.full import pool_matrices, sides_of
from ntkcore.specs.lowering import flat
from ntkcore.specs.program import Side
from ntkcore.specs.windows import Shape


@dataclass(frozen=True)
class Features:
    """What a layer is handed; ``pixels`` of a flattened image; ``raw``: the data themselves."""

    channels: int
    image: Shape | None = None
    pixels: int = 1
    raw: bool = True


class Maker:
    """Modules of layers, following the signal's shape."""

    def __init__(self, width: int, abc: ABC) -> None:
        self.width, self.abc = width, abc

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
        return body.append(readout)

    def make(self, layer: specs.Layer, signal: Any) -> tuple[Module, Any]:
        """The layer's module and the signal after it;
        ValueError naming a layer without a finite counterpart.
        """
        if isinstance(layer, activations.Activation) and type(layer).__name__ in FUNCTIONS:
            return Nonlinearity(layer), signal
        maker = MAKERS.get(type(layer))
        if maker is None:
            raise ValueError(
                f"{layer!r} has no finite counterpart: there is none of a {type(layer).__name__}"
            )
        return maker(self, layer, signal)

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
        return join(), replace(signal[0], raw=all(part.raw for part in signal))

    def _concat(
        self, layer: branches.FanInConcat, signal: tuple[Features, ...]
    ) -> tuple[Module, Features]:
        image = signal[0].image
        axis = layer.of(len(image) + 1) if image else None
        if image and axis is not None and axis < len(image):
            length = sum(_image(part)[axis] for part in signal)
            larger = (*image[:axis], length, *image[axis + 1 :])
            return modules.FanInConcat(axis + 2), replace(signal[0], image=larger)
        pixels = {part.pixels for part in signal}
        common = pixels.pop() if len(pixels) == 1 else 1
        channels = sum(part.channels * part.pixels for part in signal) // common
        raw = all(part.raw for part in signal)
        joined = Features(channels, signal[0].image, common, raw)
        return modules.FanInConcat(), joined

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
}


def _role(signal: Features) -> str:
    return "input" if signal.raw else "hidden"


def _image(signal: Features) -> Shape:
    assert signal.image is not None  # lower() has looked
    return signal.image
