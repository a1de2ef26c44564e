"""Finite networks beside their frozen limit: PyTorch modules of a spec,
empirical kernels, linearisation, laziness.

    module = to_torch(mlp(2), width=1024, input_shape=(784,))
    K_0 = empirical_ntk(module, x)
    history = train(module, x, y, lr=1.0, steps=1000)
    kernel_movement(empirical_ntk(module, x), K_0)

Needs PyTorch: ``pip install "ntkcore[torch]"``.
"""

try:
    import torch as torch
except ImportError:
    raise ImportError('finite networks need PyTorch: pip install "ntkcore[torch]"') from None

from ntkcore.finite.comparisons import (
    alignment,
    kernel_distance,
    kernel_movement,
    kernel_velocity,
    nmse,
    rms_deviation,
)
from ntkcore.finite.empirical import empirical_nngp, empirical_ntk, features
from ntkcore.finite.linearized import Linearized, LinearizedNet, linearize
from ntkcore.finite.measures import (
    LinearizedError,
    activation_movement,
    activations,
    feature_movement,
    laziness,
    linearization_error,
    linearized_error,
    parameter_movement,
)
from ntkcore.finite.networks import FiniteNet, parameter_groups, to_torch
from ntkcore.finite.parameterizations import ABC
from ntkcore.finite.products import ntk_operator, ntk_vector_product
from ntkcore.finite.training import DivergedError, History, train

__all__ = [
    "ABC",
    "DivergedError",
    "FiniteNet",
    "History",
    "Linearized",
    "LinearizedError",
    "LinearizedNet",
    "activation_movement",
    "activations",
    "alignment",
    "empirical_nngp",
    "empirical_ntk",
    "feature_movement",
    "features",
    "kernel_distance",
    "kernel_movement",
    "kernel_velocity",
    "laziness",
    "linearization_error",
    "linearize",
    "linearized_error",
    "nmse",
    "ntk_operator",
    "ntk_vector_product",
    "parameter_groups",
    "parameter_movement",
    "rms_deviation",
    "to_torch",
    "train",
]
