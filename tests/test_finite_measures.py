"""Measures of laziness: against their formulas, brute force,
and networks that are lazy or are not.
"""

import copy
import math

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from finite_nets import torch
from ntkcore.finite import (
    activation_movement,
    activations,
    alignment,
    empirical_ntk,
    feature_movement,
    features,
    kernel_distance,
    kernel_movement,
    kernel_velocity,
    laziness,
    linearization_error,
    linearized_error,
    nmse,
    parameter_movement,
    rms_deviation,
    to_torch,
    train,
)

RNG = np.random.default_rng(0)
X, Y, X_TEST = RNG.standard_normal((12, 5)), RNG.standard_normal(12), RNG.standard_normal((4, 5))


def make(width=32, net=None, **options):
    return to_torch(net or nk.mlp(2, 1.4, 0.1), width, input_shape=5, dtype="float64", **options)


def test_kernels():
    a = RNG.standard_normal((6, 6))
    before, after = a @ a.T, a @ a.T + np.diag(RNG.random(6))
    assert kernel_movement(after, before) == pytest.approx(
        math.sqrt(((after - before) ** 2).sum() / (before**2).sum())
    )
    cosine = (after * before).sum() / math.sqrt((after**2).sum() * (before**2).sum())
    assert kernel_distance(after, before) == pytest.approx(1 - cosine, rel=1e-12)
    assert kernel_distance(3 * before, before) < 1e-30
    assert kernel_movement(3 * before, before) == pytest.approx(2)
    assert kernel_velocity(after, before, 0.25) == pytest.approx(4 * (1 - cosine))
    y = RNG.standard_normal(6)
    assert alignment(before, y) == pytest.approx(
        y @ before @ y / (np.linalg.norm(before) * (y @ y))
    )
    assert alignment(np.outer(y, y), y) == pytest.approx(1)
    both = RNG.standard_normal((6, 2))
    assert alignment(both @ both.T, both) == pytest.approx(1)


def test_parameters_and_features():
    module = make()
    before = copy.deepcopy(module)
    train(module, X, Y, lr=0.1, steps=20)
    w, w_0 = (
        np.concatenate([p.detach().numpy().ravel() for p in m.parameters()])
        for m in (module, before)
    )
    moved = np.linalg.norm(w - w_0)
    assert parameter_movement(module, before) == pytest.approx(moved / np.linalg.norm(w_0))
    assert parameter_movement(module, before, relative=False) == pytest.approx(moved)
    assert parameter_movement(module, dict(before.named_parameters())) == parameter_movement(
        module, before
    )
    change = features(module, X) - features(before, X)
    assert feature_movement(module, before, X) == pytest.approx(
        np.linalg.norm(change) / np.linalg.norm(features(before, X))
    )
    hidden = activations(before, X)
    assert list(hidden) == ["body.0", "body.2", "body.4"]
    assert relative_error(np.maximum(hidden["body.2"], 0), features(before, X)) < 1e-14
    moved, size = activation_movement(module, before, X)["body.2"]
    assert size == pytest.approx(math.sqrt((hidden["body.2"] ** 2).mean()))
    assert moved == pytest.approx(
        math.sqrt(((activations(module, X)["body.2"] - hidden["body.2"]) ** 2).mean())
    )


def test_activations_of_a_centred_network_are_its_own():
    module = make(centred=True)
    before = copy.deepcopy(module)
    train(module, X, Y, lr=0.1, steps=5)
    assert feature_movement(module, before, X) > 1e-3
    assert activation_movement(module, before, X)["body.2"][0] > 1e-3


def test_linearization_error():
    """The remainder of Taylor's series, by hand and by its order."""
    linear = make(net=nk.Serial(nk.Dense(1.0, 0.1)))
    moved = copy.deepcopy(linear)
    train(moved, X, Y, lr=0.5, steps=10)
    assert linearization_error(moved, linear, X) < 1e-14
    module = make(net=nk.mlp(1, 1.4, 0.1, nk.Erf()))
    rng = np.random.default_rng(1)
    direction = [torch.tensor(rng.standard_normal(p.shape)) for p in module.parameters()]
    errors = []
    for scale in (1e-2, 1e-3):
        other = copy.deepcopy(module)
        with torch.no_grad():
            for p, d in zip(other.parameters(), direction, strict=True):
                p += scale * d
        errors.append(linearization_error(other, module, X))
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)
    f, f_0 = (m(torch.tensor(X)).detach().numpy()[:, 0] for m in (other, module))
    gradient = [
        torch.autograd.grad(module(torch.tensor(x[None]))[0, 0], list(module.parameters()))
        for x in X
    ]
    step = [
        sum(float((g * 1e-3 * d).sum()) for g, d in zip(gs, direction, strict=True))
        for gs in gradient
    ]
    assert errors[1] == pytest.approx(rms_deviation(f, f_0 + np.array(step)), rel=1e-6)


