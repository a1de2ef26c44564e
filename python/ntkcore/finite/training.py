"""A plain, seeded training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.engine.inputs import as_array, check_count, check_sequence
from ntkcore.finite.arrays import as_tensor, batches
from ntkcore.finite.functional import evaluating, outputs_of, undisturbed
from ntkcore.finite.networks import parameter_groups
from ntkcore.theory.losses import class_targets
from ntkcore.theory.rules import check_momentum, positive

Array = npt.NDArray[np.float64]
Callback = Callable[[int, Module], Mapping[str, float] | None]
Loss = Callable[[Tensor, Tensor], Tensor]

ROWS = 4096  # of a forward pass without gradients


class DivergedError(ArithmeticError):
    """The loss became infinite or NaN; ``step`` says when, ``loss`` to what."""

    def __init__(self, step: int, loss: float, lr: float) -> None:
        super().__init__(
            f"training diverged: the loss is {loss} at step {step}, with a learning rate of {lr:g};"
            " take a smaller one (gradient descent on the squared loss is stable below"
            " 2N/lambda_max of the empirical NTK)"
        )
        self.step, self.loss, self.lr = step, loss, lr

    def __reduce__(self) -> Any:
        return DivergedError, (self.step, self.loss, self.lr)


@dataclass(frozen=True)
class History:
    """``steps`` (k,) that were looked at, the ``loss`` (k,) on the whole training set
    (``module.eval()``: nothing dropped), and the callbacks' ``values``.

    ``values``: arrays (k,) by name, NaN where a callback gave none.
    """

    steps: npt.NDArray[np.int64]
    loss: Array
    values: dict[str, Array]


def squared_loss(f: Tensor, y: Tensor) -> Tensor:
    """||f - y||^2/(2N), N samples: that of `ntkcore.dynamics`."""
    if f.numel() != y.numel() or len(f) != len(y):
        raise ValueError(
            f"targets of shape {tuple(y.shape)} do not fit outputs of shape {tuple(f.shape)}"
        )
    return ((f - y.reshape(f.shape).to(f.dtype)) ** 2).sum() / (2 * len(f))


def cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    """Mean of -log softmax(f)[y], y probabilities (n, classes). Of one output:
    log(1 + exp(-f y)), y = ±1.
    """
    if f.shape[1] == 1:
        return torch.nn.functional.softplus(-f[:, 0] * y.reshape(len(f))).mean()
    return torch.nn.functional.cross_entropy(f, y)


def entropy_targets(y: Any, outputs: int) -> Any:
    """Targets of `cross_entropy`, checked: ±1 for one output, else what `class_targets` takes,
    as probabilities.
    """
    if outputs > 1:
        return class_targets(y, outputs)
    signs = as_array(y, "y")
    if signs.ndim not in (1, 2) or signs.size != len(signs) or not np.isin(signs, (-1, 1)).all():
        raise ValueError(
            "y of a cross-entropy on one output must hold -1 and 1, as (n,) or (n, 1): for class"
            " numbers give the network one output a class"
        )
    return signs


LOSSES: dict[str, Loss] = {"mse": squared_loss, "cross_entropy": cross_entropy}


def train(
    module: Module,
    x: Any,
    y: Any,
    *,
    lr: float,
    steps: int,
    optimizer: str | Callable[[list[dict[str, Any]]], Any] = "sgd",
    batch_size: int | None = None,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    loss: str | Loss = "mse",
    base_width: float = 1.0,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    every: int | Sequence[int] | None = None,
) -> History:
    """Train in place, by ``steps`` steps.

    Parameters
    ----------
    module
        Made by `to_torch`, with learning rates by its parameterization (`parameter_groups`),
        or any other.
    x, y
        Samples and targets, arrays or tensors: y (n,) or (n, outputs) for "mse"; for
        "cross_entropy" class numbers (n,) or rows of probabilities (n, outputs), of one output -1
        and 1.
    optimizer
        "sgd", "adam", "adamw", or a function of parameter groups that gives a torch optimizer.
    batch_size
        Samples a step, drawn without replacement epoch by epoch; None: all.
    loss
        "mse", ||f - y||^2/(2N); "cross_entropy"; or a function (f, y) -> scalar tensor,
        a mean over samples.
    base_width
        See `parameter_groups`.
    callbacks
        Called as ``callback(step, module)`` at the steps looked at; what they return,
        {name: number}, is kept.
    every
        Look at the loss and call the callbacks every so many steps, or at these steps; step 0
        (before training) and the last one are always among them.

    Raises
    ------
    DivergedError
        As soon as the loss is not finite; the module is left as it then was.
    ValueError, TypeError
        For data and options that do not fit.
    """
    criterion = _loss(loss)
    data, targets = _data(module, x, y, criterion)
    _check(lr, steps, batch_size, len(data), seed)
    _check_callbacks(callbacks)
    stepper = _optimizer(module, optimizer, lr, base_width, weight_decay, momentum)
    looks = _looks(every, steps)
    records: list[dict[str, float]] = []
    order = _order(len(data), batch_size, seed)
    for step in range(steps + 1):
        if step in looks:
            records.append(_look(step, module, data, targets, criterion, callbacks, lr))
        if step == steps:
            break
        rows = next(order)
        stepper.zero_grad(set_to_none=True)
        value = _value(criterion, module(data[rows]), targets[rows])
        if not math.isfinite(value.item()):
            raise DivergedError(step, value.item(), lr)
        value.backward()
        stepper.step()
    return _history(sorted(looks), records)


def _loss(loss: str | Loss) -> Loss:
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(
            f"loss must be one of {', '.join(LOSSES)} or a function (f, y), not {loss!r}"
        )
    return LOSSES[loss]


def _data(module: Module, x: Any, y: Any, criterion: Loss) -> tuple[Tensor, Tensor]:
    data = as_tensor(module, x, "x")
    with undisturbed(module, data):
        outputs = outputs_of(module, data[:2])
    if criterion is cross_entropy:
        if outputs.ndim != 2:
            raise ValueError(
                f"a cross-entropy needs outputs (samples, classes), not {tuple(outputs.shape)}"
            )
        y = entropy_targets(y, outputs.shape[1])
    targets = as_tensor(module, y, "y")
    if len(data) != len(targets) or len(data) == 0:
        raise ValueError(
            f"x holds {len(data)} samples, y {len(targets)} targets: as many of both, at least one"
        )
    return data, targets


def _check_callbacks(callbacks: Any) -> None:
    if callable(callbacks):
        raise TypeError("callbacks must be a sequence of functions: put the one into brackets")
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks must be a sequence of functions, not {callbacks!r:.60}")


def _check(lr: float, steps: int, batch_size: int | None, n: int, seed: int) -> None:
    positive("lr", lr)
    check_count("steps", steps, 0)
    check_count("seed", seed, 0)
    if batch_size is not None and not (isinstance(batch_size, Integral) and 1 <= batch_size <= n):
        raise ValueError(
            f"batch_size must lie between 1 and the {n} samples there are, not {batch_size!r}"
        )


def _optimizer(
    module: Module, given: Any, lr: float, base_width: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    name = "sgd" if callable(given) else given
    groups = parameter_groups(module, lr, name, base_width=base_width, weight_decay=weight_decay)
    if not groups:
        raise ValueError("nothing to train: no parameter has requires_grad")
    momentum = check_momentum(momentum)
    if given == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)
    if momentum:
        raise ValueError(
            f"momentum is that of 'sgd', {given if name == given else 'a function'!r} has its own:"
            " leave it 0"
        )
    if callable(given):
        return given(groups)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=lr)


def _looks(every: int | Sequence[int] | None, steps: int) -> set[int]:
    if every is None:
        return {0, steps}
    if isinstance(every, (int, np.integer)):
        if every < 1:
            raise ValueError(f"every must be a positive number of steps, not {every!r}")
        return {*range(0, steps, int(every)), steps}
    check_sequence(every, "every", Integral)
    return {0, steps, *(int(step) for step in every if 0 <= step <= steps)}


def _order(n: int, batch_size: int | None, seed: int) -> Iterator[Any]:
    """Rows of the steps; the last, smaller batch of an epoch is left out."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        if batch_size is None or batch_size == n:
            yield slice(None)
            continue
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % batch_size].split(batch_size)


