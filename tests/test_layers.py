"""Specs: they print, compare, round-trip, and refuse what does not fit, by name."""

import json
import math
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ntkcore as nk
from examples import ACTIVATIONS, LAYERS, READY_NETS
from ntkcore.specs import activations
from ntkcore.specs import layers as registry


def test_every_layer_has_an_example():
    assert {type(layer).__name__ for layer in LAYERS} == set(registry.LAYERS)
    assert {name for name, each in ACTIVATIONS.items() if each} == set(activations.ACTIVATIONS)
    assert all(type(phi).__name__ == name for name, each in ACTIVATIONS.items() for phi in each)


@pytest.mark.parametrize("layer", [*LAYERS, *READY_NETS], ids=repr)
def test_round_trips(layer):
    assert nk.from_json(layer.to_json()) == layer
    assert eval(repr(layer), vars(nk)) == layer
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert hash(nk.from_json(layer.to_json())) == hash(layer)
    assert type(layer).__name__ in str(layer)


def test_equality_and_hash_are_those_of_the_fields():
    assert nk.Dense(1.5) == nk.Dense(W_std=1.5, b_std=None)
    # Biases of variance 0 still have a tangent in 'standard'.
    assert nk.Dense(1.5) != nk.Dense(1.5, 0.0)
    assert nk.Serial(nk.Dense(), nk.Relu()) != nk.Serial(nk.Relu(), nk.Dense())
    assert nk.Serial(nk.Dense()) != nk.Parallel(nk.Dense())
    assert nk.Relu() != nk.Abs()
    for i, one in enumerate(LAYERS):
        assert [other == one for other in LAYERS].index(True) == i
    assert len(set(LAYERS) | {nk.from_json(layer.to_json()) for layer in LAYERS}) == len(LAYERS)


def test_layers_are_frozen():
    with pytest.raises(FrozenInstanceError):
        nk.Dense().W_std = 2.0


