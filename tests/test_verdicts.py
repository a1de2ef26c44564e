"""Statistics that hold their level, verdicts on effects that are known, and what a report says."""

import dataclasses
import functools

import numpy as np
import pytest

pytest.importorskip("torch")

pytest.importorskip("matplotlib")

from ntkcore import Dense, Relu, Serial, mlp
from ntkcore.falsifier import Arrays, Budget, Claim, Split, Training, falsify, network_arms
from ntkcore.falsifier import verdict as verdicts
from ntkcore.falsifier.arms import ARMS
from ntkcore.falsifier.judging import as_good, judge
from ntkcore.falsifier.minima import recorded
from ntkcore.falsifier.statistics import estimate, holm, p_value, standard_error
from ntkcore.falsifier.study import Network, Place, Study
from ntkcore.falsifier.tasks import harmonic, sparse_parity
from ntkcore.falsifier.verdict import Evidence
from test_control import SMALL, tiny

# --- statistics


def test_t_against_a_table():
    """Student's t of 1, ..., 5 over 2: mean 3, standard error sqrt(1/2), 4 degrees of freedom."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert standard_error(values) == pytest.approx(np.sqrt(0.5))
    assert p_value(values, 3 - 2.132 * np.sqrt(0.5), "above") == pytest.approx(0.05, abs=1e-4)
    assert p_value(values, 3 + 2.132 * np.sqrt(0.5), "below") == pytest.approx(0.05, abs=1e-4)
    found = estimate(values)
    assert found.high - found.mean == pytest.approx(2.776 * np.sqrt(0.5), rel=1e-3)


def test_shared_test_samples_widen():
    values = np.arange(15.0)
    assert standard_error(values, 0.2) / standard_error(values) == pytest.approx(
        np.sqrt(1 + 15 * 0.25)
    )
    assert standard_error(values, 1.0) == standard_error(values, 0.5) > standard_error(values, 0.4)


def test_skewed_effects_hold_the_level():
    """Of effects bounded above (skewness -1) plain t rejects 8 % of true hypotheses."""
    rng = np.random.default_rng(0)
    tables = (4 - rng.gamma(4.0, size=(4000, 15))) / 2
    assert np.mean([p_value(table, 0.0, "above") <= 0.05 for table in tables]) < 0.07
    assert np.mean([p_value(table, 0.0, "below") <= 0.05 for table in tables]) < 0.06


def test_one_that_failed_does_not_outweigh_fourteen():
    """A ceiling, and one failure: skewness -3.1, mean 1.7 standard deviations above .5."""
    table = np.append(1 - 0.01 * np.arange(14), 0.0)
    assert p_value(table, 0.5, "above") < 0.02
    assert p_value(table - 0.4, 0.5, "above") > 0.3


def test_repetitions_that_are_all_alike():
    assert p_value(np.ones(15), 0.5, "above") == 0.0
    assert p_value(np.ones(15), 0.5, "below") == 1.0
    assert p_value(np.ones(15), 1.0, "above") == p_value(np.ones(15), 1.0, "below") == 1.0
    assert p_value([1.0], 0.5, "above") == 1.0
    assert estimate([1.0]).low == -np.inf


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]
    assert holm([0.01, 0.02, 0.03]) == [True, True, True]


def test_ten_claims_at_their_threshold():
    """The family of ten gives a false verdict rarely (a p-value that cannot be small always)."""
    rng = np.random.default_rng(0)
    false = [
        any(holm([p_value(each, 0.0, "above") for each in rng.standard_normal((10, 15))]))
        for _ in range(400)
    ]
    assert np.mean(false) < 0.08


# --- verdicts


def evidence(spread=0.01, shared=0.0, **effects):
    """Effects about these means, paired (the split's part is common); both movements as asked."""
    rng = np.random.default_rng(0)
    common = 0.5 * spread * rng.standard_normal(15)
    tables = {
        name: value + common + spread * rng.standard_normal(15) for name, value in effects.items()
    }
    movement = {"lazy": np.full((1, 15), 0.01), "features": np.ones((1, 15))}
    return Evidence(tables, {}, movement, 100, shared=shared)


def frozen(value, **others):
    """The same effect in all frozen arms."""
    return {**dict.fromkeys(("ntk", "nngp", "linearised", "lazy"), value), **others}


def kind(found, minimum=0.5, **options):
    (verdict,) = judge([Claim("c", minimum=minimum, **options)], [found])
    return verdict


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        (frozen(0.0, features=0.9), verdicts.NEEDS),
        (frozen(0.9, features=0.9), verdicts.PRESENT),
        (frozen(0.9, features=0.9, baseline=0.0), verdicts.ARCHITECTURE),
        (frozen(0.9, features=0.9, baseline=0.9), verdicts.PRESENT),
        (frozen(0.55, features=1.0), verdicts.PARTIAL),
        (frozen(0.0, linearised=0.9, lazy=0.9, features=0.9), verdicts.FINITE),
        (frozen(0.0, linearised=0.6, lazy=0.6, features=0.9), verdicts.INCONCLUSIVE),
        (frozen(0.0, features=0.2), verdicts.INCONCLUSIVE),
        (frozen(0.5, features=0.9), verdicts.INCONCLUSIVE),
    ],
)
def test_kinds(effects, expected):
    verdict = kind(evidence(**effects))
    assert verdict.kind == expected, str(verdict)


