"""Network specs: frozen dataclasses that print readably, round-trip through JSON and become programs.

Every layer follows neural-tangents' normalisation (`MATH.md` of the project; Lee et al. 2019, Novak et al. 2020): for a
layer's input with covariance K and tangent kernel T, in the NTK parameterization,

    Dense:         K <- W_std^2 K + b_std^2,   T <- K_new + W_std^2 T
    nonlinearity:  K <- E[phi(z) phi(z')],     T <- E[phi'(z) phi'(z')] T,   (z, z') ~ N(0, [[q, K], [K, q']])

and the input covariance is <x, x'>/d. ReLU carries no hidden factor 2: use ``W_std=2**0.5`` for He scaling.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar

from ntkcore.program import Builder, Law, Value

Signal = Value | tuple[Value, ...]

LAYERS: dict[str, type[Layer]] = {}
ACTIVATIONS: dict[str, type[Activation]] = {}


@dataclass(frozen=True, repr=False)
class Layer:
    """Base of all layers. Equality, hashing and pickling are those of the fields."""

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            LAYERS[cls.__name__] = cls

    def lower(self, builder: Builder, value: Signal) -> Signal:
        """Append this layer's ops to the program; ValueError naming the layer where it does not fit."""
        raise NotImplementedError

    @property
    def nonlinear(self) -> bool:
        """Does it hold a nonlinearity: the end of a stage for ``depths=``."""
        return any(layer.nonlinear for layer in self._inner())

    def _inner(self) -> Iterator[Layer]:
        for field in fields(self):
            held = getattr(self, field.name)
            yield from (part for part in (held if isinstance(held, tuple) else (held,)) if isinstance(part, Layer))

    def __repr__(self) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __str__(self) -> str:
        return "\n".join(self._tree(0))

    def _tree(self, indent: int) -> list[str]:
        return [" " * indent + repr(self)]

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain values: {"layer": name, field: value, …}."""
        return {"layer": type(self).__name__, **{f.name: _plain(getattr(self, f.name)) for f in fields(self)}}

    def to_json(self) -> str:
        """The spec as JSON text; `from_json` gives an equal spec back."""
        return json.dumps(self.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, Layer):
        return value.to_dict()
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _layer(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_layer(v) for v in value)
    if not (isinstance(value, dict) and "layer" in value):
        return value
    arguments = {k: _layer(v) for k, v in value.items() if k != "layer"}
    if not isinstance(value["layer"], str) or value["layer"] not in LAYERS:
        raise ValueError(f"unknown layer {value['layer']!r}; known: {', '.join(sorted(LAYERS))}")
    cls = LAYERS[value["layer"]]
    unknown = arguments.keys() - {f.name for f in fields(cls)}
    if unknown:
        raise ValueError(f"layer {cls.__name__} has no field {', '.join(sorted(unknown))}")
    try:
        return cls._from_fields(arguments) if issubclass(cls, _Container) else cls(**arguments)
    except (KeyError, TypeError) as error:
        raise ValueError(f"layer {cls.__name__} has missing or ill-typed fields: {error}") from None


def from_json(text: str) -> Layer:
    """The spec written by `Layer.to_json`. ValueError names an unknown layer or field."""
    try:
        net = _layer(json.loads(text))
    except RecursionError:
        raise ValueError("a network spec must not be nested so deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"a network spec must be JSON text, as Layer.to_json writes it: {error}") from None
    if not isinstance(net, Layer):
        raise ValueError('a network spec must be a JSON object with a "layer" name, as Layer.to_json writes it')
    return net


LARGEST = 1e150  # its square is finite
MOST_BRANCHES = 1000  # each holds a slot of every thread's memory


def _check_number(layer: Layer, name: str, *, minimum: float = -LARGEST) -> None:
    """A field as a plain, finite number; NumPy's scalars become Python's."""
    value = getattr(layer, name)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{type(layer).__name__}: {name} must be a number, not {value!r}")
    number = value if isinstance(value, int) else float(value)
    if not minimum <= number <= LARGEST:
        bound = f" and at least {minimum:g}" if minimum > -LARGEST else ""
        raise ValueError(
            f"{type(layer).__name__}: {name} must be finite{bound}, and no larger than {LARGEST:g}, not {number!r:.50}"
        )
    object.__setattr__(layer, name, number)


def single(layer: Layer, builder: Builder, value: Signal) -> Value:
    """The signal of a layer that takes one; ValueError naming the layer for branches."""
    if isinstance(value, tuple):
        raise builder.error(layer, f"got {len(value)} branches, takes one signal: put FanInSum() before it")
    return value


@dataclass(frozen=True, repr=False)
class Dense(Layer):
    """Fully connected layer; acts on the last axis' features.

    ``W_std``, ``b_std``: standard deviations of weights and biases (None: no biases). ``parameterization``: "ntk"
    (weights scaled by 1/sqrt(width)) or "standard", where T <- n_in K + W_std^2 T + 1[bias] with n_in the ``width``
    (number of units) that the layer before declared. ValueError for negative or non-finite values.
    """

    W_std: float = 1.0
    b_std: float | None = None
    parameterization: str = "ntk"
    width: int | None = None

    def __post_init__(self) -> None:
        _check_number(self, "W_std", minimum=0)
        if self.b_std is not None:
            _check_number(self, "b_std", minimum=0)
        if self.parameterization not in ("ntk", "standard"):
            raise ValueError(f"Dense: parameterization must be 'ntk' or 'standard', not {self.parameterization!r}")
        if self.width is not None:
            if isinstance(self.width, bool) or not isinstance(self.width, Integral) or self.width < 1:
                raise ValueError(f"Dense: width must be a positive number of units, not {self.width!r}")
            object.__setattr__(self, "width", int(self.width))

    def coefficients(self, layer: Layer, builder: Builder, value: Value) -> tuple[float, float, float, float]:
        """(a, b, e, f) of K <- a K + b, T <- a T + e K + f."""
        a, b = self.W_std**2, (self.b_std or 0.0) ** 2
        if self.parameterization == "ntk":
            return a, b, a, b
        if value.width is None:
            raise builder.error(
                layer, "the standard parameterization needs its input's width: give the layer before width=…"
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


@dataclass(frozen=True, repr=False)
class Activation(Layer, abstract=True):
    """Base of the nonlinearities: ``dual`` names the entry of csrc/math/dual.h, `constants` gives its parameters."""

    dual: ClassVar[str]
    nonlinear: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ACTIVATIONS[cls.__name__] = cls

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_number(self, field.name)

    def constants(self) -> Sequence[float]:
        """Parameters of the dual activation: the fields in their order, unless a class says otherwise."""
        return [getattr(self, field.name) for field in fields(self)]

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = single(self, builder, value)
        if value.law is Law.MIXED:
            raise builder.error(
                self,
                "its input is a flattened image after LayerNorm or a sum: features, being different pixels, differ in "
                "variance, and the kernel is their mean. Put it before Flatten, or an affine layer (Dense) before it",
            )
        if value.law is not Law.GAUSSIAN:
            raise builder.error(
                self,
                "a nonlinearity needs a Gaussian input, and none is guaranteed here: put an affine layer (Dense, "
                "Conv) before it",
            )
        return builder.dual(self, value, self.dual, self.constants())


@dataclass(frozen=True, repr=False)
class Relu(Activation):
    """phi(z) = max(z, 0): E = sqrt(qq') kappa1(c)/2, derivative's dual kappa0(c)/2 (Cho & Saul 2009)."""

    dual = "abrelu"

    def constants(self) -> Sequence[float]:
        return 0.0, 1.0


@dataclass(frozen=True, repr=False)
class LeakyRelu(Activation):
    """phi(z) = z for z > 0, alpha z otherwise."""

    dual = "abrelu"
    alpha: float = 0.01

    def constants(self) -> Sequence[float]:
        return self.alpha, 1.0


@dataclass(frozen=True, repr=False)
class ABRelu(Activation):
    """phi(z) = a z for z < 0, b z otherwise (Tsuchida et al. 2018)."""

    dual = "abrelu"
    a: float
    b: float


@dataclass(frozen=True, repr=False)
class Abs(Activation):
    """phi(z) = |z|."""

    dual = "abrelu"

    def constants(self) -> Sequence[float]:
        return -1.0, 1.0


@dataclass(frozen=True, repr=False)
class Erf(Activation):
    """phi(z) = a erf(b z) + c (Williams 1997)."""

    dual = "erf"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0


@dataclass(frozen=True, repr=False)
class Gelu(Activation):
    """phi(z) = z Phi(z), Phi the standard normal distribution function (Tsuchida et al. 2020)."""

    dual = "gelu"


@dataclass(frozen=True, repr=False)
class Sin(Activation):
    """phi(z) = a sin(b z + c) (Louart et al. 2018; Pearce et al. 2019)."""

    dual = "sin"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0


@dataclass(frozen=True, repr=False)
class Cos(Activation):
    """phi(z) = a cos(b z + c)."""

    dual = "sin"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def constants(self) -> Sequence[float]:
        return self.a, self.b, self.c + math.pi / 2


@dataclass(frozen=True, repr=False)
class Exp(Activation):
    """phi(z) = a exp(b z) (Mairal et al. 2014; Daniely et al. 2016)."""

    dual = "exp"
    a: float = 1.0
    b: float = 1.0


@dataclass(frozen=True, repr=False)
class Gaussian(Activation):
    """phi(z) = a exp(b z^2); finite while 4 b q < 1 for every variance q (Williams 1997)."""

    dual = "gaussian"
    a: float = 1.0
    b: float = -1.0


@dataclass(frozen=True, repr=False)
class Rbf(Activation):
    """phi(z) = sqrt(2) sin(sqrt(2 gamma) z + pi/4): E = exp(-gamma (q + q' - 2K)) (Rahimi & Recht 2007)."""

    dual = "sin"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        _check_number(self, "gamma", minimum=0)

    def constants(self) -> Sequence[float]:
        return math.sqrt(2), math.sqrt(2 * self.gamma), math.pi / 4


@dataclass(frozen=True, repr=False)
class ArcCosine(Activation):
    """phi(z) = sqrt(2) z^order step(z): E = (qq')^(order/2) J_order(theta)/pi, order 0, 1 or 2 (Cho & Saul 2009).

    Order 0 has an NNGP kernel only: the derivative of a step has no finite second moment.
    """

    order: int = 1

    def __post_init__(self) -> None:
        if type(self.order) is not int or self.order not in (0, 1, 2):
            raise ValueError(f"ArcCosine: order must be 0, 1 or 2, not {self.order!r}")

    @property
    def dual(self) -> str:  # type: ignore[override]
        return ("arccos0", "abrelu", "arccos2")[self.order]

    def constants(self) -> Sequence[float]:
        return (0.0, math.sqrt(2)) if self.order == 1 else ()

    def lower(self, builder: Builder, value: Signal) -> Value:
        if self.order == 0 and builder.wants_ntk:
            raise builder.error(self, "the NTK of a step function is infinite; ask for get='nngp', or use order 1 or 2")
        return super().lower(builder, value)


@dataclass(frozen=True, repr=False)
class LayerNorm(Layer):
    """Normalises the features of every sample: K, T <- K, T / sqrt((q + eps)(q' + eps)) (Ba et al. 2016).

    In a network of infinite width the mean over features vanishes, so only the variance is divided out.
    """

    eps: float = 1e-12

    def __post_init__(self) -> None:
        _check_number(self, "eps", minimum=0)

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = single(self, builder, value)
        if value.law is Law.OTHER:
            raise builder.error(self, "needs a Gaussian input: put an affine layer (Dense) before it")
        return builder.normalize(value, self.eps)


class _Container(Layer, abstract=True):
    """A layer made of layers, given one by one."""

    @classmethod
    def _from_fields(cls, arguments: dict[str, Any]) -> _Container:
        raise NotImplementedError

    def _set(self, name: str, layers: Sequence[Layer]) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"{type(self).__name__}: takes layers such as Dense() and Relu(), not {layer!r}")
        object.__setattr__(self, name, tuple(layers))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._inner()))})"

    def _tree(self, indent: int) -> list[str]:
        inner = [line for layer in self._inner() for line in layer._tree(indent + 2)]
        return [" " * indent + type(self).__name__, *inner]


