"""Layers made of layers, and the triple that each of them is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ntkcore.specs import activations, branches
from ntkcore.specs import layers as specs
from ntkcore.stax import parts
from ntkcore.stax.kernel_fn import KernelFn
from ntkcore.stax.support import check, whole

MOST_LAYERS = 100_000


class Layer(NamedTuple):
    """The triple of neural-tangents: `init_fn(rng, input_shape)`, `apply_fn(params, inputs)` of
    the finite layer, `kernel_fn(x1, x2, get)` of the infinite one.
    """

    init_fn: Callable[..., Any]
    apply_fn: Callable[..., Any]
    kernel_fn: KernelFn


def triple(part: parts.Part) -> Layer:
    """The three functions of a layer."""
    return Layer(part.init_fn, part.apply_fn, KernelFn(part))


# Layers that look for neither samples nor channels, beside nonlinearities, by name.
ANYWHERE = {"Identity", "Dropout"}
FANS = {"FanOut", "FanInSum", "FanInProd", "FanInConcat"}


def layer_of(net: specs.Layer) -> Layer:
    """The layer of a spec, samples first and channels last where it looks for them."""
    name = type(net).__name__
    if name in FANS:
        return triple((parts.Concat if name == "FanInConcat" else parts.Fan)(net))
    anywhere = isinstance(net, activations.Activation) or name in ANYWHERE
    return triple((parts.Part if anywhere else parts.Placed)(net))


def _checked(layer: Layer, combinator: str) -> Layer:
    kernel_fn = layer[2] if isinstance(layer, tuple) and len(layer) == 3 else None
    if not isinstance(kernel_fn, KernelFn):
        raise TypeError(
            f"stax.{combinator} takes layers such as stax.Relu() (called:"
            f" mind the brackets), not {layer!r}"
        )
    return layer


def serial(*layers: Layer) -> Layer:
    """Layers one after another. ValueError without any."""
    if not layers:
        raise ValueError("stax.serial needs at least one layer")
    return _series([_checked(layer, "serial") for layer in layers])


def _series(inner: list[Layer]) -> Layer:
    return triple(
        parts.Series(specs.Serial(*(layer.kernel_fn.net for layer in inner)), tuple(inner))
    )


def parallel(*layers: Layer) -> Layer:
    """One layer for every branch of `FanOut`."""
    inner = tuple(_checked(layer, "parallel") for layer in layers)
    return triple(parts.Branches(branches.Parallel(*(layer[2].net for layer in inner)), inner))


def repeat(layer: Layer, n: int) -> Layer:
    """The layer ``n`` times, one after another; 0 times: the identity. Each has parameters of its
    own, in a list. ValueError for a negative ``n``.
    """
    if not 0 <= whole("repeat", "n", n) <= MOST_LAYERS:
        raise ValueError(
            f"stax.repeat: n must be a number of times from 0 to {MOST_LAYERS}, not {n!r}"
        )
    return _series([_checked(layer, "repeat")] * n)


def batch(
    kernel_fn: KernelFn, batch_size: int = 0, device_count: int = -1, store_on_device: bool = True
) -> KernelFn:
    """The same ``kernel_fn``: any number of samples goes,
    because `ntkcore.kernel` always works tile by tile.

    ``batch_size``: a number of samples, which bounds memory in neural-tangents; tiles do here,
    whatever it is. ``device_count``: -1 or 0. TypeError for anything but a ``kernel_fn`` of this
    module, ValueError for a negative size, NotImplementedError for a number of devices.
    """
    check("batch", device_count=device_count, store_on_device=store_on_device)
    if whole("batch", "batch_size", batch_size) < 0:
        raise ValueError(
            f"stax.batch: batch_size must be a number of samples, 0 or more, not {batch_size!r}"
        )
    if not isinstance(kernel_fn, KernelFn):
        raise TypeError(
            "stax.batch takes a kernel_fn, the last of a layer's three, not"
            f" {type(kernel_fn).__name__}"
        )
    return kernel_fn
