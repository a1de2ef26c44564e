"""A module as a pure function of its parameters and one batch, and the check that it is one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntkcore.finite.arrays import EMBEDDINGS, Parameters

Function = Callable[..., Tensor]


def as_function(module: Module) -> Function:
    """(parameters, x) -> outputs (samples, outputs), whatever the shape of the module's."""

    def f(parameters: Parameters, x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, dict(parameters), (x,))
        return out.reshape(len(x), -1)

    return f


def jvp(
    function: Callable[[Parameters], Tensor], at: Parameters, direction: Parameters
) -> tuple[Tensor, Tensor]:
    """(value, derivative along the direction);
    ValueError for a module that torch.func cannot differentiate so.
    """
    _load_forward_mode()
    with _derivatives():
        value, change = torch.func.jvp(function, (dict(at),), (dict(direction),))
    return value, change


def pull_back(
    function: Callable[[Parameters], Tensor], at: Parameters, weights: Tensor
) -> dict[str, Tensor]:
    """J^T weights; ValueError as for `jvp`."""
    with _derivatives():
        _, pull = torch.func.vjp(function, dict(at))
        found: dict[str, Tensor] = pull(weights)[0]
    return found


def plain_attention() -> Any:
    """Attention by products of matrices:
    torch's fused kernels lack vmap and forward derivatives.
    """
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def _derivatives() -> Iterator[None]:
    """Room for torch.func's derivatives, whose errors become one line."""
    try:
        with plain_attention():
            yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            "torch.func cannot differentiate this module as a whole:"
            f" {reason} (empirical_ntk can, sample by sample)"
        ) from None


@functools.cache
def _load_forward_mode() -> None:
    """torch loads it at the first use,
    and some releases then warn of a deprecation of their own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def check_functional(module: Module, x: Tensor) -> None:
    """ValueError unless outputs depend on the parameters and their own sample only.

    Looks at what the module does on a few samples: buffers updated in forward and outputs that
    change from call to call or with the other samples are found. Buffers and torch's random state
    are put back.
    """
    few = x[:3]
    if len(few) == 1:  # a sample alone has no others
        few = torch.cat([few, few / 2 if few.is_floating_point() else torch.zeros_like(few)])
    with undisturbed(module, few) as before:
        problem = _problem(module, few, before)
    if problem:
        raise ValueError(
            f"{type(module).__name__} is no function of its parameters and one sample: {problem};"
            " call module.eval() first, or replace the layer (batch normalisation, dropout)"
        )


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """The module as ``module.eval()`` makes it, for a while: nothing is dropped."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def undisturbed(module: Module, x: Tensor) -> Iterator[dict[str, Tensor]]:
    """Forward passes without gradients that leave buffers and torch's
    random state as they were; gives the buffers.
    """
    before = {name: value.clone() for name, value in module.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        try:
            yield before
        finally:
            for name, value in module.named_buffers():
                value.copy_(before[name])


def outputs_of(module: Module, x: Tensor) -> Tensor:
    """module(x); ValueError in a line where the module cannot take x,
    or gives no tensor (samples, …).
    """
    try:
        out = module(x)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().split("\n")[0]
        if x.is_floating_point() and any(isinstance(part, EMBEDDINGS) for part in module.modules()):
            reason += " (an embedding takes the numbers of its rows: give x as integers)"
        raise ValueError(
            f"{type(module).__name__} cannot take samples of shape {tuple(x.shape[1:])}, {x.dtype}:"
            f" {reason}"
        ) from None
    if not isinstance(out, torch.Tensor) or out.ndim == 0 or len(out) != len(x):
        shape: Any = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(
            f"the module must give a tensor (samples, outputs) for {len(x)} samples, not {shape}"
        )
    return out


def _problem(module: Module, x: Tensor, before: dict[str, Tensor]) -> str | None:
    first = outputs_of(module, x)
    if not torch.isfinite(first).all():
        raise ValueError(
            "the module's outputs hold NaN or infinity:"
            " has its training diverged, or do its inputs overflow?"
        )
    changed = [
        name for name, value in module.named_buffers() if not torch.equal(value, before[name])
    ]
    if changed:
        return f"its buffers {', '.join(changed)} are updated in forward"
    if not torch.equal(first, module(x)):
        return "two calls on the same samples differ (dropout is on?)"
    count = min(len(x) - 1, 2)
    try:
        alone = outputs_of(module, x[:count])
    except ValueError:  # batch normalisation of one sample
        return "a sample's output depends on the other samples of its batch"
    if not torch.allclose(first[:count], alone, rtol=1e-3, atol=1e-3 * float(first.abs().max())):
        return "a sample's output depends on the other samples of its batch"
    return None