@dataclass(frozen=True, repr=False, init=False)
class Serial(_Container):
    """Layers one after another: ``Serial(Dense(1.5, 0.1), Relu(), Dense())``."""

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
class FanOut(Layer):
    """Hands its input to ``num`` branches; `Parallel` takes them, `FanInSum` joins them."""

    num: int

    def __post_init__(self) -> None:
        if type(self.num) is not int or not 1 <= self.num <= MOST_BRANCHES:
            raise ValueError(f"FanOut: num must be a number of branches from 1 to {MOST_BRANCHES}, not {self.num!r}")

    def lower(self, builder: Builder, value: Signal) -> Signal:
        return builder.fan_out(self, single(self, builder, value), self.num)


@dataclass(frozen=True, repr=False, init=False)
class Parallel(_Container):
    """One layer for every branch that `FanOut` made."""

    branches: tuple[Layer, ...]

    def __init__(self, *branches: Layer) -> None:
        self._set("branches", branches)

    @classmethod
    def _from_fields(cls, arguments: dict[str, Any]) -> Parallel:
        return cls(*arguments["branches"])

    def lower(self, builder: Builder, value: Signal) -> Signal:
        given = len(value) if isinstance(value, tuple) else 1
        if not isinstance(value, tuple) or given != len(self.branches):
            raise builder.error(
                self, f"has {len(self.branches)} branches, got {given}: put FanOut({len(self.branches)}) before it"
            )
        out = []
        for number, (branch, part) in enumerate(zip(self.branches, value, strict=True)):
            builder.path.append(f"branch {number}")
            out.append(single(branch, builder, branch.lower(builder, part)))
            builder.path.pop()
        return tuple(out)


