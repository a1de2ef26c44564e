"""Block Krylov: few passes, residuals that hold, spectra that are hard."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ntkcore as nk
from conftest import assert_close
from ntkcore.linalg.krylov import block_krylov
from ntkcore.linalg.leading import eigs
from ntkcore.linalg.operators import InMemory
from ntkcore.theory.dynamics import Dynamics, leading_modes


def rotated(values, seed=0):
    """A matrix of these eigenvalues."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((len(values),) * 2))[0]
    return basis * values @ basis.T


SPECTRA = {
    "power law": np.arange(1, 301.0) ** -2,
    "flat": np.linspace(2, 1, 300),  # restarted many times
    "low rank": np.r_[np.arange(5, 0, -1.0), np.zeros(295)],
    "one": np.ones(300),
    "negative": np.linspace(1, -3, 300),
    "groups": np.repeat([3.0, 2.0, 1.0], 100),
}


@pytest.mark.parametrize("k", [1, 4, 30])
@pytest.mark.parametrize("name", SPECTRA)
def test_spectra(name, k):
    values = np.sort(SPECTRA[name])[::-1]
    K = rotated(values)
    found = block_krylov(InMemory(K, tile=64), k, tolerance=1e-9)
    assert_close(found.values, values[:k], 1e-8)
    assert_close(found.vectors.T @ found.vectors, np.eye(k), 1e-12)
    true = np.linalg.norm(K @ found.vectors - found.vectors * found.values, axis=0)
    assert (true <= found.residuals).all()
    assert found.residuals.max() <= 1e-9 * np.abs(values).max()
    assert values[k] <= found.rest <= values[k - 1] + 1e-7


@given(st.integers(0, 1000), st.integers(1, 12), st.floats(1e-8, 0.3))
@settings(max_examples=30, deadline=None)
def test_an_eigenvalue_lies_within_every_residual(seed, k, tolerance):
    rng = np.random.default_rng(seed)
    values = np.sort(rng.gamma(0.2, size=80))
    found = block_krylov(InMemory(rotated(values, seed)), k, tolerance=tolerance, seed=seed)
    distance = np.abs(found.values[:, None] - values).min(axis=1)
    assert (distance <= found.residuals).all()


def test_eigenvalues_of_high_multiplicity():
    """On the hypercube a kernel of scalar products has multiplicities 1, 8, 28, …."""
    x = np.array(list(itertools.product([-1.0, 1.0], repeat=8)))
    K = nk.kernel(nk.mlp(2), x)
    exact = np.linalg.eigvalsh(K)[::-1]
    assert_close(eigs(K, 20)[0], exact[:20], 1e-9)
    assert exact[9] == pytest.approx(exact[19])


def test_passes_are_few():
    x = np.random.default_rng(0).standard_normal((400, 3))
    operator = nk.MatrixFree(nk.mlp(2), x)
    values, vectors, residuals = eigs(operator, 20, return_residuals=True)
    assert operator.passes <= 10  # Lanczos takes 60
    exact = np.linalg.eigvalsh(nk.kernel(nk.mlp(2), x))[::-1][:20]
    assert_close(values, exact, 1e-9)
    assert residuals.max() <= 1e-10 * values[0]
    assert vectors.shape == (400, 20)


def test_residuals_of_every_method():
    K = rotated(SPECTRA["power law"])
    for method in ("krylov", "eigh", "lanczos"):
        values, vectors, residuals = eigs(
            K, 3, method=method, tolerance=1e-6, return_residuals=True
        )
        true = np.linalg.norm(K @ vectors - vectors * values, axis=0)
        assert (true <= residuals + 1e-15).all()
        assert residuals.max() < 1e-4


@pytest.mark.parametrize("method", ["krylov", "eigh", "lanczos"])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e300])
def test_residuals_of_any_size(method, scale):
    """Their squares vanish or overflow."""
    K = rotated(SPECTRA["power law"])
    values, vectors, residuals = eigs(
        K * scale, 3, method=method, tolerance=1e-6, return_residuals=True
    )
    assert_close(values / scale, SPECTRA["power law"][:3], 1e-8)
    true = np.linalg.norm(K @ vectors - vectors * (values / scale), axis=0)
    assert (true > 0).all()
    assert (true <= residuals / scale).all()


