"""Finite networks from the same spec as the kernels.

    module = to_torch(net, width=1024, input_shape=(784,), alpha=10.0, centred=True)

In the NTK parameterization the module's empirical kernels converge to ``ntkcore.kernel(net, x, x,
("nngp", "ntk"))`` with its width (Jacot et al. 2018); the other parameterizations train otherwise
(Yang & Hu 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.finite import modules
from ntkcore.finite.activations import FUNCTIONS, Nonlinearity
from ntkcore.finite.arrays import check_module
from ntkcore.finite.parameterizations import ABC, ADAM, SGD, parameterization_of
from ntkcore.specs import activations, branches, positions
from ntkcore.specs import convolutions as images
from ntkcore.specs import layers as specs
from ntkcore.specs.full import pool_matrices, sides_of
from ntkcore.specs.lowering import flat, lower
from ntkcore.specs.program import Shape, Side
from ntkcore.theory.rules import not_negative, positive


class FiniteNet(Module):
    """A finite network: ``alpha * (body(x) - body_0(x))``, the second term only with ``centred``.

    Takes (samples, features), or images (samples, height, width, channels), as the kernels do;
    gives (samples, outputs). Made by `to_torch`.
    """

    def __init__(
        self, spec: specs.Layer, body: Module, abc: ABC, alpha: float, centred: bool, shape: Any
    ) -> None:
        super().__init__()
        self.spec, self.body, self.abc, self.alpha, self.centred = spec, body, abc, alpha, centred
        self.input_shape = shape
        if centred:
            for name, value in body.named_parameters():
                self.register_buffer(_initial(name), value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(samples, outputs)."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"made for samples of shape {self.input_shape}, got {tuple(x.shape[1:])}"
            )
        x = channels_first(x)
        f = self.body(x)
        if self.centred:
            start = {
                name: getattr(self, _initial(name)) for name, _ in self.body.named_parameters()
            }
            f = f - torch.func.functional_call(self.body, start, (x,))
        return self.alpha * f

    def affine(self) -> Iterator[tuple[str, modules.Affine]]:
        """Names and modules of the layers with weights, in order."""
        for name, module in self.named_modules():
            if isinstance(module, modules.Affine):
                yield name, module


def _initial(name: str) -> str:
    return "initial_" + name.replace(".", "_")


def channels_first(x: Tensor) -> Tensor:
    """NHWC to NCHW, or the like; vectors stay."""
    return x.movedim(-1, 1)


def to_torch(
    net: specs.Layer,
    width: int,
    *,
    input_shape: Any,
    parameterization: str | ABC = "ntk",
    alpha: float = 1.0,
    centred: bool = False,
    seed: int = 0,
    dtype: Any = None,
) -> FiniteNet:
    """A finite network of this spec, its weights drawn by ``seed``.

    Parameters
    ----------
    net
        The spec. Its last layer is a Dense: the outputs, as many as its ``width`` says (1 if it
        says none). W_std and b_std are those of the kernel. Layers that declare a width or channels
        keep it.
    width
        Units, or channels, of all other layers.
    input_shape
        Of one sample: (features,), (height, width, channels), or other axes before the channels.
    parameterization
        "ntk", "standard", "mean_field" (one hidden layer), "mup", or an `ABC`. The spec's own
        ``parameterization`` is that of the infinite kernel and plays no part here.
    alpha, centred
        The output is alpha * (f - f_0 if centred), f_0 the network as drawn (Chizat et al. 2019).
    dtype
        torch or NumPy's float32 or float64; by default torch's.

    Raises
    ------
    ValueError, TypeError
        For a spec that has no infinite kernel, or a layer without a finite counterpart:
        the message names it.

    References
    ----------
    Jacot et al. 2018; Chizat et al. 2019; Yang & Hu 2021; Yang et al. 2022.
    """
    shape = _shape(input_shape)
    if isinstance(width, bool) or not isinstance(width, Integral) or width < 1:
        raise ValueError(f"width must be a positive number of units, not {width!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 < float(alpha) < math.inf:
        raise ValueError(f"alpha must be a positive finite number, not {alpha!r}")
    lower(net, shape, wants_ntk=False)  # whatever has no kernel ends here, its layer named
    abc = parameterization_of(parameterization)
    _check_depth(net, parameterization)
    start = Features(shape[-1], shape[:-1] or None)
    body = _Maker(int(width), abc).network(net, start)
    body.to(torch_dtype(dtype))
    generator = torch.Generator().manual_seed(seed)
    for module in body.modules():
        if isinstance(module, modules.Affine):
            module.draw(generator)
    return FiniteNet(net, body, abc, float(alpha), bool(centred), shape)


def torch_dtype(dtype: Any) -> Any:
    """torch.float32 or torch.float64 from torch's or NumPy's spelling; ValueError for others."""
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype):
        dtype = {"float32": torch.float32, "float64": torch.float64}.get(
            np.dtype(dtype).name, dtype
        )
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be float32 or float64, not {dtype}")
    return dtype


def _shape(given: Any) -> tuple[int, ...]:
    shape = (given,) if isinstance(given, Integral) else tuple(given)
    if not shape or not all(isinstance(n, Integral) and int(n) > 0 for n in shape):
        raise ValueError(
            f"input_shape must be (features,), (height, width, channels) or the like, not {given!r}"
        )
    return tuple(map(int, shape))


def _check_depth(net: specs.Layer, parameterization: str | ABC) -> None:
    depth = sum(isinstance(layer, activations.Activation) for layer in _walk(net))
    if parameterization == "mean_field" and depth != 1:
        raise ValueError(
            f"'mean_field' is the limit of one hidden layer, and this network has {depth}: use"
            " 'mup', the same for one and going on to deep ones (Yang & Hu 2021)"
        )


def _walk(layer: specs.Layer) -> Iterator[specs.Layer]:
    yield layer
    for inner in layer._inner():
        yield from _walk(inner)


@dataclass(frozen=True)
class Features:
    """What a layer is handed; ``pixels`` of a flattened image; ``raw``: the data themselves."""

    channels: int
    image: Shape | None = None
    pixels: int = 1
    raw: bool = True


class _Maker:
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
        body, signal = self.serial(specs.Serial(*hidden), signal)
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

    def dense(self, layer: specs.Dense, signal: Features) -> tuple[Module, Features]:
        out = layer.width or self.width
        shape, std = (out, signal.channels * signal.pixels), (layer.W_std, layer.b_std)
        module = modules.Dense(shape, signal.pixels, std, _role(signal), False, self.abc)
        module.on_vectors = signal.image is None
        return module, Features(out, signal.image, raw=False)

    def conv(self, layer: images.Conv, signal: Features) -> tuple[Module, Features]:
        window, image = images.window_of(layer, _image(signal)), _image(signal)
        around = layer.padding == "CIRCULAR"
        if len(image) not in modules.CONVOLUTIONS:
            return self.by_taps(layer, signal, sides_of(window, image, around))
        module = modules.Conv(window, around, image, *self.weights(layer, signal))
        return module, Features(module.weight.shape[0], window.out, raw=False)

    def weights(self, layer: images.Convolution, signal: Features) -> tuple[Any, ...]:
        """What `modules.Affine` takes of a convolution."""
        shape = (layer.channels or self.width, signal.channels, *layer.window)
        std = layer.W_std, layer.b_std
        return shape, math.prod(layer.window), std, _role(signal), False, self.abc

    def by_taps(
        self, layer: images.Convolution, signal: Features, sides: list[Side]
    ) -> tuple[Module, Features]:
        local = isinstance(layer, images.ConvLocal)
        kind = modules.ConvLocal if local else modules.ConvByTaps
        module = kind(sides, _image(signal), *self.weights(layer, signal))
        return module, Features(module.weight.shape[0], module.out, raw=False)

    def local_conv(self, layer: images.ConvLocal, signal: Features) -> tuple[Module, Features]:
        window = images.window_of(layer, _image(signal))
        sides = sides_of(window, _image(signal), layer.padding == "CIRCULAR")
        return self.by_taps(layer, signal, sides)

    def transposed(self, layer: images.ConvTranspose, signal: Features) -> tuple[Module, Features]:
        return self.by_taps(layer, signal, layer.sides(_image(signal)))

    def pool(self, layer: Any, signal: Features) -> tuple[Module, Features]:
        image, around = _image(signal), layer.padding == "CIRCULAR"
        window = images.window_of(layer, image)
        scale = math.prod(window.size) if isinstance(layer, images.SumPool) else 1.0
        edges = getattr(layer, "normalize_edges", False) and not around
        after = replace(signal, image=window.out)
        if len(image) not in modules.POOLS:
            averages = pool_matrices(window, image, edges, around)
            scale = 1.0 if edges else scale / math.prod(window.size)
            return modules.Mix([scale * averages[0], *averages[1:]], window.out, False), after
        return modules.Pool(window, image, scale, edges, around), after

    def resize(self, layer: positions.ImageResize, signal: Features) -> tuple[Module, Features]:
        image = _image(signal)
        sizes = zip(layer.shape, image, strict=True)
        shape = tuple(n if size == -1 else size for size, n in sizes)
        return modules.Mix(layer.matrices(image), shape, False), replace(signal, image=shape)

    def index(self, layer: positions.Index, signal: Features) -> tuple[Module, Features]:
        image, picked = _image(signal), layer.picked(_image(signal))
        assert not isinstance(picked, str)  # lower() has looked
        matrices = [np.eye(n)[at] for n, (at, _) in zip(image, picked, strict=True)]
        shape = tuple(len(at) for at, kept in picked if kept)
        return modules.Mix(matrices, shape, False), replace(signal, image=shape or None)

    def dot(self, layer: positions.DotGeneral, signal: Features) -> tuple[Module, Features]:
        if layer.scale is not None:
            return modules.Scale(layer.scale), signal
        found = layer.matrix(_image(signal))
        assert not isinstance(found, str)  # lower() has looked
        matrix, shape = found
        return modules.Mix([matrix], shape, True), replace(signal, image=shape or None)

    def local(self, layer: images.LocalAvgPool, signal: Features) -> tuple[Module, Features]:
        window = (layer.window,) * len(_image(signal))
        pool, signal = self.pool(images.AvgPool(window, padding="SAME"), signal)
        flat, signal = self.flatten(layer, signal)
        return torch.nn.Sequential(pool, flat), signal

    def flatten(self, layer: specs.Layer, signal: Features) -> tuple[Module, Features]:
        pixels = math.prod(signal.image) if signal.image else signal.pixels
        return torch.nn.Flatten(), replace(signal, image=None, pixels=pixels)

    def global_pool(self, layer: specs.Layer, signal: Features) -> tuple[Module, Features]:
        scale = math.prod(_image(signal)) if isinstance(layer, images.GlobalSumPool) else 1.0
        return modules.GlobalPool(scale), replace(signal, image=None)

    def serial(self, layer: specs.Serial, signal: Any) -> tuple[Module, Any]:
        made = []
        for inner in layer.layers:
            module, signal = self.make(inner, signal)
            made.append(module)
        return torch.nn.Sequential(*made), signal

    def parallel(self, layer: branches.Parallel, signal: Any) -> tuple[Module, Any]:
        made = [
            self.make(branch, part) for branch, part in zip(layer.branches, signal, strict=True)
        ]
        return modules.Parallel([module for module, _ in made]), tuple(after for _, after in made)

    def fan_in(self, layer: specs.Layer, signal: tuple[Features, ...]) -> tuple[Module, Features]:
        if len({(part.channels, part.pixels) for part in signal}) > 1:
            raise ValueError(
                f"{layer!r}: the branches have {', '.join(str(part.channels) for part in signal)}"
                " channels and cannot be joined feature by feature: a shortcut from the data needs"
                " a Dense or Conv of its own, and declared widths must agree"
            )
        join = modules.FanInSum if isinstance(layer, branches.FanInSum) else modules.FanInProd
        return join(), replace(signal[0], raw=all(part.raw for part in signal))

    def concat(
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

    def layer_norm(self, layer: specs.LayerNorm, signal: Features) -> tuple[Module, Features]:
        axes = layer.axes(2 if signal.image is None else 4)  # of (samples, height, width, channels)
        inside = {3: 1, 1: 2, 2: 3} if signal.image else {1: 1}
        return modules.LayerNorm(layer.eps, tuple(inside[a] for a in sorted(axes))), signal

    def dropout(self, layer: specs.Dropout, signal: Features) -> tuple[Module, Features]:
        dropped = layer.mode == "train"
        return (modules.Dropout(layer.rate) if dropped else torch.nn.Identity()), signal

    def residual(self, layer: branches.Residual, signal: Features) -> tuple[Module, Features]:
        both = branches.Parallel(layer.shortcut, specs.Serial(*layer.branch))
        return self.serial(specs.Serial(branches.FanOut(2), both, branches.FanInSum()), signal)


MAKERS: dict[type[specs.Layer], Callable[[_Maker, Any, Any], tuple[Module, Any]]] = {
    specs.Dense: _Maker.dense,
    specs.Identity: lambda maker, layer, signal: (torch.nn.Identity(), signal),
    specs.LayerNorm: _Maker.layer_norm,
    specs.Dropout: _Maker.dropout,
    specs.Serial: _Maker.serial,
    branches.FanOut: lambda maker, layer, signal: (
        modules.FanOut(layer.num),
        (signal,) * layer.num,
    ),
    branches.Parallel: _Maker.parallel,
    branches.FanInSum: _Maker.fan_in,
    branches.FanInProd: _Maker.fan_in,
    branches.FanInConcat: _Maker.concat,
    branches.Residual: _Maker.residual,
    images.Conv: _Maker.conv,
    images.ConvLocal: _Maker.local_conv,
    images.ConvTranspose: _Maker.transposed,
    positions.ImageResize: _Maker.resize,
    positions.Index: _Maker.index,
    positions.DotGeneral: _Maker.dot,
    images.AvgPool: _Maker.pool,
    images.SumPool: _Maker.pool,
    images.LocalAvgPool: _Maker.local,
    images.Flatten: _Maker.flatten,
    images.GlobalAvgPool: _Maker.global_pool,
    images.GlobalSumPool: _Maker.global_pool,
}


def _role(signal: Features) -> str:
    return "input" if signal.raw else "hidden"


def _image(signal: Features) -> Shape:
    assert signal.image is not None  # lower() has looked
    return signal.image


def parameter_groups(
    module: Module,
    lr: float,
    optimizer: str = "sgd",
    *,
    base_width: float = 1.0,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Parameter groups for torch's optimizers, with learning rates by the abc table.

    A layer of width n gets lr (n/base_width)^-c, c being that of SGD or of Adam; of an output
    scaled by alpha it is further divided by alpha^2 (SGD) or alpha (Adam), so that time passes as
    for alpha = 1 (Chizat et al. 2019). AdamW multiplies its weight decay by the layer's learning
    rate; the groups take that back: lr * weight_decay is the same in all layers. Frozen parameters
    are left out; modules not made by `to_torch` have the rate ``lr`` everywhere.

    Parameters
    ----------
    module : torch.nn.Module
    lr : float
        The learning rate.
    optimizer : {"sgd", "adam", "adamw"}, default="sgd"
    base_width : float, default=1
        The width at which all layers have the rate ``lr``.
    weight_decay : float, default=0

    Returns
    -------
    list of dict
        With the keys params, lr, weight_decay and name.

    Raises
    ------
    ValueError
        For another optimizer, and numbers out of range.

    References
    ----------
    Yang & Hu 2021; Yang et al. 2022, table 3.
    """
    check_module(module)
    if optimizer not in SGD + ADAM:
        raise ValueError(f"optimizer must be one of {', '.join(SGD + ADAM)}, not {optimizer!r}")
    positive("lr", lr)
    positive("base_width", base_width)
    not_negative("weight_decay", weight_decay)
    groups = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = learning_rate_factor(module, name, optimizer, base_width)
            decay = weight_decay / rate if optimizer == "adamw" else weight_decay
            groups.append(
                {"params": [parameter], "lr": lr * rate, "weight_decay": decay, "name": name}
            )
    return groups


def learning_rate_factor(
    module: Module, name: str, optimizer: str = "sgd", base_width: float = 1.0
) -> float:
    """The learning rate of the parameter ``name`` in units of the global one;
    1 for modules not made by `to_torch`.
    """
    net = getattr(module, "network", module)  # a linearised network has its network's rates
    name = name if net is module else name.removeprefix("network.")
    if not isinstance(net, FiniteNet):
        return 1.0
    layer = net.get_submodule(name.rpartition(".")[0])
    assert isinstance(layer, modules.Affine)
    bias = name.endswith("bias")
    n, role = (layer.n_bias, "input") if bias else (layer.n, layer.role)
    scale = net.alpha**2 if optimizer in SGD else net.alpha
    width = 1.0 if n == 1 else n / base_width
    return net.abc.rate(role, width, optimizer) / scale