@pytest.mark.parametrize(
    ("after", "expected"), [(0.89, verdicts.SUFFICE), (0.3, verdicts.NEEDS), (0.6, verdicts.NEEDS)]
)
def test_learned_features_that_suffice(after, expected):
    found = evidence(**frozen(0.0, features=0.9, nothing=after))
    after = found.effects.pop("nothing")
    verdict = kind(dataclasses.replace(found, after=after))
    assert verdict.kind == expected
    assert "over the learned features" in verdict.sentence


def test_that_features_suffice_is_given_up_before_that_they_are_needed():
    """p of .003 and .04 among three claims: Holm keeps the first."""
    found = evidence(**frozen(0.0, features=0.9))
    bar = as_good(Claim("c"), found.effects["features"])
    noise = 0.1 * np.linspace(-1, 1, 15)
    found = dataclasses.replace(found, after=bar + noise + 0.03)
    claims = [Claim("c"), Claim("d"), Claim("e")]
    broken = dataclasses.replace(found, missing={"lazy": "diverged"})
    (alone,) = judge(claims[:1], [found])
    beside = judge(claims, [found, broken, broken])[0]
    assert alone.kind == verdicts.SUFFICE
    assert 0.05 / 3 < alone.p < 0.05
    assert beside.kind == verdicts.NEEDS
    assert beside.p < 0.01
    assert beside.stands == pytest.approx(alone.stands, abs=0.05)


def test_a_kernel_that_learns_the_easy_part_is_a_part():
    """.79 of (parity + 2 linear)/sqrt(5), whose linear part explains .80: ten times the
    network's error is left.
    """
    verdict = kind(evidence(**frozen(0.79, features=0.98)))
    assert verdict.kind == verdicts.PARTIAL
    assert "2 times what the network leaves" in verdict.sentence
    assert "[" in str(verdict.differences["ntk"])
    assert verdict.differences["ntk"].mean == pytest.approx(0.19, abs=0.02)


