"""Exact infinite-width kernels (NNGP and NTK) of neural networks, close to the hardware's limit."""

from importlib.metadata import version as _version

from ntkcore.backends import backends
from ntkcore.convolutions import AvgPool, Conv, Flatten, GlobalAvgPool, GlobalSumPool, LocalAvgPool, SumPool
from ntkcore.kernels import kernel, kernel_diag
from ntkcore.layers import (
    ABRelu,
    Abs,
    ArcCosine,
    Cos,
    Dense,
    Erf,
    Exp,
    FanInSum,
    FanOut,
    Gaussian,
    Gelu,
    Identity,
    LayerNorm,
    LeakyRelu,
    Parallel,
    Rbf,
    Relu,
    Residual,
    Serial,
    Sin,
    from_json,
)
from ntkcore.nets import cntk, mlp, myrtle, resnet

__version__ = _version("ntkcore")

__all__ = [
    "ABRelu",
    "Abs",
    "ArcCosine",
    "AvgPool",
    "Conv",
    "Cos",
    "Dense",
    "Erf",
    "Exp",
    "FanInSum",
    "FanOut",
    "Flatten",
    "Gaussian",
    "Gelu",
    "GlobalAvgPool",
    "GlobalSumPool",
    "Identity",
    "LayerNorm",
    "LeakyRelu",
    "LocalAvgPool",
    "Parallel",
    "Rbf",
    "Relu",
    "Residual",
    "Serial",
    "Sin",
    "SumPool",
    "backends",
    "cntk",
    "from_json",
    "kernel",
    "kernel_diag",
    "mlp",
    "myrtle",
    "resnet",
]
