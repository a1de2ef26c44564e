"""Any activation, by its scalar function: named ones, and those a caller gives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit

from ntkcore.specs import series
from ntkcore.specs.activations import Activation
from ntkcore.specs.layers import Signal
from ntkcore.specs.program import Builder, Value

Array = npt.NDArray[np.float64]
Function = Callable[[Array], Array]

WORST = 1e-6  # relative error of a series beyond which a kernel is refused


@dataclass(frozen=True)
class Named:
    """phi, phi', and the part of phi' that is not smooth at 0 (`series.kink_part`)."""

    phi: Function
    derivative: Function
    kinks: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


def _softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


def _sech2(z: Array) -> Array:
    """1/cosh(z)^2, which does not overflow."""
    e = np.exp(-2 * np.abs(z))
    return 4 * e / (1 + e) ** 2


def _mish_derivative(z: Array) -> Array:
    s = _softplus(z)
    return np.tanh(s) + z * _sech2(s) * expit(z)


def _elu(scale: float, alpha: float) -> Named:
    # Below 0 phi' = scale alpha e^z: jumps of phi', phi'', phi''', phi'''' at 0.
    jumps = scale * np.array([1 - alpha, -alpha, -alpha, -alpha])
    return Named(
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0))),
        kinks_of_jumps(jumps),
    )


def kinks_of_jumps(jumps: Any) -> tuple[float, float, float, float]:
    """k0 … k3 from the jumps at 0 of phi' and its first three derivatives."""
    k0, k1, k2, k3 = (float(j) / (2 * math.factorial(n)) for n, j in enumerate(jumps))
    return k0, k1, k2, k3


NAMED: dict[str, Named] = {
    "tanh": Named(np.tanh, _sech2),
    "sigmoid": Named(expit, lambda z: expit(z) * expit(-z)),
    "softplus": Named(_softplus, expit),
    "silu": Named(lambda z: z * expit(z), lambda z: expit(z) * (1 + z * expit(-z))),
    "mish": Named(lambda z: z * np.tanh(_softplus(z)), _mish_derivative),
    "logsigmoid": Named(log_expit, lambda z: expit(-z)),
    "tanhshrink": Named(lambda z: z - np.tanh(z), lambda z: np.tanh(z) ** 2),
    "arctan": Named(np.arctan, lambda z: 1 / (1 + z**2)),
    "softsign": Named(
        lambda z: z / (1 + np.abs(z)),
        lambda z: 1 / (1 + np.abs(z)) ** 2,
        kinks_of_jumps([0, -4, 0, -48]),
    ),
    "elu": _elu(1.0, 1.0),
    "celu": _elu(1.0, 1.0),
    "selu": _elu(1.0507009873554804934193349852946, 1.6732632423543772848170429916717),
}


@functools.lru_cache(maxsize=256)
def _tabulated(layer: Elementwise, variance: float, single: bool) -> series.Series:
    named = layer.functions()
    wanted = 1e-7 if single else 1e-8 if any(named.kinks) else 1e-13
    return series.tabulate(named.phi, named.derivative, named.kinks, variance, wanted)


@dataclass(frozen=True, repr=False)
class Elementwise(Activation):
    """Any activation, by its Hermite coefficients (Daniely et al. 2016; Mehler 1866)."""

    phi: str | Function
    dphi: Function | None = None

    tabulated: ClassVar[bool] = True  # type: ignore[misc]

    def __post_init__(self) -> None:
        if isinstance(self.phi, str) and self.phi not in NAMED:
            raise ValueError(
                f"Elementwise: unknown phi {self.phi!r}; named ones: {', '.join(NAMED)}; or give a"
                " function of a NumPy array"
            )

    def functions(self) -> Named:
        """phi, phi' and its kinks."""
        if isinstance(self.phi, str):
            return NAMED[self.phi]
        assert self.dphi is not None
        return Named(self.phi, self.dphi)

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = self.gaussian(builder, value)
        made = _tabulated(self, value.variance, builder.single)
        return builder.series(self, value, made)
