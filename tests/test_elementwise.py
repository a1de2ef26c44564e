"""Activations by tables: all names against integrals, what a table must hold, and bad functions."""

import contextlib
import json
import math
import re
import sys

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from examples import IMAGE_NETS, SIGNAL_NETS, VECTOR_NETS
from finite_nets import torch
from ntkcore.specs.elementwise import NAMED, NAMES, Elementwise
from own_nets import data_of
from reference_duals import KINKED, dual, kinked_dual
from reference_duals import NAMED as SCALAR

RECTIFIED = {
    **{f"vectors, {name}": (net, (5,)) for name, net in VECTOR_NETS.items() if "Relu" in repr(net)},
    **{
        f"images, {name}": (net, (5, 4, 2))
        for name, net in IMAGE_NETS.items()
        if "Relu" in repr(net)
    },
    **{
        name: (net, shape)
        for name, (net, shape) in SIGNAL_NETS.items()
        if "Relu" in repr(net) and not re.search("mechanism=|Aggregate", repr(net))
    },
}  # no table holds the variances behind attention whose weights are no means
SMOOTH = [name for name, named in NAMED.items() if not any(named.kinks)]


def points():
    """Variances from 0 to 4; pairs apart, near, opposite, and multiples."""
    x = np.random.default_rng(5).standard_normal((3, 5))
    more = [0.03 * x[0], -x[1], x[2] + 1e-3 * x[0], 1.6 * x[1], 0 * x[0]]
    return np.concatenate([x, more])


def integrals(name, W_std, b_std, x):
    """NNGP and NTK of Dense, the activation and Dense() from integrals over each pair."""
    phi, derivative = SCALAR[name]
    S = W_std**2 * x @ x.T / x.shape[1] + b_std**2
    q = np.diag(S)
    E, D = np.empty((2, *S.shape))
    for matrix, f in ((E, phi), (D, derivative)):
        for i, j in zip(*np.triu_indices(len(x)), strict=True):
            matrix[i, j] = matrix[j, i] = dual(f, q[i], S[i, j], q[j])
    return E, E + D * S


def error(ours, exact):
    """Relative to sqrt(K_ii K_jj)."""
    return (np.abs(ours - exact) / (np.sqrt(np.outer(*[np.diag(exact)] * 2)) + 1e-30)).max()


def test_names_are_those_of_the_oracle():
    assert set(NAMES) == set(SCALAR) | set(KINKED)


@pytest.mark.parametrize("name", NAMED)
def test_against_integrals(name):
    # All derivatives of softsign jump at 0: it takes many terms.
    W_std = 0.5 if name == "softsign" else 1.1
    x, net = points(), nk.Serial(nk.Dense(W_std, 0.2), Elementwise(name), nk.Dense())
    exact = integrals(name, W_std, 0.2, x)
    # tanh and arctan have poles near the line, the others' coefficients fall faster.
    bound = 1e-9 if name in ("tanh", "tanhshrink", "arctan") else 1e-12
    bound = bound if name in SMOOTH else 1e-6 if name == "softsign" else 1e-7
    for dtype, tolerance in (("float64", bound), ("float32", max(bound, 2e-6))):
        ours = nk.kernel(net, x, get=("nngp", "ntk"), dtype=dtype)
        for K, expected in zip(ours, exact, strict=True):
            assert error(K, expected) < tolerance, dtype


