"""Derivatives of kernel values, against central differences of the values,
closed forms and identities.
"""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ntkcore as nk
from conftest import assert_close
from examples import OTHER_NETS, PHIS, POLYNOMIALS
from ntkcore.engine import gradients
from ntkcore.engine.gradients import input_gradient, input_vjp, kernel_gradient
from ntkcore.specs import elementwise
from ntkcore.specs.parameters import Parameter, parameters, with_parameters
from test_dual import kernels_of

RNG = np.random.default_rng(0)
X1, X2 = 0.8 * RNG.standard_normal((5, 4)), 0.8 * RNG.standard_normal((11, 4))
CPU = [name for name in nk.backends() if name != "cuda"]


@pytest.fixture(autouse=True, scope="module")
def few_tables():
    """Steps to either side share a table, which otherwise ends at their own variance."""
    made = elementwise._tabulated

    def rounded(layer, variance, single):
        return made(layer, 2.0 ** math.frexp(variance)[1], single)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elementwise, "_tabulated", rounded)
        yield


def plain(phi):
    return nk.Serial(nk.Dense(1.1, 0.3), phi, nk.Dense(0.7, 0.2), phi, nk.Dense(0.9))


def normalised(phi):
    return nk.Serial(nk.Dense(1.1, 0.3), phi, nk.Dense(0.7, 0.2), nk.LayerNorm(0.1), phi)


def residual(phi):
    block = nk.Residual(phi, nk.Dense(0.6, 0.1), shortcut=nk.Dense(0.5, 0.4))
    return nk.Serial(
        nk.Dense(1.1), block, nk.Residual(phi, nk.Serial(nk.Dense(0.8, 0.2))), phi, nk.Dense(1.2)
    )


def differences(f, at, h=1e-3):
    """Derivatives of f by every entry of `at`, on a last axis: central differences of order 6."""
    steps, weights = (1, 2, 3), (3 / 4, -3 / 20, 1 / 60)
    columns = []
    for e in np.eye(at.size).reshape(-1, *at.shape):
        columns.append(
            sum(
                w * (f(at + s * h * e) - f(at - s * h * e)) / h
                for s, w in zip(steps, weights, strict=True)
            )
        )
    return np.stack(columns, -1)


def by_parameters(net, x1, x2, get):
    """b_std enters squared, so that its sign does not matter: steps across 0 are mirrored."""
    values = np.array([p.value for p in parameters(net)])
    return differences(lambda v: nk.kernel(with_parameters(net, np.abs(v)), x1, x2, get), values)


def by_first_inputs(net, x1, x2, get):
    """All rows move at once: entry (i, j) depends on x1[i] only."""
    return differences(lambda v: nk.kernel(net, x1 + v, x2, get), np.zeros(x1.shape[1]))


def check(net, get, tolerance=1e-10):
    K, dK = kernel_gradient(net, X1, X2, get)
    scale, n = np.abs(K).max(), len(X1)
    np.testing.assert_array_equal(K, nk.kernel(net, X1, X2, get))
    every = by_parameters(net, np.concatenate([X1, X2]), None, get)
    for actual, expected in (
        (dK, every[:n, n:]),
        (kernel_gradient(net, X1, None, get)[1], every[:n, :n]),
        (input_gradient(net, X1, X2, get), by_first_inputs(net, X1, X2, get)),
    ):
        assert actual.shape == expected.shape
        assert np.isfinite(actual).all()
        assert np.abs(actual - expected).max() <= tolerance * max(scale, np.abs(expected).max())


@pytest.mark.parametrize("make", [plain, normalised, residual])
@pytest.mark.parametrize("phi", PHIS, ids=repr)
def test_against_differences(phi, make):
    # Differences of a polynomial of degree 27 lose digits.
    tolerance = 1e-9 if isinstance(phi, POLYNOMIALS) else 1e-10
    for get in kernels_of(phi):
        check(make(phi), get, tolerance)


