"""Empirical kernels of modules that torch.func takes badly."""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from finite_nets import torch
from ntkcore.finite import (
    activations,
    empirical_nngp,
    empirical_ntk,
    features,
    ntk_vector_product,
    to_torch,
)
from test_finite_kernels import one_by_one


class Recurrent(torch.nn.Module):
    """vmap has no rule for it."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, batch_first=True)
        self.read = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.read(self.lstm(x)[0][:, -1])


class Masked(torch.nn.Module):
    """Shapes that depend on the data."""

    def __init__(self):
        super().__init__()
        self.read = torch.nn.Linear(3, 2)

    def forward(self, x):
        return torch.stack([self.read(row[row[:, 0] > 0]).sum(0) for row in x])


class Asking(torch.nn.Module):
    """Looks at the data's values."""

    def __init__(self):
        super().__init__()
        self.read = torch.nn.Linear(3, 2)
        self.unused = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return torch.stack(
            [self.read(row.mean(0)) * (2.0 if row.sum().item() > 0 else 1.0) for row in x]
        )


@pytest.mark.parametrize("kind", [Recurrent, Masked, Asking])
def test_what_vmap_cannot_batch_goes_sample_by_sample(kind):
    torch.manual_seed(0)
    module = kind().double()
    x, other = np.random.default_rng(0).standard_normal((2, 5, 4, 3))
    expected = one_by_one(module, x, other[:3])
    assert (
        relative_error(empirical_ntk(module, x, other[:3], outputs="full", block=2), expected)
        < 1e-12
    )
    v = np.random.default_rng(1).standard_normal((3, 2))
    product = ntk_vector_product(module, x, v, other[:3])
    assert relative_error(product, np.einsum("ijop,jp->io", expected, v)) < 1e-12


def test_integers_for_an_embedding_stay_integers():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Embedding(9, 4), torch.nn.Flatten(), torch.nn.Linear(12, 1)
    ).double()
    tokens = np.random.default_rng(0).integers(0, 9, (5, 3))
    expected = one_by_one(module, tokens, tokens)
    assert relative_error(empirical_ntk(module, tokens, outputs="full"), expected) < 1e-12
    with pytest.raises(ValueError, match="Sequential cannot take samples"):
        empirical_ntk(module, tokens + 9)


def test_bfloat16():
    module = to_torch(nk.mlp(1), 64, input_shape=6)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    expected = empirical_ntk(module, x)
    found = empirical_ntk(module.bfloat16(), torch.tensor(x).bfloat16())
    assert found.dtype == np.float32
    assert relative_error(found, expected) < 0.05


@pytest.mark.parametrize("count", [1, 2, 3])
def test_batch_normalisation_is_refused_for_any_number_of_samples(count):
    x = np.random.default_rng(0).standard_normal((count, 4))
    for norm in (torch.nn.BatchNorm1d(4, track_running_stats=False), torch.nn.BatchNorm1d(4)):
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), norm, torch.nn.Linear(4, 1))
        with pytest.raises(
            ValueError, match=r"no function of its parameters and one sample.*eval\(\)"
        ):
            empirical_ntk(module, x)


class Attending(torch.nn.Module):
    """Its fused kernels have no forward derivative."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(3, 1, 8, batch_first=True, dropout=0.0)
        self.read = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.read(self.layer(x).mean(1))


def test_attention():
    torch.manual_seed(0)
    module = Attending().double()
    x = np.random.default_rng(0).standard_normal((3, 4, 3))
    expected = one_by_one(module, x, x)
    assert relative_error(empirical_ntk(module, x, outputs="full"), expected) < 1e-12
    v = np.random.default_rng(1).standard_normal((3, 2))
    assert (
        relative_error(ntk_vector_product(module, x, v), np.einsum("ijop,jp->io", expected, v))
        < 1e-12
    )


class Square(torch.autograd.Function):
    """As written before torch.func."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class Squared(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.read = torch.nn.Linear(3, 2)

    def forward(self, x):
        return Square.apply(self.read(x))


def test_what_torch_func_cannot_differentiate_has_its_kernel_and_no_products():
    module, x = Squared().double(), np.random.default_rng(0).standard_normal((3, 3))
    assert (
        relative_error(empirical_ntk(module, x, outputs="full"), one_by_one(module, x, x)) < 1e-12
    )
    with pytest.raises(
        ValueError, match=r"cannot differentiate this module as a whole: .*empirical_ntk can"
    ):
        ntk_vector_product(module, x, np.ones((3, 2)))


def test_features_of_a_read_out_that_is_not_called_with_all_samples():
    module = Asking().double()
    with pytest.raises(ValueError, match="called 4 times for 4 samples"):
        features(module, np.ones((4, 2, 3)))
    with pytest.raises(ValueError, match=r"'read' is not called with all samples"):
        activations(module, np.ones((4, 2, 3)))


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm1d(4), torch.nn.Dropout()])
@pytest.mark.parametrize("measure", [features, activations, empirical_nngp])
def test_features_of_a_module_in_training_mode(layer, measure):
    module = (
        torch.nn.Sequential(torch.nn.Linear(4, 4), layer, torch.nn.Linear(4, 1)).double().train()
    )
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = np.random.default_rng(0).standard_normal((5, 4))
    with pytest.raises(ValueError, match=r"no function of its parameters and one sample.*eval\(\)"):
        measure(module, x)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert np.isfinite(
        measure(module.eval(), x)["0"] if measure is activations else measure(module.eval(), x)
    ).all()