@pytest.mark.parametrize(
    ("network", "kernel", "predicate", "expected"),
    [
        (0.90, 0.82, "below", verdicts.PRESENT),  # .18 is left, at most .20
        (0.90, 0.78, "below", verdicts.PARTIAL),
        (0.99, 0.96, "below", verdicts.PRESENT),  # within the margin
        (0.99, 0.92, "everywhere", verdicts.PARTIAL),
        (0.60, 0.30, "below", verdicts.PARTIAL),  # .70 is left, but half of the effect shown
        (3.0, 2.8, "orders", verdicts.PRESENT),  # 10^.2 = 1.6 times
        (3.0, 2.6, "orders", verdicts.PARTIAL),  # 10^.4 = 2.5 times
        (3.0, 2.2, "increases", verdicts.PRESENT),  # a shape leaves no error
    ],
)
def test_what_is_left_decides(network, kernel, predicate, expected):
    axis = {"axis": "n", "values": (1, 2)} if predicate == "increases" else {}
    found = evidence(spread=0.003, **frozen(kernel, features=network))
    verdict = kind(found, minimum=0.2, predicate=predicate, **axis)
    assert verdict.kind == expected, str(verdict)


@pytest.mark.parametrize("minimum", [0.5, 0.75, 0.85])
def test_the_minimum_does_not_make_features_needed(minimum):
    """A kernel almost as good as the network: no least effect between them says otherwise."""
    verdict = kind(evidence(**frozen(0.80, features=0.88)), minimum=minimum)
    assert verdict.kind == (verdicts.PRESENT if minimum < 0.8 else verdicts.INCONCLUSIVE)
    if minimum > 0.8:
        assert "none is as good as the network" in verdict.sentence
        assert "hardly tell" in verdict.sentence


def test_the_range_over_which_a_verdict_stands():
    verdict = kind(evidence(**frozen(0.3, features=0.9)), minimum=0.6)
    low, high = verdict.stands
    assert verdict.kind == verdicts.NEEDS
    assert 0.3 < low < 0.32
    assert 0.88 < high < 0.9
    assert f"between {low:.3g} and {high:.3g}" in verdict.sentence
    found = evidence(**frozen(0.3, features=0.9))
    assert kind(found, minimum=low * 1.01).kind == verdicts.NEEDS
    assert kind(found, minimum=low * 0.97).kind != verdicts.NEEDS
    assert kind(found, minimum=high * 1.01).kind != verdicts.NEEDS
    assert kind(evidence(**frozen(0.9, features=0.9))).stands[0] == 0


def test_movement_does_not_veto_what_a_frozen_arm_shows():
    """Linearised .981, network .997: present, whatever moved."""
    found = evidence(spread=0.002, **frozen(0.981, features=0.997))
    found.movement["features"][:] = 0.0
    found.movement["lazy"][:] = 1.0
    assert kind(found).kind == verdicts.PRESENT


@pytest.mark.parametrize(("arm", "movement"), [("lazy", 0.2), ("features", 0.04)])
def test_needs_features_asks_for_movement(arm, movement):
    found = evidence(**frozen(0.0, features=0.9))
    found.movement[arm][:] = movement
    verdict = kind(found)
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "move" in verdict.sentence or "is lazy" in verdict.sentence


@pytest.mark.parametrize(
    ("effects", "cause"),
    [
        (frozen(0.96, lazy=0.002, features=0.97), "optimizer='sgd'"),
        (frozen(-0.09, lazy=0.77, features=0.9), "b_std"),
        (frozen(0.9, linearised=0.4, lazy=0.4, features=0.9), "wider"),
        (frozen(0.0, linearised=0.4, features=0.9), "wider"),
    ],
)
def test_frozen_arms_that_disagree_are_told(effects, cause):
    verdict = kind(evidence(**effects))
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "frozen arms agree" in verdict.sentence
    assert cause in verdict.sentence


def test_without_a_spec_one_start_must_be_like_another():
    found = evidence(linearised=0.0, lazy=0.0, features=0.9)
    assert kind(found).kind == verdicts.NEEDS
    found.effects["linearised"][::2] = 0.6
    found.effects["lazy"][::2] = 0.6
    verdict = kind(found)
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "one initialisation's kernel" in verdict.sentence