@pytest.mark.parametrize("get", ["nngp", "ntk"])
@pytest.mark.parametrize(
    "net",
    [
        nk.Dense(1.3, 0.4),
        nk.Serial(nk.Dense(1.3, 0.4), nk.Dense(0.7, 0.2)),
        nk.mlp(8, 1.4, 0.2),
        nk.mlp(3, 1.4, 0.0),
        nk.mlp(3, 1.4),
        nk.mlp(2, 1.4, 0.1, nk.Erf()),
        nk.Serial(
            nk.Dense(1.2, 0.1, "standard", 64), nk.Relu(), nk.Dense(0.9, 0.3, "standard", 32)
        ),
        nk.Serial(
            nk.Dense(),
            nk.FanOut(3),
            nk.Parallel(
                nk.Dense(0.5),
                nk.Serial(nk.Relu(), nk.Dense(1.5, 0.3)),
                nk.Serial(nk.Erf(), nk.Dense(0.4)),
            ),
            nk.FanInSum(),
            nk.Gelu(),
            nk.Dense(1.1, 0.2),
        ),
        nk.Serial(
            *(nk.Dense(1.2, 0.3), nk.DotGeneral(lhs=2.0), nk.Erf(), nk.Dense(0.7, 0.1)),
            *(nk.DotGeneral(rhs=-0.5), nk.Elementwise("hardswish"), nk.Dense(1.1)),
        ),
        *(OTHER_NETS[name] for name in ("gated", "concatenated", "dropout")),
    ],
    ids=repr,
)
def test_networks(net, get):
    check(net, get)


@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_dropout_tells_equal_points_apart(get):
    """Masks of a point's duplicate are other ones, in one data set and in two."""
    net = nk.Serial(*[nk.Dense(1.2, 0.3), nk.Erf(), nk.Dropout(0.6)] * 2, nk.Dense(1.1, 0.2))
    x = np.concatenate([X1, X1])
    for other in (None, x.copy()):
        K, dK = kernel_gradient(net, x, other, get)
        np.testing.assert_array_equal(K, nk.kernel(net, x, other, get))
        assert_close(dK, by_parameters(net, x, other, get), 1e-9)
    K = nk.kernel(net, x, None, get)
    assert K[0, 0] > 1.1 * K[0, 5]
    assert K[0, 5] == nk.kernel(net, x, x.copy(), get)[0, 0]


@pytest.mark.parametrize("backend", CPU)
def test_backends_and_threads(backend):
    """More than a tile in both directions, widths that fill no vector."""
    x1, x2 = RNG.standard_normal((260, 3)), RNG.standard_normal((1030, 3))
    net = nk.Serial(
        nk.Dense(1.3, 0.2), nk.Relu(), nk.Dense(0.9, 0.1), nk.LayerNorm(0.01), nk.Sin(), nk.Dense()
    )
    K, dK = kernel_gradient(net, x1, x2, threads=2, backend=backend)
    assert_close(K, nk.kernel(net, x1, x2), 1e-13)
    start = np.array([p.value for p in parameters(net)])
    step = start * 1e-5
    moved = [nk.kernel(with_parameters(net, start + sign * step), x1, x2) for sign in (1, -1)]
    assert_close(dK @ step, (moved[0] - moved[1]) / 2, 1e-8)
    np.testing.assert_array_equal(kernel_gradient(net, x1, x2, threads=1, backend=backend)[1], dK)
    G = RNG.standard_normal((260, 1030))
    assert_close(
        input_vjp(net, x1, x2, G, threads=2, backend=backend),
        np.einsum("ij,ijk->ik", G, input_gradient(net, x1, x2, backend=backend)),
        1e-12,
    )


@pytest.mark.parametrize("phi", [nk.Relu(), nk.Gelu()])
def test_symmetric(phi):
    """x2=None: exactly symmetric, and the same as two data sets that are equal."""
    x = RNG.standard_normal((300, 3))
    for get in ("nngp", "ntk"):
        dK = kernel_gradient(nk.mlp(2, 1.3, 0.4, phi), x, None, get, threads=2)[1]
        np.testing.assert_array_equal(dK, dK.transpose(1, 0, 2))
        assert_close(dK, kernel_gradient(nk.mlp(2, 1.3, 0.4, phi), x, x.copy(), get)[1], 1e-13)


