"""Packed data that are none, and bounds that leave the numbers."""

import numpy as np
import pytest

import ntkcore as nk

GAP = nk.GlobalAvgPool()
KINDS = nk.MaskedInput, nk.GraphInput


def packed(kind, **changes):
    """Four samples of six positions; the third with another mask at some of them."""
    channels = 3 if kind is nk.MaskedInput else 2 + 1 + 6
    x = np.random.default_rng(0).standard_normal((4, 6, channels))
    x[..., 2] = 1
    for at, value in changes.items():
        x[2, :, 2][{"all": slice(None), "one": 3}[at]] = value
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"all": 0.0}, "sample 2 has no position in use"),
        ({"one": 0.5}, r"sample 2 holds other values than 1.*channel 2.*packed by pack_"),
    ],
)
def test_masks_that_are_none(kind, changes, words, monkeypatch):
    monkeypatch.setattr("ntkcore.engine.packing.PANEL", 7)  # samples one by one
    net = nk.Serial(kind(), GAP)
    right, wrong = packed(kind), packed(kind, **changes)
    assert nk.kernel(net, right, wrong[:2]).shape == (4, 2)
    with pytest.raises(ValueError, match="x1: " + words):
        nk.kernel(net, wrong)
    with pytest.raises(ValueError, match="x2: " + words):
        nk.kernel(net, right, wrong)
    for call in (nk.kernel_diag, nk.plan):
        with pytest.raises(ValueError, match="x1: " + words):
            call(net, wrong)


def test_a_network_that_does_not_fit_is_refused_first():
    net = nk.Serial(nk.MaskedInput(), nk.MaskedInput(), GAP)
    with pytest.raises(ValueError, match="before all other"):
        nk.kernel(net, packed(nk.MaskedInput, one=0.5))


def test_bounds_beyond_all_numbers():
    """Variances stay 1/5 in a network whose bound on them leaves float64."""
    x = np.full((2, 5, 1), 0.2**0.5)
    net = nk.Serial(*(nk.GlobalSelfAttention(attention_mechanism="abs"),) * 12, GAP)
    np.testing.assert_allclose(nk.kernel(net, x, get="nngp"), 0.2, rtol=1e-9)


def test_samples_of_one_shape_are_lengthened():
    x = np.random.default_rng(0).standard_normal((3, 4, 2))
    for align in ("left", "right"):
        ours = nk.pack_sequences(x, length=6, align=align)
        assert np.array_equal(ours, nk.pack_sequences(list(x), length=6, align=align))
    assert np.array_equal(nk.pack_sequences(x, length=4), nk.pack_sequences(x))


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (np.ones((2, 4, 1)), 3),
        (np.ones((2, 4, 4, 1)), 5),
        *((data, n) for data in ([np.ones((4, 1))], np.ones((2, 4, 1))) for n in (7.5, "7", True)),
    ],
)
def test_lengths_that_are_none(data, length):
    with pytest.raises(ValueError, match="pack_sequences: length"):
        nk.pack_sequences(data, length=length)


def test_lists_of_graphs_in_ridge_models():
    graphs = [(np.ones((n, 1)), np.eye(n, k=1) + np.eye(n, k=-1)) for n in (2, 3, 4)]
    model = nk.estimators.NTKRegressor(nk.gntk(1))
    with pytest.raises(ValueError, match="not a list of pairs"):
        model.fit(graphs, [0, 1, 2])
    model.fit(nk.pack_graphs(graphs), [0, 1, 2])
    with pytest.raises(ValueError, match="not a list of pairs"):
        model.predict(graphs)
