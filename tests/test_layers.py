"""Specs: they print, compare, round-trip, and refuse what does not fit, by name."""

import math
import pickle

import numpy as np
import pytest

import ntkcore as nk
from ntkcore.layers import LAYERS
from ntkcore.lowering import stages

EXAMPLES = [
    nk.Dense(),
    nk.Dense(1.5, 0.1, "standard", 64),
    nk.Conv((3, 3)),
    nk.Conv((2, 5), (2, 1), "SAME", 1.2, 0.3, "standard", 8),
    nk.AvgPool((2, 2), (2, 2), "SAME", True),
    nk.SumPool((2, 3)),
    nk.GlobalAvgPool(),
    nk.GlobalSumPool(),
    nk.Flatten(),
    nk.LocalAvgPool(3),
    nk.Identity(),
    nk.LayerNorm(1e-6),
    nk.FanOut(2),
    nk.FanInSum(),
    nk.Parallel(nk.Identity(), nk.Dense()),
    nk.Residual(nk.Relu(), nk.Dense(), shortcut=nk.Dense(2.0)),
    nk.Serial(nk.Dense(), nk.Relu()),
    *(nk.Relu(), nk.LeakyRelu(0.2), nk.ABRelu(0.1, 0.9), nk.Abs(), nk.Erf(1, 2, 3), nk.Gelu(), nk.Sin(), nk.Cos(c=1)),
    *(nk.Exp(), nk.Gaussian(), nk.Rbf(0.5), nk.ArcCosine(2)),
]
NETS = [nk.mlp(2), nk.cntk(3), nk.cntk(2, "flatten"), nk.myrtle(5), nk.myrtle(10), nk.resnet(2)]


def test_every_layer_has_an_example():
    abstract = {"Activation", "Readout"}
    assert {type(layer).__name__ for layer in EXAMPLES} == set(LAYERS) - abstract


@pytest.mark.parametrize("layer", [*EXAMPLES, *NETS], ids=repr)
def test_round_trips(layer):
    assert nk.from_json(layer.to_json()) == layer
    assert eval(repr(layer), vars(nk)) == layer
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert hash(nk.from_json(layer.to_json())) == hash(layer)
    assert type(layer).__name__ in str(layer)


def test_printing():
    assert repr(nk.Dense()) == "Dense()"
    assert repr(nk.Serial(nk.Dense(1.5), nk.Relu())) == "Serial(Dense(W_std=1.5), Relu())"
    assert str(nk.Serial(nk.Dense(), nk.Residual(nk.Relu()))).splitlines()[2] == "  Residual"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON"),
        ("[1]", "layer"),
        ('{"layer": "Foo"}', "unknown layer 'Foo'"),
        ('{"layer": "Dense", "width_std": 1}', "no field width_std"),
        ('{"layer": "ABRelu"}', "missing"),
        ('{"layer": "Dense", "W_std": "big"}', "number"),
    ],
)
def test_bad_json(text, words):
    with pytest.raises((ValueError, TypeError), match=words):
        nk.from_json(text)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: nk.Dense(-1), ValueError, "W_std"),
        (lambda: nk.Dense(1, -0.1), ValueError, "b_std"),
        (lambda: nk.Dense(math.nan), ValueError, "finite"),
        (lambda: nk.Dense("a"), TypeError, "number"),
        (lambda: nk.Dense(parameterization="mup"), ValueError, "parameterization"),
        (lambda: nk.Dense(width=0), ValueError, "width"),
        (lambda: nk.Erf(math.inf), ValueError, "finite"),
        (lambda: nk.Rbf(-1), ValueError, "gamma"),
        (lambda: nk.ArcCosine(3), ValueError, "order"),
        (lambda: nk.FanOut(0), ValueError, "num"),
        (lambda: nk.Serial(1), TypeError, "layers"),
        (lambda: nk.Conv((3,)), ValueError, "filter_shape"),
        (lambda: nk.Conv((3, 0)), ValueError, "filter_shape"),
        (lambda: nk.Conv((3, 3), (0, 1)), ValueError, "strides"),
        (lambda: nk.Conv((3, 3), padding="FULL"), ValueError, "padding"),
        (lambda: nk.Conv((3, 3), W_std=-1), ValueError, "Conv: W_std"),
        (lambda: nk.AvgPool((2, 2), padding="CIRCULAR"), ValueError, "padding"),
        (lambda: nk.LocalAvgPool(2), ValueError, "odd"),
        (lambda: nk.mlp(-1), ValueError, "depth"),
        (lambda: nk.myrtle(6), ValueError, "5, 7 or 10"),
        (lambda: nk.cntk(2, "max"), ValueError, "head"),
        (lambda: nk.resnet(0), ValueError, "blocks"),
    ],
)
def test_bad_specs(build, error, words):
    with pytest.raises(error, match=words):
        build()