@pytest.mark.parametrize("phi", [nk.Relu(), nk.ArcCosine(2), nk.Gelu(), nk.Abs()])
def test_diagonal(phi):
    """Against differences of kernel_diag, where a correlation of 1 is exact;
    duplicates are like the diagonal.
    """
    net, x = residual(phi), np.concatenate([X1, X1])
    values = np.array([p.value for p in parameters(net)])
    for get in ("nngp", "ntk"):
        expected = differences(
            lambda v, get=get: nk.kernel_diag(with_parameters(net, np.abs(v)), X1, get), values
        )
        for dK in (
            kernel_gradient(net, x, None, get)[1],
            kernel_gradient(net, x, x.copy(), get)[1],
        ):
            for rows in (np.arange(10), (np.arange(10) + 5) % 10):
                assert_close(dK[np.arange(10), rows], np.concatenate([expected, expected]), 1e-10)
        half = input_gradient(net, X1, None, get)[np.arange(5), np.arange(5)]
        along = [
            differences(lambda x, get=get: nk.kernel_diag(net, x[None], get)[0], row) for row in X1
        ]
        assert_close(2 * half, np.stack(along), 1e-10)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5, 1e-7])
def test_near_duplicates_of_a_relu_network(distance):
    """One hidden layer, T = w^4 (k (1 - theta/pi) + sqrt(q q') kappa1/2 ...) by hand,
    theta from the half-chord.

    The derivative by the inputs has a kink |x - x'|, and loses digits towards it as documented.
    """
    u = np.array([1.0, 0.0])
    v = np.array([math.cos(distance), math.sin(distance)])
    w = 1.3
    net = nk.mlp(1, w)
    theta = distance
    kappa0, kappa1 = (
        1 - theta / math.pi,
        (math.sin(theta) + (math.pi - theta) * math.cos(theta)) / math.pi,
    )
    T = w**4 / 2 * (kappa1 + math.cos(theta) * kappa0) / 2  # q = 1/2
    K, dK = kernel_gradient(net, u[None], v[None])
    assert abs(K[0, 0] - T) < 1e-15 * T + 1e-15
    for i in range(2):
        assert abs(dK[0, 0, i] - 2 * T / w) < 1e-8 * T  # homogeneous of degree 2 in every W_std
    # dT/dx of T = (w^4/4) |x| |x'| (kappa1 + cos kappa0)(theta): along x it is T, across it -|x|^-1
    # d/dtheta.
    slope = (
        w**4
        / 4
        * (-kappa0 * math.sin(theta) - math.sin(theta) * kappa0 - math.cos(theta) / math.pi)
    )
    gradient = input_gradient(net, u[None], v[None])[0, 0]
    assert np.abs(gradient - [T, -slope]).max() < 1e-15 / distance**2 + 1e-13


layers = st.sampled_from(
    [nk.Relu(), nk.LeakyRelu(0.2), nk.Erf(), nk.Gelu(), nk.Sin(), nk.Rbf(0.5), nk.ArcCosine(2)]
)
sizes = st.floats(0.3, 1.5)


@given(
    st.lists(st.tuples(sizes, st.none() | st.floats(0, 1), layers), min_size=1, max_size=4),
    sizes,
    st.integers(2, 20),  # of one feature, all vectors are parallel
    st.integers(0, 2**32 - 1),
    st.sampled_from(["nngp", "ntk"]),
)
def test_identities(hidden, last, d, seed, get):
    """Scaling the last layer scales the kernel by its square;
    scaling the first W_std scales both inputs.
    """
    body = [part for W_std, b_std, phi in hidden for part in (nk.Dense(W_std, b_std), phi)]
    net = nk.Serial(*body, nk.Dense(last, 0.4))
    x1, x2 = np.random.default_rng(seed).standard_normal((2, 3, d))
    K, dK = kernel_gradient(net, x1, x2, get)
    W_out, b_out = (dK[..., i] * p.value for i, p in list(enumerate(parameters(net)))[-2:])
    assert_close(W_out + b_out, 2 * K, 1e-12)
    both = np.einsum("ijk,ik->ij", input_gradient(net, x1, x2, get), x1)
    both += np.einsum("jik,jk->ij", input_gradient(net, x2, x1, get), x2)
    np.testing.assert_allclose(
        hidden[0][0] * dK[..., 0], both, rtol=0, atol=1e-11 * max(1, np.abs(dK).max())
    )


