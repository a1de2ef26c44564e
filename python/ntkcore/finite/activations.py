"""The torch function of every nonlinearity of a spec:
registering an activation in `FUNCTIONS` is all it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntkcore.specs.activations import Activation

Function = Callable[[Tensor], Tensor]

_F = torch.nn.functional


def _abrelu(a: float, b: float) -> Function:
    return lambda z: b * torch.relu(z) - a * torch.relu(-z)


def _sin(a: float, b: float, c: float) -> Function:
    return lambda z: a * torch.sin(b * z + c)


def _arc_cosine(order: int) -> Function:
    """sqrt(2) z^order step(z)."""
    powers: tuple[Function, ...] = (
        lambda z: (z > 0).to(z.dtype),
        torch.relu,
        lambda z: torch.relu(z) ** 2,
    )
    return lambda z: math.sqrt(2) * powers[order](z)


FUNCTIONS: dict[str, Callable[[Any], Function]] = {
    "Relu": lambda layer: torch.relu,
    "LeakyRelu": lambda layer: _abrelu(layer.alpha, 1.0),
    "ABRelu": lambda layer: _abrelu(layer.a, layer.b),
    "Abs": lambda layer: torch.abs,
    "Erf": lambda layer: lambda z: layer.a * torch.erf(layer.b * z) + layer.c,
    "Gelu": lambda layer: _F.gelu,
    "Sin": lambda layer: _sin(layer.a, layer.b, layer.c),
    "Cos": lambda layer: _sin(layer.a, layer.b, layer.c + math.pi / 2),
    "Exp": lambda layer: lambda z: layer.a * torch.exp(layer.b * z),
    "Gaussian": lambda layer: lambda z: layer.a * torch.exp(layer.b * z**2),
    "Rbf": lambda layer: _sin(math.sqrt(2), math.sqrt(2 * layer.gamma), math.pi / 4),
    "ArcCosine": lambda layer: _arc_cosine(layer.order),
    "Elementwise": lambda layer: _elementwise(layer.phi),
}

NAMED: dict[str, Function] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": _F.softplus,
    "silu": _F.silu,
    "mish": _F.mish,
    "logsigmoid": _F.logsigmoid,
    "tanhshrink": _F.tanhshrink,
    "arctan": torch.arctan,
    "softsign": _F.softsign,
    "elu": _F.elu,
    "celu": _F.celu,
    "selu": _F.selu,
}


def _elementwise(phi: Any) -> Function:
    if isinstance(phi, str):
        return NAMED[phi]
    raise TypeError(
        "Elementwise: a finite network needs phi as a function of torch tensors, and a NumPy"
        f" function was given; named ones go: {', '.join(NAMED)}"
    )


class Nonlinearity(torch.nn.Module):
    """phi, element by element."""

    def __init__(self, layer: Activation) -> None:
        super().__init__()
        self.spec = layer

    def forward(self, z: Tensor) -> Tensor:
        """phi(z)."""
        return FUNCTIONS[type(self.spec).__name__](self.spec)(z)

    def extra_repr(self) -> str:
        """The spec's own spelling."""
        return repr(self.spec)
