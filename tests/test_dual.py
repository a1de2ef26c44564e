"""Every activation on every backend in both precisions, against integrals of its scalar function."""

import math

import numpy as np
import pytest

import ntkcore as nk
from ntkcore.layers import ACTIVATIONS
from reference import PHI, dual, reference

# One or more instances of every activation: an activation without an entry fails test_every_activation_is_tested.
EXAMPLES = {
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
    "ArcCosine": [nk.ArcCosine(0), nk.ArcCosine(1), nk.ArcCosine(2)],
}
CASES = [instance for name in ACTIVATIONS for instance in EXAMPLES.get(name, [])]


def points():
    """Independent, near, opposite, small and large vectors; none quite parallel, where the quadrature's angle fails."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4))
    more = [x[0] + 0.05 * x[1], -x[0] + 0.05 * x[2], 0.05 * (x[3] + x[1]), 2 * x[4] - x[5]]
    return np.concatenate([x, more])


def test_every_activation_is_tested():
    assert set(EXAMPLES) == set(ACTIVATIONS) == set(PHI)


@pytest.mark.parametrize("q", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("c", [-1.0, -0.99, -0.2, 0.0, 0.7, 0.999, 1.0])
def test_the_quadrature_itself(q, c):
    """Against the closed form of the ReLU (Cho & Saul 2009)."""
    phi, derivative = PHI["Relu"](None)
    theta = math.acos(c)
    expected = q * (math.sin(theta) + (math.pi - theta) * c) / (2 * math.pi)
    assert abs(dual(phi, q, c * q, q) - expected) < 1e-13
    assert abs(dual(derivative, q, c * q, q) - (math.pi - theta) / (2 * math.pi)) < 1e-13


@pytest.fixture(scope="module")
def references():
    return {}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("activation", CASES, ids=repr)
def test_dual(activation, backend, dtype, references):
    x = points().astype(np.float32)  # so that both precisions see the same data
    names = ("nngp",) if activation == nk.ArcCosine(0) else ("nngp", "ntk")
    for W_std, b_std in ((1.1, 0.3), (0.9, None)):
        net = nk.Serial(nk.Dense(W_std, b_std), activation, nk.Dense(1.2, 0.1))
        key = net.to_json()
        if key not in references:
            references[key] = dict(zip(("nngp", "ntk"), reference(net, x), strict=True))
        ours = nk.kernel(net, x, None, names, dtype=dtype, backend=backend)
        for name in names:
            expected = references[key][name]
            scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
            error = np.abs(getattr(ours, name) - expected) / scale
            # A step feels the rounding of the correlation by its root: kappa0(1 - y) = 1 - sqrt(2y)/pi.
            single = 5e-6 if activation == nk.ArcCosine(0) else 1e-6
            assert error.max() < (1e-12 if dtype == "float64" else single), (name, W_std)


@pytest.mark.parametrize("activation", [a for a in CASES if a.dual in ("abrelu", "arccos0", "arccos2")], ids=repr)
def test_extreme_correlations(activation):
    """Nearly parallel and opposite vectors, and the zero vector: finite, and right where the angle is representable."""
    angle = np.array([0, 1e-12, 1e-7, 1e-3, 1, math.pi - 1e-3, math.pi - 1e-7, math.pi])
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    net = nk.Serial(nk.Dense(math.sqrt(2)), activation)
    k = nk.kernel(net, np.concatenate([x, np.zeros((1, 2))]), None, "nngp")
    assert np.isfinite(k).all()
    theta = angle
    j = {0: math.pi - theta, 1: np.sin(theta) + (math.pi - theta) * np.cos(theta)}
    if activation == nk.ArcCosine(0):
        assert np.abs(k[0, :-1] - j[0] / math.pi).max() < 2e-8  # the root of float64's rounding
        assert k[-1, -1] == 0.5
    if activation in (nk.Relu(), nk.ArcCosine(1)):
        factor = 1 if activation == nk.Relu() else 2
        assert np.abs(k[0, :-1] - factor * j[1] / (2 * math.pi)).max() < 1e-12
    if activation != nk.ArcCosine(0):
        assert (k[-1] == 0).all()
