"""Modules of tensors that hold more channels behind those of features: whether a position is in
use, and its row of the sample's pattern. Features are 0 where a position is masked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.finite.modules import Tensors
from ntkcore.specs.windows import Shape


class Input(Module):
    """Of data with so many channels behind those of features."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, …) to the same."""
        features, rest = x[:, : -self.count], x[:, -self.count :]
        seen = (rest[:, :1] != 0).to(x.dtype)
        return torch.cat([features * seen, seen, rest[:, 1:]], 1)


class Drop(Module):
    """Features alone."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, …) to (samples, channels - count, …)."""
        return x[:, : -self.count]


class Read(Module):
    """A layer that sees what is in use, and leaves a vector."""

    def __init__(self, module: Module, count: int) -> None:
        super().__init__()
        self.module, self.count = module, count

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, …) to (samples, channels')."""
        y: Tensor = self.module(x[:, : -self.count], x[:, -self.count :])
        return y


class Beside(Module):
    """A layer of features; ``middle`` positions are those in the middle of its windows, whose
    outputs have the axes ``image`` (None: positions stay).
    """

    def __init__(
        self,
        module: Module,
        count: int,
        middle: npt.NDArray[np.int32] | None = None,
        image: Shape = (),
    ) -> None:
        super().__init__()
        self.module, self.count, self.image = module, count, image
        at = None if middle is None else torch.as_tensor(middle, dtype=torch.long)
        self.register_buffer("middle", at, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, …) to (samples, channels', …)."""
        features, rest = x[:, : -self.count], x[:, -self.count :]
        y = self.module(features, rest) if hasattr(self.module, "sees") else self.module(features)
        if self.middle is not None:
            rest = rest[:, :1].flatten(2)[:, :, self.middle].unflatten(2, self.image)
        return torch.cat([y * _seen(y, rest), rest], 1)


class Flatten(Module):
    """Positions become features, and what is in use stays behind them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels + count, …) to (samples, channels * positions + positions)."""
        features, seen = x[:, : -self.count], x[:, -self.count]
        return torch.cat([features.flatten(1), seen.flatten(1)], 1)


class Mean(Module):
    """Over the positions in use."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels + count, …) to (samples, channels)."""
        features, seen = x[:, : -self.count].flatten(2), x[:, -self.count].flatten(1)
        return features.sum(2) / seen.sum(1, keepdim=True).clamp(min=1)


class Aggregate(Module):
    """Sums over neighbours, by the pattern beside."""

    sees = True

    def forward(self, x: Tensor, rest: Tensor) -> Tensor:
        """(samples, channels, …) to the same."""
        pattern = rest[:, 1:].flatten(2)  # (samples, from, to)
        return torch.einsum("ncq,nqp->ncp", x.flatten(2), pattern).reshape(x.shape)


class Join(Module):
    """A layer that joins branches whose positions are masked alike."""

    def __init__(self, module: Module, counts: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.counts = module, counts

    def forward(self, x: Tensors) -> Tensor:
        """A tuple to a tensor."""
        parts = tuple(part[:, :-n] for part, n in zip(x, self.counts, strict=True))
        return torch.cat([self.module(parts), x[0][:, -self.counts[0] :]], 1)


def _seen(y: Tensor, rest: Tensor) -> Tensor:
    """What is in use, for every feature of y."""
    if y.ndim > 2:
        return rest[:, :1]
    return rest.repeat(1, y.shape[1] // rest.shape[1])