D, C = nk.Dense(), nk.Conv((3, 3), (1, 1), "SAME")
VECTORS, IMAGES = np.ones((3, 4)), np.ones((2, 6, 5, 3))


@pytest.mark.parametrize(
    ("layers", "x", "words"),
    [
        ([nk.Relu()], VECTORS, r"layer 0, Relu\(\): .*affine"),
        ([D, nk.Relu(), nk.Erf(), D], VECTORS, r"layer 2, Erf\(\)"),
        ([nk.LayerNorm()], VECTORS, "LayerNorm.*Gaussian"),
        ([D, nk.Relu(), nk.LayerNorm()], VECTORS, "layer 2, LayerNorm"),
        ([D, nk.FanOut(2)], VECTORS, "branches"),
        ([D, nk.FanInSum()], VECTORS, "FanOut"),
        ([D, nk.Parallel(D, D)], VECTORS, "FanOut"),
        ([D, nk.FanOut(3), nk.Parallel(D, D), nk.FanInSum()], VECTORS, "2 branches, got 3"),
        ([D, nk.FanOut(2), nk.Parallel(nk.Identity(), nk.Identity()), nk.FanInSum()], VECTORS, "correlated"),
        ([D, nk.Residual(nk.Relu())], VECTORS, "correlated"),
        ([nk.Dense(parameterization="standard"), nk.Relu(), nk.Dense(parameterization="standard")], VECTORS, "width"),
        ([D, nk.ArcCosine(0), D], VECTORS, "infinite"),
        ([nk.GlobalAvgPool(), D], VECTORS, "needs images"),
        ([C, nk.Relu(), nk.Flatten(), D], VECTORS, r"Conv.*needs images.*\(4,\)"),
        ([nk.Conv((7, 3)), nk.Flatten()], IMAGES, r"layer 0, Conv.*no pixel.*\(6, 5\)"),
        ([C, nk.Relu(), nk.AvgPool((9, 9)), nk.Flatten()], IMAGES, "layer 2, AvgPool.*no pixel"),
        ([C, nk.Relu(), nk.AvgPool((2, 2)), nk.Relu(), nk.Flatten()], IMAGES, r"layer 3, Relu\(\): .*affine"),
        ([C, nk.Relu()], IMAGES, r"image of shape \(6, 5, 3\)"),
        ([nk.Conv((3, 3), (2, 2), "CIRCULAR"), nk.Flatten()], IMAGES, "must divide"),
        ([nk.Conv((7, 3), (1, 1), "CIRCULAR"), nk.Flatten()], IMAGES, "larger than the image"),
        ([C, nk.Residual(nk.AvgPool((1, 1)), C), nk.Flatten()], IMAGES, "branches"),
        ([nk.FanOut(2), nk.Parallel(nk.Conv((3, 3)), C), nk.FanInSum(), nk.Flatten()], IMAGES, "differ in shape"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, x, words):
    with pytest.raises(ValueError, match=words):
        nk.kernel(nk.Serial(*layers), x)


def test_arc_cosine_of_order_0_has_an_nngp_kernel():
    assert nk.kernel(nk.Serial(D, nk.ArcCosine(0), D), VECTORS, get="nngp").shape == (3, 3)


def test_stages():
    parts, readout = stages(nk.Serial(D, nk.Relu(), nk.Serial(D, nk.Residual(nk.Relu(), D)), nk.LayerNorm(), D))
    assert [len(part) for part in parts] == [2, 2]
    assert readout == [nk.LayerNorm(), D]
    branches = [nk.FanOut(2), nk.Parallel(nk.Identity(), nk.Serial(nk.Relu(), D)), nk.FanInSum()]
    parts, readout = stages(nk.Serial(D, *branches, nk.Relu(), D))
    assert [len(part) for part in parts] == [4, 1]