def test_numbers_of_numpy_are_kept_as_plain_ones():
    dense = nk.Dense(np.float32(1.5), np.float64(0.5))
    assert dense == nk.Dense(1.5, 0.5)
    assert repr(dense) == "Dense(W_std=1.5, b_std=0.5)"
    assert nk.from_json(dense.to_json()) == dense


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(sorted(registry.LAYERS))
)
names = [
    "layer",
    "layers",
    "branch",
    "branches",
    "shortcut",
    "W_std",
    "b_std",
    "a",
    "b",
    "num",
    "order",
    "width",
]
documents = st.recursive(
    values,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {"layer": st.sampled_from(sorted(registry.LAYERS))},
            optional=dict.fromkeys(names[1:], inner),
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(documents)
@example({"layer": "Serial"})
@example({"layer": "Dense", "W_std": 10**400})
def test_any_json_is_a_layer_or_a_value_error(document):
    try:
        net = nk.from_json(json.dumps(document))
    except ValueError:
        return
    assert nk.from_json(net.to_json()) == net


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
        ('{"layer": "Dense", "W_std": NaN}', "finite"),
        ('{"layer": "Dense", "W_std": [1]}', "number"),
        ('{"layer": "Dense", "width": 1.5}', "width"),
        ('{"layer": ["x"]}', "unknown layer"),
        ('{"layer": null}', "unknown layer None"),
        ('{"layer": "Layer"}', "unknown layer 'Layer'"),
        ('{"layer": "Serial", "layers": 5}', "ill-typed"),
        ('{"layer": "Serial", "layers": [{"layer": "Foo"}]}', "unknown layer 'Foo'"),
        ('{"layer": "Residual", "branch": [], "shortcut": 3}', "Residual: takes layers"),
        ("null", "JSON object"),
        (None, "must be JSON text"),
        ('"Relu"', "JSON object"),
        ('{"layer": "Serial"}', "Serial"),
        ('{"layer": "Residual"}', "Residual"),
        ('{"layer": "Activation"}', "unknown layer"),
        ('{"layer": "Readout"}', "unknown layer"),
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
        (lambda: nk.Dense(1j), TypeError, "number"),
        (lambda: nk.Dense(None), TypeError, "number"),
        (lambda: nk.Dense(np.ones(2)), TypeError, "number"),
        (lambda: nk.Dense(width=1.5), ValueError, "width"),
        (lambda: nk.Relu(1), TypeError, "argument"),
        (lambda: nk.ABRelu(1), TypeError, "'b'"),
        (lambda: nk.LayerNorm(-1e-3), ValueError, "LayerNorm: eps"),
        (lambda: nk.LayerNorm(axis=1.5), TypeError, "LayerNorm: axis"),
        (lambda: nk.LayerNorm(axis=()), TypeError, "LayerNorm: axis"),
        (lambda: nk.FanInConcat(True), TypeError, "FanInConcat: axis"),
        (lambda: nk.Dropout(0.0), ValueError, "Dropout: rate.*keep"),
        (lambda: nk.Dropout(1.1), ValueError, "Dropout: rate"),
        (lambda: nk.Dropout("a"), TypeError, "Dropout: rate"),
        (lambda: nk.Dropout(0.5, "eval"), ValueError, "Dropout: mode"),
        (lambda: nk.Gaussian(b=math.nan), ValueError, "Gaussian: b"),
        (lambda: nk.LeakyRelu("x"), TypeError, "LeakyRelu: alpha"),
        (lambda: nk.ArcCosine(True), ValueError, "order"),
        (lambda: nk.RectifiedMonomial(-1), ValueError, "RectifiedMonomial: degree"),
        (lambda: nk.Monomial(1.0), ValueError, "Monomial: degree"),
        (lambda: nk.Hermite(21), ValueError, "Hermite: degree.*20"),
        (lambda: nk.Sign(frozen=1), TypeError, "Sign: frozen"),
        (lambda: nk.Polynomial(range(9)), ValueError, "Polynomial.*degree 7, not 9"),
        (lambda: nk.Polynomial((1, math.nan)), ValueError, "Polynomial: coef must be finite"),
        (lambda: nk.Polynomial(("1",)), TypeError, "Polynomial: coef must be a number"),
        (lambda: nk.Polynomial(1.0), TypeError, "Polynomial: coef"),
        (lambda: nk.ExpNormalized(-0.1), ValueError, "ExpNormalized: gamma"),
        (lambda: nk.FanOut(1.5), ValueError, "num"),
        (lambda: nk.Parallel(nk.Relu), TypeError, "Parallel: takes layers"),
        (lambda: nk.Residual(nk.Relu(), shortcut=3), TypeError, "Residual: takes layers"),
        (lambda: nk.Dense(10**400), ValueError, "W_std"),
        (lambda: nk.Dense("1.5"), TypeError, "number"),
        (lambda: nk.Dense(width=True), ValueError, "width"),
        (lambda: nk.Dense(parameterization="mup"), ValueError, "parameterization"),
        (lambda: nk.Dense(width=0), ValueError, "width"),
        (lambda: nk.Erf(math.inf), ValueError, "finite"),
        (lambda: nk.Rbf(-1), ValueError, "gamma"),
        (lambda: nk.ArcCosine(21), ValueError, "order"),
        (lambda: nk.FanOut(0), ValueError, "num"),
        (lambda: nk.FanOut(10**9), ValueError, "from 1 to 1000"),
        (lambda: nk.FanOut(True), ValueError, "num"),
        (lambda: nk.Serial(1), TypeError, "layers"),
        (lambda: nk.Conv(()), ValueError, "filter_shape"),
        (lambda: nk.Conv((3,), (1, 1)), ValueError, "Conv: strides must hold.*1, one for every"),
        (lambda: nk.Conv((3, 3), dilation=(2,)), ValueError, "dilation"),
        (lambda: nk.ConvLocal((3, 3), W_std=-1), ValueError, "ConvLocal: W_std"),
        (lambda: nk.ConvTranspose((3, 3), channels=0), ValueError, "ConvTranspose: channels"),
        (lambda: nk.Index((1.5,)), ValueError, "Index: items"),
        (lambda: nk.Index((..., 0, ...)), ValueError, "Index: items"),
        (lambda: nk.Index((slice(None, None, 0),)), ValueError, "Index: items"),
        (lambda: nk.Index((slice(0.5, 2),)), ValueError, "Index: items"),
        (lambda: nk.ImageResize((0, 3)), ValueError, "ImageResize: shape"),
        (lambda: nk.ImageResize(3), ValueError, "ImageResize: shape"),
        (lambda: nk.ImageResize((3,), "bilinear"), ValueError, "method"),
        (lambda: nk.DotGeneral(), ValueError, "one of lhs and rhs"),
        (lambda: nk.DotGeneral(1.0, 2.0), ValueError, "one of lhs and rhs"),
        (lambda: nk.DotGeneral(rhs=[1.0, np.nan]), ValueError, "DotGeneral: rhs.*finite"),
        (lambda: nk.DotGeneral(rhs=[[1.0], [1.0, 2.0]]), ValueError, "DotGeneral: rhs.*finite"),
        (lambda: nk.DotGeneral(rhs=2.0, dimension_numbers=((1,), (0,))), ValueError, "dimension"),
        (lambda: nk.DotGeneral(rhs=2.0, dimension_numbers=3), ValueError, "dimension"),
        (lambda: nk.Conv((3, 0)), ValueError, "filter_shape"),
        (lambda: nk.Conv((3, 3), (0, 1)), ValueError, "strides"),
        (lambda: nk.Conv((3, 3), padding="FULL"), ValueError, "padding"),
        (lambda: nk.Conv((3, 3), W_std=-1), ValueError, "Conv: W_std"),
        (lambda: nk.AvgPool((2, 2), padding="FULL"), ValueError, "AvgPool: padding"),
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
VALID = nk.Conv((3, 3))
STRIDED, AROUND = nk.Conv((3, 3), (2, 2), "SAME"), nk.Conv((3, 3), (1, 1), "CIRCULAR")
VECTORS, IMAGES = np.ones((3, 4)), np.ones((2, 6, 5, 3))
