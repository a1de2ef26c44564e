"""Data and parameters on their way between NumPy and torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.engine.inputs import as_array

Parameters = Mapping[str, Tensor]

EMBEDDINGS = (torch.nn.Embedding, torch.nn.EmbeddingBag)


def check_module(module: Any) -> None:
    """TypeError for what is no module."""
    if not isinstance(module, Module):
        raise TypeError(
            "the module must be a torch.nn.Module, such as to_torch makes, not"
            f" {type(module).__name__}"
        )


def home(module: Module) -> Tensor:
    """A tensor of the module's dtype and device: its first parameter.
    ValueError for a module without any.
    """
    check_module(module)
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise ValueError(f"the module has no parameters: {type(module).__name__}")
    return parameter


def as_tensor(module: Module, x: Any, name: str) -> Tensor:
    """Data where the module is, real numbers in its dtype; integers stay what they are if they are
    tensors, or if the module has an embedding, which takes them as numbers of its rows.

    ValueError for NaN, infinity, or no samples; TypeError for what is no array,
    and for a module that is none.
    """
    like = home(module)
    if isinstance(x, torch.Tensor):
        if x.is_complex():
            raise TypeError(f"{name} must hold real numbers, not dtype {x.dtype}")
        tensor = x.detach().to(like.device)
    else:
        array = as_array(x, name)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold real numbers, not dtype {array.dtype}")
        numbers = array.dtype.kind in "iu" and any(
            isinstance(part, EMBEDDINGS) for part in module.modules()
        )
        tensor = torch.tensor(
            array, dtype=torch.int64 if numbers else like.dtype, device=like.device
        )
    if tensor.is_floating_point():
        tensor = tensor.to(like.dtype)
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity: impute or drop such samples")
    if tensor.ndim == 0 or len(tensor) == 0:
        raise ValueError(
            f"{name} must hold samples along its first axis, not shape {tuple(tensor.shape)}"
        )
    return tensor


def trainable(module: Module, parameters: Parameters | None = None) -> dict[str, Tensor]:
    """The parameters that require gradients, by name, detached: the module's,
    or ``parameters`` in their places.

    ValueError for names or shapes that are not the module's.
    """
    check_module(module)
    own = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not own:
        raise ValueError("the module has no trainable parameters: none has requires_grad")
    if parameters is None:
        return {name: p.detach() for name, p in own.items()}
    if set(parameters) - set(dict(module.named_parameters())) or set(own) - set(parameters):
        raise ValueError(
            "parameters must be a mapping from the module's own names, as"
            " dict(module.named_parameters())"
        )
    for name, p in own.items():
        if parameters[name].shape != p.shape:
            raise ValueError(
                f"parameters[{name!r}] has shape {tuple(parameters[name].shape)}, the module's has"
                f" {tuple(p.shape)}"
            )
    return {name: parameters[name].detach().to(p) for name, p in own.items()}


def batches(n: int, size: int) -> Iterator[slice]:
    """Rows 0 … n - 1 in blocks."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """On the host, as NumPy, which has no bfloat16: that becomes float32."""
    host = tensor.detach().cpu()
    return np.asarray(host.float() if host.dtype == torch.bfloat16 else host)
