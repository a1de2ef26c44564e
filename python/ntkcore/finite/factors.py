"""Factors of empirical kernels: a block of samples' Jacobians, parameter by parameter,
in the cheapest form.

The Jacobian of a dense layer's weights is an outer product of its input a and the output's
derivative d by its pre-activation, so that its share of the kernel is (a . a')(d . d') without ever
forming it (Novak et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.finite.arrays import Parameters
from ntkcore.finite.functional import as_function, plain_attention
from ntkcore.finite.networks import FiniteNet, channels_first


@dataclass(frozen=True)
class Rows:
    """A Jacobian (samples, outputs, parameters)."""

    jacobian: Tensor

    def trace(self, other: Rows) -> Tensor:
        """Sum over outputs of J J'^T."""
        return self.jacobian.flatten(1) @ other.jacobian.flatten(1).T

    def full(self, other: Rows) -> Tensor:
        """J J'^T, (samples, samples', outputs, outputs')."""
        return torch.einsum("iop,jqp->ijoq", self.jacobian, other.jacobian)


@dataclass(frozen=True)
class Outer:
    """A Jacobian d (x) a: inputs a (samples, in), derivatives d (samples, outputs, out)."""

    inputs: Tensor
    derivatives: Rows

    def trace(self, other: Outer) -> Tensor:
        """(a . a') sum of d . d'."""
        return (self.inputs @ other.inputs.T) * self.derivatives.trace(other.derivatives)

    def full(self, other: Outer) -> Tensor:
        """(a . a') d_o . d'_q."""
        return (self.inputs @ other.inputs.T)[:, :, None, None] * self.derivatives.full(
            other.derivatives
        )


Factors = dict[str, Any]  # Rows or Outer, by the parameter's name
Maker = Callable[[Tensor], Factors]


def jacobian_factors(module: Module, parameters: Parameters, scales: Mapping[str, float]) -> Maker:
    """Factors of any module: by torch.func, or where vmap cannot batch it (LSTM, masks,
    ``.item()``) by plain backward passes, sample by sample and output by output.
    """
    f, batched = as_function(module), True

    def one(p: Parameters, x: Tensor) -> Tensor:
        return f(p, x[None])[0]

    jacobians = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))

    def make(x: Tensor) -> Factors:
        nonlocal batched
        if batched:
            try:
                with plain_attention():
                    found = jacobians(dict(parameters), x)
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, NotImplementedError):
                batched = False
        if not batched:
            found = _one_by_one(f, parameters, x)
        return {
            name: Rows(math.sqrt(scales[name]) * j.detach().reshape(*j.shape[:2], -1))
            for name, j in found.items()
        }

    return make


def _one_by_one(f: Any, parameters: Parameters, x: Tensor) -> dict[str, Tensor]:
    """Jacobians (samples, outputs, …) by autograd, a backward pass for each sample and output."""
    own = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    rows = []
    for sample in x:
        with torch.enable_grad():
            outputs = f(own, sample[None])[0]
        rows.append(
            [
                torch.autograd.grad(
                    output, list(own.values()), retain_graph=True, materialize_grads=True
                )
                for output in outputs
            ]
        )
    return {
        name: torch.stack([torch.stack([g[i] for g in row]) for row in rows])
        for i, name in enumerate(own)
    }


def structured_factors(
    module: FiniteNet, parameters: Parameters, scales: Mapping[str, float]
) -> Maker:
    """Factors of a fully connected module made by `to_torch`: one backward pass for each output."""
    layers = dict(module.affine())

    def make(x: Tensor) -> Factors:
        caught: dict[str, tuple[Tensor, Tensor]] = {}
        own = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        with torch.enable_grad(), _catching(layers, caught):
            inside = {name.removeprefix("body."): p for name, p in own.items()}
            out = module.alpha * torch.func.functional_call(
                module.body, inside, (channels_first(x),)
            )
        wanted = [name for name in layers if caught[name][1].requires_grad]
        at = [caught[name][1] for name in wanted]
        by_output = [
            torch.autograd.grad(out[:, o].sum(), at, retain_graph=True) for o in range(out.shape[1])
        ]
        factors: Factors = {}
        for name, *derivatives in zip(wanted, *by_output, strict=True):
            weight, bias = f"{name}.weight", f"{name}.bias"
            d = torch.stack(derivatives, dim=1)
            if weight in parameters:
                scale = math.sqrt(scales[weight]) * layers[name].multiplier
                factors[weight] = Outer(scale * caught[name][0].detach(), Rows(d))
            if bias in parameters:
                factors[bias] = Rows(math.sqrt(scales[bias]) * layers[name].bias_multiplier * d)
        return factors

    return make


@contextmanager
def _catching(
    layers: Mapping[str, Module], caught: dict[str, tuple[Tensor, Tensor]]
) -> Iterator[None]:
    """Inputs and outputs of the layers, by name."""

    def hook(name: str) -> Any:
        return lambda module, given, out: caught.__setitem__(name, (given[0], out))

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
