"""The torch function of every nonlinearity of a spec:
registering an activation in `FUNCTIONS` is all it takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ntkcore.specs.activations import Activation

Function = Callable[[Tensor], Tensor]

_F = torch.nn.functional


def _abrelu(a: float, b: float) -> Function:
    return lambda z: b * torch.relu(z) - a * torch.relu(-z)


def _sin(a: float, b: float, c: float) -> Function:
    return lambda z: a * torch.sin(b * z + c)


def _rectified(degree: int, a: float = 1.0) -> Function:
    """a z^degree step(z)."""
    if degree == 0:
        return lambda z: a * (z > 0).to(z.dtype)
    return lambda z: a * torch.relu(z) ** degree


def _polynomial(coef: Sequence[float]) -> Function:
    def phi(z: Tensor) -> Tensor:
        value = torch.zeros_like(z)
        for c in reversed(coef):
            value = value * z + c
        return value

    return phi


def _hermite(degree: int) -> Function:
    """Of norm 1: sqrt(n + 1) h_{n+1} = z h_n - sqrt(n) h_{n-1}."""

    def phi(z: Tensor) -> Tensor:
        before, h = torch.zeros_like(z), torch.ones_like(z)
        for n in range(degree):
            before, h = h, (z * h - math.sqrt(n) * before) / math.sqrt(n + 1)
        return h

    return phi


def _no_function(layer: Any) -> Function:
    raise ValueError(
        f"{layer!r} is a kernel that no function of a neuron has, so that there is no finite"
        " network with it: compute its kernel, or take another nonlinearity"
    )


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
    "Elementwise": lambda layer: _elementwise(layer),
    "ArcCosine": lambda layer: _rectified(layer.order, math.sqrt(2)),
    "RectifiedMonomial": lambda layer: _rectified(layer.degree),
    "Sign": lambda layer: torch.sign,
    "Monomial": lambda layer: lambda z: z**layer.degree,
    "Hermite": lambda layer: _hermite(layer.degree),
    "Polynomial": lambda layer: _polynomial(layer.coef),
    "ExpNormalized": _no_function,
    "Gabor": lambda layer: lambda z: torch.exp(-(z**2)) * torch.sin(z),
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
    "relu6": _F.relu6,
    "hardtanh": _F.hardtanh,
    "hardsigmoid": _F.hardsigmoid,
    "hardswish": _F.hardswish,
    "softshrink": _F.softshrink,
}


def _elementwise(layer: Any) -> Function:
    if isinstance(layer.phi, str):
        return NAMED[layer.phi]
    if _of_tensors(layer.phi):
        return cast(Function, layer.phi)
    return lambda z: cast(Tensor, _ByNumPy.apply(z, layer))


@functools.lru_cache(maxsize=256)
def _of_tensors(phi: Any) -> bool:
    """Is it a function of torch tensors, that derivatives run through?"""
    try:
        with torch.enable_grad():
            value = phi(torch.zeros(1, requires_grad=True))
    except Exception:
        return False
    return isinstance(value, Tensor)


class _ByNumPy(torch.autograd.Function):
    """phi by a function of NumPy arrays, its derivative by the layer's dphi."""

    @staticmethod
    def forward(z: Tensor, layer: Any) -> Tensor:
        return _by_numpy(layer.phi, z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, ctx.layer = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * _slope(ctx), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return cast(Tensor, tangents[0] * _slope(ctx))

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Tensor, layer: Any) -> tuple[Tensor, Any]:
        return cast(Tensor, _ByNumPy.apply(z, layer)), in_dims[0]


def _slope(ctx: Any) -> Tensor:
    """phi' at the saved arguments."""
    if ctx.layer.dphi is None:
        raise NotImplementedError(
            f"{ctx.layer!r}: derivatives of a finite network need its derivative dphi, phi as a"
            " function of torch tensors, or a name such as 'tanh'"
        )
    (z,) = ctx.saved_tensors
    return cast(Tensor, _ByNumPy.apply(z, replace(ctx.layer, phi=ctx.layer.dphi, dphi=None)))


def _by_numpy(phi: Any, z: Tensor) -> Tensor:
    values = phi(z.detach().cpu().numpy().copy())
    return torch.as_tensor(np.asarray(values), dtype=z.dtype, device=z.device)


class Nonlinearity(torch.nn.Module):
    """phi, element by element."""

    def __init__(self, layer: Activation) -> None:
        super().__init__()
        FUNCTIONS[type(layer).__name__](layer)  # is there one?
        self.spec = layer

    def forward(self, z: Tensor) -> Tensor:
        """phi(z)."""
        return FUNCTIONS[type(self.spec).__name__](self.spec)(z)

    def extra_repr(self) -> str:
        """The spec's own spelling."""
        return repr(self.spec)
