"""Infinitely wide training on the squared loss, in closed form:
the address of `ntkcore.theory.dynamics`.
"""

from ntkcore.linalg.eigen import Modes, eigenmodes, leading_modes
from ntkcore.theory.dynamics import Dynamics
from ntkcore.theory.points import Points, Stop
from ntkcore.theory.rules import GradientDescent, GradientFlow

__all__ = [
    "Dynamics",
    "GradientDescent",
    "GradientFlow",
    "Modes",
    "Points",
    "Stop",
    "eigenmodes",
    "leading_modes",
]
