"""Empirical kernels: against gradients taken one by one, in every form; products;
what is refused.
"""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from finite_nets import NETS, data, shape_of, torch
from ntkcore.finite import empirical as empirical_module
from ntkcore.finite import (
    empirical_nngp,
    empirical_ntk,
    features,
    linearize,
    ntk_operator,
    ntk_vector_product,
    parameter_groups,
    to_torch,
)
from ntkcore.theory.dynamics import eigenmodes, leading_modes


def one_by_one(module, x1, x2):
    """(n1, n2, outputs, outputs): a backward pass for every sample and output, and dot products."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def rows(x):
        for sample in torch.as_tensor(x):
            for output in module(sample[None]).reshape(-1):
                gradients = torch.autograd.grad(
                    output, parameters, retain_graph=True, allow_unused=True
                )
                yield torch.cat([g.reshape(-1) for g in gradients if g is not None]).numpy()

    a, b = (np.array(list(rows(x))) for x in (x1, x2))
    outputs = len(a) // len(x1)
    return (a @ b.T).reshape(len(x1), outputs, len(x2), outputs).transpose(0, 2, 1, 3)


class Users(torch.nn.Module):
    """A module of somebody's own: images in torch's order, two outputs,
    a parameter outside layers, a buffer.
    """

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.read = torch.nn.Linear(3, 2)
        self.temperature = torch.nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.tensor(0.3))

    def forward(self, x):
        hidden = torch.tanh(self.conv(x) + self.shift).mean((2, 3))
        return self.read(self.norm(hidden)) * self.temperature


def users():
    torch.manual_seed(0)
    return Users().double()


def images(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2, 5, 5))


def two_outputs(net):
    return nk.Serial(*net.layers[:-1], nk.Dense(1.1, 0.2, width=2))


@pytest.mark.parametrize("method", ["structured", "jacobian"])
@pytest.mark.parametrize("name", NETS)
def test_every_form_is_the_kernel_of_gradients(name, method):
    net = two_outputs(NETS[name])
    x, other = data(net, 5), data(net, 3, seed=1)
    options = {
        "input_shape": shape_of(net),
        "parameterization": "mup",
        "alpha": 2.0,
        "centred": True,
    }
    module = to_torch(net, 6, dtype="float64", **options)
    if method == "structured" and not all(layer.on_vectors for _, layer in module.affine()):
        with pytest.raises(ValueError, match="fully connected"):
            empirical_ntk(module, x, method=method)
        return
    torch.nn.init.ones_(module.body[-1].bias)  # so that f - f_0 is not 0
    for x2 in (None, other):
        expected = one_by_one(module, x, x if x2 is None else x2)
        for block in (None, 1, 2):
            full = empirical_ntk(module, x, x2, outputs="full", method=method, block=block)
            trace = empirical_ntk(module, x, x2, method=method, block=block)
            assert relative_error(full, expected) < 1e-12
            assert relative_error(trace, np.einsum("ijoo->ij", expected) / 2) < 1e-12
    assert (empirical_ntk(module, other, x, method=method) == trace.T).all() or trace.shape == (
        5,
        3,
    )


def test_any_module():
    module, x, other = users(), images(5), images(4, 1)
    expected = one_by_one(module, x, other)
    assert (
        relative_error(empirical_ntk(module, x, other, outputs="full", block=2), expected) < 1e-12
    )
    module.conv.weight.requires_grad_(False)
    frozen = one_by_one(module, x, x)
    assert relative_error(frozen, one_by_one(users(), x, x)) > 0.01
    assert relative_error(empirical_ntk(module, x, outputs="full", block=2), frozen) < 1e-12


def test_symmetric_to_the_last_bit():
    module = to_torch(nk.mlp(2), 32, input_shape=6)
    kernel = empirical_ntk(module, np.random.default_rng(0).standard_normal((9, 6)), block=4)
    assert kernel.dtype == np.float32
    assert (kernel == kernel.T).all()


def test_other_parameters_and_frozen_layers():
    net = two_outputs(nk.mlp(2, 1.3, 0.1))
    x = data(NETS["dense"])
    one, other = (to_torch(net, 6, input_shape=7, seed=seed, dtype="float64") for seed in (0, 1))
    there = dict(other.named_parameters())
    expected = one_by_one(other, x, x)
    for method in ("structured", "jacobian"):
        found = empirical_ntk(one, x, outputs="full", method=method, parameters=there)
        assert relative_error(found, expected) < 1e-12
    assert (
        relative_error(empirical_nngp(one, x, parameters=there), empirical_nngp(other, x)) < 1e-14
    )
    v = np.ones((3, 2))
    assert (
        relative_error(
            ntk_vector_product(one, x, v, parameters=there), ntk_vector_product(other, x, v)
        )
        < 1e-13
    )
    one.body[0].weight.requires_grad_(False)
    one.body[2].bias.requires_grad_(False)
    for method in ("structured", "jacobian"):
        assert (
            relative_error(
                empirical_ntk(one, x, outputs="full", method=method), one_by_one(one, x, x)
            )
            < 1e-12
        )


@pytest.mark.parametrize("method", ["structured", "jacobian"])
def test_scales_weigh_parameters_by_their_learning_rates(method):
    """One small step of gradient descent changes the outputs by -lr K df."""
    net = nk.mlp(2, 1.3, 0.1)
    module = to_torch(net, 16, input_shape=7, parameterization="mup", alpha=2.0, dtype="float64")
    x = data(NETS["dense"], 4)
    kernel = empirical_ntk(module, x, scales="sgd", method=method)
    rates = {group["name"]: group["lr"] for group in parameter_groups(module, 1.0)}
    assert relative_error(kernel, empirical_ntk(module, x, scales=rates, method=method)) < 1e-14
    points, lr, push = (
        torch.tensor(x),
        1e-6,
        torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64),
    )
    before = module(points)
    (before[:, 0] * push).sum().backward()
    torch.optim.SGD(parameter_groups(module, lr)).step()
    change = (module(points) - before).detach().numpy()[:, 0]
    assert relative_error(change / -lr, kernel @ push.numpy()) < 1e-4
    product = ntk_vector_product(module, x, push.numpy(), scales="sgd")
    assert relative_error(product, empirical_ntk(module, x, scales="sgd") @ push.numpy()) < 1e-12


def test_products_and_operators():
    module, x, other = users(), images(5), images(4, 1)
    full = empirical_ntk(module, x, other, outputs="full")
    v = np.random.default_rng(2).standard_normal((4, 2))
    for block in (1, 3, 100):
        found = ntk_vector_product(module, x, v, other, block=block)
        assert relative_error(found, np.einsum("ijop,jp->io", full, v)) < 1e-12
    operator = ntk_operator(module, x, other)
    dense = full.transpose(0, 2, 1, 3).reshape(10, 8)
    assert relative_error(operator @ np.eye(8), dense) < 1e-12
    assert relative_error(operator.T @ np.eye(10), dense.T) < 1e-12
    single = to_torch(nk.mlp(1), 32, input_shape=6, dtype="float64")
    points = np.random.default_rng(0).standard_normal((20, 6))
    kernel = empirical_ntk(single, points)
    assert relative_error(ntk_vector_product(single, points, kernel[0]), kernel @ kernel[0]) < 1e-12
    leading, exact = leading_modes(ntk_operator(single, points), 3), eigenmodes(kernel)
    assert relative_error(leading.values, exact.values[:3]) < 1e-9


def test_features_and_nngp():
    module, x = users(), images(3)
    hidden = (
        module.norm(torch.tanh(module.conv(torch.tensor(x)) + module.shift).mean((2, 3)))
        .detach()
        .numpy()
    )
    assert relative_error(features(module, x), hidden) < 1e-12
    assert relative_error(empirical_nngp(module, x, x[:2]), hidden @ hidden[:2].T / 3) < 1e-12
    with pytest.raises(ValueError, match="no affine layer"):
        features(torch.nn.Conv2d(1, 1, 1), np.ones((2, 1, 1, 1)))


def test_a_linearised_network_has_the_networks_kernel():
    module = to_torch(nk.mlp(1, 1.3, 0.1), 16, input_shape=7, dtype="float64")
    x = data(NETS["dense"], 4)
    assert relative_error(empirical_ntk(linearize(module), x), empirical_ntk(module, x)) < 1e-12


NOT_FUNCTIONAL = {
    "buffers .*running_mean.* are updated": lambda: torch.nn.BatchNorm1d(4),
    "two calls on the same samples differ": lambda: torch.nn.Dropout(0.5),
    "depends on the other samples": lambda: torch.nn.BatchNorm1d(4, track_running_stats=False),
}


@pytest.mark.parametrize("message", NOT_FUNCTIONAL)
def test_what_is_no_function_is_refused(message):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 4), NOT_FUNCTIONAL[message](), torch.nn.Linear(4, 1)
    )
    x = np.random.default_rng(0).standard_normal((6, 4))
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    state = torch.random.get_rng_state()
    for call in (
        lambda: empirical_ntk(module, x),
        lambda: ntk_vector_product(module, x, np.ones(6)),
    ):
        with pytest.raises(ValueError, match=rf"(?s){message}.*eval\(\)"):
            call()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, buffers[name]) for name, value in module.named_buffers())
    if "other samples" not in message:
        module.eval()
        assert np.isfinite(empirical_ntk(module, x)).all()


def test_too_little_memory(monkeypatch):
    module, x = users(), images(6)
    parameters = sum(p.numel() for p in module.parameters())
    expected = empirical_ntk(module, x)
    a_sample = 2 * 2 * 8 * parameters
    monkeypatch.setattr(empirical_module, "free_bytes", lambda: 5 * a_sample)
    assert relative_error(empirical_ntk(module, x), expected) < 1e-12  # a sample at a time
    with pytest.raises(MemoryError, match=r"two blocks of 3 sample.*smaller block"):
        empirical_ntk(module, x, block=3)
    monkeypatch.setattr(empirical_module, "free_bytes", lambda: a_sample)
    with pytest.raises(MemoryError, match=r"two blocks of 1 sample.*ntk_vector_product"):
        empirical_ntk(module, x)
    monkeypatch.setattr(empirical_module, "free_bytes", lambda: 1 << 20)
    with pytest.raises(MemoryError, match="the kernel of shape"):
        empirical_ntk(to_torch(nk.mlp(1), 2, input_shape=1), np.ones((1000, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "mean"}, "outputs must be 'trace' or 'full'"),
        ({"method": "fast"}, "method must be"),
        ({"method": "structured"}, "made by to_torch, and this one is a Users"),
        ({"block": 0}, "block must be a positive number"),
        ({"scales": "adam"}, "scales must be"),
        ({"scales": {"conv.weight": 1.0}}, "scales must be"),
        ({"parameters": {"weights": torch.zeros(3)}}, "the module's own names"),
        ({"x1": np.full((2, 2, 5, 5), np.nan)}, "x1 holds NaN or infinity"),
        ({"x1": np.empty((0, 2, 5, 5))}, "x1 must hold samples"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        empirical_ntk(users(), **{"x1": images(2), **options})


def test_more_bad_arguments():
    with pytest.raises(TypeError, match="x1 must hold real numbers"):
        empirical_ntk(users(), np.array(["a"]))
    with pytest.raises(ValueError, match=r"v must have shape \(3, 2\), not \(3,\)"):
        ntk_vector_product(users(), images(3), np.ones(3))
    with pytest.raises(ValueError, match="no trainable parameters"):
        empirical_ntk(users().requires_grad_(False), images(2))
    shapes = {name: p[None] for name, p in users().named_parameters()}
    with pytest.raises(ValueError, match="has shape"):
        empirical_ntk(users(), images(2), parameters=shapes)
    broken = users()
    torch.nn.init.constant_(broken.temperature, np.nan)
    with pytest.raises(ValueError, match="outputs hold NaN"):
        empirical_ntk(broken, images(2))
    with pytest.raises(ValueError, match="must give a tensor"):
        empirical_ntk(
            torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Flatten(0)), np.ones((3, 2))
        )
