"""What init_fn and apply_fn do, in PyTorch: weights drawn, a layer's module run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ntkcore.finite import arrays, modules, torch  # an error of its own without PyTorch
from ntkcore.finite.making import Features, Maker
from ntkcore.finite.parameterizations import parameterization_of
from ntkcore.specs.full import FullBuilder
from ntkcore.specs.program import Law
from ntkcore.stax.axes import axes_of

Tree = Any  # a tensor, or a list of them between FanOut and FanInSum


def generator_of(rng: Any) -> torch.Generator:
    """The source of random numbers; TypeError, ValueError for what is none."""
    if isinstance(rng, torch.Generator):
        return rng
    if isinstance(rng, np.random.Generator):
        seed = int(rng.integers(2**63))
    else:
        if not isinstance(rng, np.random.SeedSequence):
            rng = np.random.SeedSequence(_seed(rng))
        seed = int(rng.generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)


def _seed(rng: Any) -> list[int]:
    numbers = np.asarray(rng)
    if numbers.dtype.kind not in "iu" or numbers.size == 0 or (numbers < 0).any():
        raise TypeError(
            "stax: rng must be an int >= 0 (or such numbers, as a key of jax.random), a"
            f" numpy.random.Generator or SeedSequence, or a torch.Generator, not {rng!r}"
        )
    return [int(number) for number in numbers.ravel()]


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The function of an array, or of every array of a list."""
    return [mapped(function, part) for part in tree] if _is_list(tree) else function(tree)


def _is_list(tree: Any) -> bool:
    """Are these branches, and not an array written as lists of numbers?"""
    return isinstance(tree, (list, tuple)) and all(
        hasattr(part, "shape") or _is_list(part) for part in tree
    )


def _is_shape(given: Any) -> bool:
    return all(n is None or isinstance(n, (int, np.integer)) for n in given)


def mapped_shapes(function: Callable[[Any], Any], shapes: Any) -> Tree:
    """The function of a shape, or of every shape of a list; TypeError for anything else."""
    if not isinstance(shapes, (list, tuple)):
        raise TypeError(f"stax: input_shape must be a tuple of sizes, not {shapes!r}")
    return function(shapes) if _is_shape(shapes) else [function(shape) for shape in shapes]


def leaves(tree: Tree) -> list[Any]:
    """All arrays of a list, or the one there is."""
    return [leaf for part in tree for leaf in leaves(part)] if _is_list(tree) else [tree]


def tensors(x: Tree) -> Tree:
    """Arrays to tensors; TypeError for what holds no real numbers."""

    def tensor(array: Any) -> torch.Tensor:
        if not isinstance(array, torch.Tensor):
            array = np.asarray(array)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"stax: inputs must hold real numbers, not dtype {array.dtype}")
            array = torch.tensor(array)
        if array.is_complex():
            raise TypeError(f"stax: inputs must hold real numbers, not dtype {array.dtype}")
        return array if array.is_floating_point() else array.to(torch.get_default_dtype())

    return mapped(tensor, x)


def as_given(result: Tree, x: Tree) -> Tree:
    """Tensors for tensors, NumPy arrays for everything else."""
    if any(isinstance(leaf, torch.Tensor) for leaf in leaves(x)):
        return result
    return mapped(arrays.numpy, result)


def matched(combinator: str, layers: Sequence[Any], given: Any) -> list[tuple[Any, Any]]:
    """Layers and what each of them gets; ValueError for another number."""
    if not isinstance(given, (list, tuple)) or len(given) != len(layers):
        count = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
        raise ValueError(
            f"stax.{combinator}: {len(layers)} layers take a list of as many params, or branches,"
            f" not {count}"
        )
    return list(zip(layers, given, strict=True))


def initialised(part: Any, generator: torch.Generator, input_shape: Any) -> tuple[Any, Any]:
    """init_fn of one layer."""
    x = mapped_shapes(lambda shape: _probe(part, shape), input_shape)
    module = _module(part, mapped(part.inside, x))
    params = part.from_module(_drawn(module, generator), leaves(x)[0].ndim)
    return part.output_shape(input_shape, lambda: part.run(params, x, generator).shape), params


def applied(part: Any, params: Any, x: Tree, rng: Any) -> Tree:
    """apply_fn of one layer, on tensors."""
    inside = mapped(part.inside, x)
    params = [None if p is None else torch.as_tensor(p) for p in params]
    module = _module(part, inside)
    with _seeded(rng):
        out = _call(part.name, module, part.to_module(params), inside)
    if isinstance(out, tuple):
        return [part.outside(one, one.ndim) for one in out]
    return part.outside(out, leaves(x)[0].ndim)


