# What the package's face shows, and where it stands: __init__.py loads a name when it is asked for.
from . import (
    control,
    dynamics,
    estimators,
    experiments,
    falsifier,
    finite,
    gradients,
    learning_curves,
    losses,
    operators,
    plots,
    predict,
    spectrum,
    sphere,
    stax,
)
from .engine.backends import backends
from .engine.kernels import error_bounds, kernel, kernel_diag
from .engine.nodes import gcn_kernel
from .engine.packing import pack_graphs, pack_sequences
from .falsifier import Claim, falsify
from .linalg.cg import cg
from .linalg.cholesky import Cholesky
from .linalg.eigen import Eigh
from .linalg.fitting import KernelModel, fit
from .linalg.landmarks import LandmarkRegression
from .linalg.leading import eigs
from .linalg.operators import InMemory, MatrixFree, Stored
from .linalg.rpcholesky import rpcholesky
from .linalg.solve import solve
from .specs.activations import (
    ABRelu,
    Abs,
    ArcCosine,
    Cos,
    Erf,
    Exp,
    ExpNormalized,
    Gabor,
    Gaussian,
    Gelu,
    Hermite,
    LeakyRelu,
    Monomial,
    Polynomial,
    Rbf,
    RectifiedMonomial,
    Relu,
    Sigmoid_like,
    Sign,
    Sin,
)
from .specs.attention import GlobalSelfAttention
from .specs.beside import Aggregate, GraphInput, MaskedInput
from .specs.branches import FanInConcat, FanInProd, FanInSum, FanOut, Parallel, Residual
from .specs.convolutions import (
    AvgPool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalSumPool,
    LocalAvgPool,
    SumPool,
)
from .specs.elementwise import Elementwise
from .specs.graphs import gntk
from .specs.layers import Dense, Dropout, Identity, LayerNorm, Serial
from .specs.nets import cntk, mlp, myrtle, resnet
from .specs.positions import DotGeneral, ImageResize, Index
from .specs.recurrent import Recurrent
from .specs.sequence_nets import rnn, transformer, vit
from .specs.text import from_json
from .store.build import build, extend, resume
from .store.planning import plan
from .store.verify import verify
from .theory.dynamics import Dynamics
from .theory.loss_dynamics import LossDynamics
from .theory.rules import GradientDescent, GradientFlow

__version__: str

__all__ = [
    "ABRelu",
    "Abs",
    "Aggregate",
    "ArcCosine",
    "AvgPool",
    "Cholesky",
    "Claim",
    "Conv",
    "ConvLocal",
    "ConvTranspose",
    "Cos",
    "Dense",
    "DotGeneral",
    "Dropout",
    "Dynamics",
    "Eigh",
    "Elementwise",
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
    "GradientDescent",
    "GradientFlow",
    "GraphInput",
    "Hermite",
    "Identity",
    "ImageResize",
    "InMemory",
    "Index",
    "KernelModel",
    "LandmarkRegression",
    "LayerNorm",
    "LeakyRelu",
    "LocalAvgPool",
    "LossDynamics",
    "MaskedInput",
    "MatrixFree",
    "Monomial",
    "Parallel",
    "Polynomial",
    "Rbf",
    "RectifiedMonomial",
    "Recurrent",
    "Relu",
    "Residual",
    "Serial",
    "Sigmoid_like",
    "Sign",
    "Sin",
    "Stored",
    "SumPool",
    "backends",
    "build",
    "cg",
    "cntk",
    "control",
    "dynamics",
    "eigs",
    "error_bounds",
    "estimators",
    "experiments",
    "extend",
    "falsifier",
    "falsify",
    "finite",
    "fit",
    "from_json",
    "gcn_kernel",
    "gntk",
    "gradients",
    "kernel",
    "kernel_diag",
    "learning_curves",
    "losses",
    "mlp",
    "myrtle",
    "operators",
    "pack_graphs",
    "pack_sequences",
    "plan",
    "plots",
    "predict",
    "resnet",
    "resume",
    "rnn",
    "rpcholesky",
    "solve",
    "spectrum",
    "sphere",
    "stax",
    "transformer",
    "verify",
    "vit",
]