@pytest.mark.parametrize("name", KINKED)
def test_kinks_beside_zero(name):
    """Closed forms by Owen's T, against one-dimensional integrals."""
    phi, a, b, kinks = KINKED[name]
    z = np.linspace(-8, 8, 321)
    pieces = sum(c * np.maximum(z - t, 0) + d * np.maximum(z - t, 0) ** 2 for t, c, d in kinks)
    np.testing.assert_allclose(a + b * z + pieces, phi(z), atol=1e-13)
    for W_std, b_std in ((1.1, 0.2), (3.0, None)):
        x, net = points(), nk.Serial(nk.Dense(W_std, b_std), Elementwise(name), nk.Dense())
        S = W_std**2 * x @ x.T / x.shape[1] + (b_std or 0) ** 2
        found = np.array(
            [[kinked_dual(name, S[i, i], S[i, j], S[j, j]) for j in range(8)] for i in range(8)]
        )
        exact = found[..., 0], found[..., 0] + found[..., 1] * S
        # Multiples of each other have a correlation of 1, whose rounding counts by its root.
        for dtype, tolerance in (("float64", 1e-8), ("float32", 4e-6)):
            ours = nk.kernel(net, x, get=("nngp", "ntk"), dtype=dtype)
            for K, expected in zip(ours, exact, strict=True):
                assert error(K, expected) < tolerance
        apart = np.ix_([0, 1, 2, 7], [0, 1, 2, 7])
        assert error(nk.kernel(net, x)[apart], exact[1][apart]) < 1e-12


@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_backends_agree_on_images(backend, dtype):
    """Planes, pools and heads, kinks among them, against the product of all pixel pairs."""
    x = np.random.default_rng(2).standard_normal((5, 5, 4, 2))
    conv = nk.Conv((3, 3), padding="SAME", W_std=1.3, b_std=0.1)
    net = nk.Serial(
        conv,
        Elementwise("mish"),
        nk.AvgPool((2, 2)),
        nk.Conv((2, 2), W_std=1.1),
        Elementwise("elu"),
        nk.GlobalAvgPool(),
        nk.Dense(),
        Elementwise("tanh"),
        nk.Dense(),
        Elementwise("hardswish"),
        nk.Dense(),
    )
    expected = nk.kernel(net, x, get=("nngp", "ntk"), dtype="float64", backend=nk.backends()[0])
    ours = nk.kernel(net, x, get=("nngp", "ntk"), dtype=dtype, backend=backend)
    for K, E in zip(ours, expected, strict=True):
        assert error(K, E) < (1e-7 if dtype == "float64" else 2e-6)


def swapped(net, old, new):
    """The network with another activation."""
    if net == old:
        return new
    if not isinstance(net, (nk.Serial, nk.Parallel, nk.Residual)):
        return net
    inner = [swapped(layer, old, new) for layer in net._inner()]
    if isinstance(net, nk.Residual):
        return nk.Residual(*inner[:-1], shortcut=inner[-1])
    return type(net)(*inner)


OWN_RELU = Elementwise(lambda z: np.maximum(z, 0), lambda z: np.heaviside(z, 0.5))


@pytest.mark.parametrize("name", RECTIFIED)
def test_relu_is_its_kink_alone(name):
    """One term and closed forms, in every network: pairs apart as by Relu()."""
    net, shape = RECTIFIED[name]
    x, z = (data_of(net, 2, shape, seed) for seed in (0, 1))
    ours, theirs = (
        nk.kernel(n, x, z, ("nngp", "ntk")) for n in (swapped(net, nk.Relu(), OWN_RELU), net)
    )
    for K, E in zip(ours, theirs, strict=True):
        assert relative_error(K, E) < 1e-12


def test_a_function_without_its_derivative():
    x = points()
    for name, own in (("tanh", np.tanh), ("elu", SCALAR["elu"][0])):
        ours = nk.kernel(nk.Serial(nk.Dense(), Elementwise(own), nk.Dense()), x)
        named = nk.kernel(nk.Serial(nk.Dense(), Elementwise(name), nk.Dense()), x)
        assert error(ours, named) < (1e-11 if name in SMOOTH else 1e-7)


def test_few_terms_serve_what_is_smooth():
    """What the table leaves out is known, and grows with the variance."""
    for name in ("sigmoid", "softplus", "silu"):
        errors = [Elementwise(name).error(q) for q in (0.5, 4.0)]
        assert max(errors) < 1e-12
    assert Elementwise("tanh").error(4.0) < 1e-9
    assert Elementwise("silu").error(4.0, np.float32) < 1e-7


