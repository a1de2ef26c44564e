"""Activations, layers and networks that all tests share: being here is being tested.

A registered activation or layer without an entry fails tests/test_layers.py.
"""

import ntkcore as nk
from own_nets import OWN_NETS

# By class name, one or more instances each.
ACTIVATIONS = {
    "Relu": [nk.Relu()],
    "LeakyRelu": [nk.LeakyRelu(0.1)],
    "ABRelu": [nk.ABRelu(-0.2, 1.4), nk.ABRelu(1.3, 0.4)],
    "Abs": [nk.Abs()],
    "Erf": [nk.Erf(), nk.Erf(1.3, 0.8, 0.2)],
    "Gelu": [nk.Gelu()],
    "Sin": [nk.Sin(), nk.Sin(1.2, 0.7, 0.3)],
    "Cos": [nk.Cos(), nk.Cos(1.2, 0.7, 0.3)],
    "Exp": [nk.Exp(0.7, 0.6)],
    "Gaussian": [nk.Gaussian(), nk.Gaussian(1.3, 0.01)],
    "Rbf": [nk.Rbf(), nk.Rbf(0.3)],
    "Elementwise": [nk.Elementwise("silu")],
    "ArcCosine": [nk.ArcCosine(0), nk.ArcCosine(1), nk.ArcCosine(2)],
    "RectifiedMonomial": [nk.RectifiedMonomial(degree) for degree in (0, 1, 3)],
    "Sign": [nk.Sign(), nk.Sign(frozen=True)],
    "Monomial": [nk.Monomial(degree) for degree in (0, 1, 3)],
    "Hermite": [nk.Hermite(3)],
    "Polynomial": [nk.Polynomial((0.5, -1, 0, 0.3)), nk.Polynomial((0, 0, 1))],
    "ExpNormalized": [nk.ExpNormalized(), nk.ExpNormalized(0.7, -0.2)],
    "Gabor": [nk.Gabor()],
}
PHIS = [example for examples in ACTIVATIONS.values() for example in examples]


def jumps(layer):
    """Is it a function with a jump, which feels the rounding of a correlation by its root?"""
    return getattr(layer, "infinite_ntk", False) or getattr(layer, "frozen", False)


NEURONS = [phi for phi in PHIS if not isinstance(phi, nk.ExpNormalized)]  # functions, not kernels
SMOOTH = [phi for phi in PHIS if not phi.infinite_ntk]  # those that have an NTK
# Others, one after another, leave the range of floating point.
POLYNOMIALS = (nk.Monomial, nk.Hermite, nk.Polynomial)
BOUNDED = [
    phi for phi in SMOOTH if not isinstance(phi, (nk.Exp, *POLYNOMIALS)) and phi.dual != "rectified"
]

LAYERS = [
    nk.Dense(),
    nk.Dense(1.5, 0.1, "standard", 64),
    nk.Conv((3, 3)),
    nk.Conv((2, 5), (2, 1), "SAME", 1.2, 0.3, "standard", 8),
    nk.AvgPool((2, 2), (2, 2), "SAME", True),
    nk.SumPool((2, 3)),
    nk.Conv((3,), dilation=(2,)),
    nk.ConvLocal((2, 3, 1), (2, 1, 1), "SAME", 1.2, 0.3),
    nk.ConvTranspose((2,), (2,), "CIRCULAR"),
    nk.Index((0, slice(None, None, -1), ...)),
    nk.ImageResize((4, -1), "nearest"),
    nk.DotGeneral(rhs=((1.0, 0.5),), dimension_numbers=(((1,), (1,)), ((), ()))),
    nk.DotGeneral(lhs=2.0),
    nk.GlobalSelfAttention(),
    nk.GlobalSelfAttention(
        *(False, 1.2, 0.9, 1.1, 0.8, 0.3, "identity", "concat", "inverse", 1.5, 3, 0.7, True, 8)
    ),
    nk.MaskedInput(),
    nk.GraphInput(),
    nk.Aggregate(),
    nk.GlobalAvgPool(),
    nk.GlobalSumPool(),
    nk.Flatten(),
    nk.LocalAvgPool(3),
    nk.Identity(),
    nk.LayerNorm(1e-6),
    nk.FanOut(2),
    nk.FanInSum(),
    nk.FanInProd(),
    nk.FanInConcat(),
    nk.FanInConcat(3),
    nk.LayerNorm(1e-6, (1, -1)),
    nk.Dropout(0.8),
    nk.Dropout(0.5, "test"),
    nk.Parallel(nk.Identity(), nk.Dense()),
    nk.Residual(nk.Relu(), nk.Dense(), shortcut=nk.Dense(2.0)),
    nk.Serial(nk.Dense(), nk.Relu()),
    *PHIS,
]
READY_NETS = [
    nk.mlp(2),
    nk.cntk(3),
    nk.cntk(2, "flatten"),
    nk.myrtle(5),
    nk.myrtle(10),
    nk.resnet(2),
]