def test_fourteen_repetitions_are_too_few():
    found = evidence(**frozen(0.0, features=0.9))
    for claim in (Claim("c"), Claim("c", contrast=("features", "ntk"))):
        assert judge([claim], [found])[0].kind != verdicts.INCONCLUSIVE
        few = {arm: table[:14] for arm, table in found.effects.items()}
        (verdict,) = judge([claim], [dataclasses.replace(found, effects=few)])
        assert verdict.kind == verdicts.INCONCLUSIVE
        assert "14 repetitions, at least 15" in verdict.sentence


def test_an_arm_without_numbers_is_named():
    found = dataclasses.replace(evidence(**frozen(0.0, features=0.9)), missing={"lazy": "diverged"})
    verdict = kind(found)
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "lazy network: diverged" in verdict.sentence


def test_a_claim_without_verdict_does_not_help_another():
    """Of two claims each counts at half the level, whatever became of the other."""
    weak = evidence(**frozen(0.0, features=0.9))
    weak.effects["lazy"][:] = 0.26 + np.linspace(-0.967, 0.967, 15)
    broken = dataclasses.replace(weak, missing={"lazy": "diverged"})
    claim = Claim("c", minimum=0.55)
    alone, beside = judge([claim], [weak]), judge([claim, Claim("d")], [weak, broken])
    assert 0.025 < alone[0].p == beside[0].p < 0.05 < 1 == beside[1].p
    assert (alone[0].kind, beside[0].kind) == (verdicts.NEEDS, verdicts.INCONCLUSIVE)
    assert "diverged" in beside[1].sentence


def test_shared_test_samples_make_a_verdict_unsure():
    effects = frozen(0.0, features=0.6)
    assert kind(evidence(spread=0.1, **effects)).kind == verdicts.NEEDS
    assert kind(evidence(spread=0.1, shared=0.5, **effects)).kind == verdicts.INCONCLUSIVE


# --- from cells to evidence


def test_what_repetitions_share():
    """Nothing of fresh samples; a part of a pool's; all of a test set that is given."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((100, 3)), rng.standard_normal(100)

    def shared(task):
        return Study(task, Network(mlp(1), None, 8, "cpu"), (Claim("c"),), SMALL).shared(15)

    def fresh(seed):
        return Arrays(np.random.default_rng(seed).standard_normal((100, 3)), y)(seed)

    def of_bits(seed):
        """Half of another split's samples are among 200 of 256 by chance."""
        return sparse_parity(seed, n=20, d=8, test=200)

    assert shared(fresh) == 0.0
    assert shared(of_bits) < 0.1
    bits = rng.choice([-1.0, 1.0], (200, 8))
    assert 0.1 < shared(Arrays(bits, rng.standard_normal(200))) < 0.3
    assert shared(Arrays(bits, bits[:, 0], bits[:50], bits[:50, 0])) == 1.0
    assert 0.1 < shared(Arrays(x, y)) < 0.3  # a fifth is drawn
    assert shared(Arrays(x, y, x[:20] + 1, y[:20])) == 1.0


def test_each_repetition_has_its_own_split_and_start(tmp_path):
    options = {"width": 8, "training": SMALL, "budget": Budget(2, ()), "folder": tmp_path}
    report = falsify(tiny, mlp(1), Claim("c", minimum=0.2), **options)
    names = sorted(f.name for f in (tmp_path / "cells" / "linearised").rglob("*.json"))
    assert names == [f"split={i},seed={i}.json" for i in range(2)]
    names = sorted(f.name for f in (tmp_path / "cells" / "ntk").rglob("split*.json"))
    assert names == [f"split={i},seed=0.json" for i in range(2)]
    assert "JUDGED AGAIN" not in str(report)
    again = falsify(tiny, mlp(1), Claim("c", minimum=0.3), **options)
    assert "JUDGED AGAIN" in str(again)
    assert "least effect of 0.2, now 0.3" in str(again)
    assert again.record()["claims"][0]["judged_before_with"] == [0.2]
    table = (again.write(tmp_path).parent / "report.md").read_text()
    assert "| arm | effect: below of nmse | network - arm |" in table
    assert "| best constant | 0 |" in table


