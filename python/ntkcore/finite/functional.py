"""A module as a pure function of its parameters and one batch, and the check that it is one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.finite.arrays import Parameters

Function = Callable[..., Tensor]


def as_function(module: Module) -> Function:
    """(parameters, x) -> outputs (samples, outputs), whatever the shape of the module's."""

    def f(parameters: Parameters, x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, dict(parameters), (x,))
        return out.reshape(len(x), -1)

    return f


def jvp(function: Callable[[Parameters], Tensor], at: Parameters, direction: Parameters) -> tuple[Tensor, Tensor]:
    """(value, derivative along the direction)."""
    _load_forward_mode()
    value, change = torch.func.jvp(function, (dict(at),), (dict(direction),))
    return value, change


@functools.cache
def _load_forward_mode() -> None:
    """torch loads it at the first use, and some releases then warn of a deprecation of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def check_functional(module: Module, x: Tensor) -> None:
    """ValueError unless outputs depend on the parameters and their own sample only.

    Looks at what the module does on a few samples: buffers updated in forward and outputs that change from call to call
    or with the other samples are found. Buffers and torch's random state are put back.
    """
    few = x[:3]
    before = {name: value.clone() for name, value in module.named_buffers()}
    devices = [few.device] if few.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        try:
            problem = _problem(module, few, before)
        finally:
            for name, value in module.named_buffers():
                value.copy_(before[name])
    if problem:
        raise ValueError(
            f"{type(module).__name__} is no function of its parameters and one sample: {problem}; call module.eval() "
            "first, or replace the layer (batch normalisation, dropout)"
        )


def _problem(module: Module, x: Tensor, before: dict[str, Tensor]) -> str | None:
    first = module(x)
    if not isinstance(first, torch.Tensor) or first.ndim == 0 or len(first) != len(x):
        shape: Any = tuple(first.shape) if isinstance(first, torch.Tensor) else type(first).__name__
        raise ValueError(f"the module must give a tensor (samples, outputs) for {len(x)} samples, not {shape}")
    if not torch.isfinite(first).all():
        raise ValueError(
            "the module's outputs hold NaN or infinity: has its training diverged, or do its inputs overflow?"
        )
    changed = [name for name, value in module.named_buffers() if not torch.equal(value, before[name])]
    if changed:
        return f"its buffers {', '.join(changed)} are updated in forward"
    if not torch.equal(first, module(x)):
        return "two calls on the same samples differ (dropout is on?)"
    if len(x) > 2:
        alone = module(x[:2])
        if not torch.allclose(first[:2], alone, rtol=1e-3, atol=1e-3 * float(first.abs().max())):
            return "a sample's output depends on the other samples of its batch"
    return None
