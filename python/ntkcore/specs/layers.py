"""Network specs: frozen dataclasses that print readably,
round-trip through JSON and become programs.

Every layer follows neural-tangents' normalisation (`docs/mathematics.md`; Lee et al. 2019, Novak
et al. 2020): for a layer's input with covariance K and tangent kernel T, in the NTK
parameterization,

    Dense:         K <- W_std^2 K + b_std^2,   T <- K_new + W_std^2 T
    nonlinearity:  K <- E[phi(z) phi(z')],     T <- E[phi'(z) phi'(z')] T,
                   (z, z') ~ N(0, [[q, K], [K, q']])

and the input covariance is <x, x'>/d. ReLU carries no hidden factor 2:
use ``W_std=2**0.5`` for He scaling.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, fields
from numbers import Integral, Real
from typing import Any

from ntkcore.specs.program import Builder, Law, Value

Signal = Value | tuple[Value, ...]

LAYERS: dict[str, type[Layer]] = {}
QUIET = {"quiet": True}  # metadata of a field that JSON leaves out at its default


@dataclass(frozen=True, repr=False)
class Layer:
    """Base of all layers. Equality, hashing and pickling are those of the fields."""

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            LAYERS[cls.__name__] = cls

    def lower(self, builder: Builder, value: Signal) -> Signal:
        """Append this layer's ops to the program;
        ValueError naming the layer where it does not fit.
        """
        raise NotImplementedError

    @property
    def nonlinear(self) -> bool:
        """Does it hold a nonlinearity: the end of a stage for ``depths=``."""
        return any(layer.nonlinear for layer in self._inner())

    @property
    def tabulated(self) -> bool:
        """Does it hold an activation whose program depends on the variances of the data?"""
        return any(layer.tabulated for layer in self._inner())

    def _inner(self) -> Iterator[Layer]:
        for field in fields(self):
            held = getattr(self, field.name)
            yield from (
                part
                for part in (held if isinstance(held, tuple) else (held,))
                if isinstance(part, Layer)
            )

    def walk(self) -> Iterator[Layer]:
        """The layer, and all that it holds."""
        yield self
        for layer in self._inner():
            yield from layer.walk()

    def __repr__(self) -> str:
        shown = [f"{f.name}={_text(getattr(self, f.name))}" for f in fields(self) if self._shown(f)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _shown(self, field: Field[Any]) -> bool:
        """Does the spelling name this field?"""
        return bool(getattr(self, field.name) != field.default)

    def __str__(self) -> str:
        return "\n".join(self._tree(0))

    def _tree(self, indent: int) -> list[str]:
        return [" " * indent + repr(self)]

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain values: {"layer": name, field: value, …}."""
        return {
            "layer": type(self).__name__,
            **{
                f.name: _plain(getattr(self, f.name))
                for f in fields(self)
                if self._shown(f) or f.metadata != QUIET
            },
        }

    def to_json(self) -> str:
        """The spec as JSON text; `from_json` gives an equal spec back."""
        return json.dumps(self.to_dict())


def _text(value: Any) -> str:
    """As a spelling shows it: constants of many numbers are cut short."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, Layer):
        return value.to_dict()
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


MOST_SHOWN = 200  # letters of a field
LARGEST = 1e150  # its square is finite


def check_number(layer: Layer, name: str, *, minimum: float = -LARGEST) -> None:
    """A field as a plain, finite number; NumPy's scalars become Python's."""
    value = check_value(layer, name, getattr(layer, name), minimum=minimum)
    object.__setattr__(layer, name, value)


def is_whole(value: Any) -> bool:
    """An int, NumPy's too, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_flag(layer: Layer, name: str) -> None:
    """A field that is True or False."""
    if type(getattr(layer, name)) is not bool:
        raise TypeError(f"{type(layer).__name__}: {name} must be True or False")


