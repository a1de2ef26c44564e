"""Arguments of neural-tangents: their values here, and what to do instead of others."""

from __future__ import annotations

import enum
import operator
from collections.abc import Sequence
from typing import Any

from ntkcore.specs import branches, convolutions, layers, positions
from ntkcore.specs.activations import Activation


class Padding(enum.Enum):
    """Borders of images: cut off, of zeros, or wrapped around."""

    CIRCULAR = "CIRCULAR"
    SAME = "SAME"
    VALID = "VALID"


# What an argument may be, and what to do for other values.
SUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "do_stabilize": ((False, True), "say True or False"),
    "do_clip": ((False, True), "say True or False"),
    "device_count": (
        (-1, 0),
        "name GPUs by backend='cuda' and devices= of ntkcore.kernel, and leave it out",
    ),
    "store_on_device": ((True, False), "say True or False; kernels are NumPy arrays either way"),
}


def check(layer: str, **arguments: Any) -> None:
    """NotImplementedError for a value that is not supported."""
    for name, value in arguments.items():
        allowed, advice = SUPPORTED[name]
        value = tuple(value) if isinstance(value, list) else value
        if not any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed
        ):
            raise NotImplementedError(f"stax.{layer}: {name}={value!r} is not supported: {advice}")


def refuse_masks(call: str, **arguments: Any) -> None:
    """NotImplementedError for masked inputs and graphs."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise NotImplementedError(
            f"{call}: {' and '.join(given)} (masked inputs, graphs) are not supported:"
            " leave them None"
        )


def whole(layer: str, name: str, value: Any) -> int:
    """An argument that counts something; TypeError naming it for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"stax.{layer}: {name} must be a whole number, not {value!r}") from None


def scales(s: Any, standard: bool, layer: str) -> tuple[int, int]:
    """``s`` of a layer in the standard parameterization; (1, 1) elsewhere, where it plays no part.
    ValueError for anything but two positive numbers.
    """
    try:
        before, after = map(operator.index, s)
    except (TypeError, ValueError):
        before, after = 0, 0
    if before < 1 or after < 1:
        raise ValueError(f"stax.{layer}: s must be two positive numbers (before, after), not {s!r}")
    return (before, after) if standard else (1, 1)


def padding_name(padding: Any) -> str:
    """The name of a padding, which may be one of `Padding`."""
    return str(padding.value if isinstance(padding, enum.Enum) else padding)


def letters(given: Sequence[str] | None, rank: int, layer: str) -> tuple[str, str, str]:
    """dimension_numbers of a convolution over ``rank`` axes: those given, or channels last.

    ValueError for letters that do not name the axes;
    NotImplementedError for spatial axes that change places.
    """
    if given is None:
        default = "DHW"[-rank:] if rank > 1 else "H" * rank
        return f"N{default}C", f"{default}IO", f"N{default}C"
    if len(given) != 3 or not all(isinstance(one, str) for one in given):
        raise ValueError(
            f"stax.{layer}: dimension_numbers={given!r} must be the letters of the axes of inputs,"
            " weights and outputs, such as ('NHWC', 'HWIO', 'NHWC')"
        )
    lhs, rhs, out = given
    space = [letter for letter in lhs if letter not in "NC"]
    fits = (
        sorted(lhs) == sorted(out) == sorted(["N", "C", *space])
        and sorted(rhs) == sorted(["I", "O", *space])
        and len(set(space)) == len(space) == rank
    )
    if not fits:
        raise ValueError(
            f"stax.{layer}: dimension_numbers={tuple(given)} must name the axes of inputs, weights"
            f" and outputs, {rank} of them spatial, such as ('NHWC', 'HWIO', 'NHWC')"
        )
    if [letter for letter in out if letter not in "NC"] != space:
        raise NotImplementedError(
            f"stax.{layer}: dimension_numbers={tuple(given)} changes the order of the spatial axes:"
            " give the outputs that of the inputs, and transpose the data instead"
        )
    return lhs, rhs, out


def in_order(given: Any, rhs: str, lhs: str) -> Any:
    """Sizes that stand in the order of the weights' letters in that of the inputs'."""
    if not isinstance(given, (list, tuple)):
        return given
    weights = [letter for letter in rhs if letter not in "IO"]
    if len(given) != len(weights):
        return tuple(given)  # the spec says what is wrong with it
    return tuple(given[weights.index(letter)] for letter in lhs if letter not in "NC")


# Layers through which pixels go one by one: covariances between them do not matter behind these.
PIXEL_BY_PIXEL = (
    Activation,
    branches.FanInSum,
    branches.FanOut,
    convolutions.Convolution,
    convolutions.Flatten,
    layers.Container,
    layers.Dense,
    layers.Identity,
    layers.LayerNorm,
    positions.Index,
)

SHARED = (convolutions.Conv, convolutions.ConvTranspose)


def check_diagonals(
    net: layers.Layer, batch: Any, spatial: Any, error: type[Exception] = NotImplementedError
) -> None:
    """ValueError for values that are none; the error where covariances between pixels are needed,
    but not wanted.
    """
    for name, value in (("diagonal_batch", batch), ("diagonal_spatial", spatial)):
        if value not in (None, True, False):
            raise ValueError(f"kernel_fn: {name} must be None, True or False, not {value!r}")
    inner = list(net.walk())
    pools = [layer for layer in inner if not isinstance(layer, PIXEL_BY_PIXEL)]
    # Weights of their own at every pixel leave nothing between pixels.
    local = any(isinstance(layer, convolutions.ConvLocal) for layer in inner)
    shared = any(isinstance(layer, SHARED) for layer in inner)
    if spatial and pools and (shared or not local):
        raise error(
            f"kernel_fn: diagonal_spatial=True leaves out the covariances between pixels that"
            f" {pools[0]!r} takes means of: leave diagonal_spatial out"
        )
