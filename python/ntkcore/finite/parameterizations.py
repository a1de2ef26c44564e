"""abc-parameterizations: how weights and learning rates scale with the width n.

A layer's weights are W = n^-a w with trained w ~ N(0, n^-2b) and learning rate eta n^-c, exponents
being given for the input layer, the hidden layers and the output layer (Yang & Hu 2021). n is the
layer's fan-in, for the input layer its fan-out; biases scale as input weights do (Yang et al. 2022,
table 3), the output's not at all. Adam is blind to the gradient's size, so its learning rates have
exponents of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

Exponents = tuple[float, float, float]

ROLES = ("input", "hidden", "output")
SGD, ADAM = ("sgd",), ("adam", "adamw")


@dataclass(frozen=True)
class ABC:
    """Exponents (input, hidden, output) of an abc-parameterization.

    ``a``: multipliers; ``b``: initial standard deviations; ``c`` and ``c_adam``: learning rates of
    SGD and of Adam. ``constants``: where W_std, b_std and the root of the data's fan-in stand, in
    the "multiplier" (as the NTK parameterization has it) or in the "init" (as the standard one). A
    single number serves all three layers. TypeError, ValueError for anything else.
    """

    a: Exponents | float
    b: Exponents | float
    c: Exponents | float = 0.0
    c_adam: Exponents | float = 0.0
    constants: str = "multiplier"

    def __post_init__(self) -> None:
        for name in ("a", "b", "c", "c_adam"):
            given = getattr(self, name)
            three = (given,) * 3 if isinstance(given, Real) else tuple(given)
            if len(three) != 3 or not all(isinstance(e, Real) and math.isfinite(e) for e in three):
                raise ValueError(
                    f"ABC: {name} must be one exponent or three (input, hidden, output), not"
                    f" {given!r}"
                )
            object.__setattr__(self, name, tuple(map(float, three)))
        if self.constants not in ("multiplier", "init"):
            raise ValueError(
                f"ABC: constants must be 'multiplier' or 'init', not {self.constants!r}"
            )

    def exponent(self, name: str, role: str) -> float:
        """The exponent "a", "b", "c" or "c_adam" of the "input", "hidden" or "output" layer."""
        return float(getattr(self, name)[ROLES.index(role)])

    def scales(self, role: str, n: int, constant: float) -> tuple[float, float]:
        """(multiplier, initial standard deviation)
        of a weight whose n-independent part is ``constant``.
        """
        multiplier, std = n ** -self.exponent("a", role), n ** -self.exponent("b", role)
        return (
            (multiplier * constant, std)
            if self.constants == "multiplier"
            else (multiplier, std * constant)
        )

    def rate(self, role: str, n: float, optimizer: str) -> float:
        """n^-c: the layer's learning rate in units of the global one."""
        return float(n ** -self.exponent("c" if optimizer in SGD else "c_adam", role))


# Adam's exponents are those at which every layer's share of the output's first change does not
# depend on n.
PARAMETERIZATIONS = {
    "ntk": ABC(a=(0, 0.5, 0.5), b=0, c=0, c_adam=(0.5, 1, 0.5)),
    "standard": ABC(a=0, b=(0, 0.5, 0.5), c=0, c_adam=0, constants="init"),
    "mean_field": ABC(a=(0, 1, 1), b=0, c=-1, c_adam=0),
    "mup": ABC(a=(-0.5, 0, 0.5), b=0.5, c=0, c_adam=(0.5, 1, 0.5), constants="init"),
}


def parameterization_of(given: str | ABC) -> ABC:
    """The exponents of a name; ValueError names those there are."""
    if isinstance(given, ABC):
        return given
    if given not in PARAMETERIZATIONS:
        raise ValueError(
            f"parameterization must be one of {', '.join(PARAMETERIZATIONS)} or an ABC, not"
            f" {given!r}"
        )
    return PARAMETERIZATIONS[given]