def test_bounds_of_a_network_by_its_layers():
    x = points()
    phi = Elementwise("tanh"), Elementwise("relu6"), Elementwise("silu")
    branch = nk.Parallel(nk.Serial(phi[2], nk.Dense()), nk.Dense())
    net = nk.Serial(nk.Dense(), phi[0], nk.Dense(), phi[1], nk.Dense(), nk.FanOut(2), branch)
    bounds = nk.error_bounds(nk.Serial(*net.layers, nk.FanInSum()), x)
    names = ["layer 1, ", "layer 3, ", "layer 6.branch 0.0, "]
    assert list(bounds) == [f"{at}{layer!r}" for at, layer in zip(names, phi, strict=True)]
    exact = integrals("tanh", 1.0, 0.0, x)[1]
    ours = nk.kernel(nk.Serial(nk.Dense(), phi[0], nk.Dense()), x)
    assert error(ours, exact) < bounds["layer 1, Elementwise(phi='tanh')"] + 1e-14
    assert bounds["layer 3, Elementwise(phi='relu6')"] < 1e-15
    conv = nk.Conv((2, 2))
    images = np.random.default_rng(0).standard_normal((2, 4, 4, 2))
    for first in (conv, nk.ConvLocal((2, 2))):
        found = nk.error_bounds(nk.Serial(first, phi[0], nk.GlobalAvgPool()), images)
        assert list(found) == ["layer 1, Elementwise(phi='tanh')"]
    assert nk.error_bounds(nk.mlp(2), x) == {}


def test_rows_of_different_variance_meet():
    """A pair takes the terms of its larger variance, whichever side it is on."""
    x = np.random.default_rng(0).standard_normal((1, 6))
    both = np.concatenate([0.05 * x, 2.5 * x])
    net = nk.Serial(nk.Dense(), Elementwise("silu"), nk.Dense())
    exact = integrals("silu", 1.0, 0.0, both)[1]
    assert error(nk.kernel(net, both), exact) < 1e-12
    assert abs(nk.kernel(net, both[1:], both[:1])[0, 0] - exact[0, 1]) < 1e-12 * exact[0, 1]


@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize(("name", "scale"), [("hardtanh", 100), ("hardswish", 100), ("relu6", 255)])
def test_large_variances_beside_kinks_in_single_precision(name, scale, backend):
    """Parts as large as the variance cancel: pixels from 0 to 255, say."""
    conv = nk.Conv((3, 3), padding="SAME")
    net = nk.Serial(conv, Elementwise(name), nk.GlobalAvgPool(), nk.Dense())
    x = (scale * np.random.default_rng(0).standard_normal((6, 4, 4, 3))).astype(np.float32)
    ours, exact = (
        nk.kernel(net, x, get=("nngp", "ntk"), dtype=dtype, backend=backend)
        for dtype in ("float32", "float64")
    )
    for K, expected in zip(ours, exact, strict=True):
        assert error(K, expected) < 2e-6


IN_SINGLE = {"elu": (1.6, 2.5), "selu": (1.0, 1.6), "softsign": (0.3, 0.7)}  # scales of data


@pytest.mark.parametrize("name", IN_SINGLE)
def test_kinks_that_cancel_in_single_precision(name):
    """To 2e-6, or refused: powers of the variance cancel where a kink's part of phi' is large."""
    net = nk.Serial(nk.Dense(), Elementwise(name), nk.Dense())
    x = np.random.default_rng(0).standard_normal((30, 12)).astype(np.float32)
    largest, refused = IN_SINGLE[name]
    for scale in sorted({0.3, largest, refused}):
        data = x * np.float32(scale)
        if scale == refused:
            with pytest.raises(ValueError, match=f"{name}.*or use dtype='float64'"):
                nk.kernel(net, data)
        else:
            exact = nk.kernel(net, data, dtype="float64")
            assert error(nk.kernel(net, data), exact) < 2e-6


