"""Infinitely wide training on other losses: the address of `ntkcore.theory.losses`."""

from ntkcore.theory.loss_dynamics import LossDynamics
from ntkcore.theory.losses import CrossEntropy, SquaredError
from ntkcore.theory.rules import GradientDescent, GradientFlow

__all__ = ["CrossEntropy", "GradientDescent", "GradientFlow", "LossDynamics", "SquaredError"]
