"""Data and parameters on their way between NumPy and torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

Parameters = Mapping[str, Tensor]


def home(module: Module) -> Tensor:
    """A tensor of the module's dtype and device: its first parameter. ValueError for a module without any."""
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise ValueError(f"the module has no parameters: {type(module).__name__}")
    return parameter


def as_tensor(module: Module, x: Any, name: str) -> Tensor:
    """Data where the module is, real numbers in its dtype; integers stay what they are if they are tensors.

    ValueError for NaN, infinity, or no samples; TypeError for what is no array.
    """
    like = home(module)
    if isinstance(x, torch.Tensor):
        tensor = x.detach().to(like.device)
    else:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold real numbers, not dtype {array.dtype}")
        tensor = torch.tensor(array, dtype=like.dtype, device=like.device)
    if tensor.is_floating_point():
        tensor = tensor.to(like.dtype)
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity: impute or drop such samples")
    if tensor.ndim == 0 or len(tensor) == 0:
        raise ValueError(f"{name} must hold samples along its first axis, not shape {tuple(tensor.shape)}")
    return tensor


def trainable(module: Module, parameters: Parameters | None = None) -> dict[str, Tensor]:
    """The parameters that require gradients, by name, detached: the module's, or ``parameters`` in their places.

    ValueError for names or shapes that are not the module's.
    """
    own = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not own:
        raise ValueError("the module has no trainable parameters: none has requires_grad")
    if parameters is None:
        return {name: p.detach() for name, p in own.items()}
    if set(parameters) - set(dict(module.named_parameters())) or set(own) - set(parameters):
        raise ValueError("parameters must be a mapping from the module's own names, as dict(module.named_parameters())")
    for name, p in own.items():
        if parameters[name].shape != p.shape:
            raise ValueError(
                f"parameters[{name!r}] has shape {tuple(parameters[name].shape)}, the module's has {tuple(p.shape)}"
            )
    return {name: parameters[name].detach().to(p) for name, p in own.items()}


def batches(n: int, size: int) -> Iterator[slice]:
    """Rows 0 … n - 1 in blocks."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """On the host, as NumPy."""
    return np.asarray(tensor.detach().cpu())
