"""Every layer after every layer: its kernel is the reference's and that of wide finite networks,
or it is refused.
"""

import itertools
import zlib

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from numpy_nets import scatters_about
from reference import reference
from test_image_layers import plain

DENSE, CONV = nk.Dense(1.2, 0.3), nk.Conv((2, 1), (1, 1), "SAME", 1.2, 0.3)
LAYERS = {
    "Dense": DENSE,
    "Conv": CONV,
    "Circular": nk.Conv((2, 1), (2, 1), "CIRCULAR", 1.1, 0.2),
    "Relu": nk.Relu(),
    "Erf": nk.Erf(),
    "LayerNorm": nk.LayerNorm(0.1),
    "NormAll": nk.LayerNorm(0.1, (1, 2, 3)),
    "Dropout": nk.Dropout(0.6),
    "Gated": nk.Serial(nk.FanOut(2), nk.Parallel(nk.Identity(), DENSE), nk.FanInProd()),
    "Concat": nk.Serial(nk.FanOut(2), nk.Parallel(DENSE, nk.Dense(0.6)), nk.FanInConcat()),
    "Identity": nk.Identity(),
    "AvgPool": nk.AvgPool((2, 1), (1, 1), "SAME"),
    "Edges": nk.AvgPool((2, 1), (2, 1), "SAME", True),
    "SumPool": nk.SumPool((2, 1), padding="SAME"),
    "Flatten": nk.Flatten(),
    "LocalAvgPool": nk.LocalAvgPool(3),
    "GlobalAvgPool": nk.GlobalAvgPool(),
    "GlobalSumPool": nk.GlobalSumPool(),
    "Residual": nk.Residual(nk.Relu(), DENSE),
    "Linear": nk.Residual(DENSE),
    "Nested": nk.Residual(DENSE, nk.Residual(nk.Relu(), DENSE)),
}
NEEDS_IMAGES = {
    "Conv",
    "Circular",
    "NormAll",
    "AvgPool",
    "Edges",
    "SumPool",
    "LocalAvgPool",
    "GlobalAvgPool",
    "GlobalSumPool",
}
READOUTS = {"Flatten", "LocalAvgPool", "GlobalAvgPool", "GlobalSumPool"}


def images(width):
    """Two images of 3 pixels unlike in size, so many channels with the inner products of 2."""
    rng = np.random.default_rng(0)
    few = rng.standard_normal((2, 3, 1, 2)) * np.array([2.0, 1.0, 0.3])[:, None, None]
    basis = np.linalg.qr(rng.standard_normal((width, 2)))[0]
    return few @ basis.T * (width / 2) ** 0.5


def has_kernel(names):
    """The laws, told once more: "data" is anything, pixels of a "mixed" vector differ,
    those of "pixels" are known.
    """
    image, law, raw = True, "data", True
    for name in names:
        if name in NEEDS_IMAGES and not image:
            return False
        if name in ("Relu", "Erf", "Residual") and law not in ("gaussian", "pixels"):
            return False
        if name in ("LayerNorm", "NormAll") and law == "data":
            return False
        if name == "Dropout" and raw:
            return False
        raw &= name not in ("Dense", "Conv", "Circular", "Linear", "Nested", "Gated", "Concat")
        if name in ("Dense", "Conv", "Circular"):
            law = "gaussian"
        elif name in ("Relu", "Erf", "Dropout", "Gated"):
            law = "data"
        elif name == "Concat":
            law = "mixed"
        elif name in ("Flatten", "LocalAvgPool") and image and law == "gaussian":
            law = "pixels"
        elif name in ("Residual", "Linear", "Nested", "LayerNorm") and law == "pixels":
            law = "mixed"
        image &= name not in READOUTS
    return True


def check(names, width):
    """Right, or refused by an error that names the layer."""
    x = images(width)
    closing = [DENSE] if READOUTS & set(names) else [nk.Flatten(), DENSE]
    net = nk.Serial(*(LAYERS[name] for name in names), *closing)
    if not has_kernel(names):
        with pytest.raises(ValueError, match=r"^layer \d"):
            nk.kernel(net, x)
        return
    ours, expected = nk.kernel(net, x, None, ("nngp", "ntk")), reference(plain(net), x)
    assert max(relative_error(ours[k], expected[k]) for k in (0, 1)) < 1e-10
    seed = zlib.crc32(" ".join(names).encode())
    if names.count("Gated") > 1:
        return  # products of products: their tails are too heavy for a mean of draws
    draws, error = (48, 0.2) if {"Gated", "Dropout"} & set(names) else (16, 0.1)
    assert scatters_about(net, x, width=width, draws=draws, error=error, errors=5, seed=seed), names


PAIRS = list(itertools.product(LAYERS, repeat=2))


@pytest.mark.parametrize("first", LAYERS)
def test_every_layer_after_every_layer(first):
    for second in LAYERS:
        check((first, second), 128)
        check(("Conv", first, second), 128)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_layer_after_every_pair(first, second):
    for third in LAYERS:
        check(("Conv", first, second, third), 192)