def test_the_kernel_after_training_is_shown_whatever_the_verdict(tmp_path):
    training = dataclasses.replace(SMALL, after_kernel=True)
    report = falsify(
        tiny, mlp(1), Claim("c"), width=8, training=training, budget=Budget(2, ()), folder=tmp_path
    )
    after = report.tables.effects("features", Claim("c"), "after")
    assert report.verdicts[0].after.mean == pytest.approx(after.mean())
    text = report.write(tmp_path).with_name("report.md").read_text()
    assert f"| network's kernel then, fresh samples | {report.verdicts[0].after} |" in text


def test_every_claim_has_its_own_n():
    """Of a claim over n and one at the task's own: in words, and in the sweep."""
    claims = [Claim("a", axis="n", values=(20, 30)), Claim("b"), Claim("d", axis="d", values=(5,))]
    of = {"width": 8, "training": SMALL, "budget": Budget(2, (0.5,))}
    tables = falsify(tiny, mlp(1), claims, **of).tables
    assert [tables.evidence(claim).n for claim in claims] == [30, 40, 40]
    tables = falsify(tiny, mlp(1), claims[1:], **of).tables
    assert [list(tables.sweep(claim)) for claim in claims[1:]] == [[], [20]]


def test_differences_to_another_network_are_another_effect(tmp_path):
    options = {"width": 8, "training": SMALL, "budget": Budget(2, ()), "folder": tmp_path}
    falsify(tiny, mlp(1), Claim("c", minimum=0.5), **options)
    for _ in range(2):
        report = falsify(tiny, mlp(1), Claim("c", minimum=0.1), versus=mlp(2), **options)
        assert "JUDGED AGAIN" not in str(report)