def test_small_variances_of_a_difference_that_vanishes():
    """z - tanh z is z^3/3 near 0, of second moment 15 q^3/9."""
    net = nk.Serial(nk.Dense(), Elementwise("tanhshrink"), nk.Dense())
    x = np.array([[1e-6], [1e-4], [1e-3]])
    found = nk.kernel_diag(net, x, "nngp")
    assert np.abs(found / (15 / 9 * x[:, 0] ** 6) - 1).max() < 1e-5


def test_a_table_holds_what_falls_again_with_the_variance():
    """E[phi^2] of Gabor has its peak far below the largest variance of such data."""
    x = np.geomspace(1e-2, 1e3, 200)[:, None]
    layers = nk.Dense(), nk.Gabor(), nk.Dense(3.0)
    largest = nk.kernel_diag(nk.Serial(*layers), x, "nngp").max()
    assert largest > 20 * nk.kernel_diag(nk.Serial(*layers), x[-1:], "nngp")[0]
    assert np.isfinite(nk.kernel(nk.Serial(*layers, Elementwise("silu"), nk.Dense()), x)).all()


def test_spec():
    silu = Elementwise("silu")
    assert repr(silu) == "Elementwise(phi='silu')"
    assert nk.from_json(nk.Serial(nk.Dense(), silu).to_json()) == nk.Serial(nk.Dense(), silu)
    assert json.loads(silu.to_json()) == {"layer": "Elementwise", "phi": "silu"}
    with pytest.raises(TypeError, match="names"):
        Elementwise(np.tanh).to_json()


@pytest.mark.parametrize(
    ("own", "exact"),
    [
        (np.cos, nk.Cos()),
        (lambda z: z**4, nk.Monomial(4)),
        (lambda z: np.exp(-(z**2)), nk.Gaussian()),
        (lambda z: np.maximum(z, 0) ** 2, nk.RectifiedMonomial(2)),
        (lambda z: 0 * z + 3.0, nk.Polynomial((3.0,))),
        (lambda z: 1e8 * np.sin(z), nk.Sin(1e8)),
        (lambda z: 1e-8 * np.maximum(z, 0), nk.ABRelu(0.0, 1e-8)),
    ],
)
def test_functions_with_a_flat_spot_at_zero_and_of_any_size(own, exact):
    """phi' has a root at 0, or everywhere: rounding is all that is left of small variances."""
    for dtype, bound in (("float64", 1e-9), ("float32", 2e-6)):
        ours, theirs = (
            nk.kernel(nk.Serial(nk.Dense(), phi, nk.Dense()), points(), dtype=dtype)
            for phi in (Elementwise(own), exact)
        )
        assert np.abs(ours - theirs).max() < bound * np.abs(theirs).max()


@pytest.mark.parametrize("phi", [np.vectorize(math.tanh), torch.tanh, torch.nn.Tanh()])
def test_functions_of_numbers_and_of_tensors(phi):
    ours, named = (
        nk.kernel(nk.Serial(nk.Dense(), Elementwise(one), nk.Dense()), points())
        for one in (phi, "tanh")
    )
    assert error(ours, named) < 1e-11


def test_functions_of_jax_compute_in_double_precision(monkeypatch):
    """A stand-in, single outside of its enable_x64."""
    double = []

    class Jax:
        @staticmethod
        @contextlib.contextmanager
        def enable_x64(on):
            double.append(on)
            yield
            double.pop()

    monkeypatch.setitem(sys.modules, "jax", Jax)
    own = Elementwise(lambda z: np.tanh(z) if double == [True] else np.tanh(z.astype("f")))
    ours, named = (
        nk.kernel(nk.Serial(nk.Dense(), phi, nk.Dense()), points())
        for phi in (own, Elementwise("tanh"))
    )
    assert error(ours, named) < 1e-11
    assert double == []