def test_a_diagonal_of_zeros_says_nothing_of_the_size():
    K = np.zeros((50, 50))
    K[0, 1] = K[1, 0] = 1e200
    assert eigs(K, 1, method="krylov")[0][0] == pytest.approx(1e200)


def test_it_goes_on_from_its_checkpoint(tmp_path):
    K, file = rotated(SPECTRA["flat"]), tmp_path / "state.npz"
    whole = eigs(K, 5, method="krylov")

    class Dies(InMemory):
        def product(self, X, transposed=False):
            if self.passes > 20:
                raise KeyboardInterrupt
            return super().product(X, transposed)

    with pytest.raises(KeyboardInterrupt):
        eigs(Dies(K), 5, method="krylov", checkpoint=file)
    rest = InMemory(K)
    resumed = eigs(rest, 5, method="krylov", checkpoint=file)
    assert_close(resumed[0], whole[0], 1e-10)
    operator = InMemory(K)
    eigs(operator, 5, method="krylov")
    assert rest.passes + 15 < operator.passes
    with pytest.raises(ValueError, match="another problem"):
        eigs(K, 6, method="krylov", checkpoint=file)


def test_a_basis_of_another_kernel_is_refused(tmp_path):
    """Of one that differs by less than a single product tells."""
    file = tmp_path / "state.npz"

    class Dies(InMemory):
        def product(self, X, transposed=False):
            if self.passes > 2:
                raise KeyboardInterrupt
            return super().product(X, transposed)

    flat = rotated(SPECTRA["flat"])
    with pytest.raises(KeyboardInterrupt):
        eigs(Dies(flat), 2, method="krylov", checkpoint=file)
    other = flat + 1e-7 * rotated(np.linspace(-1, 1, 300), seed=1)
    with pytest.raises(ValueError, match="checkpoint of another kernel"):
        eigs(other, 2, method="krylov", tolerance=1e-3, checkpoint=file)


def test_residuals_hold_for_almost_all_eigenpairs():
    """A last product with one vector does not tell the rounding of all."""
    K = rotated(10.0 ** -np.arange(60.0))
    for k in range(45, 61):
        found = block_krylov(InMemory(K), k)
        true = np.linalg.norm(K @ found.vectors - found.vectors * found.values, axis=0)
        assert (true <= found.residuals).all()


def test_what_does_not_converge_is_said():
    hard = rotated(1 - 1e-13 * np.arange(300.0))
    with pytest.raises(RuntimeError, match="not converged in 200 products"):
        eigs(hard, 3, tolerance=0.0)


def test_dynamics_from_a_matrix_free_kernel():
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((150, 3)), rng.standard_normal((20, 3))
    y, net = np.sin(2 * x[:, 0]), nk.mlp(2, 1.4, 0.1)
    modes = leading_modes(nk.MatrixFree(net, x), 40)
    exact = Dynamics(nk.kernel(net, x), y, ridge=1e-3)
    part = Dynamics(modes, y, ridge=1e-3)
    assert part.ridge == pytest.approx(exact.ridge)  # it knows the trace
    cross, times = nk.kernel(net, z, x), np.array([1.0, 100.0, 1e4, np.inf])
    points = part.points(cross, kernel_test=nk.kernel_diag(net, z))
    error = np.abs(points.mean(times) - exact.points(cross).mean(times))
    assert (error <= points.bound(times) + 1e-9).all()
    assert points.bound(1.0).max() < 0.1  # it says something


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tolerance": 1.0}, "tolerance must lie"),
        ({"tolerance": None}, "tolerance must lie"),
        ({"seed": -1}, "seed must be"),
        ({"seed": None}, "seed must be"),
        ({"method": "eigh", "checkpoint": "state.npz"}, "keeps no checkpoint"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        eigs(np.eye(5), 1, **options)
