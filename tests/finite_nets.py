"""What the tests of finite networks share: PyTorch, without which they are skipped,
networks and data.
"""

import numpy as np
import pytest

import ntkcore as nk

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # small matrices: more would only get into each other's way

DENSE, CONV, RELU = nk.Dense(1.2, 0.3), nk.Conv((3, 3), (1, 1), "SAME", 1.3, 0.2), nk.Relu()
NETS = {
    "dense": nk.Serial(DENSE, RELU, DENSE, nk.Erf(), DENSE),
    "dense residual": nk.Serial(DENSE, nk.Residual(RELU, DENSE), nk.Gelu(), DENSE),
    "layer norm": nk.Serial(DENSE, nk.LayerNorm(), nk.Gelu(), DENSE, nk.LayerNorm(), RELU, DENSE),
    "three branches": nk.Serial(
        nk.FanOut(3),
        nk.Parallel(DENSE, nk.Dense(0.5), nk.Serial(DENSE, RELU, DENSE)),
        nk.FanInSum(),
        RELU,
        DENSE,
    ),
    "flatten": nk.Serial(CONV, RELU, nk.Conv((2, 3)), RELU, nk.Flatten(), DENSE),
    "gap": nk.Serial(CONV, RELU, CONV, nk.Erf(), nk.GlobalAvgPool(), DENSE, RELU, DENSE),
    "strides": nk.Serial(
        CONV, RELU, nk.Conv((3, 2), (2, 1), "SAME", 1.2), RELU, nk.GlobalAvgPool(), DENSE
    ),
    "circular": nk.Serial(
        nk.Conv((3, 2), (1, 2), "CIRCULAR"),
        RELU,
        nk.Conv((2, 3), (1, 1), "CIRCULAR"),
        nk.Flatten(),
        DENSE,
    ),
    "circular, larger than the image": nk.Serial(
        nk.Conv((9, 7), (3, 4), "CIRCULAR", 1.1),
        RELU,
        nk.Conv((1, 5), padding="CIRCULAR"),
        RELU,
        nk.Flatten(),
        DENSE,
    ),
    "flatten before a nonlinearity": nk.Serial(CONV, nk.Flatten(), RELU, DENSE),
    "nested residual": nk.Serial(
        DENSE, nk.Residual(RELU, DENSE, nk.Residual(RELU, DENSE)), RELU, DENSE
    ),
    "valid strides": nk.Serial(nk.Conv((2, 2), (2, 2)), RELU, nk.Flatten(), DENSE),
    "average pool": nk.Serial(
        CONV, RELU, nk.AvgPool((2, 2), (2, 2)), CONV, RELU, nk.Flatten(), DENSE
    ),
    "pool with edges": nk.Serial(
        CONV, RELU, nk.AvgPool((3, 2), (2, 2), "SAME", True), nk.Flatten(), DENSE
    ),
    "pool at borders": nk.Serial(
        CONV, RELU, nk.AvgPool((3, 2), (2, 2), "SAME"), nk.Flatten(), DENSE
    ),
    "sum pool": nk.Serial(
        CONV, RELU, nk.SumPool((2, 2), (1, 2)), nk.GlobalSumPool(), nk.Dense(0.1)
    ),
    "local pool": nk.Serial(CONV, RELU, nk.LocalAvgPool(3), DENSE),
    "dense on images": nk.Serial(CONV, RELU, DENSE, RELU, nk.Flatten(), DENSE),
    "conv residual": nk.Serial(CONV, nk.Residual(RELU, CONV), RELU, nk.GlobalAvgPool(), DENSE),
    "gated": nk.Serial(
        *(DENSE, nk.FanOut(2), nk.Parallel(DENSE, nk.Serial(DENSE, nk.Sigmoid_like()))),
        *(nk.FanInProd(), DENSE, RELU, DENSE),
    ),
    "concatenated": nk.Serial(
        *(CONV, nk.FanOut(2), nk.Parallel(nk.Serial(CONV, RELU), CONV), nk.FanInConcat()),
        *(nk.Flatten(), nk.FanOut(2), nk.Parallel(nk.Identity(), nk.Serial(DENSE, RELU))),
        *(nk.FanInConcat(), DENSE, RELU, DENSE),
    ),
    "normalised over pixels": nk.Serial(
        CONV,
        nk.LayerNorm(axis=(1, 2, 3)),
        RELU,
        CONV,
        nk.LayerNorm(0.1, (1, 3)),
        RELU,
        nk.GlobalAvgPool(),
        DENSE,
    ),
    "polynomials": nk.Serial(
        *(
            DENSE,
            nk.LayerNorm(),
            nk.Hermite(2),
            nk.Dense(0.7),
            nk.Polynomial((0.3, 0.5, 0.1, -0.2)),
        ),
        *(nk.Dense(), nk.Gabor(), DENSE, nk.RectifiedMonomial(2), nk.Dense(), nk.Sign(True), DENSE),
    ),
    "monomial on images": nk.Serial(CONV, nk.Monomial(2), nk.GlobalAvgPool(), DENSE),
    "flattened images": nk.Serial(nk.Flatten(), DENSE, RELU, DENSE),
}


def shape_of(net):
    return (7,) if isinstance(net.layers[0], (nk.Dense, nk.FanOut)) else (4, 6, 2)


def data(net, n=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape_of(net)))