def _doubles(z):
    z *= 2
    return z


def test_a_function_that_changes_its_argument():
    ours, exact = (
        nk.kernel(nk.Serial(nk.Dense(), Elementwise(phi), nk.Dense()), points())
        for phi in (_doubles, lambda z: 2 * z)
    )
    assert (ours == exact).all()


def _fails(z):
    raise KeyError("boom")


BAD = {
    "jumps at 0, from -1 to 1": np.sign,
    "jumps at 1, from 0 to 1": lambda z: (z > 1).astype(float),
    "jumps at -0.5, from -1 to 0": np.rint,
    "a kink beside 0": lambda z: np.clip(z, -1, 1),
    "shape": np.sum,
    "second moment": lambda z: np.exp(z**2),
    "derivative is beyond float64: scale phi": lambda z: 1e200 * z,
    r"phi\(0\) is not a finite number": lambda z: 1 / z,
    "not a finite number": np.log,
    "complex128: it must give real numbers": lambda z: z + 0j,
    "object: it must give real numbers": lambda z: z.astype(object),
    "float32 of float64, which is too coarse": lambda z: np.tanh(z.astype("f")),
    "element by element, and draw nothing": lambda z: z - z.mean(),
    "raised TypeError: only.*np.vectorize": math.tanh,
    "raised KeyError: 'boom'": _fails,
}


@pytest.mark.parametrize("problem", BAD)
def test_functions_that_are_no_activation(problem):
    net = nk.Serial(nk.Dense(), Elementwise(BAD[problem]), nk.Dense())
    with pytest.raises(ValueError, match=rf"layer 1, Elementwise\(.*{problem}"):
        nk.kernel(net, points())


def test_a_derivative_of_another_function():
    net = nk.Serial(nk.Dense(), Elementwise(np.tanh, np.cos), nk.Dense())
    with pytest.raises(ValueError, match=r"layer 1.*dphi.* must be the derivative of phi"):
        nk.kernel(net, points())


def test_variances_beyond_all_terms():
    net = nk.Serial(nk.Dense(), Elementwise("softsign"), nk.Dense())
    with pytest.raises(ValueError, match=r"layer 1, .*variances up to .* rescale"):
        nk.kernel(net, 1.5 * points())
    with pytest.raises(ValueError, match=r"layer 1, .*which no table holds"):
        nk.kernel(net, 1e6 * points())
    net = nk.Serial(nk.Dense(), Elementwise("hardtanh"), nk.Dense())
    with pytest.raises(ValueError, match=r"layer 1, .*hardtanh.*too few digits.*rescale"):
        nk.kernel(net, 1e6 * points())


@pytest.mark.parametrize(
    ("make", "kind", "problem"),
    [
        (lambda: Elementwise("tnah"), ValueError, "unknown phi 'tnah'; named ones: tanh"),
        (lambda: Elementwise("tanh", np.cos), ValueError, "leave dphi out"),
        (lambda: Elementwise(3.0), TypeError, "phi must be a name or a function"),
        (lambda: Elementwise(np.sin, 1.0), TypeError, "dphi"),
    ],
)
def test_bad_specs(make, kind, problem):
    with pytest.raises(kind, match=re.escape(problem)):
        make()


def test_tables_are_checked():
    """Of programs that a caller of the engine's core writes by hand."""
    core = nk.engine.vectors._core
    op = [("series", "", 0, 0, (0.0,) * 4)]
    for table in (
        [],
        [1.0] * 6,
        [1, 2, 4, 1, 0, 1.0, *[0.0] * 11],
        [1, 2, 4, 1, 0, -1.0, *[0] * 12],
    ):
        with pytest.raises(ValueError, match="series"):
            core.Program(op, 1, 1, [np.asarray(table, float)])
    with pytest.raises(ValueError, match="series: table out of range"):
        core.Program(op, 1, 1)
