"""One layer as its three functions need it: its spec, and the axes and weights as it wants them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ntkcore.specs import layers as specs
from ntkcore.specs.branches import FanInConcat, FanOut
from ntkcore.stax.axes import Axes, Wanted, axes_of
from ntkcore.stax.support import refuse_masks

Tree = Any  # a tensor, or a list of them between FanOut and FanInSum


@dataclass(frozen=True)
class Part:
    """A layer that acts wherever samples and channels lie: a nonlinearity, a sum of branches."""

    net: specs.Layer

    @property
    def name(self) -> str:
        """As neural-tangents spells it."""
        return type(self.net).__name__

    @property
    def takes(self) -> Wanted:
        """The axes on which it looks for samples and channels."""
        return None, None

    def after(self, axes: Any) -> Any:
        """The axes that it leaves; ValueError where it looks for others than it gets."""
        return axes

    def picked(self, samples: Any) -> Any:
        """Those of an array of samples that it keeps."""
        return samples

    def init_fn(self, rng: Any, input_shape: Any) -> tuple[Any, Any]:
        """(output_shape, params) of a finite layer with weights drawn by ``rng``.

        ``rng``: an int, ints (as in a key of jax.random), a numpy.random.Generator or SeedSequence,
        or a torch.Generator, on whose device the weights then lie. ``input_shape``: of a whole
        batch, the number of samples being anything, -1 too; a list of shapes for branches.
        ``params``: torch tensors of torch's default dtype: (W, b) of an affine layer, () of others,
        a list of their layers' of `serial` and `parallel`. ImportError without PyTorch.
        """
        from ntkcore.stax import networks

        return networks.initialised(self, networks.generator_of(rng), input_shape)

    def apply_fn(
        self,
        params: Any,
        inputs: Any,
        *,
        rng: Any = None,
        mask_constant: None = None,
        pattern: None = None,
    ) -> Any:
        """The layer's outputs for a batch with the parameters ``params``.

        ``inputs``: an array, of branches a list of them. torch tensors give tensors, through which
        derivatives run; everything else becomes NumPy and gives NumPy. Both are taken in the
        params' dtype, on their device. ``rng``: as of init_fn, for layers that draw when they are
        applied. ValueError for params of another input shape; NotImplementedError for
        ``mask_constant`` and ``pattern``; ImportError without PyTorch.
        """
        from ntkcore.stax import networks

        refuse_masks("apply_fn", mask_constant=mask_constant, pattern=pattern)
        x = networks.tensors(inputs)
        return networks.as_given(self.run(params, x, rng), inputs)

    def run(self, params: Any, x: Tree, rng: Any) -> Tree:
        """`apply_fn` of tensors."""
        from ntkcore.stax import networks

        return networks.applied(self, params, x, rng)

    # What `networks` asks of a layer.

    @property
    def finite(self) -> specs.Layer:
        """The spec of the finite layer."""
        return self.net

    def output_shape(self, input_shape: Any, run: Callable[[], Any]) -> Any:
        """From that of the inputs; ``run`` gives that of the outputs of one sample."""
        return tuple(input_shape)

    def inside(self, x: Any) -> Any:
        """A tensor as the modules take it."""
        return x

    def outside(self, out: Any, ndim: int) -> Any:
        """What a module makes of it as this layer gives it."""
        return out

    def to_module(self, params: Any) -> tuple[Any, ...]:
        """The module's parameters in its order."""
        return tuple(params)

    def from_module(self, params: tuple[Any, ...], ndim: int) -> Any:
        """And back."""
        return params


@dataclass(frozen=True)
class ApproximateGelu(Part):
    """The finite layer takes a tanh for the normal distribution; the kernel is exact."""

    def run(self, params: Any, x: Tree, rng: Any) -> Tree:
        from ntkcore.stax import networks

        return networks.approximate_gelu(x)


@dataclass(frozen=True)
class Fan(Part):
    """From one signal to many, or back: `FanOut`, or a sum of branches."""

    def after(self, axes: Any) -> Any:
        if isinstance(self.net, FanOut):
            return (axes,) * self.net.num
        if not isinstance(axes, tuple):
            return axes  # the spec has an error of its own for one signal
        if len(set(axes)) > 1:
            raise ValueError(
                f"stax.{self.name}: the branches leave samples and channels on different axes, or"
                f" with another s: {', '.join(map(str, axes))}"
            )
        return axes[0]

    def output_shape(self, input_shape: Any, run: Callable[[], Any]) -> Any:
        if isinstance(self.net, FanOut):
            return [tuple(input_shape)] * self.net.num
        return tuple(input_shape[0])


