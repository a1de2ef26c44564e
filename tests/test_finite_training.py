"""The training loop and the linearised network: against loops in NumPy, and each other."""

import copy
import math
import pickle

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from finite_nets import torch
from ntkcore.finite import (
    DivergedError,
    Linearized,
    empirical_ntk,
    linearize,
    rms_deviation,
    to_torch,
    train,
)
from ntkcore.theory.dynamics import GradientDescent, GradientFlow

RNG = np.random.default_rng(0)
X, Y, X_TEST = RNG.standard_normal((12, 5)), RNG.standard_normal(12), RNG.standard_normal((4, 5))


def outputs(module, x):
    return module(torch.tensor(x)).detach().numpy()


def make(width=16, outputs=1, seed=0, **options):
    net = nk.Serial(
        nk.Dense(1.4, 0.1),
        nk.Erf(),
        nk.Dense(1.4, 0.1),
        nk.Relu(),
        nk.Dense(1.2, 0.1, width=outputs),
    )
    return to_torch(net, width, input_shape=5, dtype="float64", seed=seed, **options)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_gradient_descent_of_a_linear_model(momentum):
    """f = W_std w x/sqrt(d), by hand."""
    module = to_torch(nk.Serial(nk.Dense(1.3)), 1, input_shape=5, dtype="float64")
    w = module.body[0].weight.detach().numpy()[0].copy()
    features, speed, losses = 1.3 / math.sqrt(5) * X, np.zeros(5), []
    for _ in range(21):
        error = features @ w - Y
        losses.append((error**2).sum() / 24)
        speed = momentum * speed + features.T @ error / 12 + 0.1 * w
        w = w - 0.3 * speed
    history = train(module, X, Y, lr=0.3, steps=20, momentum=momentum, weight_decay=0.1, every=1)
    assert relative_error(history.loss, losses) < 1e-12
    assert (history.steps == np.arange(21)).all()


def test_what_is_recorded():
    module = make()
    seen = []

    def weight(step, module):
        seen.append(step)
        return {"weight": float(module.body[0].weight.detach()[0, 0])}

    history = train(
        module,
        X,
        Y,
        lr=0.1,
        steps=10,
        every=4,
        callbacks=[weight, lambda step, m: {"odd": 1} if step else {}],
    )
    assert seen == [0, 4, 8, 10] == list(history.steps)
    assert history.values["weight"][0] == float(make().body[0].weight.detach()[0, 0])
    assert math.isnan(history.values["odd"][0])
    assert (history.values["odd"][1:] == 1).all()
    assert list(train(make(), X, Y, lr=0.1, steps=10, every=[3, 7, 99]).steps) == [0, 3, 7, 10]
    assert list(train(make(), X, Y, lr=0.1, steps=10).steps) == [0, 10]
    assert list(train(make(), X, Y, lr=0.1, steps=0).steps) == [0]


def test_batches_are_drawn_without_replacement_and_by_the_seed():
    drawn = []

    def loss(f, y):
        if len(y) == 5:
            drawn.append(sorted(int(i) for i in y))
        return (f**2).mean()

    final = []
    for seed in (1, 1, 2):
        module = make()
        train(module, X, np.arange(12), lr=0.01, steps=4, batch_size=5, loss=loss, seed=seed)
        final.append(outputs(module, X))
    assert (final[0] == final[1]).all()
    assert (final[0] != final[2]).any()
    assert drawn[:4] == drawn[4:8] != drawn[8:]
    assert all(len({*drawn[i], *drawn[i + 1]}) == 10 for i in (0, 2, 8, 10))  # two batches an epoch


def test_decay_is_the_same_in_all_layers():
    """On zero data gradients vanish and only AdamW's decay is left: (1 - lr wd)^steps."""
    net = nk.mlp(2)
    for parameterization in ("ntk", "mup", "standard"):
        module = to_torch(
            net, 16, input_shape=5, parameterization=parameterization, dtype="float64", alpha=3.0
        )
        before = copy.deepcopy(module)
        train(module, 0 * X, 0 * Y, optimizer="adamw", lr=0.1, weight_decay=0.2, steps=7)
        for after, start in zip(module.parameters(), before.parameters(), strict=True):
            assert relative_error(after.detach(), 0.98**7 * start.detach()) < 1e-12


def test_cross_entropy():
    labels = (Y > 0).astype(int)
    for y, module in ((labels, make(outputs=2)), (2 * labels - 1, make())):
        f = outputs(module, X)
        margin = (2 * labels - 1) * (f[:, 1] - f[:, 0] if f.shape[1] == 2 else f[:, 0])
        history = train(module, X, y, lr=0.5, steps=200, loss="cross_entropy")
        assert history.loss[0] == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-12)
        assert history.loss[1] < history.loss[0] / 2


def test_optimizers():
    for optimizer in ("adam", "adamw", lambda groups: torch.optim.RMSprop(groups, lr=1e-3)):
        module = make()
        history = train(module, X, Y, lr=1e-2, optimizer=optimizer, steps=100)
        assert history.loss[1] < history.loss[0] / 2