@contextmanager
def _seeded(rng: Any) -> Iterator[None]:
    """torch's own random state, of layers that draw, comes from ``rng``, and is put back."""
    if rng is None:
        yield
        return
    seed = torch.randint(2**62, (1,), generator=generator_of(rng), dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(int(seed))
        yield


def joined(x: list[torch.Tensor], axis: int) -> torch.Tensor:
    """Branches side by side; ValueError where they do not fit."""
    try:
        return torch.cat(x, dim=axis)
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"stax.FanInConcat: the branches do not fit: {error}") from None


def approximate_gelu(x: torch.Tensor) -> torch.Tensor:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return torch.nn.functional.gelu(x, approximate="tanh")


def _probe(part: Any, shape: Any) -> torch.Tensor:
    """An input of the shape with one sample; without memory where that is not known."""
    sizes = [*shape]
    if part.takes != (None, None):
        sizes[axes_of(part.takes, len(sizes), part.name).batch] = 1
    elif sizes:
        sizes = [1 if n in (-1, None) else n for n in sizes]
    if not all(isinstance(n, (int, np.integer)) and n > 0 for n in sizes):
        raise ValueError(
            f"stax.{part.name}: input_shape must hold positive numbers (of samples: any), not"
            f" {shape!r}"
        )
    return torch.zeros(()).expand(sizes)


def _module(part: Any, x: Tree) -> torch.nn.Module:
    """A layer's module for signals (samples, channels, …), its weights not drawn."""
    signal = mapped(_features, x)
    if isinstance(signal, Features):
        _check(part, (*(signal.image or ()), signal.channels))
    abc = parameterization_of(getattr(part.net, "parameterization", "ntk"))
    made = Maker(1, abc).make(part.finite, tuple(signal) if isinstance(x, list) else signal)
    return made[0]


def _features(x: torch.Tensor) -> Features:
    return Features(x.shape[1] if x.ndim > 1 else 1, tuple(x.shape[2:]) or None, raw=False)


def _check(part: Any, shape: tuple[int, ...]) -> None:
    """The spec's own errors for samples of this shape, of a layer that looks at their axes."""
    if part.takes != (None, None):
        builder = FullBuilder(shape, wants_ntk=False)
        part.net.lower(builder, replace(builder.input, law=Law.GAUSSIAN))


def _drawn(module: torch.nn.Module, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """The module's parameters, drawn anew where the generator is."""
    found = []
    for name, parameter in module.named_parameters():
        layer = module.get_submodule(name.rpartition(".")[0])
        assert isinstance(layer, modules.Affine)
        std = layer.bias_std if name.endswith("bias") else layer.std
        values = torch.randn(
            parameter.shape, generator=generator, dtype=torch.float64, device=generator.device
        )
        found.append((std * values).to(torch.get_default_dtype()))
    return tuple(found)


def _moved(buffer: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return buffer.to(like if buffer.is_floating_point() else like.device)


def _call(layer: str, module: torch.nn.Module, values: Sequence[torch.Tensor], x: Tree) -> Any:
    """The module with these parameters on x, taken in their dtype, on their device.

    ValueError for parameters of other shapes, and where x does not fit the layer.
    """
    own = dict(module.named_parameters())
    for (name, parameter), value in zip(own.items(), values, strict=True):
        if value.shape != parameter.shape:
            raise ValueError(
                f"stax.{layer}: params are of another input: {name} has shape"
                f" {tuple(value.shape)} as (outputs, inputs, …), this input needs"
                f" {tuple(parameter.shape)}"
            )
    if values:
        x = mapped(lambda t: t.to(values[0]), x)
    like = leaves(x)[0]
    named = {name: _moved(buffer, like) for name, buffer in module.named_buffers()}
    named |= zip(own, values, strict=True)
    try:
        return torch.func.functional_call(module, named, (tuple(x) if isinstance(x, list) else x,))
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in leaves(x))
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"stax.{layer}: inputs (samples, channels, …) of shape {shapes} do not fit: {reason}"
        ) from None


def normal(shape: Any, generator: torch.Generator) -> torch.Tensor | None:
    """Standard normal numbers; None of no shape."""
    if shape is None:
        return None
    drawn = torch.randn(*shape, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.to(torch.get_default_dtype())


def params_of(layer: str, params: Any, count: int) -> list[torch.Tensor | None]:
    """Tensors, or None; ValueError for another number."""
    if not isinstance(params, (list, tuple)) or len(params) != count:
        raise ValueError(f"stax.{layer}: params must be {count} arrays or None, as of its init_fn")
    return [None if p is None else torch.as_tensor(p) for p in params]


def by_heads(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """(n, positions, in) by (heads, in, out): (heads, n, positions, out)."""
    return torch.einsum("npi,hio->hnpo", x, matrices)


def beside(x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """Channels of every sample, and then the same ones for all."""
    return torch.cat([x, added.expand(len(x), -1, -1)], -1)
