"""The nonlinearities: each names its dual activation in
csrc/math/dual.h and that one's constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ntkcore.specs.layers import Layer, Signal, check_flag, check_number, check_value, single
from ntkcore.specs.program import Builder, Law, Value

ACTIVATIONS: dict[str, type[Activation]] = {}


@dataclass(frozen=True, repr=False)
class Activation(Layer, abstract=True):
    """Base of the nonlinearities: ``dual`` names the entry of csrc/math/dual.h,
    `constants` gives its parameters.
    """

    dual: ClassVar[str]
    nonlinear: ClassVar[bool] = True
    infinite_ntk: ClassVar[bool] = False  # phi jumps: its derivative has no second moment

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ACTIVATIONS[cls.__name__] = cls

    def __post_init__(self) -> None:
        for field in fields(self):
            check_number(self, field.name)

    def constants(self) -> Sequence[float]:
        """Parameters of the dual activation: the fields in their order,
        unless a class says otherwise.
        """
        return [getattr(self, field.name) for field in fields(self)]

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = self.gaussian(builder, value)
        return builder.dual(value, self.dual, self.constants())

    def gaussian(self, builder: Builder, value: Signal) -> Value:
        """The signal, if a dual activation may follow it."""
        value = single(self, builder, value)
        if self.infinite_ntk and builder.wants_ntk:
            raise builder.error(
                self,
                "the NTK of a function that jumps is infinite: ask for get='nngp', or take a"
                " smoother one, or frozen=True, which takes its derivative for 0, as automatic"
                " differentiation and neural-tangents do: layers before it do not train",
            )
        if value.law is Law.MIXED:
            raise builder.error(
                self,
                "its input is a flattened image after LayerNorm or a sum, or a concatenation:"
                " features, being of different pixels or branches, differ in variance, and the"
                " kernel is their mean. Put it before Flatten or FanInConcat, or an affine layer"
                " (Dense) before it",
            )
        if value.law is not Law.GAUSSIAN:
            raise builder.error(
                self,
                "a nonlinearity needs a Gaussian input, and none is guaranteed here: put an affine"
                " layer (Dense, Conv) before it",
            )
        return value


@dataclass(frozen=True, repr=False)
class Relu(Activation):
    """phi(z) = max(z, 0): E = sqrt(qq') kappa1(c)/2,
    derivative's dual kappa0(c)/2 (Cho & Saul 2009).
    """

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
    """phi(z) = sqrt(2) sin(sqrt(2 gamma) z + pi/4): E = exp(-gamma (q + q' - 2K))
    (Rahimi & Recht 2007).
    """

    dual = "sin"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_number(self, "gamma", minimum=0)

    def constants(self) -> Sequence[float]:
        return math.sqrt(2), math.sqrt(2 * self.gamma), math.pi / 4


MOST_DEGREE = 20  # whose factorial float64 holds exactly


def _check_degree(layer: Activation, name: str = "degree") -> None:
    degree = getattr(layer, name)
    if type(degree) is not int or not 0 <= degree <= MOST_DEGREE:
        raise ValueError(
            f"{type(layer).__name__}: {name} must be a whole number from 0 to {MOST_DEGREE}, not"
            f" {degree!r}"
        )


@dataclass(frozen=True, repr=False)
class ArcCosine(Activation):
    """phi(z) = sqrt(2) z^order step(z): E = (qq')^(order/2) J_order(theta)/pi (Cho & Saul 2009).

    Order 0 has an NNGP kernel only: the derivative of a step has no finite second moment. With
    ``frozen`` it counts as 0, as automatic differentiation has it: layers before do not train.
    """

    order: int = 1
    frozen: bool = False

    def __post_init__(self) -> None:
        _check_degree(self, "order")
        check_flag(self, "frozen")

    @property
    def dual(self) -> str:  # type: ignore[override]
        return "abrelu" if self.order == 1 else "rectified"

    @property
    def infinite_ntk(self) -> bool:  # type: ignore[override]
        return self.order == 0 and not self.frozen

    def constants(self) -> Sequence[float]:
        return (0.0, math.sqrt(2)) if self.order == 1 else (self.order, math.sqrt(2))


@dataclass(frozen=True, repr=False)
class RectifiedMonomial(Activation):
    """phi(z) = z^degree step(z), the function of `ArcCosine` without its root of 2.

    ``frozen`` matters to degree 0, a step, as to `ArcCosine` of order 0.
    """

    degree: int
    frozen: bool = False

    def __post_init__(self) -> None:
        _check_degree(self)
        check_flag(self, "frozen")

    @property
    def dual(self) -> str:  # type: ignore[override]
        return "abrelu" if self.degree == 1 else "rectified"

    @property
    def infinite_ntk(self) -> bool:  # type: ignore[override]
        return self.degree == 0 and not self.frozen

    def constants(self) -> Sequence[float]:
        return (0.0, 1.0) if self.degree == 1 else (self.degree, 1.0)


@dataclass(frozen=True, repr=False)
class Sign(Activation):
    """phi(z) = sign z: E = 1 - 2 theta/pi, of an angle theta between the inputs.

    It has an NNGP kernel only: its derivative has no finite second moment. With ``frozen`` that
    counts as 0, as automatic differentiation has it: layers before do not train.
    """

    dual = "sign"
    frozen: bool = False

    def __post_init__(self) -> None:
        check_flag(self, "frozen")

    @property
    def infinite_ntk(self) -> bool:  # type: ignore[override]
        return not self.frozen

    def constants(self) -> Sequence[float]:
        return ()


@dataclass(frozen=True, repr=False)
class Monomial(Activation):
    """phi(z) = z^degree."""

    dual = "hermite"
    degree: int

    def __post_init__(self) -> None:
        _check_degree(self)

    def constants(self) -> Sequence[float]:
        return self.degree, 0.0, math.factorial(self.degree)


@dataclass(frozen=True, repr=False)
class Hermite(Activation):
    """phi(z) = He_degree(z)/sqrt(degree!), the Hermite polynomial of norm 1
    under a standard Gaussian.

    Inputs of variance 1 have E = K^degree (Daniely et al. 2016); others have the kernel of the same
    function, where neural-tangents takes every variance for 1.
    """

    dual = "hermite"
    degree: int

    def __post_init__(self) -> None:
        _check_degree(self)

    def constants(self) -> Sequence[float]:
        return self.degree, 1.0, 1.0


@dataclass(frozen=True, repr=False)
class Polynomial(Activation):
    """phi(z) = coef[0] + coef[1] z + …, up to z^7."""

    dual = "even"
    coef: tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.coef, Iterable):
            raise TypeError(f"Polynomial: coef must be a sequence of numbers, not {self.coef!r}")
        coef = tuple(self.coef)
        if len(coef) > 8:  # four constants of an op for the even powers, four for the odd
            raise ValueError(
                f"Polynomial: coef has at most 8 numbers, of degree 7, not {len(coef)}"
            )
        object.__setattr__(self, "coef", tuple(check_value(self, "coef", c) for c in coef))

    def lower(self, builder: Builder, value: Signal) -> Value:
        """Its even and its odd part are uncorrelated, and so are their derivatives: a sum."""
        value = self.gaussian(builder, value)
        parts = {"even": self.coef[::2], "odd": self.coef[1::2]}
        names = [name for name in parts if any(parts[name])] or ["even"]
        copies = builder.fan_out(value, len(names))
        total, *rest = (
            builder.dual(copy, name, parts[name]) for copy, name in zip(copies, names, strict=True)
        )
        return builder.add(total, rest[0]) if rest else total


@dataclass(frozen=True, repr=False)
class ExpNormalized(Activation):
    """E = sqrt(qq') exp(gamma (c + shift)), c = K/sqrt(qq'), derivative's dual
    gamma exp(gamma (c + shift)): the normalised Gaussian kernel of Shankar et al. 2020.

    It is a kernel only: no function of a neuron has it for its dual, so that there is no finite
    network with it.
    """

    dual = "expnorm"
    gamma: float = 1.0
    shift: float = -1.0

    def __post_init__(self) -> None:
        check_number(self, "gamma", minimum=0)
        check_number(self, "shift")


@dataclass(frozen=True, repr=False)
class Gabor(Activation):
    """phi(z) = exp(-z^2) sin z."""

    dual = "gabor"


def Sigmoid_like() -> Erf:  # noqa: N802
    """0.5 erf(z / 2.4020563531719796) + 0.5, close to a sigmoid."""
    return Erf(a=0.5, b=1 / 2.4020563531719796, c=0.5)
