"""The torch modules of a spec's layers. Images are (samples, channels, height, width) inside,
and other positions likewise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntkcore.finite.parameterizations import ABC
from ntkcore.specs.full import together
from ntkcore.specs.program import Matrix, Side
from ntkcore.specs.windows import Shape, Window

Tensors = Any  # a tensor, or a tuple of them between FanOut and what joins them

_F = torch.nn.functional
CONVOLUTIONS = {1: _F.conv1d, 2: _F.conv2d, 3: _F.conv3d}  # by the number of axes
POOLS = {1: _F.avg_pool1d, 2: _F.avg_pool2d, 3: _F.avg_pool3d}


class Affine(torch.nn.Module):
    """W x + b with W = multiplier * weight: what dense layers and convolutions have in common.

    ``role``: "input", "hidden" or "output"; ``n``: the width that its weights scale with;
    ``n_bias``: its biases'. ``nngp``: (W_std^2/fan-in, b_std^2), the covariance of its outputs
    given its inputs, per unit of <x, x'>. ``on_vectors``: whether it is applied once, not at every
    pixel of an image.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        area: int,
        std: tuple[float, float | None],
        role: str,
        single: bool,
        abc: ABC,
    ) -> None:
        """``shape`` of the weights (out, in, …); ``area``:
        pixels whose channels it sums; ``single``: no width.
        """
        super().__init__()
        out, channels = shape[:2]
        W_std, b_std = std
        fan_in = channels * math.prod(shape[2:])
        self.role, self.on_vectors = role, False
        self.n = 1 if single else out if role == "input" else fan_in // area
        self.n_bias = 1 if role == "output" else out
        self.nngp = W_std**2 / fan_in, (b_std or 0.0) ** 2
        constant = W_std / math.sqrt(fan_in if role == "input" or single else area)
        self.multiplier, self.std = abc.scales(role, self.n, constant)
        self.bias_multiplier, self.bias_std = abc.scales("input", self.n_bias, b_std or 0.0)
        self.weight = torch.nn.Parameter(torch.empty(shape))
        self.bias = None if b_std is None else torch.nn.Parameter(torch.empty(out))

    def draw(self, generator: Any) -> None:
        """New weights and biases; the same for every dtype up to rounding."""
        for parameter, std in ((self.weight, self.std), (self.bias, self.bias_std)):
            if parameter is not None:
                values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data.copy_(std * values)

    def scaled_bias(self) -> Tensor | None:
        """The bias as it is added."""
        return None if self.bias is None else self.bias_multiplier * self.bias


class Dense(Affine):
    """Fully connected; on images one for every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(samples, in) to (samples, out), or (samples, in, …) to (samples, out, …)."""
        weight = self.multiplier * self.weight
        if x.ndim == 2:
            return _F.linear(x, weight, self.scaled_bias())
        if x.ndim == 4:
            return _F.conv2d(x, weight[:, :, None, None], self.scaled_bias())
        return _F.linear(x.movedim(1, -1), weight, self.scaled_bias()).movedim(-1, 1)


class Conv(Affine):
    """Convolution over one to three axes with SAME (zeros), VALID or CIRCULAR borders."""

    def __init__(self, window: Window, circular: bool, image: Shape, *args: Any) -> None:
        super().__init__(*args)
        self.window, self.circular, self.image = window, circular, image

    def forward(self, x: Tensor) -> Tensor:
        """(samples, in, h, w) to (samples, out, h', w'), or the like."""
        padded = (_around if self.circular else _padded)(x, self.window, self.image)
        return CONVOLUTIONS[len(self.image)](
            padded,
            self.multiplier * self.weight,
            self.scaled_bias(),
            self.window.strides,
            dilation=self.window.dilation,
        )


class Recurrent(torch.nn.Module):
    """States h = W phi(h) + U x + b, one position after another, from 0 on, and 0 where masked; all
    of them, or the last.
    """

    sees = True  # what is in use

    def __init__(self, inputs: Dense, states: Dense, phi: torch.nn.Module, last: bool) -> None:
        super().__init__()
        self.inputs, self.states, self.phi, self.last = inputs, states, phi, last

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(samples, in, positions) and (samples, 1, positions), 1 where in use, to (samples, out,
        positions), or (samples, out).
        """
        driven = self.inputs(x)
        used = torch.ones_like(driven[:, :1]) if seen is None else seen[:, :1]
        h, all_h = torch.zeros_like(driven[..., 0]), []
        for step, keep in zip(driven.unbind(-1), used.unbind(-1), strict=True):
            h = (self.states(self.phi(h)) + step) * keep
            all_h.append(h)
        return h if self.last else torch.stack(all_h, -1)


class ConvByTaps(Affine):
    """Convolution over any axes whose outputs read where `sides` say; -1 is nothing."""

    def __init__(self, sides: Sequence[Side], image: Shape, *args: Any) -> None:
        super().__init__(*args)
        self.out = tuple(side.shape[1] for side in sides)
        reads = torch.as_tensor(together(sides, image), dtype=torch.long)
        self.register_buffer("reads", reads, persistent=False)

    def _patches(self, x: Tensor) -> Tensor:
        """(samples, in, taps, outputs)."""
        padded = _F.pad(x.flatten(2), (0, 1))  # position -1 is the zero at the end
        return padded[:, :, self.reads]

    def forward(self, x: Tensor) -> Tensor:
        """(samples, in, …) to (samples, out, …)."""
        weight = self.multiplier * self.weight.flatten(2)
        y = torch.einsum("ncto,dct->ndo", self._patches(x), weight)
        bias = self.scaled_bias()
        return (y if bias is None else y + bias[:, None]).unflatten(2, self.out)


class ConvLocal(ConvByTaps):
    """The same with weights and biases of its own at every output."""

    def __init__(self, sides: Sequence[Side], image: Shape, *args: Any) -> None:
        super().__init__(sides, image, *args)
        outputs = math.prod(self.out)
        self.weight = torch.nn.Parameter(torch.empty(*self.weight.shape, outputs))
        if self.bias is not None:
            self.bias = torch.nn.Parameter(torch.empty(*self.bias.shape, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(samples, in, …) to (samples, out, …)."""
        weight = self.multiplier * self.weight.flatten(2, -2)
        y = torch.einsum("ncto,dcto->ndo", self._patches(x), weight)
        bias = self.scaled_bias()
        return (y if bias is None else y + bias).unflatten(2, self.out)