def test_divergence_is_named():
    with pytest.raises(DivergedError, match=r"at step \d+, with a learning rate of 1000") as caught:
        train(make(), X, Y, lr=1e3, steps=500)
    assert 1 <= caught.value.step <= 500
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.step, again.lr, str(again)) == (caught.value.step, 1e3, str(caught.value))
    with pytest.raises(DivergedError, match="step 0"):
        train(make(), X, Y, lr=0.1, steps=5, loss=lambda f, y: (f / 0).sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr must be a positive finite number"),
        ({"lr": math.nan}, "lr must be a positive finite number"),
        ({"steps": -1}, "steps must be"),
        ({"batch_size": 13}, "between 1 and the 12 samples"),
        ({"every": 0}, "every must be a positive number"),
        ({"lr": "1"}, "lr must be a positive finite number"),
        ({"steps": 1.5}, "steps must be"),
        ({"batch_size": 2.5}, "between 1 and the 12 samples"),
        (
            {"loss": lambda f, y: f[:, 0] - y.reshape(-1)[:3]},
            r"the loss cannot take outputs \(12, 1\)",
        ),
        (
            {"loss": torch.nn.functional.cross_entropy, "y": np.zeros(12, int)},
            "a tensor of integers keeps its own",
        ),
        ({"loss": "hinge"}, "loss must be one of mse, cross_entropy"),
        ({"optimizer": "newton"}, "optimizer must be one of"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum is that of 'sgd'"),
        ({"y": Y[:3]}, "x holds 12 samples, y 3 targets"),
        ({"y": np.ones((12, 2))}, r"shape \(12, 2\) do not fit outputs of shape \(12, 1\)"),
        ({"x": X * np.nan}, "x holds NaN"),
        ({"momentum": "0.9"}, "momentum must lie in"),
        ({"momentum": math.nan}, "momentum must lie in"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"optimizer": torch.optim.SGD, "momentum": 0.9}, "momentum is that of 'sgd'"),
        ({"weight_decay": -1}, "weight_decay must be a finite number >= 0"),
        ({"weight_decay": "a"}, "weight_decay must be a finite number >= 0"),
        ({"base_width": 0}, "base_width must be a positive"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"steps": True}, "steps must be"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        train(make(), **{"x": X, "y": Y, "lr": 0.1, "steps": 3, **options})
    with pytest.raises(ValueError, match="nothing to train"):
        train(make().requires_grad_(False), X, Y, lr=0.1, steps=1)


def test_what_losses_and_callbacks_give():
    options = {"lr": 0.1, "steps": 1}
    with pytest.raises(
        TypeError, match=r"tensor of one number, the mean over samples, not shape \(12, 1\)"
    ):
        train(make(), X, Y, loss=lambda f, y: f**2, **options)
    with pytest.raises(TypeError, match="one number, the mean over samples, not float"):
        train(make(), X, Y, loss=lambda f, y: 1.0, **options)
    with pytest.raises(TypeError, match="put the one into brackets"):
        train(make(), X, Y, callbacks=lambda step, module: {}, **options)
    for callbacks in (5, [5], "f"):
        with pytest.raises(TypeError, match="callbacks must be a sequence of functions"):
            train(make(), X, Y, callbacks=callbacks, **options)
    for every in ("a", 2.5, [1, "a"], [0.5]):
        with pytest.raises(TypeError, match="every"):
            train(make(), X, Y, every=every, **options)
    with pytest.raises(TypeError, match="None or numbers by name, not str"):
        train(make(), X, Y, callbacks=[lambda step, module: "a"], **options)


def test_targets_of_true_and_false():
    truth = torch.tensor([True, False] * 6)
    history = train(make(), X, truth, lr=0.1, steps=2)
    np.testing.assert_array_equal(
        history.loss, train(make(), X, truth.double(), lr=0.1, steps=2).loss
    )


# --- the linearised network


@pytest.mark.parametrize("parameterization", ["ntk", "standard", "mup"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_closed_form_is_the_descent_of_the_linear_model(parameterization, count, momentum):
    y = np.random.default_rng(1).standard_normal((12, count))
    module = make(outputs=count, parameterization=parameterization, alpha=2.0, centred=count == 2)
    lr = 0.4 * Linearized(module, X, y).max_learning_rate()
    linear = Linearized(module, X, y, GradientDescent(lr, momentum))
    steps = [0, 1, 10, 20]
    slow = linearize(module)
    history = train(slow, X, y, lr=lr, momentum=momentum, steps=20, every=steps)
    assert relative_error(linear.loss(steps), history.loss) < 1e-10
    assert relative_error(linear.predict(20), outputs(slow, X)) < 1e-10
    assert relative_error(linear.predict(20, X_TEST), outputs(slow, X_TEST)) < 1e-10
    assert linear.predict([[0, 1], [2, 3]], X_TEST).shape == (2, 2, 4, count)
    assert linear.loss(20, X, y) == pytest.approx(float(linear.loss(20)), rel=1e-9)


def test_the_largest_learning_rate_is_that_of_the_linear_model():
    limit = Linearized(make(), X, Y).max_learning_rate()
    assert train(linearize(make()), X, Y, lr=0.99 * limit, steps=60).loss[1] < 0.5
    assert train(linearize(make()), X, Y, lr=1.2 * limit, steps=60).loss[1] > 100
    with pytest.raises(DivergedError):
        train(linearize(make()), X, Y, lr=20 * limit, steps=150)


def test_shapes_follow_the_targets():
    assert Linearized(make(), X, Y).predict([1, 2], X_TEST).shape == (2, 4)
    assert Linearized(make(), X, Y[:, None]).predict(np.inf).shape == (12, 1)
    assert relative_error(Linearized(make(width=64), X, Y).predict(np.inf), Y) < 1e-6


def test_linearize_is_linear_in_its_parameters_and_touches_the_curve():
    module = make()
    linear = linearize(module)
    start = outputs(linear, X)
    assert relative_error(start, outputs(module, X)) < 1e-14
    rng = np.random.default_rng(1)
    shift = [torch.tensor(rng.standard_normal(p.shape)) for p in module.parameters()]
    changes = []
    for scale in (1.0, 2.0):
        moved = copy.deepcopy(linear)
        with torch.no_grad():
            for p, d in zip(moved.parameters(), shift, strict=True):
                p += scale * d
        changes.append(outputs(moved, X) - start)
    assert relative_error(changes[1], 2 * changes[0]) < 1e-12
    with torch.no_grad():
        for p, d in zip(module.parameters(), shift, strict=True):
            p += 1e-6 * d
    assert relative_error(outputs(module, X) - start, 1e-6 * changes[0]) < 1e-4
    history = train(linear, X, Y, optimizer="adamw", lr=1e-2, weight_decay=0.01, steps=50)
    assert history.loss[1] < history.loss[0]


def test_linearised_elsewhere():
    module, other = make(seed=0), make(seed=1)
    there = dict(other.named_parameters())
    one = Linearized(module, X, Y, GradientFlow(), parameters=there)
    assert (
        relative_error(one.predict(3.0, X_TEST), Linearized(other, X, Y).predict(3.0, X_TEST))
        < 1e-12
    )
    assert relative_error(outputs(linearize(module, there), X), outputs(other, X)) < 1e-14
    assert relative_error(one.ntk, empirical_ntk(other, X)) < 1e-14
    assert outputs(module, X).tolist() == outputs(make(seed=0), X).tolist()  # untouched


def test_single_precision_is_worked_with_in_double():
    module = make().float()
    assert relative_error(Linearized(module, X, Y).ntk, Linearized(make(), X, Y).ntk) < 1e-5
    assert Linearized(module, X, Y).ntk.dtype == np.float64
    assert next(module.parameters()).dtype == torch.float32


def test_wide_or_scaled_networks_train_as_their_linearisation():
    """||f - f_lin|| falls at least by width^-1/2 (Lee et al. 2019),
    and by 1/alpha (Chizat et al. 2019).
    """

    net = nk.mlp(2, 1.4, 0.1, nk.Erf())

    def gap(**options):
        gaps = []
        for seed in range(3):
            module = to_torch(
                net, **{"width": 16, **options}, input_shape=5, dtype="float64", seed=seed
            )
            linear = Linearized(module, X, Y, GradientDescent(0.2))
            train(module, X, Y, lr=0.2, steps=100)
            gaps.append(rms_deviation(outputs(module, X_TEST)[:, 0], linear.predict(100, X_TEST)))
        return np.mean(gaps)

    assert 3 < gap(width=64) / gap(width=1024) < 20
    assert 6 < gap(alpha=4.0, centred=True) / gap(alpha=40.0, centred=True) < 15


def test_bad_linearisations():
    with pytest.raises(ValueError, match=r"y of shape \(12, 3\) does not fit"):
        Linearized(make(), X, np.ones((12, 3)))
    with pytest.raises(ValueError, match="give both x and y"):
        Linearized(make(), X, Y).loss(1.0, X_TEST)
    with pytest.raises(ValueError, match="y must have shape"):
        Linearized(make(), X, Y).loss(1.0, X_TEST, np.ones((4, 1)))
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 1)
    )
    with pytest.raises(ValueError, match="dropout is on"):
        Linearized(module, X, Y)


def test_dropout_drops_in_steps_and_not_at_looks():
    net = nk.Serial(nk.Dense(), nk.Relu(), nk.Dropout(0.5), nk.Dense())
    module = to_torch(net, 64, input_shape=5, dtype="float64")
    x = np.repeat(X[:1], 2, axis=0)
    twice = outputs(module, x)
    assert abs(twice[0] - twice[1]) > 1e-3  # every sample has a mask of its own
    losses = [train(module, X, Y, lr=1e-9, steps=1).loss for _ in range(2)]
    assert np.ptp(losses) < 1e-6
    assert module.body[2].training
    kept = nk.Serial(*net.layers[:2], nk.Dropout(0.5, "test"), net.layers[-1])
    same = to_torch(kept, 64, input_shape=5, dtype="float64")
    assert relative_error(outputs(same, X), outputs(module.eval(), X)) < 1e-6