def check_value(layer: Layer, name: str, value: Any, *, minimum: float = -LARGEST) -> float:
    """``value`` as a plain, finite number, or the error of the field ``name``."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of JAX, torch
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{type(layer).__name__}: {name} must be a number, not {value!r}")
    number = value if isinstance(value, int) else float(value)
    if not minimum <= number <= LARGEST:
        bound = f" and at least {minimum:g}" if minimum > -LARGEST else ""
        raise ValueError(
            f"{type(layer).__name__}: {name} must be finite{bound}, and no larger than {LARGEST:g},"
            f" not {number!r:.50}"
        )
    return number


def single(layer: Layer, builder: Builder, value: Signal) -> Value:
    """The signal of a layer that takes one; ValueError naming the layer for branches."""
    if isinstance(value, tuple):
        raise builder.error(
            layer,
            f"got {len(value)} branches, takes one signal: put FanInSum(), FanInProd() or"
            " FanInConcat() before it",
        )
    return value


class Container(Layer, abstract=True):
    """A layer made of layers, given one by one."""

    @classmethod
    def _from_fields(cls, arguments: dict[str, Any]) -> Container:
        raise NotImplementedError

    def _set(self, name: str, layers: Sequence[Layer]) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"{type(self).__name__}: takes layers such as Dense() and Relu(), not {layer!r}"
                )
        object.__setattr__(self, name, tuple(layers))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._inner()))})"

    def _tree(self, indent: int) -> list[str]:
        inner = [line for layer in self._inner() for line in layer._tree(indent + 2)]
        return [" " * indent + type(self).__name__, *inner]


@dataclass(frozen=True, repr=False)
class Dense(Layer):
    """Fully connected layer; acts on the last axis' features.

    Parameters
    ----------
    W_std : float, default=1
        Standard deviation of the weights.
    b_std : float, optional
        That of the biases; None: no biases.
    parameterization : {"ntk", "standard"}, default="ntk"
        "ntk": weights scaled by 1/sqrt(width); "standard": T <- n_in K + W_std^2 T + 1[bias], with
        n_in the width that the layer before declared.
    width : int, optional
        Number of units; only needed by a following layer in "standard".

    Raises
    ------
    TypeError, ValueError
        For values that are no finite numbers >= 0.

    Examples
    --------
    >>> from ntkcore import Dense, kernel
    >>> kernel(Dense(2.0, 0.5), [[1.0, 3.0]])
    array([[20.25]])
    """

    W_std: float = 1.0
    b_std: float | None = None
    parameterization: str = "ntk"
    width: int | None = None

    def __post_init__(self) -> None:
        check_number(self, "W_std", minimum=0)
        if self.b_std is not None:
            check_number(self, "b_std", minimum=0)
        if self.parameterization not in ("ntk", "standard"):
            raise ValueError(
                "Dense: parameterization must be 'ntk' or 'standard', not"
                f" {self.parameterization!r}"
            )
        if self.width is not None:
            if (
                isinstance(self.width, bool)
                or not isinstance(self.width, Integral)
                or self.width < 1
            ):
                raise ValueError(
                    f"Dense: width must be a positive number of units, not {self.width!r}"
                )
            object.__setattr__(self, "width", int(self.width))

    def coefficients(
        self, layer: Layer, builder: Builder, value: Value
    ) -> tuple[float, float, float, float]:
        """(a, b, e, f) of K <- a K + b, T <- a T + e K + f."""
        a, b = self.W_std**2, (self.b_std or 0.0) ** 2
        if self.parameterization == "ntk":
            return a, b, a, b
        if value.width is None:
            raise builder.error(
                layer,
                "the standard parameterization needs its input's width:"
                " give the layer before width=…",
            )
        return a, b, value.width, 0.0 if self.b_std is None else 1.0

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = single(self, builder, value)
        return builder.affine(value, *self.coefficients(self, builder, value), width=self.width)


@dataclass(frozen=True, repr=False)
class Identity(Layer):
    """Does nothing: the shortcut of a residual block."""

    def lower(self, builder: Builder, value: Signal) -> Signal:
        return value


@dataclass(frozen=True, repr=False, init=False)
class Serial(Container):
    """Layers one after another: ``Serial(Dense(1.5, 0.1), Relu(), Dense())``.

    Without layers it is the identity, which has no parameters: its NNGP is the inputs' own kernel,
    its NTK 0.
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        self._set("layers", layers)

    @classmethod
    def _from_fields(cls, arguments: dict[str, Any]) -> Serial:
        return cls(*arguments["layers"])

    def lower(self, builder: Builder, value: Signal) -> Signal:
        for number, layer in enumerate(self.layers):
            builder.path.append(str(number))
            value = layer.lower(builder, value)
            builder.path.pop()
        return value


