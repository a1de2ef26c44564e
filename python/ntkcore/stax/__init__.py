"""neural-tangents' spelling of the same calls: a script changes its import and runs.

    from ntkcore import stax
    init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(512), stax.Relu(), stax.Dense(1))
    ntk = kernel_fn(x1, x2, "ntk")

Names, order and defaults of arguments are those of neural-tangents 0.6.5 (Novak et al. 2020);
kernels are computed by `ntkcore.kernel`, the finite layers of ``init_fn`` and ``apply_fn`` are
those of `ntkcore.finite`. docs/neural-tangents.md says of every name whether it is here and what
differs. An argument that ntkcore does not know raises NotImplementedError, saying what to do.

An argument that would have no effect is refused likewise. ``do_stabilize`` may be either: it keeps
covariances from overflowing before a dual, as the duals here, working on correlations with
variances in float64, always do.
"""

from ntkcore.stax.attention import AttentionMechanism, GlobalSelfAttention, PositionalEmbedding
from ntkcore.stax.combinators import Layer, batch, parallel, repeat, serial
from ntkcore.stax.graphs import Aggregate, AggregateImplementation
from ntkcore.stax.kernel import Kernel
from ntkcore.stax.kernel_fn import KernelFn
from ntkcore.stax.layers import (
    ABRelu,
    Abs,
    AvgPool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Cos,
    Dense,
    DotGeneral,
    Dropout,
    Elementwise,
    ElementwiseNumerical,
    Erf,
    Exp,
    ExpNormalized,
    FanInConcat,
    FanInProd,
    FanInSum,
    FanOut,
    Flatten,
    Gabor,
    Gaussian,
    Gelu,
    GlobalAvgPool,
    GlobalSumPool,
    Hermite,
    Identity,
    ImageResize,
    Index,
    LayerNorm,
    LeakyRelu,
    Monomial,
    Polynomial,
    Rbf,
    RectifiedMonomial,
    Relu,
    Sigmoid_like,
    Sign,
    Sin,
    SumPool,
)
from ntkcore.stax.moving import Slice
from ntkcore.stax.support import Padding

__all__ = [
    "ABRelu",
    "Abs",
    "Aggregate",
    "AggregateImplementation",
    "AttentionMechanism",
    "AvgPool",
    "Conv",
    "ConvLocal",
    "ConvTranspose",
    "Cos",
    "Dense",
    "DotGeneral",
    "Dropout",
    "Elementwise",
    "ElementwiseNumerical",
    "Erf",
    "Exp",
    "ExpNormalized",
    "FanInConcat",
    "FanInProd",
    "FanInSum",
    "FanOut",
    "Flatten",
    "Gabor",
    "Gaussian",
    "Gelu",
    "GlobalAvgPool",
    "GlobalSelfAttention",
    "GlobalSumPool",
    "Hermite",
    "Identity",
    "ImageResize",
    "Index",
    "Kernel",
    "KernelFn",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "Monomial",
    "Padding",
    "Polynomial",
    "PositionalEmbedding",
    "Rbf",
    "RectifiedMonomial",
    "Relu",
    "Sigmoid_like",
    "Sign",
    "Sin",
    "Slice",
    "SumPool",
    "batch",
    "parallel",
    "repeat",
    "serial",
]