# Networks of vectors: chains of dense and ReLU layers, and all others.
RELU_NETS = {
    "he": nk.mlp(3),
    "bias": nk.mlp(2, 1.2, 0.4),
    "leaky": nk.Serial(
        nk.Dense(1.1, 0.2), nk.LeakyRelu(0.2), nk.Dense(1.3), nk.Abs(), nk.Dense(0.9, 0.1)
    ),
    "standard": nk.Serial(
        nk.Dense(1.2, 0.0, "standard", 64),
        nk.Relu(),
        nk.Dense(1.1, None, "standard", 32),
        nk.Relu(),
        nk.Dense(1.0, 0.1),
    ),
    "no readout": nk.Serial(nk.Dense(1.4, 0.1), nk.Relu()),
}
OTHER_NETS = {
    "linear": nk.Serial(nk.Dense(1.1, 0.3), nk.Dense(0.7)),
    "zero weights": nk.Serial(nk.Dense(0.0, 0.5), nk.Relu(), nk.Dense(1.0, 0.1)),
    "norm": nk.Serial(nk.Dense(1.4, 0.2), nk.LayerNorm(), nk.Relu(), nk.Dense(1.2)),
    "residual": nk.Serial(
        nk.Dense(1.1, 0.1), nk.Residual(nk.Relu(), nk.Dense(1.3, 0.2)), nk.Relu(), nk.Dense()
    ),
    "gated": nk.Serial(
        nk.Dense(1.1, 0.3),
        nk.FanOut(3),
        nk.Parallel(nk.Identity(), nk.Serial(nk.Dense(0.7), nk.Erf()), nk.Dense(1.2, 0.2)),
        nk.FanInProd(),
        nk.Dense(1.3, 0.1),
        nk.Relu(),
        nk.Dense(),
    ),
    "concatenated": nk.Serial(
        nk.FanOut(3),
        nk.Parallel(
            nk.Dense(1.2, 0.1, width=3),
            nk.Serial(nk.Dense(0.6, 0.3, width=5), nk.Relu()),
            nk.Identity(),
        ),
        nk.FanInConcat(),
        nk.Dense(1.3, 0.1),
        nk.Gelu(),
        nk.Dense(),
    ),
    "dropout": nk.Serial(
        *(nk.Dense(1.2, 0.1), nk.Relu(), nk.Dropout(0.7), nk.Dense(1.4), nk.Erf()),
        *(nk.Residual(nk.Dropout(0.5), nk.Dense(0.8)), nk.Dense()),
    ),
    "branches": nk.Serial(
        nk.FanOut(3),
        nk.Parallel(nk.Dense(1.2), nk.Serial(nk.Dense(0.5), nk.Erf(), nk.Dense()), nk.Identity()),
        nk.FanInSum(),
        nk.Dense(1.1, 0.1),
        nk.Gelu(),
        nk.Dense(),
    ),
}

VECTOR_NETS = (
    RELU_NETS
    | OTHER_NETS
    | {
        "long chain": nk.mlp(10),
        "normalised": nk.Serial(
            nk.Dense(),
            nk.Residual(nk.Erf(), nk.Dense()),
            nk.LayerNorm(),
            nk.Gelu(),
            nk.Dense(1.2, 0.1),
        ),
    }
)


def conv(size=(3, 3), strides=(1, 1), padding="SAME", W_std=1.3, b_std=0.1):
    return nk.Conv(size, strides, padding, W_std, b_std)