@dataclass(frozen=True, repr=False)
class LayerNorm(Layer):
    """Normalises the features of every sample: K, T <- K, T / sqrt((q + eps)(q' + eps))
    (Ba et al. 2016).

    In a network of infinite width the mean over features vanishes,
    so only the variance is divided out.

    Parameters
    ----------
    eps : float, default=1e-12
        Added to the variance.
    axis : int or tuple of int, default=-1
        What is normalised over: the features, or channels, and of (samples, positions…, channels)
        also any axes of positions: q is the mean over them then.

    Examples
    --------
    >>> from ntkcore import LayerNorm
    >>> LayerNorm(axis=(1, 2, 3))
    LayerNorm(axis=(1, 2, 3))
    """

    eps: float = 1e-12
    axis: int | tuple[int, ...] = -1

    def __post_init__(self) -> None:
        check_number(self, "eps", minimum=0)
        axes = self.axis if isinstance(self.axis, (tuple, list)) else (self.axis,)
        if not axes or not all(map(is_whole, axes)):
            raise TypeError(
                f"LayerNorm: axis must be a number or several, those of axes, not {self.axis!r}"
            )
        object.__setattr__(self, "axis", int(axes[0]) if len(axes) == 1 else tuple(map(int, axes)))

    def axes(self, rank: int) -> set[int]:
        """The axes of data of this rank; ValueError for others, and without that of channels."""
        given = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        found = {a % rank if -rank <= a < rank else a for a in given}
        if len(found) < len(given):
            raise ValueError(f"axis={self.axis!r} names an axis twice, of data with {rank} axes")
        if not found <= set(range(1, rank)) or rank - 1 not in found:
            raise ValueError(
                f"axis={self.axis!r} of data with {rank} axes: it takes features or channels, axis"
                f" {rank - 1}, without which there is no infinite limit, and axes of positions"
                " (of images rows and columns, 1 and 2); samples (axis 0) stay apart"
            )
        return found

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = single(self, builder, value)
        try:
            axes = self.axes(len(value.shape) + 1)
        except ValueError as error:
            raise builder.error(self, str(error)) from None
        if value.law is Law.OTHER:
            raise builder.error(
                self, "needs a Gaussian input: put an affine layer (Dense) before it"
            )
        over = tuple(axis in axes for axis in range(1, len(value.shape)))
        return builder.normalize(value, self.eps, over)


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """Keeps every feature with probability ``rate``, and divides it by that
    (Srivastava et al. 2014).

    Every sample, and every pixel of an image, has a mask of its own: only the kernels of a sample
    with itself, pixel by pixel, change, q, T <- q/rate, T/rate. They are the diagonal of
    ``kernel(net, x)``, of `kernel_diag`, of stores and of operators of one data set.
    ``kernel(net, x1, x2)`` of two data sets has none, even where they hold the same samples: what a
    network predicts at a training sample once more has a mask of its own. The result is not
    Gaussian: an affine layer comes before the next nonlinearity.

    Parameters
    ----------
    rate : float
        The probability to keep a feature, as in neural-tangents: above 0, at most 1.
    mode : {"train", "test"}, default="train"
        "test": nothing is dropped.

    Examples
    --------
    >>> import ntkcore as nk
    >>> net = nk.Serial(nk.Dense(), nk.Relu(), nk.Dropout(0.5), nk.Dense())
    >>> nk.kernel(net, [[1.0, 0.0], [1.0, 0.0]], get="nngp")
    array([[0.5 , 0.25],
           [0.25, 0.5 ]])
    """

    rate: float
    mode: str = "train"

    def __post_init__(self) -> None:
        check_number(self, "rate")
        if not 0 < self.rate <= 1:
            raise ValueError(
                "Dropout: rate, the probability to keep a feature, must be above 0 and at most 1,"
                f" not {self.rate!r}"
            )
        if self.mode not in ("train", "test"):
            raise ValueError(f"Dropout: mode must be 'train' or 'test', not {self.mode!r}")

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = single(self, builder, value)
        if self.mode == "test" or self.rate == 1:
            return value
        if value.sources == {0}:
            raise builder.error(
                self,
                "its input is the data, whose features are finitely many: their sum with a mask"
                " stays random. Put an affine layer (Dense, Conv) before it",
            )
        return builder.dropout(value, self.rate)
