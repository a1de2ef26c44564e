"""The standard deviations of a network's dense layers: listed, and replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.specs.layers import Container, Dense, Layer

NAMES = ("W_std", "b_std")


@dataclass(frozen=True)
class Parameter:
    """One standard deviation of a network: ``layer`` says where ("0", "2.branch.1"),
    ``name`` is W_std or b_std.
    """

    layer: str
    name: str
    value: float


def dense_layers(net: Layer, path: str = "") -> Iterator[tuple[str, Dense]]:
    """All dense layers with their places, in the order in which the engine meets them."""
    if isinstance(net, Dense):
        yield path or "0", net
    for field in reversed(fields(net)):  # a residual block's shortcut comes before its branch
        held = getattr(net, field.name)
        inner = f"{path}." if path else ""
        if isinstance(held, Layer):
            yield from dense_layers(held, f"{inner}{field.name}")
        elif isinstance(net, Container):
            label = "branch." if field.name == "branch" else ""
            for number, layer in enumerate(held):
                yield from dense_layers(layer, f"{inner}{label}{number}")


def names_of(dense: Dense) -> list[str]:
    """Which of W_std and b_std it has."""
    return [name for name in NAMES if getattr(dense, name) is not None]


def parameters(net: Layer) -> tuple[Parameter, ...]:
    """Every W_std and b_std of the dense layers of ``net``, layer by layer;
    a b_std of None is none.

    The order is that of the last axis of `kernel_gradient` and of the values of `with_parameters`.
    """
    if not isinstance(net, Layer):
        raise TypeError(
            f"net must be a network spec such as Serial(Dense(), Relu(), Dense()), not {net!r:.80}"
        )
    return tuple(
        Parameter(place, name, float(getattr(dense, name)))
        for place, dense in dense_layers(net)
        for name in names_of(dense)
    )


def with_parameters(net: Layer, values: Sequence[float] | npt.NDArray[np.float64]) -> Layer:
    """A network with other values of its `parameters`, in their order.

    Parameters
    ----------
    net : Layer
    values : sequence of float
        As many as `parameters` gives.

    Returns
    -------
    Layer

    Raises
    ------
    ValueError
        For another number of values.

    Examples
    --------
    >>> from ntkcore import mlp
    >>> from ntkcore.gradients import with_parameters
    >>> with_parameters(mlp(1), [1.0, 2.0])
    Serial(Dense(), Relu(), Dense(W_std=2.0))
    """
    count = len(parameters(net))
    if len(values) != count:
        raise ValueError(
            f"the network has {count} parameters, not {len(values)}: see"
            " ntkcore.gradients.parameters(net)"
        )
    given = iter(values)

    def changed(layer: Any) -> Any:
        if isinstance(layer, tuple):
            return tuple(map(changed, layer))
        if isinstance(layer, Dense):
            moved: dict[str, Any] = {name: float(next(given)) for name in names_of(layer)}
            return replace(layer, **moved)
        if isinstance(layer, Container):
            return type(layer)._from_fields(
                {
                    field.name: changed(getattr(layer, field.name))
                    for field in reversed(fields(layer))
                }
            )
        return layer

    return cast(Layer, changed(net))