@pytest.mark.parametrize("phi", [nk.Relu(), nk.ArcCosine(2), nk.Gelu()])
def test_parallel_vectors(phi):
    """A correlation of +-1 at different norms: what is lost is the root of a rounding error,
    as documented.
    """
    x = np.array([[0.3], [1.7], [-0.9], [-1e-3], [40.0]]) * [[1.0, 2.0, -3.0]]
    net = nk.mlp(3, 1.3, None, phi)
    K, dK = kernel_gradient(net, x[:3], x[1:])
    assert_close(dK, by_parameters(net, x[:3], x[1:], "ntk"), 1e-7)
    assert_close(dK[..., -1] * 1.3, 2 * K, 1e-8)


@pytest.mark.parametrize("distance", [0.0, 1e-8, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("name", ["relu6", "hardtanh", "hardswish"])
def test_almost_parallel_vectors_beside_kinks(name, distance):
    """Slopes that are infinite at a correlation of 1 cancel in the NNGP kernel's."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 4))
    other = rng.uniform(0.5, 2, (8, 1)) * (x + distance * rng.standard_normal((8, 4)))
    net = nk.Serial(nk.Dense(1.3), nk.Elementwise(name), nk.Dense())
    found = input_gradient(net, x, other, "nngp")
    for i, step in enumerate(1e-5 * np.eye(4)):
        up, down = (nk.kernel(net, x + sign * step, other, "nngp") for sign in (1, -1))
        assert np.abs(found[..., i] - (up - down) / 2e-5).max() < 1e-6


def test_names_and_values():
    net = nk.Serial(
        nk.Dense(1.1),
        nk.Residual(nk.Relu(), nk.Dense(0.6, 0.1), shortcut=nk.Dense(0.5, 0.4)),
        nk.Dense(1.2, 0.0),
    )
    assert parameters(net) == (
        Parameter("0", "W_std", 1.1),
        Parameter("1.shortcut", "W_std", 0.5),
        Parameter("1.shortcut", "b_std", 0.4),
        Parameter("1.branch.1", "W_std", 0.6),
        Parameter("1.branch.1", "b_std", 0.1),
        Parameter("2", "W_std", 1.2),
        Parameter("2", "b_std", 0.0),
    )
    assert with_parameters(net, [p.value for p in parameters(net)]) == net
    doubled = with_parameters(net, np.array([2 * p.value for p in parameters(net)]))
    assert [p.value for p in parameters(doubled)] == [2 * p.value for p in parameters(net)]
    assert type(net) is type(doubled)
    assert parameters(nk.Dense(2.0)) == (Parameter("0", "W_std", 2.0),)


def test_tied():
    net = residual(nk.Erf())
    dK = kernel_gradient(net, X1, X2)[1]
    of = {
        name: dK[..., [p.name == name for p in parameters(net)]].sum(axis=-1)
        for name in ("W_std", "b_std")
    }
    for wrt in (("W_std", "b_std"), ["b_std", "W_std"], ("b_std",), ("W_std",)):
        assert_close(
            kernel_gradient(net, X1, X2, wrt=wrt)[1],
            np.stack([of[name] for name in wrt], -1),
            1e-14,
        )
    assert kernel_gradient(net, X1, wrt=())[1].shape == (5, 5, 0)
    assert (kernel_gradient(nk.mlp(1), X1, wrt=["b_std"])[1] == 0).all()


def test_vjp_of_one_data_set_moves_both_arguments():
    net, G = nk.mlp(2, 1.2, 0.3, nk.Erf()), RNG.standard_normal((5, 5))
    expected = differences(
        lambda x: (G * nk.kernel(net, x.reshape(5, 4))).sum(), X1.ravel()
    ).reshape(5, 4)
    assert_close(input_vjp(net, X1, None, G), expected, 1e-10)


def test_vjp_takes_little_memory():
    x1, x2 = RNG.standard_normal((600, 50)), RNG.standard_normal((3000, 50))
    G = RNG.standard_normal((600, 3000))
    tracemalloc.start()
    input_vjp(nk.mlp(1), x1, x2, G, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < G.nbytes + 16 * 2**20  # the derivatives have 600 x 3000 x 50 values


def test_zero_vectors_and_zero_weights_give_numbers():
    x = np.concatenate([X1, np.zeros((2, 4))])
    for phi in PHIS:
        for get in kernels_of(phi):
            for net in (
                nk.mlp(2, 1.1, None, phi),
                nk.mlp(2, 0.0, 0.0, phi),
                nk.mlp(2, 0.0, 0.3, phi),
            ):
                assert np.isfinite(kernel_gradient(net, x, None, get)[1]).all()
                assert np.isfinite(input_gradient(net, x, None, get)).all()


def test_float32_data_are_computed_in_float64():
    K, dK = kernel_gradient(nk.mlp(1), X1.astype(np.float32), X2.astype(np.float32))
    assert K.dtype == dK.dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((nk.cntk(1), np.ones((2, 4, 4, 3))), {}, ValueError, "not for images of shape"),
        ((nk.mlp(1), X1, X2, ("nngp", "ntk")), {}, TypeError, "of one kernel"),
        ((nk.mlp(1), X1, X2, "other"), {}, ValueError, "get must be"),
        ((nk.mlp(1), X1, X2[:, :2]), {}, ValueError, "differ in features"),
        ((nk.mlp(1), X1 * np.nan), {}, ValueError, "NaN or infinity"),
        ((nk.mlp(1), X1 * 1e200), {}, ValueError, "not finite"),
        ((nk.Gaussian(), X1), {}, ValueError, "Gaussian input"),
        ((nk.Serial(nk.Dense(), nk.ArcCosine(0)), X1), {}, ValueError, "infinite"),
        (("net", X1), {}, TypeError, "network spec"),
        ((nk.mlp(1), X1), {"wrt": "W_std"}, ValueError, "wrt must be"),
        ((nk.mlp(1), X1), {"wrt": ["W_std", "depth"]}, ValueError, "wrt must be"),
        ((nk.mlp(1), X1), {"wrt": ["W_std", "W_std"]}, ValueError, "wrt must be"),
        ((nk.mlp(1), X1), {"wrt": 3}, ValueError, "wrt must be"),
        ((nk.mlp(1), X1), {"threads": 0}, ValueError, "threads"),
        ((nk.mlp(1), X1), {"backend": "other"}, ValueError, "unknown backend"),
    ],
)
def test_bad_input(arguments, options, error, message):
    with pytest.raises(error, match=message):
        kernel_gradient(*arguments, **options)


def test_a_gpu_is_refused_where_asked_for_and_passed_over_where_preferred(monkeypatch):
    monkeypatch.setattr(gradients, "resolve", lambda name: name or "cuda")
    with pytest.raises(ValueError, match="on the CPU, not by 'cuda'"):
        kernel_gradient(nk.mlp(1), X1, backend="cuda")
    assert input_gradient(nk.mlp(1), X1).shape == (5, 5, 4)


def test_bad_weights_and_values():
    net = nk.mlp(1)
    for G in (np.ones((5, 4)), np.full((5, 5), np.nan), np.ones((5, 5), complex), "G", None):
        with pytest.raises(
            (ValueError, TypeError), match=r"G must (hold finite numbers|be an array)"
        ):
            input_vjp(net, X1, None, G)
    with pytest.raises(ValueError, match="has 2 parameters, not 1"):
        with_parameters(net, [1.0])
    with pytest.raises(ValueError, match="W_std must be finite and at least 0"):
        with_parameters(net, [1.0, -1.0])
    for call in (parameters, lambda net: with_parameters(net, [])):
        with pytest.raises(TypeError, match="network spec"):
            call(3)


def test_results_that_do_not_fit_are_refused_before_any_work():
    x = np.zeros((300_000, 1))
    with pytest.raises(MemoryError, match="GiB are free"):
        kernel_gradient(nk.mlp(3), x)
    with pytest.raises(MemoryError, match="GiB are free"):
        input_gradient(nk.mlp(3), x)