@dataclass(frozen=True, repr=False)
class FanInSum(Layer):
    """Sums the branches: K and T add, the branches being uncorrelated.

    They are where none shares a signal with another but through weights of its own, and at most one ends with a
    nonlinearity (or is the data), whose mean is not 0.
    """

    def lower(self, builder: Builder, value: Signal) -> Value:
        if not isinstance(value, tuple):
            raise builder.error(self, "got one signal, takes branches: put FanOut and Parallel before it")
        if len({part.shape for part in value}) > 1:
            raise builder.error(self, f"the branches differ in shape: {', '.join(str(part.shape) for part in value)}")
        strides = {part.steps for part in value if part.is_image}
        if len(strides) > 1:
            raise builder.error(
                self,
                f"the branches reach the same image size by different strides, {' and '.join(map(str, strides))} since "
                "the last pool: pixels apart by d in one are apart by another d in the input than in the other, and "
                "pairs of pixels are computed displacement by displacement. Give all branches the same product of "
                "strides",
            )
        seen: set[int] = set()
        for part in value:
            if not seen.isdisjoint(part.sources):
                raise builder.error(
                    self,
                    "two branches share a signal without an affine layer (Dense, Conv) of their own, so they are "
                    "correlated and their kernels do not add: end all branches but one with an affine layer",
                )
            seen |= part.sources
        if sum(not part.centred for part in value) > 1:
            raise builder.error(
                self,
                "two branches end with a nonlinearity: their means do not vanish, so they are correlated and their "
                "kernels do not add. End all branches but one with an affine layer (Dense, Conv)",
            )
        total = value[0]
        for part in value[1:]:
            total = builder.add(total, part)
        return total


@dataclass(frozen=True, repr=False, init=False)
class Residual(_Container):
    """shortcut(x) + branch(x).

    ``Residual(Relu(), Dense())`` is ``FanOut(2), Parallel(Identity(), Serial(Relu(), Dense())), FanInSum()``.
    """

    branch: tuple[Layer, ...]
    shortcut: Layer

    def __init__(self, *branch: Layer, shortcut: Layer | None = None) -> None:
        self._set("branch", branch)
        self._set("shortcut", (shortcut or Identity(),))
        object.__setattr__(self, "shortcut", shortcut or Identity())

    @classmethod
    def _from_fields(cls, arguments: dict[str, Any]) -> Residual:
        return cls(*arguments["branch"], shortcut=arguments.get("shortcut"))

    def __repr__(self) -> str:
        shortcut = [] if self.shortcut == Identity() else [f"shortcut={self.shortcut!r}"]
        return f"Residual({', '.join([*map(repr, self.branch), *shortcut])})"

    def lower(self, builder: Builder, value: Signal) -> Signal:
        return Serial(FanOut(2), Parallel(self.shortcut, Serial(*self.branch)), FanInSum()).lower(builder, value)
