"""Derivatives of kernels: the address of `ntkcore.engine.gradients`."""

from ntkcore.engine.gradients import (
    Parameter,
    input_gradient,
    input_vjp,
    kernel_gradient,
    parameters,
    with_parameters,
)

__all__ = [
    "Parameter",
    "input_gradient",
    "input_vjp",
    "kernel_gradient",
    "parameters",
    "with_parameters",
]
