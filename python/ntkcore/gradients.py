"""Derivatives of kernels: the address of `ntkcore.engine.gradients`."""

from ntkcore.engine.gradients import input_gradient, input_vjp, kernel_gradient
from ntkcore.specs.parameters import Parameter, parameters, with_parameters

__all__ = [
    "Parameter",
    "input_gradient",
    "input_vjp",
    "kernel_gradient",
    "parameters",
    "with_parameters",
]
