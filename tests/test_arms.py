"""Arms of a comparison, one cell at a time."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ntkcore import Conv, Dense, GlobalAvgPool, Relu, Residual, Serial, kernel, mlp
from ntkcore.falsifier import Arrays, Budget, Claim, Split, Training, falsify
from ntkcore.falsifier.arms import ARMS, arms_of, tuning
from ntkcore.falsifier.cells import Key
from ntkcore.falsifier.kernel_arms import fit_kernel, variants
from ntkcore.falsifier.network_arms import _kernels, _start
from ntkcore.falsifier.performing import perform
from ntkcore.falsifier.starts import predict
from ntkcore.falsifier.study import Network, Place, Study
from ntkcore.falsifier.tasks import harmonic, sparse_parity
from ntkcore.finite import Linearized, empirical_ntk, to_torch, train
from test_control import SMALL, tiny

PLACE = Place((), 0, 0)
NMSE = Claim("c", "nmse")


def study(task, net, training=SMALL, width=16, claim=NMSE):
    spec, maker = (net, None) if not callable(net) else (None, net)
    return Study(task, Network(spec, maker, width, "cpu"), (claim,), training)


def cell(arm, study, setting=None):
    return ARMS[arm].measure(study, PLACE, setting or {})["metrics"]["nmse"]


# --- the limit of a module without a spec


def narrow(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 12), torch.nn.ReLU(), torch.nn.Linear(12, 1))


def smooth(seed, *, n=150):
    """A smooth function on the sphere."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + 150, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = x[:, 0] * x[:, 1] + 0.5 * np.cos(4 * x[:, 2])
    return Split(x[150:], y[150:], x[:50], y[:50], x[50:150], y[50:150])


def test_the_mean_kernel_stands_for_the_limit_of_a_narrow_module():
    narrows = study(smooth, narrow, Training())
    one, mean = cell("linearised", narrows), cell("mean", narrows)
    infinite = cell("ntk", study(smooth, mlp(1, b_std=1.0), Training()))
    assert "mean" in arms_of(narrows)
    assert not {"ntk", "nngp"} & set(arms_of(narrows))
    assert "mean" not in arms_of(study(smooth, mlp(1)))
    assert mean < 0.05 < 0.12 < one
    assert infinite < 0.03


def test_the_mean_kernel_is_the_mean():
    narrows = study(smooth, narrow, Training(ridge=(1e-3, 1e-3), early_stopping=False))
    split = smooth(0)
    parts = (split.x, split.x_val, split.x_test)
    kernels = [
        np.mean([empirical_ntk(narrow(seed).double(), x, split.x) for seed in range(15)], axis=0)
        for x in parts
    ]
    outcome, *_ = fit_kernel(tuple(kernels), split, narrows.training)
    expected = ((outcome.test - split.y_test) ** 2).mean() / split.y_test.var()
    assert cell("mean", narrows) == pytest.approx(expected, rel=1e-6)


def test_a_wide_module_needs_few_starts():
    def wide(seed):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(3, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1)
        )

    def few(seed):
        return smooth(seed, n=30)

    counts = [ARMS["mean"].measure(study(few, net), PLACE, {})["starts"] for net in (narrow, wide)]
    assert counts[0] == 15
    assert 3 <= counts[1] < 8


def half(split):
    return 0.5


def test_a_verdict_on_a_narrow_module_looks_at_the_mean(tmp_path):
    quick = Training(steps=5, learning_rates=(1e-2,), weight_decays=(0.0,), looks=2)
    claims = NMSE, Claim("d", "nmse", floor=half)
    report = falsify(smooth, narrow, claims, training=quick, budget=Budget(1, ()))
    effects, halved = (verdict.effects for verdict in report.verdicts)
    assert effects["mean"].mean > 0.95 > effects["linearised"].mean
    left = report.tables.values("mean", [()], "metrics", "nmse")
    assert halved["mean"].mean == pytest.approx(1 - 2 * left.mean())
    page = report.write(tmp_path).with_name("report.md").read_text()
    assert "| mean kernel |" in page
    assert "| half |" in page


# --- the linearised network is that of the network that is trained