def _value(criterion: Loss, f: Tensor, y: Tensor) -> Tensor:
    """The loss, one number; ValueError or TypeError in a line where it is none,
    or its function fails.
    """
    try:
        value = criterion(f, y)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, IndexError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"the loss cannot take outputs {tuple(f.shape)} and targets {tuple(y.shape)} of"
            f" {y.dtype}: {reason} (arrays become the module's dtype;"
            " a tensor of integers keeps its own)"
        ) from None
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        what = (
            f"shape {tuple(value.shape)}"
            if isinstance(value, torch.Tensor)
            else type(value).__name__
        )
        raise TypeError(
            f"the loss must give a tensor of one number, the mean over samples, not {what}"
        )
    return value


def _look(
    step: int,
    module: Module,
    x: Tensor,
    y: Tensor,
    criterion: Loss,
    callbacks: Sequence[Callback],
    lr: float,
) -> dict[str, float]:
    with torch.no_grad(), evaluating(module):
        parts = [
            len(y[rows]) * _value(criterion, module(x[rows]), y[rows]).item()
            for rows in batches(len(x), ROWS)
        ]
    loss = sum(parts) / len(x)
    if not math.isfinite(loss):
        raise DivergedError(step, loss, lr)
    record = {"loss": loss}
    for callback in callbacks:
        found = callback(step, module) or {}
        if not isinstance(found, Mapping):
            raise TypeError(
                f"a callback must return None or numbers by name, not {type(found).__name__}"
            )
        record.update({name: float(value) for name, value in found.items()})
    return record


def _history(steps: list[int], records: list[dict[str, float]]) -> History:
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: np.array([record.get(name, math.nan) for record in records]) for name in names}
    return History(np.array(steps), columns.pop("loss"), columns)