R, D, C = nk.Relu(), nk.Dense(), conv()
GAP, FLAT = nk.GlobalAvgPool(), nk.Flatten()
AROUND = conv(padding="CIRCULAR")
STANDARD = nk.Conv((3, 2), (1, 1), "SAME", 1.3, 0.1, "standard", 8)
HALVED = nk.Residual(R, conv(strides=(2, 2)), R, C, shortcut=conv((1, 1), (2, 2)))
IMAGE_NETS = {
    "cntk gap": nk.cntk(3),
    "cntk flatten": nk.cntk(3, "flatten", 1.3, 0.2),
    "even filters": nk.Serial(conv((2, 4)), R, conv((3, 2), padding="VALID"), R, FLAT),
    "one pixel high": nk.Serial(conv((1, 3)), R, conv((5, 1)), R, GAP, D),
    "circular": nk.Serial(AROUND, R, conv((2, 3), padding="CIRCULAR"), R, C, GAP),
    "circular, pooled": nk.Serial(
        C, R, nk.AvgPool((2, 2)), AROUND, nk.Erf(), nk.SumPool((2, 1)), C, R, GAP, D
    ),
    "circular, strided": nk.Serial(C, R, conv(padding="CIRCULAR", strides=(1, 2)), R, C, GAP),
    "circular, after VALID": nk.Serial(conv((2, 2), padding="VALID"), R, AROUND, R, GAP, D),
    "circular, then VALID and SAME": nk.Serial(AROUND, R, conv(padding="VALID"), R, C, R, GAP, D),
    "circular, then strided": nk.Serial(AROUND, R, conv(strides=(2, 2)), R, C, R, GAP, D),
    "circular, any filter and stride": nk.Serial(
        *(conv((6, 3), (2, 3), "CIRCULAR"), R, conv((2, 5), padding="CIRCULAR"), R, C, GAP, D)
    ),
    "circular, in a branch": nk.Serial(
        C,
        nk.Residual(R, conv(strides=(2, 2)), R, AROUND, shortcut=conv((1, 1), (2, 2))),
        R,
        AROUND,
        nk.Erf(),
        GAP,
        D,
    ),
    "one pixel by different strides": nk.Serial(
        C,
        nk.Residual(R, conv((5, 1), padding="VALID"), shortcut=conv((1, 1), (5, 1))),
        R,
        AROUND,
        R,
        GAP,
        D,
    ),
    "flatten, then a nonlinearity": nk.Serial(C, FLAT, nk.Residual(R, D), D, R, D),
    "strides beyond the image": nk.Serial(
        *(conv((1, 1), (1024, 1024)),) * 4, nk.AvgPool((1, 1)), GAP, D
    ),
    "strides": nk.Serial(
        conv(strides=(2, 1)), R, conv(strides=(2, 2), padding="VALID"), nk.GlobalSumPool()
    ),
    "pools": nk.Serial(
        conv(b_std=None), R, nk.AvgPool((2, 2), (2, 2)), C, R, nk.AvgPool((2, 2)), GAP, D
    ),
    "overlapping pools": nk.Serial(
        *(C, R, nk.AvgPool((3, 3), (2, 2), "SAME"), C, nk.LeakyRelu(0.2)),
        *(nk.AvgPool((2, 3), (1, 1), "SAME", True), FLAT, D),
    ),
    "pool after stride": nk.Serial(conv(strides=(2, 2)), R, nk.AvgPool((2, 2)), C, R, GAP, D),
    "pixelwise": nk.Serial(nk.Dense(1.2, 0.1), nk.Gelu(), C, nk.LayerNorm(), nk.Sin(), FLAT, D),
    "standard": nk.Serial(STANDARD, R, FLAT, nk.Dense(1.1, 0.1, "standard")),
    "residual": nk.Serial(C, nk.Residual(R, C), R, GAP, D),
    "strided residual": nk.Serial(C, HALVED, R, GAP, D),
    "gated": nk.Serial(
        *(C, nk.FanOut(2), nk.Parallel(C, nk.Serial(C, nk.Erf())), nk.FanInProd(), C, R, GAP, D)
    ),
    "flattened factors": nk.Serial(
        *(nk.FanOut(2), nk.Parallel(nk.Serial(C, FLAT), nk.Serial(C, FLAT)), nk.FanInProd()),
        *(D, R, D),
    ),
    "concatenated": nk.Serial(
        *(C, nk.FanOut(2), nk.Parallel(C, nk.Serial(C, R)), nk.FanInConcat(), nk.AvgPool((2, 2))),
        *(C, R, GAP, D),
    ),
    "dropout": nk.Serial(
        *(C, R, nk.Dropout(0.7), nk.AvgPool((2, 2)), C, R, nk.Dropout(0.5), GAP),
        *(nk.Dropout(0.6), D, R, D),
    ),
    "normalised over pixels": nk.Serial(
        *(C, nk.LayerNorm(0.1, (1, 2, 3)), R, C, nk.LayerNorm(axis=(1, 3)), R),
        *(C, nk.LayerNorm(axis=(-1, -2)), nk.Erf(), FLAT, D),
    ),
    "head": nk.Serial(C, nk.Erf(), GAP, nk.Dense(1.2, 0.1), nk.LayerNorm(), R, D),
}

