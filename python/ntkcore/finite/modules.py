"""The torch modules of a spec's layers. Images are (samples, channels, height, width) inside."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from ntkcore.finite.parameterizations import ABC
from ntkcore.specs.program import Window

Tensors = Any  # a tensor, or a tuple of them between FanOut and what joins them

_F = torch.nn.functional


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
        """(samples, in) to (samples, out), or (samples, in, h, w) to (samples, out, h, w)."""
        weight = self.multiplier * self.weight
        if x.ndim == 2:
            return _F.linear(x, weight, self.scaled_bias())
        return _F.conv2d(x, weight[:, :, None, None], self.scaled_bias())


class Conv(Affine):
    """Convolution with SAME (zeros), VALID or CIRCULAR borders."""

    def __init__(self, window: Window, circular: bool, image: tuple[int, int], *args: Any) -> None:
        super().__init__(*args)
        self.window, self.circular, self.image = window, circular, image

    def forward(self, x: Tensor) -> Tensor:
        """(samples, in, h, w) to (samples, out, h', w')."""
        padded = (_around if self.circular else _padded)(x, self.window, self.image)
        return _F.conv2d(
            padded, self.multiplier * self.weight, self.scaled_bias(), self.window.strides
        )


def _high(window: Window, image: tuple[int, int]) -> list[int]:
    """Rows and columns that windows reach beyond the image's last."""
    sides = zip(window.out, window.strides, window.size, image, window.low, strict=True)
    return [max((o - 1) * s + k - n - p, 0) for o, s, k, n, p in sides]


def _padded(x: Tensor, window: Window, image: tuple[int, int]) -> Tensor:
    """Zeros so that every window lies inside; what no window reaches stays."""
    low, high = window.low, _high(window, image)
    return _F.pad(x, (low[1], high[1], low[0], high[0])) if any((*low, *high)) else x


def _around(x: Tensor, window: Window, image: tuple[int, int]) -> Tensor:
    """Borders that wrap around, as often as windows do."""
    high = _high(window, image)
    rows, cols = (
        torch.arange(-low, n + up) % n for low, n, up in zip(window.low, image, high, strict=True)
    )
    return x[:, :, rows][:, :, :, cols]


class Pool(torch.nn.Module):
    """scale * mean over windows, zeros beyond the border;
    ``normalize_edges`` counts only pixels inside.
    """

    def __init__(
        self, window: Window, image: tuple[int, int], scale: float, normalize_edges: bool
    ) -> None:
        super().__init__()
        self.window, self.image, self.scale, self.normalize_edges = (
            window,
            image,
            scale,
            normalize_edges,
        )

    def _mean(self, x: Tensor) -> Tensor:
        return _F.avg_pool2d(
            _padded(x, self.window, self.image), self.window.size, self.window.strides
        )

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, h, w) to (samples, channels, h', w')."""
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
        """(samples, channels, h, w) to (samples, channels)."""
        return self.scale * x.mean(dim=(2, 3))


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
    """The features, or channels, of the branches side by side."""

    def forward(self, x: Tensors) -> Tensor:
        """A tuple to a tensor."""
        return torch.cat(x, dim=1)