class Mix(torch.nn.Module):
    """Constant matrices along axes of positions (None: nothing),
    or one on all of them flattened.
    """

    def __init__(self, matrices: Sequence[Matrix | None], shape: Shape, flat: bool) -> None:
        super().__init__()
        self.shape, self.flat = shape, flat
        for axis, matrix in enumerate(matrices):
            tensor = None if matrix is None else torch.as_tensor(matrix)
            self.register_buffer(f"matrix{axis}", tensor, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, …) to (samples, channels, …)."""
        x = x.flatten(2) if self.flat else x
        for axis, matrix in enumerate(self.buffers_in_order(x.ndim - 2), 2):
            if matrix is not None:
                x = torch.tensordot(x, matrix, ([axis], [1])).movedim(-1, axis)
        return x.reshape(*x.shape[:2], *self.shape)

    def buffers_in_order(self, count: int) -> list[Tensor | None]:
        """The matrices, axis by axis."""
        return [getattr(self, f"matrix{axis}") for axis in range(count)]


class Scale(torch.nn.Module):
    """scale x."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return self.scale * x


def _high(window: Window, image: Shape) -> list[int]:
    """Rows and columns that windows reach beyond the image's last."""
    sides = zip(window.out, window.strides, window.reach, image, window.low, strict=True)
    return [max((o - 1) * s + k - n - p, 0) for o, s, k, n, p in sides]


def _padded(x: Tensor, window: Window, image: Shape) -> Tensor:
    """Zeros so that every window lies inside; what no window reaches stays."""
    pads = list(zip(window.low, _high(window, image), strict=True))
    last_first = [pad for pair in reversed(pads) for pad in pair]
    return _F.pad(x, last_first) if any(last_first) else x


def _around(x: Tensor, window: Window, image: Shape) -> Tensor:
    """Borders that wrap around, as often as windows do."""
    sides = zip(window.low, image, _high(window, image), strict=True)
    for axis, (low, n, up) in enumerate(sides, 2):
        x = x.index_select(axis, torch.arange(-low, n + up, device=x.device) % n)
    return x


class Pool(torch.nn.Module):
    """scale * mean over windows of one to three axes, zeros beyond the border unless circular;
    ``normalize_edges`` counts only pixels inside.
    """

    def __init__(
        self, window: Window, image: Shape, scale: float, normalize_edges: bool, circular: bool
    ) -> None:
        super().__init__()
        self.window, self.image, self.scale = window, image, scale
        self.normalize_edges, self.circular = normalize_edges, circular

    def _mean(self, x: Tensor) -> Tensor:
        padded = (_around if self.circular else _padded)(x, self.window, self.image)
        return POOLS[len(self.image)](padded, self.window.size, self.window.strides)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, h, w) to (samples, channels, h', w'), or the like."""
        mean = self.scale * self._mean(x)
        if not self.normalize_edges:
            return mean
        return mean / self._mean(torch.ones_like(x[:1, :1]))


class GlobalPool(torch.nn.Module):
    """scale * mean over all pixels."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, …) to (samples, channels)."""
        return self.scale * x.flatten(2).mean(dim=2)


class LayerNorm(torch.nn.Module):
    """(x - mean)/sqrt(var + eps) over the channels, of every pixel by itself
    or over more axes.
    """

    def __init__(self, eps: float, axes: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        self.eps, self.axes = eps, axes

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, channels second."""
        centred = x - x.mean(dim=self.axes, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(dim=self.axes, keepdim=True) + self.eps)


class Dropout(torch.nn.Module):
    """Features kept with probability ``rate`` and divided by it; in eval mode all of them."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return _F.dropout(x, 1 - self.rate, self.training)


class FanOut(torch.nn.Module):
    """One signal to many."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num = num

    def forward(self, x: Tensor) -> Tensors:
        """The same tensor ``num`` times."""
        return (x,) * self.num


class Parallel(torch.nn.ModuleList):
    """A module for every branch."""

    def forward(self, x: Tensors) -> Tensors:
        """A tuple to a tuple."""
        return tuple(branch(part) for branch, part in zip(self, x, strict=True))


class FanInSum(torch.nn.Module):
    """The sum of the branches."""

    def forward(self, x: Tensors) -> Tensor:
        """A tuple to a tensor."""
        return sum(x[1:], x[0])


class FanInProd(torch.nn.Module):
    """The product of the branches."""

    def forward(self, x: Tensors) -> Tensor:
        """A tuple to a tensor."""
        return functools.reduce(torch.mul, x)


class FanInConcat(torch.nn.Module):
    """The branches side by side, along features or channels (dim 1) or an axis of positions."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensors) -> Tensor:
        """A tuple to a tensor."""
        return torch.cat(x, dim=self.dim)
