"""neural-tangents' spelling: its own networks give its own numbers, its calls their shapes and names."""

import inspect

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore import stax

CASES = [
    *("fc_relu_he_3", "fc_relu_bias_2", "fc_leaky_abs", "fc_abrelu", "fc_erf_abc", "fc_gelu", "fc_sin_cos", "fc_rbf"),
    *("fc_residual", "fc_standard", "fc_layernorm", "cnn_flat_3", "cnn_gap_3", "cnn_gap_5x5", "cnn_valid_even"),
    *("cnn_same_even", "cnn_circular", "cnn_strided", "cnn_pool_2", "cnn_pool_overlap", "cnn_pool_edges", "cnn_resnet"),
    *("cnn_erf_head", "cnn_standard"),
]
X = np.random.default_rng(0).standard_normal((5, 4))
Z = np.random.default_rng(1).standard_normal((3, 4))


def mlp():
    return stax.serial(stax.Dense(512, W_std=1.5, b_std=0.1), stax.Relu(), stax.Dense(1))


def test_all_cases_are_tested(nt_reference):
    assert sorted(CASES) == sorted(nt_reference[0])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_parity_with_neural_tangents(nt_reference, name, dtype):
    spellings, arrays = nt_reference
    _, _, kernel_fn = eval(spellings[name], {"stax": stax})
    x1 = arrays[f"{name}/x1"]
    x2 = arrays.get(f"{name}/x2")
    ours = kernel_fn(x1, x2, ("nngp", "ntk"), dtype=dtype)
    for field in ("nngp", "ntk"):
        expected = arrays[f"{name}/{field}"]
        error = np.abs(getattr(ours, field) - expected) / np.abs(expected).max()
        assert np.isfinite(error).all()
        if x2 is None:  # neural-tangents' own error at rho = 1, and between its near-duplicates x1[0] and x1[1]
            near = np.eye(len(x1), dtype=bool)
            near[0, 1] = near[1, 0] = True
            assert error[near].max() < (2e-8 if dtype == "float64" else 2e-5)
            error[near] = 0
        assert error.max() < (1e-12 if dtype == "float64" else 1e-6)


def test_get_decides_what_comes_back():
    _, _, kernel_fn = mlp()
    ntk = kernel_fn(X, Z, "ntk")
    assert isinstance(ntk, np.ndarray)
    assert ntk.shape == (5, 3)
    both = kernel_fn(X, Z, ("ntk", "nngp"))
    assert type(both).__name__ == "AnalyticKernel"
    assert both._fields == ("ntk", "nngp")
    assert (both.ntk == ntk).all()
    assert (kernel_fn(X, Z, "NTK") == ntk).all()
    everything = kernel_fn(X, Z)
    assert (everything.ntk == ntk).all()
    assert relative_error(everything.cov1, np.diag(kernel_fn(X, None, "nngp"))) == 0
    assert everything.cov2.shape == (3,)
    assert kernel_fn(X).cov2 is None
    assert kernel_fn(X).x1_is_x2
    assert kernel_fn.net == nk.Serial(nk.Dense(1.5, 0.1, width=512), nk.Relu(), nk.Dense(width=1))


def test_combinators():
    block = stax.serial(stax.Dense(8, 1.3), stax.Relu())
    repeated = stax.serial(stax.repeat(block, 3), stax.Dense(1))[2](X, Z, "ntk")
    assert relative_error(repeated, stax.serial(block, block, block, stax.Dense(1))[2](X, Z, "ntk")) < 1e-15
    assert (stax.batch(mlp()[2], batch_size=7)(X, Z, "ntk") == mlp()[2](X, Z, "ntk")).all()


SIGNATURES = {
    "Dense": "out_dim W_std b_std batch_axis channel_axis parameterization s",
    "Conv": "out_chan filter_shape strides padding W_std b_std dimension_numbers parameterization s",
    "AvgPool": "window_shape strides padding normalize_edges batch_axis channel_axis",
    "SumPool": "window_shape strides padding batch_axis channel_axis",
    "LayerNorm": "axis eps batch_axis channel_axis",
    "LeakyRelu": "alpha do_stabilize",
    "ABRelu": "a b do_stabilize",
    "Erf": "a b c",
    "Rbf": "gamma",
    "FanOut": "num",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_neural_tangents(name):
    assert list(inspect.signature(getattr(stax, name)).parameters) == SIGNATURES[name].split()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: stax.Dense(3, channel_axis=1), NotImplementedError, "channel_axis"),
        (lambda: stax.Dense(3, s=(1, 2)), NotImplementedError, "s="),
        (lambda: stax.Conv(3, (3, 3), dimension_numbers=("NCHW", "OIHW", "NCHW")), NotImplementedError, "dimension"),
        (lambda: stax.LayerNorm(axis=(1, 2)), NotImplementedError, "axis"),
        (lambda: stax.serial(), ValueError, "at least one"),
        (lambda: mlp()[0](0, (1, 2)), NotImplementedError, "finite"),
        (lambda: mlp()[2](X, Z, "foo"), KeyError, "foo"),
        (lambda: mlp()[2](X, Z, ()), ValueError, "non-empty"),
        (lambda: mlp()[2](X, Z, ("ntk", "ntk")), ValueError, "unique"),
        (lambda: mlp()[2](X, Z, "ntk", pattern=1), NotImplementedError, "pattern"),
        (lambda: mlp()[2](mlp()[2](X), Z), TypeError, "Kernel"),
        (lambda: stax.serial(stax.Relu())[2](X, Z, "ntk"), ValueError, "affine"),
    ],
)
def test_what_is_not_here_says_so(call, error, words):
    with pytest.raises(error, match=words):
        call()