@dataclass(frozen=True)
class Concat(Fan):
    """Branches side by side along an axis of whole batches, which must mean what the spec's does,
    of channels last.
    """

    def after(self, axes: Any) -> Any:
        axes = super().after(axes)
        if isinstance(axes, Axes) and (axes.batch, axes.channel) != (0, axes.ndim - 1):
            raise NotImplementedError(
                f"stax.FanInConcat: the branches have samples on axis {axes.batch} and channels on"
                f" axis {axes.channel} of {axes.ndim}: put samples first and channels last before"
            )
        return axes

    def output_shape(self, input_shape: Any, run: Callable[[], Any]) -> Any:
        shape, axis = list(input_shape[0]), cast(FanInConcat, self.net).axis
        shape[axis] = sum(part[axis] for part in input_shape)
        return tuple(shape)

    def run(self, params: Any, x: Tree, rng: Any) -> Tree:
        from ntkcore.stax import networks

        return networks.joined(x, cast(FanInConcat, self.net).axis)


@dataclass(frozen=True)
class Placed(Part):
    """A layer that wants samples and channels on its own axes, and leaves them there."""

    batch_axis: int = 0
    channel_axis: int | None = -1

    @property
    def takes(self) -> Wanted:
        return self.batch_axis, self.channel_axis

    def after(self, axes: Any) -> Any:
        for one in axes if isinstance(axes, tuple) else (axes,):  # of branches that it joins
            one.check(self.name, self.takes)
        return self.left(axes[0] if isinstance(axes, tuple) else axes)

    def left(self, axes: Axes) -> Axes:
        """The axes after it."""
        return axes

    def output_shape(self, input_shape: Any, run: Callable[[], Any]) -> Any:
        first = input_shape[0] if isinstance(input_shape[0], (list, tuple)) else input_shape
        out = list(run())
        out[self.left(axes_of(self.takes, len(first), self.name)).batch] = first[self.batch_axis]
        return tuple(out)

    def inside(self, x: Any) -> Any:
        axes = axes_of(self.takes, x.ndim, self.name)
        return x.movedim((axes.batch, axes.channel), (0, 1))

    def outside(self, out: Any, ndim: int) -> Any:
        axes = self.left(axes_of(self.takes, ndim, self.name))
        return out.movedim((0, 1), (axes.batch, axes.channel))


@dataclass(frozen=True)
class GlobalPool(Placed):
    """Samples and channels keep their order."""

    def left(self, axes: Axes) -> Axes:
        return axes.to_vectors(int(axes.batch > axes.channel))


@dataclass(frozen=True)
class Flat(Placed):
    """All axes but that of the samples become one, in their order."""

    channel_axis: int | None = None
    batch_axis_out: int = 0

    def left(self, axes: Axes) -> Axes:
        return axes.to_vectors(self.batch_axis_out)

    def inside(self, x: Any) -> Any:
        return x

    def run(self, params: Any, x: Tree, rng: Any) -> Tree:
        out = x.movedim(self.batch_axis, 0).flatten(1)
        return out.T if self.batch_axis_out else out


