"""The nonlinearities: each names its dual activation in
csrc/math/dual.h and that one's constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ntkcore.specs.layers import Layer, Signal, check_number, single
from ntkcore.specs.program import Builder, Law, Value

ACTIVATIONS: dict[str, type[Activation]] = {}


@dataclass(frozen=True, repr=False)
class Activation(Layer, abstract=True):
    """Base of the nonlinearities: ``dual`` names the entry of csrc/math/dual.h,
    `constants` gives its parameters.
    """

    dual: ClassVar[str]
    nonlinear: ClassVar[bool] = True

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

    def gaussian(self, builder: Builder, value: Signal) -> Value:
        """The signal, if a dual activation may follow it."""
        value = single(self, builder, value)
        if value.law is Law.MIXED:
            raise builder.error(
                self,
                "its input is a flattened image after LayerNorm or a sum: features, being different"
                " pixels, differ in variance, and the kernel is their mean. Put it before Flatten,"
                " or an affine layer (Dense) before it",
            )
        if value.law is not Law.GAUSSIAN:
            raise builder.error(
                self,
                "a nonlinearity needs a Gaussian input, and none is guaranteed here: put an affine"
                " layer (Dense, Conv) before it",
            )
        return value

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = self.gaussian(builder, value)
        return builder.dual(self, value, self.dual, self.constants())


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


@dataclass(frozen=True, repr=False)
class ArcCosine(Activation):
    """phi(z) = sqrt(2) z^order step(z): E = (qq')^(order/2) J_order(theta)/pi, order 0,
    1 or 2 (Cho & Saul 2009).

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
            raise builder.error(
                self,
                "the NTK of a step function is infinite; ask for get='nngp', or use order 1 or 2",
            )
        return super().lower(builder, value)