@pytest.mark.parametrize("parameterization", ["ntk", "mup", "standard"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_linearised_is_the_one_that_is_trained(parameterization, outputs):
    """As `Linearized` finds it, trained to the end from outputs that are taken away."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, outputs))
    split = Split(x[:12], y[:12], x[12:20], y[12:20], x[20:], y[20:])
    training = Training(
        ridge=(0.0, 0.0), early_stopping=False, parameterization=parameterization, base_width=4
    )
    spec = Serial(Dense(b_std=0.1), Relu(), Dense(b_std=0.1, width=outputs))
    of = study(lambda seed: split, spec, training, width=32)
    module = to_torch(
        spec, 32, input_shape=(4,), parameterization=parameterization, dtype="float32"
    ).double()
    with torch.no_grad():
        start, end = (module(torch.tensor(part)).numpy() for part in (split.x, split.x_test))
    lin = Linearized(module, split.x, split.y + start)
    expected = lin.predict(math.inf, split.x_test) - end
    outcome, *_ = fit_kernel(_kernels(of, _start(of, PLACE, split), split), split, training)
    np.testing.assert_allclose(outcome.test, expected, rtol=1e-6, atol=1e-8)


# --- equal tuning


def test_kernels_tune_their_standard_deviations():
    """A constant beside an odd function: without biases there is none in the kernel."""
    net = Serial(Dense(b_std=0.003), Relu(), Dense(b_std=0.003))
    of = study(lambda seed, **n: harmonic(seed, n=60, d=3, k=3), net, Training())
    setting = ARMS["ntk"].settle(of, ())
    assert len(variants(net)) == len(setting["validation"]) == 5
    assert setting["validation"][setting["variant"]] == min(setting["validation"])
    assert cell("ntk", of, setting) < 0.6 < 0.9 < cell("ntk", of)
    plain = Training(ridge=(0.0, 0.0), early_stopping=False)
    untuned = study(tiny, net, plain, claim=Claim("c", "train_nmse"))
    assert ARMS["ntk"].settle(untuned, ())["variant"] == 0
    assert len(variants(mlp(1))) == 3  # no biases are given to a network that has none


def test_one_configuration_leaves_a_kernel_several_ridges():
    one = Training(learning_rates=(1e-2,), weight_decays=(0.0,))
    assert len(one.ridges()) >= 8
    assert (min(one.ridges()), max(one.ridges())) == pytest.approx(one.ridge)
    many = Training(learning_rates=(1.0,) * 5, weight_decays=(0.0,) * 4)
    assert len(many.ridges()) == 20


@pytest.mark.parametrize(("arm", "alpha"), [("features", None), ("lazy", 64.0)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_divergence_names_the_rate_that_was_given(arm, alpha, optimizer):
    training = Training(steps=60, optimizer=optimizer, learning_rates=(1e30,), weight_decays=(0.0,))
    setting = {"config": training.configurations()[0], "alpha": alpha}
    content = perform(study(tiny, mlp(1), training), Key(arm, PLACE), setting)
    assert "a learning rate of 1e+30" in content["diverged"]


def test_kernels_of_images_tune_their_convolutions():
    net = Serial(Conv((3, 3), W_std=1.5, b_std=0.2), Relu(), GlobalAvgPool(), Dense())
    stds = [(each.layers[0].W_std, each.layers[0].b_std, each.layers[3].W_std, each.layers[3].b_std)
            for each in variants(net)]  # fmt: skip
    assert stds == [
        (1.5, 0.2, 1.0, None),
        (1.5, 0.1, 1.0, None),
        (1.5, 1.0, 1.0, None),
        (0.75, 0.2, 0.5, None),
        (3.0, 0.2, 2.0, None),
    ]
    assert len(variants(Serial(Residual(Dense(b_std=0.3), Relu()), Dense()))) == 5


# --- tokens


class Reader(torch.nn.Module):
    """The class of a pair of tokens."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = torch.nn.Embedding(5, 8), torch.nn.Linear(16, 2)

    def forward(self, x):
        return self.out(torch.relu(self.embedding(x).flatten(1)))


def reader(seed):
    torch.manual_seed(seed)
    return Reader()


def test_tokens_are_integers():
    x = np.stack(np.divmod(np.random.default_rng(0).permutation(100) % 25, 5), axis=1)
    y = np.eye(2)[(x[:, 0] > 2).astype(int)]
    quick = Training(steps=20, learning_rates=(1e-2,), weight_decays=(0.0,), looks=2)
    claim, budget = Claim("c", "error"), Budget(1, ())
    of = study(Arrays(x, y), reader, quick, claim=claim)
    found = ARMS["features"].measure(of, PLACE, {"config": quick.configurations()[0]})
    assert found["metrics"]["error"] < found["chance"]["error"]
    assert ARMS["linearised"].measure(of, PLACE, {})["metrics"]["error"] < 0.1
    with pytest.raises(ValueError, match="as integers"):
        falsify((x.astype(float), y), reader, claim, training=quick, budget=budget)


def test_outputs_of_several_tokens():
    """A label for either of two tokens, from a network with outputs (n, 2, 3)."""

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = torch.nn.Linear(4, 32), torch.nn.Linear(32, 3)

        def forward(self, x):
            return self.out(torch.relu(self.inner(x)))

    def tagger(seed):
        torch.manual_seed(seed)
        return Tagger()

    x = np.random.default_rng(0).standard_normal((120, 2, 4))
    task = Arrays(x, np.eye(3)[x[..., :3].argmax(axis=2)])
    quick = Training(steps=100, learning_rates=(1e-2,), weight_decays=(0.0,), looks=2)
    of = study(task, tagger, quick, claim=Claim("c", "error"))
    found = ARMS["features"].measure(of, PLACE, {"config": quick.configurations()[0]})
    lin = ARMS["linearised"].measure(of, PLACE, {})
    assert max(found["metrics"]["error"], lin["metrics"]["error"]) < 0.35
    assert found["chance"]["error"] > 0.5


def test_what_was_not_tuned_alike_is_told():
    text = tuning(study(tiny, mlp(1, b_std=0.1), Training()))
    assert "4 configurations x 16 times" in text
    assert "4 choices of W_std and b_std x 8 ridges" in text
    assert "as are their W_std" in tuning(study(tiny, narrow, Training()))
    assert "mean over outputs" not in text

    def classes(seed):
        x = np.random.default_rng(seed).standard_normal((600, 3))
        y = np.eye(10)[np.arange(600) % 10]
        return Split(x[:400], y[:400], x[400:500], y[400:500], x[500:], y[500:])

    assert "mean over outputs" in tuning(study(classes, mlp(1)))


def test_one_kernel_of_many_outputs_along_an_axis():
    """Over all outputs where there are few samples, and their mean where there are many, would be
    two things along one curve.
    """

    def task(seed, *, n=40):
        x = np.random.default_rng(seed).standard_normal((n + 40, 3))
        y = np.eye(5)[np.arange(n + 40) % 5]
        return Split(x[40:], y[40:], x[:20], y[:20], x[20:40], y[20:40])

    for values, rows in (((40, 80), 200), ((40, 400), 40)):
        of = study(task, mlp(1), claim=Claim("c", axis="n", values=values))
        split = of.split(("n", 40), 0)
        assert len(_kernels(of, _start(of, Place(("n", 40), 0, 0), split), split)[0]) == rows


# --- which parameters train


@pytest.mark.parametrize("net", [narrow, mlp(1)])
def test_parameters_that_do_not_train_stay(net):
    """The kernel of the read-out alone is that of frozen features; the rest stays as it is."""
    last = "2.*" if callable(net) else "body.2.*"
    some = study(smooth, net, Training(steps=20, parameters=(last,)))
    assert "mean" in arms_of(some)
    assert "ntk" not in arms_of(some)
    module = _start(some, PLACE, smooth(0))
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.removeprefix("body.").startswith("2.") for name in trained)
    config = some.training.configurations()[0]
    found = ARMS["features"].measure(some, PLACE, {"config": config})
    assert found["turned"] == pytest.approx(0, abs=1e-6)
    everything = study(smooth, net, Training(steps=20))
    assert ARMS["features"].measure(everything, PLACE, {"config": config})["turned"] > 1e-4
    assert cell("linearised", some) != pytest.approx(cell("linearised", everything))
    with pytest.raises(ValueError, match="no parameter is called 'head'"):
        cell("linearised", study(smooth, net, Training(parameters=("head",))))


# --- where fine-tuning starts


def test_a_head_is_fitted_before_anything_starts():
    """As ridge regression on the features as they are, about the outputs as they are."""
    training = Training(head=("2.*",), ridge=(1e-3, 1e-3), steps=1, learning_rates=(1e-9,))
    headed, split = study(smooth, narrow, training), smooth(0)
    assert "mean" in arms_of(headed)
    module = narrow(0).double()
    with torch.no_grad():
        f_0, phi, f_test, phi_test = (
            part(torch.tensor(x)).numpy()
            for x in (split.x, split.x_test)
            for part in (module, module[:2])
        )
    phi, phi_test = (np.hstack([part, np.ones((len(part), 1))]) for part in (phi, phi_test))
    K = phi @ phi.T
    ridge = 1e-3 * np.trace(K) / len(K) * np.eye(len(K))
    expected = f_test + phi_test @ phi.T @ np.linalg.solve(K + ridge, split.y - f_0)
    found = predict(_start(headed, PLACE, split), split.x_test)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    trained = ARMS["features"].measure(headed, PLACE, {"config": training.configurations()[0]})
    left = ((expected - split.y_test) ** 2).mean() / split.y_test.var()
    assert trained["metrics"]["nmse"] == pytest.approx(left, rel=1e-3)
    assert left < 0.9
    assert cell("linearised", headed) < left  # from there on, with all parameters
    with pytest.raises(TypeError, match="a tuple of names"):
        Training(head="2.*")
    with pytest.raises(ValueError, match="not linear in the parameters"):
        cell("linearised", study(smooth, narrow, Training(head=("*",))))


def test_a_network_that_is_given_again_and_again_stays_as_it_is():
    """Nothing of one cell's training is left for the next."""
    loaded = narrow(0)

    def same(seed):
        return loaded

    quick = Training(steps=20, learning_rates=(1e-2,), weight_decays=(0.0,), looks=2)
    options = {"training": quick, "budget": Budget(2, ())}
    found, expected = (
        falsify(smooth, net, NMSE, **options) for net in (same, lambda seed: narrow(0))
    )
    for arm, effect in found.verdicts[0].effects.items():
        assert effect == expected.verdicts[0].effects[arm], arm
    for one, other in zip(loaded.parameters(), narrow(0).parameters(), strict=True):
        assert torch.equal(one, other)
    assert "width 512" not in str(list(found._blocks(found.record())))


def test_what_a_loaded_network_knows_is_kept():
    """Of few samples no arm learns the target; a network that knows it starts with it."""
    split = smooth(0, n=400)

    trained = narrow(0)
    train(trained, split.x, split.y, lr=1e-2, steps=600, optimizer="adam")

    def loaded(seed):
        return copy.deepcopy(trained)

    def few(seed):
        return smooth(seed, n=12)

    few_steps = Training(steps=10, learning_rates=(1e-4,), weight_decays=(0.0,), looks=2)
    of, drawn = study(few, loaded, few_steps), study(few, narrow, few_steps)
    setting = {"config": few_steps.configurations()[0], "alpha": 64.0}
    for arm in ("linearised", "mean", "lazy", "features"):
        assert cell(arm, of, setting) < 0.15 < 0.3 < cell(arm, drawn, setting), arm


# --- compute


def cost(width, batch, steps):
    return 6 * (3 * width + width + width + 1) * batch * steps


def test_the_best_width_and_step_of_what_compute_pays_for():
    training = Training(
        steps=7, learning_rates=(1e-2,), weight_decays=(0.0,), batch_size=50, widths=(16, 64)
    )
    net = mlp(1, b_std=0.1)
    config = training.configurations()[0]
    for compute, widths in ((cost(64, 50, 40), {16: 158, 64: 40}), (cost(16, 50, 3), {16: 3})):
        place = Place(("compute", float(compute)), 0, 0)
        of = study(smooth, net, training, claim=Claim("c", axis="compute", values=(compute,)))
        alone = []
        for width, steps in widths.items():
            one = study(smooth, net, replace(training, steps=steps), width=width)
            alone.append(ARMS["features"].measure(one, PLACE, {"config": config}))
        best = min(alone, key=lambda content: content["validation"])
        found = ARMS["features"].measure(of, place, {"config": config})
        assert found["metrics"] == best["metrics"]
        assert found["setting"]["width"] in widths
        assert found["setting"]["steps"] <= widths[found["setting"]["width"]]


def test_kernels_take_as_many_steps_as_compute_pays_for():
    """Gradient descent at half of the greatest stable rate: I - K/lambda in each step."""
    training = Training(ridge=(0.0, 0.0), batch_size=50, widths=(16, 64), looks=3)
    compute = float(cost(16, 50, 200))
    of = study(
        smooth, mlp(1, b_std=0.1), training, claim=Claim("c", axis="compute", values=(compute,))
    )
    place = Place(("compute", compute), 0, 0)
    short = ARMS["ntk"].measure(of, place, {})["metrics"]["nmse"]
    split = smooth(0)
    K, K_test = (kernel(mlp(1, b_std=0.1), x, split.x, get="ntk") for x in (split.x, split.x_test))
    values, V = np.linalg.eigh(K)
    share = -np.expm1(-200 * values / values[-1])
    f = K_test @ V @ (share / values * (V.T @ split.y[:, 0]))
    expected = ((f - split.y_test[:, 0]) ** 2).mean() / split.y_test.var()
    assert short == pytest.approx(expected, rel=1e-3)
    chosen = ARMS["ntk"].settle(of, ("compute", compute))  # among kernels that take as many
    assert chosen["validation"][0] == ARMS["ntk"].measure(of, place, {})["validation"]
    assert cell("ntk", study(smooth, mlp(1, b_std=0.1), training)) < 0.5 * short


def test_exponents_over_compute_from_data_to_verdict(tmp_path):
    values = tuple(float(cost(8, 20, steps)) for steps in (10, 80))
    claim = Claim(
        "steeper", "nmse", "power_law", 0.05, axis="compute", values=values,
        contrast=("features", "linearised"),
    )  # fmt: skip
    training = Training(
        learning_rates=(3e-2,), weight_decays=(0.0,), batch_size=20, widths=(8, 16), looks=4
    )
    net = mlp(1, b_std=0.1)

    def some(seed):
        return smooth(seed, n=40)

    report = falsify(some, net, claim, training=training, budget=Budget(1, ()))
    (verdict,) = report.verdicts
    metric = report.tables.values("features", claim.points, "metrics", "nmse")[:, 0]
    slope = -np.polyfit(np.log(values), np.log(metric), 1)[0]
    assert verdict.effects["features"].mean == pytest.approx(slope) != 0
    assert set(verdict.effects) == {"ntk", "nngp", "linearised", "lazy", "features"}
    assert "axis='compute'" not in report.write(tmp_path).read_text()
    for widths in ((16, 8), (0, 8), (8, 8), (8.5, 16)):
        with pytest.raises(ValueError, match="positive and rise"):
            Training(widths=widths)
    with pytest.raises(ValueError, match="give Training"):
        falsify(some, net, claim, training=replace(training, widths=()))
    with pytest.raises(ValueError, match="pays for no step of the narrowest width, 8"):
        falsify(some, net, replace(claim, values=(10.0, 1e6)), training=training)
    with pytest.raises(ValueError, match="no arm can measure"):
        falsify(some, narrow, claim, training=training)


# --- do the learned features suffice


def test_fresh_samples_are_the_rest_or_a_half_of_the_test_set():
    of = study(tiny, mlp(1))
    split, fresh = of.split((), 3), of.fresh((), 3)
    larger = tiny(3, n=80)
    np.testing.assert_array_equal(fresh.x, larger.x[40:])
    np.testing.assert_array_equal(fresh.x_test, split.x_test)
    few = Arrays(np.arange(50.0)[:, None], np.arange(50.0))
    split, fresh = few(3), study(few, mlp(1)).fresh((), 3)
    np.testing.assert_array_equal(np.concatenate([fresh.x, fresh.x_test]), split.x_test)
    np.testing.assert_array_equal(fresh.x_val, split.x_val)


def test_fresh_samples_are_not_those_that_stopped_the_training():
    """Of a task whose validation samples follow its training samples."""

    def task(seed, *, n=20):
        x = np.random.default_rng(seed).standard_normal((n + 40, 3))
        y = x[:, :1]
        a, b = n, n + 20
        return Split(x[:a], y[:a], x[a:b], y[a:b], x[b:], y[b:])

    split, fresh = task(0), study(task, narrow).fresh((), 0)
    assert not {row.tobytes() for row in fresh.x} & {row.tobytes() for row in split.x_val}


def test_the_after_kernel_knows_a_parity_that_the_kernel_does_not():
    def task(seed, *, n=300):
        return sparse_parity(seed, n=n, d=10, k=3, validation=50, test=100)

    training = Training(steps=300, learning_rates=(3e-2,), looks=4, after_kernel=True)
    of = study(task, mlp(1, b_std=0.1), training, width=128)
    found = ARMS["features"].measure(of, PLACE, {"config": training.configurations()[0]})
    assert found["metrics"]["nmse"] < 0.3
    assert found["after"]["metrics"]["nmse"] < 0.3 < 0.7 < cell("linearised", of)