# Networks of samples with positions, and the shape of a sample: on displacement planes, where
# sequences run, and by full covariances.
CONV1, CONV3 = (nk.Conv((3,) * rank, padding="SAME", W_std=1.3, b_std=0.1) for rank in (1, 3))
PLANE_SIGNAL_NETS = {
    "sequence, gap": (nk.Serial(CONV1, R, CONV1, R, GAP, D), (7, 2)),
    "sequence, flatten": (nk.Serial(CONV1, nk.Erf(), nk.Conv((2,), (2,)), R, FLAT, D), (7, 2)),
    "sequence, pools": (
        nk.Serial(
            *(CONV1, R, nk.AvgPool((3,), (2,), "SAME", True), CONV1, R, nk.SumPool((2,)), GAP, D)
        ),
        (9, 2),
    ),
    "sequence, residual": (
        nk.Serial(CONV1, nk.Residual(R, CONV1), R, nk.LocalAvgPool(3), D),
        (6, 2),
    ),
    "sequence, circular": (
        nk.Serial(
            *(nk.Conv((4,), (2,), "CIRCULAR", 1.2, 0.1), R, nk.Conv((3,), padding="CIRCULAR")),
            *(R, GAP, nk.Dense(1.2, 0.1), nk.LayerNorm(), R, D),
        ),
        (8, 2),
    ),
    "sequence, standard": (
        nk.Serial(
            nk.Conv((3,), (1,), "SAME", 1.3, 0.1, "standard", 8),
            R,
            FLAT,
            nk.Dense(1.1, 0.1, "standard"),
        ),
        (5, 2),
    ),
    "dilated": (
        nk.Serial(
            *(nk.Conv((3, 2), (2, 1), "SAME", 1.2, 0.1, dilation=(1, 2)), R),
            *(nk.Conv((2, 2), padding="CIRCULAR", dilation=(2, 3)), R, GAP, D),
        ),
        (5, 4, 2),
    ),
    "dilated sequence": (
        nk.Serial(nk.Conv((3,), b_std=0.1, dilation=(2,)), FLAT, nk.Residual(R, D), D),
        (8, 2),
    ),
}
LOCAL = nk.ConvLocal((2, 3), padding="SAME", W_std=1.3, b_std=0.1)
UP = nk.ConvTranspose((3, 2), (2, 1), "SAME", 1.2, 0.1)
FULL_NETS = {
    "volume, gap": (nk.Serial(CONV3, R, CONV3, R, GAP, D), (3, 2, 3, 2)),
    "volume, flatten": (
        nk.Serial(CONV3, nk.LayerNorm(1e-3), R, nk.Conv((2, 2, 2), (2, 1, 1)), nk.Erf(), FLAT, D),
        (3, 2, 3, 2),
    ),
    "volume, pools": (
        nk.Serial(CONV3, R, nk.AvgPool((2, 1, 2), padding="SAME"), CONV3, R, nk.LocalAvgPool(3), D),
        (2, 2, 3, 2),
    ),
    "volume, normalised": (
        nk.Serial(
            *(CONV3, nk.LayerNorm(0.1, (1, 3, -1)), R, CONV3, nk.LayerNorm(axis=(1, 2, 3, 4)), R),
            *(nk.Conv((2, 1, 1)), nk.LayerNorm(), nk.Erf(), FLAT, D),
        ),
        (3, 2, 2, 2),
    ),
    "local, normalised": (
        nk.Serial(
            LOCAL, nk.LayerNorm(0.1, (2, 3)), R, LOCAL, nk.LayerNorm(axis=(1, 3)), R, FLAT, D
        ),
        (4, 3, 2),
    ),
    "four axes": (nk.Serial(nk.Conv((2, 1, 2, 1), b_std=0.1), R, GAP, D), (2, 2, 3, 1, 2)),
    "dilated volume": (
        nk.Serial(CONV3, R, nk.Conv((2, 2, 1), padding="SAME", dilation=(1, 2, 1)), R, FLAT, D),
        (3, 3, 2, 2),
    ),
    "local": (nk.Serial(C, R, LOCAL, R, C, R, GAP, D), (4, 3, 2)),
    "local, flatten": (nk.Serial(LOCAL, R, nk.ConvLocal((2, 2), (2, 1)), R, FLAT, D), (4, 3, 2)),
    "local, standard": (
        nk.Serial(nk.ConvLocal((2,), (1,), "CIRCULAR", 1.3, 0.2, "standard", 8), R, GAP, D),
        (4, 2),
    ),
    "transposed": (nk.Serial(C, R, UP, R, GAP, D), (3, 3, 2)),
    "transposed, valid": (
        nk.Serial(nk.ConvTranspose((2, 4), (3, 2), "VALID", 1.2, 0.1), R, C, R, FLAT, D),
        (2, 3, 2),
    ),
    "transposed, circular": (
        nk.Serial(
            nk.ConvTranspose((5,), (2,), "CIRCULAR", 1.2, 0.1),
            R,
            nk.ConvTranspose((7,), padding="CIRCULAR"),
            R,
            GAP,
            D,
        ),
        (4, 2),
    ),
    "transposed, standard": (
        nk.Serial(nk.ConvTranspose((3,), (1,), "SAME", 1.3, 0.2, "standard", 8), R, FLAT, D),
        (4, 2),
    ),
    "resized": (nk.Serial(C, R, nk.ImageResize((7, 2)), C, R, GAP, D), (4, 4, 2)),
    "resized, nearest": (
        nk.Serial(C, R, nk.ImageResize((-1, 5), "nearest"), C, R, FLAT, D),
        (3, 4, 2),
    ),
    "resized, aliased": (
        nk.Serial(nk.ImageResize((2, 3), "linear", False), C, R, FLAT, D),
        (5, 4, 2),
    ),
    "cropped": (
        nk.Serial(C, R, nk.Index((slice(None, None, -2), slice(1, 3))), C, R, GAP, D),
        (4, 4, 2),
    ),
    "a row": (nk.Serial(C, R, nk.Index((1,)), CONV1, R, FLAT, D), (3, 4, 2)),
    "a pixel": (nk.Serial(C, R, nk.Index((..., 1, -1)), D, R, D), (3, 4, 2)),
    "difference": (
        nk.Serial(
            C,
            R,
            nk.DotGeneral(rhs=(1.0, -1.0), dimension_numbers=(((1,), (0,)), ((), ()))),
            nk.Conv((3,), b_std=0.1),
            R,
            GAP,
            D,
        ),
        (2, 5, 2),
    ),
    "mixed": (
        nk.Serial(
            C,
            R,
            nk.DotGeneral(
                lhs=((0.5, 1.0), (1.0, 0.0), (0.3, -2.0)),
                dimension_numbers=(((1,), (1,)), ((), ())),
            ),
            C,
            R,
            FLAT,
            D,
        ),
        (2, 4, 2),
    ),
    "pool in a branch": (
        nk.Serial(
            C,
            nk.Residual(R, nk.AvgPool((3, 2), (1, 1), "SAME"), C),
            R,
            C,
            nk.Residual(R, nk.SumPool((2, 2), (2, 2)), C, shortcut=conv((1, 1), (2, 2))),
            R,
            GAP,
            D,
        ),
        (4, 4, 2),
    ),
    "different strides": (
        nk.Serial(
            C, nk.Residual(R, conv(strides=(2, 2)), shortcut=conv(padding="VALID")), R, GAP, D
        ),
        (5, 5, 2),
    ),
    "circular pool": (
        nk.Serial(
            C,
            R,
            nk.AvgPool((3, 2), (2, 1), "CIRCULAR"),
            C,
            R,
            nk.SumPool((5, 5), padding="CIRCULAR"),
            FLAT,
            D,
        ),
        (5, 4, 2),
    ),
    "circular, in a branch, strided": (
        nk.Serial(
            C,
            nk.Residual(
                R,
                conv(padding="CIRCULAR", strides=(2, 3)),
                R,
                AROUND,
                shortcut=conv((1, 1), (2, 3)),
            ),
            R,
            AROUND,
            GAP,
            D,
        ),
        (5, 4, 2),
    ),
    "three branches of volumes": (
        nk.Serial(
            nk.FanOut(3),
            nk.Parallel(
                CONV3,
                nk.Serial(CONV3, R, CONV3),
                nk.Serial(nk.AvgPool((2, 2, 2), padding="SAME"), CONV3),
            ),
            nk.FanInSum(),
            R,
            GAP,
            nk.Dense(1.2, 0.1),
            R,
            D,
        ),
        (2, 2, 2, 2),
    ),
}
FULL_NETS |= OWN_NETS
SIGNAL_NETS = PLANE_SIGNAL_NETS | FULL_NETS