def test_minima_that_are_damaged_are_told(tmp_path):
    assert recorded(None, [Claim("c")]) == [()]
    assert recorded(tmp_path, [Claim("c", minimum=0.2)]) == [()]
    assert recorded(tmp_path, [Claim("c", minimum=0.3)]) == [(0.2,)]
    assert recorded(tmp_path, [Claim("c", minimum=0.2)]) == [(0.3,)]
    assert recorded(tmp_path, [Claim("another name", minimum=0.2)]) == [(0.3,)]
    assert recorded(tmp_path, [Claim("d", "error", minimum=0.2)]) == [()]
    both = [Claim("c", "error", minimum=0.2), Claim("d", "error", minimum=0.4)]
    assert recorded(tmp_path, both) == recorded(tmp_path, both) == [(), ()]
    assert recorded(tmp_path, both[:1]) == [(0.4,)]
    (tmp_path / "minima.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"minima\.json is damaged"):
        recorded(tmp_path, [Claim("c")])


def test_a_read_out_that_grows_moves_no_features():
    """The whole kernel sees it; the last hidden layer's, which "needs features" asks for, not."""
    import torch

    from ntkcore.falsifier.network_arms import _hidden_kernel, _turned
    from ntkcore.finite import empirical_ntk, kernel_movement, to_torch

    x = np.random.default_rng(0).standard_normal((20, 6))
    network = to_torch(mlp(1), 32, input_shape=(6,), seed=0, dtype="float64")
    kernel, hidden = empirical_ntk(network, x), _hidden_kernel(network, x)
    first, *_, last = [p for p in network.parameters() if p.ndim == 2]
    with torch.no_grad():
        last *= 8
    assert kernel_movement(empirical_ntk(network, x), kernel) > 10
    assert _turned(_hidden_kernel(network, x), hidden) == 0
    with torch.no_grad():
        first[: len(first) // 2] *= 5
    assert _turned(_hidden_kernel(network, x), hidden) > 0.02


# --- small networks


def odd(seed, *, n=80, scale=1.0):
    """An odd function of one coordinate, of inputs of any scale."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + 130, 5))
    y = x[:, :1] / np.linalg.norm(x, axis=1, keepdims=True)
    x *= scale * y / x[:, :1]
    a, b = 100, 130
    return Split(x[b:], y[b:], x[a:b], y[a:b], x[:a], y[:a])


ONE = {"weight_decays": (0.0,), "looks": 6}


@pytest.mark.parametrize(
    ("training", "width"),
    [
        # The network's features stay where they were drawn.
        (Training(150, "sgd", (1.0,), batch_size=None, parameterization="ntk", **ONE), 128),
        # They move, and so do those of the network that is to be lazy.
        (Training(150, learning_rates=(3e-2,), **ONE), 16),
    ],
)
def test_movement_does_not_veto_what_small_frozen_networks_show(training, width, monkeypatch):
    monkeypatch.setattr(network_arms, "ALPHAS", (1.0,))
    report = falsify(
        odd, mlp(1, b_std=0.1), Claim("c"), width=width, training=training, budget=Budget(sweep=())
    )
    turned = report.tables.values("features", [()], "turned").mean()
    moved = report.tables.values("lazy", [()], "movement").mean()
    assert (turned < network_arms.TURNED) == (width == 128)
    assert (moved > network_arms.LAZY) == (width == 16)
    assert report.verdicts[0].effects["linearised"].mean > 0.9
    assert report.kind == verdicts.PRESENT


def test_unscaled_inputs_are_told():
    """Adam sees another kernel: of the frozen arms the lazy network alone does not learn."""
    report = falsify(
        functools.partial(odd, scale=0.003),
        mlp(1, b_std=0.1),
        Claim("c"),
        width=32,
        training=Training(300, learning_rates=(2e-2,), weight_decays=(0.0,), looks=2),
        budget=Budget(sweep=()),
    )
    (verdict,) = report.verdicts
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert [gate.name for gate in verdict.gates if not gate.passed] == ["frozen arms agree"]
    assert "unscaled inputs" in verdict.sentence
    assert verdict.effects["linearised"].mean > 0.9 > 0.4 > verdict.effects["lazy"].mean


@pytest.mark.parametrize("tuned", [True, False])
def test_a_small_b_std_with_an_odd_target(tuned):
    """The kernel that was given has no constant, which Adam grows: one with more is taken."""
    task = functools.partial(harmonic, d=3, k=3, n=120, validation=60, test=100)
    net = Serial(Dense(np.sqrt(2), 0.003), Relu(), Dense(1.0, 0.003))
    options = {} if tuned else {"ridge": (1e-3, 1e-3), "early_stopping": False}
    training = Training(300, learning_rates=(3e-2,), **ONE, **options)
    report = falsify(task, net, Claim("c"), width=64, training=training, budget=Budget(1, ()))
    given = ARMS["ntk"].measure(report.study, Place((), 0, 0), {})["metrics"]["nmse"]
    effects = report.verdicts[0].effects
    assert given > 0.6
    assert min(effects[arm].mean for arm in ("ntk", "nngp", "features")) > 0.9


def linear_and_parity(seed, *, n=768):
    """(x_0 x_1 x_2 + 2 x_3)/sqrt(5) on bits: the linear part has .80 of the variance."""
    x = np.random.default_rng(seed).choice([-1.0, 1.0], (n + 700, 20))
    y = ((x[:, 0] * x[:, 1] * x[:, 2] + 2 * x[:, 3]) / np.sqrt(5))[:, None]
    return Split(x[:n], y[:n], x[n : n + 200], y[n : n + 200], x[n + 200 :], y[n + 200 :])


@pytest.mark.slow
def test_the_linear_part_alone_is_a_part():
    training = Training(steps=2000, learning_rates=(1e-2,), weight_decays=(1e-2,))
    (verdict,) = falsify(
        linear_and_parity, mlp(1, b_std=0.1), Claim("c"), training=training, budget=Budget(sweep=())
    ).verdicts
    assert verdict.kind == verdicts.PARTIAL, str(verdict)
    assert verdict.effects["ntk"].mean == pytest.approx(0.8, abs=0.05)
    assert verdict.effects["features"].mean > 0.9
