"""Random finite networks, wide, several draws:
their empirical kernels scatter about the infinite-width ones.
"""

import numpy as np
import pytest

import ntkcore as nk
from numpy_nets import scatters_about

CONV, STRIDED = nk.Conv((3, 3), (1, 1), "SAME", 1.3, 0.2), nk.Conv((3, 2), (2, 1), "SAME", 1.2)
HALVED, AROUND = nk.Conv((1, 2), (2, 2), "SAME", 1.2), nk.Conv((3, 2), (1, 1), "CIRCULAR", 1.2, 0.1)
DENSE, RELU = nk.Dense(1.1, 0.1), nk.Relu()
NETS = {
    "dense": nk.Serial(DENSE, RELU, DENSE, nk.Erf(), DENSE),
    "dense residual": nk.Serial(DENSE, nk.Residual(RELU, DENSE), RELU, DENSE),
    "flatten": nk.Serial(CONV, RELU, CONV, RELU, nk.Flatten(), DENSE),
    "gap": nk.Serial(CONV, RELU, CONV, nk.Erf(), nk.GlobalAvgPool(), DENSE),
    "strides": nk.Serial(CONV, RELU, STRIDED, RELU, nk.GlobalAvgPool(), DENSE),
    "pool": nk.Serial(CONV, RELU, nk.AvgPool((2, 2), (2, 2)), CONV, RELU, nk.Flatten(), DENSE),
    "circular": nk.Serial(
        *(
            nk.Conv((6, 3), (2, 3), "CIRCULAR", 1.3),
            RELU,
            nk.Conv((1, 5), padding="CIRCULAR"),
            RELU,
            nk.Flatten(),
            DENSE,
        )
    ),
    "circular in a branch": nk.Serial(
        *(
            CONV,
            nk.Residual(RELU, HALVED, RELU, AROUND, shortcut=HALVED),
            RELU,
            nk.GlobalAvgPool(),
            DENSE,
        )
    ),
    "nested": nk.Serial(
        CONV, nk.Residual(RELU, CONV, nk.Residual(RELU, CONV)), nk.Flatten(), RELU, DENSE
    ),
    "residual": nk.Serial(
        CONV, nk.Residual(RELU, CONV), RELU, nk.GlobalAvgPool(), DENSE, RELU, DENSE
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_wide_networks_scatter_about_the_kernel(name):
    image = any(isinstance(layer, nk.Conv) for layer in NETS[name].layers)
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 2) if image else (4, 7))
    assert scatters_about(NETS[name], x)