@dataclass(frozen=True)
class Affine(Placed):
    """A layer with weights: ``order`` names the axes of W, I those of the inputs, O of the outputs,
    ``space`` the spatial axes of the inputs; ``s``: how often wider than declared the layers
    before and after are.
    """

    order: str = "IO"
    space: str = ""
    s: tuple[int, int] = (1, 1)
    gives: tuple[int, int] | None = None  # axes of samples and channels after it

    @property
    def finite(self) -> specs.Layer:
        field = "width" if isinstance(self.net, specs.Dense) else "channels"
        return replace(self.net, **{field: getattr(self.net, field) * self.s[1]})

    def after(self, axes: Any) -> Any:
        if axes.scale != self.s[0]:
            raise ValueError(
                f"stax.{self.name}: s={self.s}, but the layer before has s[1] = {axes.scale} (data:"
                " 1): s[0] must be the same"
            )
        return super().after(axes)

    def left(self, axes: Axes) -> Axes:
        batch, channel = self.gives or (axes.batch, axes.channel)
        return replace(axes, batch=batch, channel=channel, scale=self.s[1])

    def to_module(self, params: Any) -> tuple[Any, ...]:
        W, b = params
        W = W.permute(*map(self.order.index, self._inside_order())) / math.sqrt(self.s[0])
        return (W,) if b is None else (W, b.reshape(-1))

    def from_module(self, params: tuple[Any, ...], ndim: int) -> Any:
        W, *b = params
        W = W.permute(*map(self._inside_order().index, self.order)) * math.sqrt(self.s[0])
        if not b:
            return W, None
        shape = [1] * ndim
        shape[self.left(axes_of(self.takes, ndim, self.name)).channel] = -1
        return W, b[0].reshape(shape)

    def _inside_order(self) -> str:
        return "OI" + self.space


@dataclass(frozen=True)
class AffineLocal(Affine):
    """Weights of every output's own, (out, in, …, positions), biases (out, positions)."""

    def to_module(self, params: Any) -> tuple[Any, ...]:
        W, b = params
        W = W / math.sqrt(self.s[0])
        return (W,) if b is None else (W, b)

    def from_module(self, params: tuple[Any, ...], ndim: int) -> Any:
        W, *b = params
        return W * math.sqrt(self.s[0]), b[0] if b else None


@dataclass(frozen=True)
class Series(Part):
    """Layers one after another; ``layers``: their triples."""

    layers: tuple[Any, ...] = ()

    @property
    def takes(self) -> Wanted:
        wanted = (layer[2].part.takes for layer in self.layers)
        return next((axes for axes in wanted if axes != (None, None)), (None, None))

    def after(self, axes: Any) -> Any:
        for layer in self.layers:
            axes = layer[2].part.after(axes)
        return axes

    def picked(self, samples: Any) -> Any:
        for layer in self.layers:
            samples = layer[2].part.picked(samples)
        return samples

    def init_fn(self, rng: Any, input_shape: Any) -> tuple[Any, list[Any]]:
        """(output_shape, params) of all layers, see `Part.init_fn`."""
        from ntkcore.stax import networks

        rng, params = networks.generator_of(rng), []
        for init_fn, _, _ in self.layers:
            input_shape, own = init_fn(rng, input_shape)
            params.append(own)
        return input_shape, params

    def run(self, params: Any, x: Tree, rng: Any) -> Tree:
        from ntkcore.stax import networks

        rng = None if rng is None else networks.generator_of(rng)
        for (_, apply_fn, _), own in networks.matched("serial", self.layers, params):
            x = apply_fn(own, x, rng=rng)
        return x


@dataclass(frozen=True)
class Branches(Part):
    """One layer for every branch."""

    layers: tuple[Any, ...] = ()

    takes = Series.takes

    def after(self, axes: Any) -> Any:
        return tuple(layer[2].part.after(one) for layer, one in zip(self.layers, axes, strict=True))

    def picked(self, samples: Any) -> Any:
        kept = [layer[2].part.picked(samples) for layer in self.layers]
        if any(not np.array_equal(one, kept[0]) for one in kept):
            raise NotImplementedError("stax.parallel: branches must keep the same samples")
        return kept[0] if kept else samples

    def init_fn(self, rng: Any, input_shape: Any) -> tuple[Any, list[Any]]:
        """(output shapes, params) of all branches, see `Part.init_fn`."""
        from ntkcore.stax import networks

        rng = networks.generator_of(rng)
        made = [
            init_fn(rng, shape)
            for (init_fn, _, _), shape in networks.matched("parallel", self.layers, input_shape)
        ]
        return [shape for shape, _ in made], [params for _, params in made]

    def run(self, params: Any, x: Tree, rng: Any) -> Tree:
        from ntkcore.stax import networks

        rng = None if rng is None else networks.generator_of(rng)
        pairs = networks.matched("parallel", self.layers, params)
        return [
            apply_fn(own, part, rng=rng)
            for ((_, apply_fn, _), own), part in networks.matched("parallel", pairs, x)
        ]