def test_everything_moves_less_the_larger_alpha():
    measured = []
    for alpha in (1.0, 10.0, 100.0):
        module = make(alpha=alpha, centred=True)
        before = copy.deepcopy(module)
        kernel = empirical_ntk(module, X)
        train(module, X, Y, lr=0.3, steps=200)
        after = empirical_ntk(module, X)
        measured.append(
            [
                kernel_movement(after, kernel),
                math.sqrt(kernel_distance(after, kernel)),
                parameter_movement(module, before),
                feature_movement(module, before, X),
                linearization_error(module, before, X),
            ]
        )
    measured = np.array(measured)
    assert (measured[1:] < measured[:-1] / 4).all()
    assert measured[0, 0] > 0.1
    assert measured[2, 0] < 0.01


class Product(torch.nn.Module):
    """F = a b x."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (
            torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (1.5, 0.5)
        )

    def forward(self, x):
        return self.a * self.b * x


def test_laziness_of_a_product():
    """|D^2 f| = max 2 |u_a u_b x| = |x|, |Df|^2 = (a^2 + b^2) x^2."""
    x, y = np.array([[2.0], [-1.0]]), np.array([1.0, 3.0])
    size = math.sqrt((x**2).mean())
    distance = math.sqrt(((0.75 * x[:, 0] - y) ** 2).mean())
    assert laziness(Product(), x, y) == pytest.approx(distance * size / (2.5 * size**2), rel=1e-6)


def test_laziness_against_the_hessian():
    """One sample, one output: |D^2 f| is the Hessian's largest eigenvalue in size."""
    module = make(width=4, net=nk.mlp(1, 1.4, 0.1, nk.Erf()))
    shapes = {name: p.shape for name, p in module.named_parameters()}
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    x = torch.tensor(X[:1])

    def f(w):
        parts = torch.split(w, [shape.numel() for shape in shapes.values()])
        named = {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        return torch.func.functional_call(module, named, (x,))[0, 0]

    hessian = torch.autograd.functional.hessian(f, flat).numpy()
    gradient = torch.autograd.functional.jacobian(f, flat).numpy()
    exact = (
        abs(float(f(flat)) - 2.0)
        * np.abs(np.linalg.eigvalsh(hessian)).max()
        / (gradient @ gradient)
    )
    assert laziness(module, X[:1], [2.0], iterations=80, restarts=6) == pytest.approx(
        exact, rel=5e-3
    )


def test_laziness_falls_with_alpha():
    one, other = (laziness(make(alpha=alpha, centred=True), X, Y) for alpha in (1.0, 8.0))
    assert one / other == pytest.approx(8, rel=1e-6)


def test_linearised_from_t_on():
    """Features of x_0 x_1, once learned, are enough for the kernel;
    those at the start are not (Fort et al. 2020).
    """
    rng = np.random.default_rng(3)
    x, x_test = (rng.choice([-1.0, 1.0], (n, 16)) for n in (160, 200))
    y, y_test = (points[:, 0] * points[:, 1] for points in (x, x_test))
    module = to_torch(
        nk.mlp(1, 2**0.5, 0.1), 128, input_shape=16, parameterization="mup", dtype="float64"
    )
    start = linearized_error(module, x, y, x_test, y_test)
    train(module, x, y, optimizer="adam", lr=0.03, base_width=1, steps=200, batch_size=32)
    later = linearized_error(module, x, y, x_test, y_test)
    assert start.network_test > 0.9
    assert start.linearized_train < 1e-6
    assert start.linearized_test > 0.3
    assert later.linearized_test < start.linearized_test / 3
    assert later.network_train == pytest.approx(nmse(module(torch.tensor(x)).detach().numpy(), y))


def test_nmse():
    assert nmse(Y, Y) == 0
    assert nmse(np.full(12, Y.mean()), Y) == pytest.approx(1)
    assert nmse(Y[:, None] + 1, Y) == pytest.approx(1 / Y.var())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_movement(np.eye(2), np.eye(3)), "differ in shape"),
        (lambda: kernel_movement(np.eye(2), 0 * np.eye(2)), "0 everywhere"),
        (lambda: kernel_distance(np.nan * np.eye(2), np.eye(2)), "NaN"),
        (lambda: kernel_velocity(np.eye(2), np.eye(2), 0), "dt must be"),
        (lambda: alignment(np.eye(2), [0, 0]), "not 0"),
        (lambda: rms_deviation(np.ones(2), np.ones((2, 1))), "differ in shape"),
        (lambda: nmse([1, 1], [2, 2]), "constant"),
        (lambda: parameter_movement(make(), make(width=8)), "has shape"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
