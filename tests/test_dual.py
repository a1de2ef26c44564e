"""Every activation on every backend in both precisions,
against integrals of its scalar function.
"""

import math

import numpy as np
import pytest

import ntkcore as nk
from examples import ACTIVATIONS, NEURONS, PHIS, jumps
from reference import reference
from reference_duals import CLOSED, PHI, dual


def points():
    """Independent, near, opposite, small and large vectors, a multiple and the zero vector.

    None almost parallel, where the reference's angle has no digits left:
    test_extreme_correlations has those.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4))
    more = [x[0] + 0.05 * x[1], -x[0] + 0.05 * x[2], 0.05 * (x[3] + x[1]), 2 * x[4] - x[5]]
    # Both precisions see the same data.
    return np.concatenate([x, more, [x[0] / 1024, 0 * x[0]]]).astype(np.float32)


def test_every_activation_is_tested():
    assert set(ACTIVATIONS) == set(PHI) | {"ExpNormalized"} == set(CLOSED)


@pytest.mark.parametrize("q", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("c", [-1.0, -0.99, -0.2, 0.0, 0.7, 0.999, 1.0])
def test_the_quadrature_itself(q, c):
    """Against the closed form of the ReLU (Cho & Saul 2009)."""
    phi, derivative = PHI["Relu"](None)
    theta = math.acos(c)
    expected = q * (math.sin(theta) + (math.pi - theta) * c) / (2 * math.pi)
    assert abs(dual(phi, q, c * q, q) - expected) < 1e-13
    assert abs(dual(derivative, q, c * q, q) - (math.pi - theta) / (2 * math.pi)) < 1e-13


@pytest.mark.parametrize("activation", NEURONS, ids=repr)
@pytest.mark.parametrize(("q", "r"), [(1.0, 1.0), (0.3, 2.0), (1e-4, 1.0), (0.0, 1.5), (0.0, 0.0)])
def test_closed_forms_of_the_reference(activation, q, r):
    """The two halves of the oracle, integrals and textbook formulas, against each other."""
    name = type(activation).__name__
    functions, closed = PHI[name](activation), CLOSED[name](activation)
    if activation.infinite_ntk:
        functions = functions[:1]
    correlations = [-1.0, -0.999, -0.6, 0.0, 1e-3, 0.8, 0.999999, 1.0] if q * r else [0.0]
    for c in correlations:
        k = c * math.sqrt(q * r)
        expected = closed(*map(np.asarray, (q, k, r)))
        for function, value in zip(functions, expected, strict=False):
            assert abs(dual(function, q, k, r) - value) <= 1e-13 * max(1, abs(value)), c


def check(net, x, names, expected, backend, dtype, tolerance):
    """Errors of the kernels relative to sqrt(K_ii K_jj); ``expected``: nngp, ntk."""
    ours = nk.kernel(net, x, None, names, dtype=dtype, backend=backend)
    for name, exact in zip(names, expected, strict=False):
        scale = np.sqrt(np.outer(*[np.diag(exact)] * 2))
        error = np.abs(getattr(ours, name) - exact)
        assert (error <= tolerance * scale).all(), (
            name,
            np.nanmax(error / np.maximum(scale, 1e-300)),
        )


def kernels_of(activation):
    return ("nngp",) if activation.infinite_ntk else ("nngp", "ntk")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("activation", PHIS, ids=repr)
def test_dual(activation, backend, dtype, once):
    for W_std, b_std, x in ((1.2, 0.3, points()), (0.9, None, points()[::2])):
        net = nk.Serial(nk.Dense(W_std, b_std), activation, nk.Dense(1.1, 0.2))
        # A step feels the rounding of the correlation by its root: kappa0(1 - y) = 1 - sqrt(2y)/pi.
        single = 2e-4 if jumps(activation) else 1e-6
        tolerance = 1e-12 if dtype == "float64" else single
        check(net, x, kernels_of(activation), once(reference, net, x), backend, dtype, tolerance)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("activation", PHIS, ids=repr)
def test_large_and_small_norms(activation, backend, dtype, once):
    """The scale of a homogeneous activation does not matter;
    a smooth one feels b^2 q times the rounding of K.
    """
    grows = isinstance(activation, nk.Exp | nk.Elementwise) or (
        isinstance(activation, nk.Gaussian) and activation.b > 0
    )
    single = {
        "abrelu": 1e-6,
        "rectified": 1e-6,
        "gelu": 1e-6,
        "sin": 5e-6,
        "exp": 5e-6,
        "series": 5e-6,
    }
    x = np.repeat(points(), 4, axis=0) * np.tile([1.0, 2.0, 4.0, 0.5], 12)[:, None].astype(
        np.float32
    )
    for scale in (1 / 64, 1) if grows else (1 / 64, 8):
        net = nk.Serial(nk.Dense(0.5, 0.2 * scale), activation, nk.Dense(1.1, 0.2))
        expected = once(reference, net, scale * x)
        tolerance = 4e-4 if jumps(activation) else single.get(activation.dual, 3e-5)
        tolerance = 1e-12 if dtype == "float64" else tolerance
        check(net, scale * x, kernels_of(activation), expected, backend, dtype, tolerance)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", PHIS, ids=repr)
def test_small_variances(activation, dtype, once):
    """No digits are lost where the kernel itself goes to 0 with the variance."""
    x = (np.random.default_rng(0).standard_normal((5, 4)) / 1024).astype(np.float32)
    net = nk.Serial(nk.Dense(1.2), activation, nk.Dense(1.1))
    expected = once(reference, net, x)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    check(net, x, kernels_of(activation), expected, nk.backends()[0], dtype, tolerance)


ANGLES = np.array(
    [0, 1e-12, 1e-7, 1e-5, 1e-3, 1, math.pi - 1e-3, math.pi - 1e-5, math.pi - 1e-7, math.pi]
)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("activation", [a for a in PHIS if a.dual == "abrelu"], ids=repr)
def test_extreme_correlations(activation, backend, dtype):
    """Nearly parallel vectors lose nothing: not even where 1 - cos(angle)
    is below the rounding of 1.

    Nearly opposite ones lose nothing of K, of T the root of the rounding.
    """
    x = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(dtype)
    theta = np.arctan2(*x.T[::-1].astype(float))
    phi, _ = PHI[type(activation).__name__](activation)
    a, b = -float(phi(np.array(-1.0))), float(phi(np.array(1.0)))
    g = (a - b) ** 2 / (2 * math.pi)
    factor = (a**2 + b**2) / 2 - g * theta
    nngp = g * np.sin(theta) + factor * np.cos(theta)
    net = nk.Serial(nk.Dense(math.sqrt(2)), activation)  # the variance is 1
    ours = nk.kernel(net, x[:1], x, ("nngp", "ntk"), backend=backend)
    tolerance = {"float64": 1e-14, "float32": 1e-6}[dtype] * max(a**2, b**2)
    assert np.abs(ours.nngp[0] - nngp).max() <= tolerance
    error = np.abs(ours.ntk[0] - factor * np.cos(theta))
    near = theta < 2
    assert error[near].max() <= tolerance
    assert error[~near].max() <= np.sqrt(np.finfo(dtype).eps) * max(a**2, b**2)


COS, SIN, REST = np.cos(ANGLES), np.sin(ANGLES), math.pi - ANGLES


@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize(
    ("activation", "expected", "tolerance"),
    [  # a function that jumps feels the root of float64's rounding
        (nk.ArcCosine(0), REST / math.pi, 2e-8),
        (nk.ArcCosine(2), (3 * SIN * COS + REST * (1 + 2 * COS**2)) / math.pi, 1e-14),
        (nk.Sign(), 1 - 2 * ANGLES / math.pi, 4e-8),
        (
            nk.RectifiedMonomial(3),
            (SIN * (4 + 11 * COS**2) + REST * (9 * COS + 6 * COS**3)) / (2 * math.pi),
            5e-14,
        ),
        (nk.Hermite(7), COS**7, 1e-14),
        (nk.Monomial(3), 6 * COS**3 + 9 * COS, 1e-13),
        (nk.ExpNormalized(), np.exp(COS - 1), 1e-14),
    ],
)
def test_extreme_correlations_of_other_functions(activation, expected, tolerance, backend):
    x = np.stack([COS, SIN], axis=1)
    net = nk.Serial(nk.Dense(math.sqrt(2)), activation)  # the variance is 1
    ours = nk.kernel(net, x[:1], x, "nngp", backend=backend)
    assert np.abs(ours[0] - expected).max() <= tolerance


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("activation", PHIS, ids=repr)
def test_zero_vectors(activation, backend, dtype):
    """phi(0) is all that a zero vector lets through; a step is 1/2 there."""
    x = np.array([[0.0, 0.0], [1.0, -2.0], [0.0, 0.0]], dtype)
    k = nk.kernel(
        nk.Serial(nk.Dense(1.3), activation), x, None, kernels_of(activation), backend=backend
    )
    phi = PHI[type(activation).__name__](activation)[0] if activation in NEURONS else abs
    eps = np.finfo(dtype).eps
    assert np.allclose(
        k.nngp[np.ix_([0, 2], [0, 2])], float(phi(np.zeros(()))) ** 2, rtol=4 * eps, atol=0
    )
    assert all(np.isfinite(matrix).all() for matrix in k)
    # T = 0 before the activation.
    assert all((matrix[[0, 2]][:, [0, 2]] == 0).all() for matrix in k[1:])
