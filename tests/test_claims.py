"""Claims: what metrics and predicates make of given predictions."""

import json
import math

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from ntkcore import mlp
from ntkcore.falsifier import Budget, Claim, Split, falsify
from ntkcore.falsifier import verdict as verdicts
from ntkcore.falsifier.claims import Outcome, check_classes, check_names, measure, scores
from ntkcore.falsifier.judging import judge
from ntkcore.falsifier.tasks import Arrays
from ntkcore.falsifier.verdict import Evidence
from test_control import SMALL, tiny


def made(y, train=20, validation=10):
    """A split of these targets, each part with all classes."""
    x = np.arange(2.0 * len(y)).reshape(-1, 2)
    a, b = train, train + validation
    return Split(x[:a], y[:a], x[a:b], y[a:b], x[b:], y[b:])


def outcome(split, test):
    return Outcome(split, split.y, test.reshape(len(test), -1), np.zeros(1), np.ones(1))


@pytest.mark.parametrize("values", [(0.0, 1.0), (-1.0, 1.0), (3.0, 5.0), (-0.25, 0.75)])
def test_two_values_are_cut_at_their_middle(values):
    rng = np.random.default_rng(0)
    y = np.where(np.arange(2030) % 2, *values)
    split = made(y)
    check_classes(Claim("c", "error"), split)
    near = split.y_test + 0.1 * (values[1] - values[0]) * rng.standard_normal(split.y_test.shape)
    assert measure("error", outcome(split, near)) == (0.0, pytest.approx(0.5))
    noisy = Arrays(split.x_test, split.y_test)(0, noise=0.25)
    assert set(np.unique(noisy.y)) == set(values)
    assert (noisy.y != Arrays(split.x_test, split.y_test)(0).y).mean() == pytest.approx(0.25)


def one_hot(classes, count):
    return np.eye(count)[classes]


def test_classes_are_counted_token_by_token():
    rng = np.random.default_rng(0)
    classes = rng.integers(4, size=(60, 3))
    split = made(one_hot(classes, 4) - 1 / 4)
    assert (split.y.shape, split.classes) == ((20, 12), 4)
    check_classes(Claim("c", "error"), split)
    wrong = classes[30:].copy()
    wrong[:, 0] = (wrong[:, 0] + 1) % 4
    assert measure("error", outcome(split, 5 * one_hot(wrong, 4)))[0] == pytest.approx(1 / 3)
    arrays = Arrays(np.arange(60.0)[:, None], one_hot(classes, 4))
    assert (arrays(0).classes, arrays(0, noise=0.1).classes) == (4, 4)


@pytest.mark.parametrize(
    "y",
    [
        np.random.default_rng(0).standard_normal((60, 3)),
        np.random.default_rng(0).integers(2, size=(60, 3)).astype(float),  # several at once
        np.random.default_rng(0).integers(5, size=(60, 4)),  # numbers of classes, no rows of them
        np.random.default_rng(0).standard_normal(60),
        np.arange(60.0) % 3,
    ],
)
@pytest.mark.parametrize("metric", ["error", "train_error", "cross_entropy"])
def test_targets_that_are_no_classes_are_refused(y, metric):
    with pytest.raises(ValueError, match="needs classes"):
        check_classes(Claim("c", metric), made(y))
    check_classes(Claim("c", "nmse"), made(y))


def test_rows_that_are_not_one_hot_are_no_probabilities():
    """Their largest entry names a class, what lies between 0 and 1 does not."""
    y = np.array([[5.0, 4.0], [0.0, 1.0]])[np.arange(60) % 2]
    check_classes(Claim("c", "error"), made(y))
    with pytest.raises(ValueError, match="needs classes"):
        check_classes(Claim("c", "cross_entropy"), made(y))
    share = np.array([0.1, 0.2, 0.7])  # rows about a mean of unequal classes, in another unit
    check_classes(Claim("c", "cross_entropy"), made(3 * (one_hot(np.arange(60) % 3, 3) - share)))


def test_columns_of_classes():
    """One column of integers is as good as a row of them."""
    x, y = np.arange(60.0)[:, None], np.arange(60) % 3
    np.testing.assert_array_equal(Arrays(x, y).y, Arrays(x, y[:, None]).y)
    with pytest.raises(ValueError, match="targets are numbers"):
        Arrays(x, y.astype(float))(0, noise=0.1)


@pytest.mark.parametrize("offset", [0.0, -1 / 3])
def test_cross_entropy_against_given_probabilities(offset):
    rng = np.random.default_rng(1)
    y = one_hot(np.arange(60) % 3, 3) + offset
    split = made(y, 21, 9)
    p = rng.dirichlet([5, 5, 5], len(split.y_test))
    expected = -np.log(p[np.arange(30), split.y_test.argmax(axis=1)]).mean()
    found, chance = measure("cross_entropy", outcome(split, p + offset))
    assert (found, chance) == pytest.approx((expected, math.log(3)))
    two = made(np.where(np.arange(60) % 4, 1.0, -1.0))
    p = rng.uniform(0.1, 0.9, (30, 1))
    expected = -np.log(np.where(two.y_test > 0, p, 1 - p)).mean()
    found, chance = measure("cross_entropy", outcome(two, 2 * p - 1))
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert found == pytest.approx(expected)
    assert chance == pytest.approx(entropy, abs=0.05)
    worst = measure("cross_entropy", outcome(two, -100 * two.y_test))[0]
    assert worst == pytest.approx(math.log(1001), rel=1e-3)  # bounded


def test_no_split_owns_the_mean():
    chance = np.ones((3, 1))
    for predicate in ("below", "everywhere"):
        effect = Claim("c", predicate=predicate).effect(np.array([[1e9], [2.0], [0.1]]), chance)
        np.testing.assert_allclose(effect, [-1, -1, 0.9])


def test_no_wrong_sample_counts_as_half_of_one():
    """Of ten test samples: in logarithms .05, not a millionth that would own every mean."""
    axis = {"axis": "n", "values": (20, 40)}
    claims = [Claim("p", "error", "power_law", **axis), Claim("e", "error", **axis)]
    claims += [Claim("q", "nmse", "power_law", **axis)]
    options = {"width": 8, "training": SMALL, "budget": Budget(1, ())}
    report = falsify(tiny, mlp(1), claims, **options)
    for path in list(report.cells.found):
        if path.startswith("features/n=40/split"):
            report.cells.found[path]["metrics"] = {"error": 0.0, "nmse": 0.0}
        elif path.startswith("features/n=20/split"):
            report.cells.found[path]["metrics"] = {"error": 0.2, "nmse": 0.2}
    found = [report.tables.effects("features", claim) for claim in claims]
    half = 0.5 / len(tiny(0).y_test)
    np.testing.assert_allclose(found[0], np.log2(0.2 / half))
    np.testing.assert_allclose(found[2], np.log2(0.2 / 1e-6))
    assert found[1] == 1


def test_a_floor_stands_for_chance():
    split = made(np.where(np.arange(60) % 3, 1.0, -1.0))

    def quarter(split):
        return 0.25

    claims = [Claim("c", "error"), Claim("d", "error", floor=quarter)]
    found = scores(claims, outcome(split, np.ones((30, 1))))
    assert found["metrics"] == {"error": pytest.approx(1 / 3)}
    assert found["chance"] == {"error": pytest.approx(1 / 3), "error of quarter": 0.25}


def test_functions_of_one_name_are_refused():
    claims = [Claim("c", lambda outcome: 1.0), Claim("d", lambda outcome: 2.0)]
    with pytest.raises(ValueError, match="rename one"):
        check_names(claims)
    with pytest.raises(ValueError, match="rename one"):
        check_names([Claim("c", floor=lambda split: 1.0), Claim("d", floor=lambda split: 2.0)])
    check_names([Claim("c", lambda outcome: 1.0), Claim("d", lambda outcome: 1.0)])


# --- contrasts


def effects_of(spread=0.01, **means):
    rng = np.random.default_rng(0)
    common = rng.standard_normal(15)  # the splits' share, that pairing takes out
    tables = {arm: mean + common + spread * rng.standard_normal(15) for arm, mean in means.items()}
    return Evidence(tables, {}, {}, 100)


@pytest.mark.parametrize(
    ("difference", "kind"),
    [(0.3, verdicts.HOLDS), (0.0, verdicts.FAILS), (-1.0, verdicts.FAILS)],
)
def test_a_contrast_is_paired(difference, kind):
    claim = Claim("steeper", "error", minimum=0.2, contrast=("features", "ntk"))
    found = effects_of(features=0.5 + difference, ntk=0.5, linearised=0.0)
    (verdict,) = judge([claim], [found])
    assert verdict.kind == kind
    assert "differences of at least 0.2 count" in verdict.sentence
    (unsure,) = judge([claim], [effects_of(1.0, features=0.7, ntk=0.5)])
    assert unsure.kind == verdicts.INCONCLUSIVE
    broken = Evidence(found.effects, {"lazy": "diverged"}, {}, 100)
    assert judge([claim], [broken])[0].kind == kind  # what is not contrasted may fail
    broken = Evidence({"features": found.effects["features"]}, {"ntk": "diverged"}, {}, 100)
    assert "infinite NTK: diverged" in judge([claim], [broken])[0].sentence


@pytest.mark.parametrize(
    ("one", "other", "kind", "stands"),
    [
        (-0.1, -0.9, verdicts.HOLDS, (0, 0.8)),
        (-1.0, -0.5, verdicts.FAILS, (0, math.inf)),
        (0.5, 0.0, verdicts.FAILS, (0.5, math.inf)),
        (2.0, -2.0, verdicts.HOLDS, (0, 4.0)),
    ],
)
def test_the_range_of_a_contrast(one, other, kind, stands):
    """Effects of any sign: a contrast that does not hold does not for a larger least effect."""
    found = effects_of(features=one, ntk=other)
    claim = Claim("c", minimum=0.7, contrast=("features", "ntk"))
    (verdict,) = judge([claim], [found])
    assert verdict.kind == kind
    assert verdict.stands == pytest.approx(stands, abs=0.02)


def test_a_lazy_network_that_is_not_contrasts_with_nothing():
    found = effects_of(features=0.9, lazy=0.9, ntk=0.0)
    movement = {"lazy": np.full((1, 15), 0.5), "features": np.ones((1, 15))}
    found = Evidence(found.effects, {}, movement, 100)
    (verdict,) = judge([Claim("c", contrast=("features", "lazy"))], [found])
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "the lazy network is lazy" in verdict.sentence
    (verdict,) = judge([Claim("c", contrast=("features", "ntk"))], [found])
    assert verdict.kind == verdicts.HOLDS


def test_contrasts_of_what_is_not_there():
    with pytest.raises(ValueError, match="must name two arms"):
        Claim("c", contrast=("ntk",))
    with pytest.raises(ValueError, match="no arm 'mean' to contrast here"):
        falsify(tiny, mlp(1), Claim("c", contrast=("features", "mean")), training=SMALL)
    over = Claim("c", axis="width", values=(8, 16), contrast=("features", "ntk"))
    with pytest.raises(ValueError, match="no arm 'ntk' to contrast here"):
        falsify(tiny, mlp(1), over, training=SMALL)


def test_a_contrast_from_data_to_verdict():
    report = falsify(
        tiny,
        mlp(1),
        Claim("c", contrast=("linearised", "nngp")),
        training=SMALL,
        width=16,
        budget=Budget(1, ()),
    )
    (verdict,) = report.verdicts
    assert [gate.name for gate in verdict.gates] == ["enough repetitions"]
    assert set(verdict.effects) >= {"linearised", "nngp"}
    assert report.record()["claims"][0]["contrast"] == ["linearised", "nngp"]


# --- one network against another


def test_differences_to_another_network():
    """Both kernels show much; what one network gains over the other, its kernel does not."""
    movement = {"lazy": np.full((1, 15), 0.01), "features": np.ones((1, 15))}
    arms = ("ntk", "nngp", "linearised", "lazy")

    def found(frozen, features):
        tables = effects_of(**dict.fromkeys(arms, frozen), features=features).effects
        return Evidence(tables, {}, movement, 100)

    claim = Claim("gains more", minimum=0.2)
    for gain, kind in ((0.0, verdicts.NEEDS), (0.3, verdicts.PRESENT), (0.28, verdicts.PRESENT)):
        (verdict,) = judge([claim], [found(0.3 + gain, 0.6).minus(found(0.3, 0.3))])
        assert verdict.kind == kind, str(verdict)
        assert verdict.effects["features"].mean == pytest.approx(0.3, abs=0.02)
    moved = Evidence(found(0.3, 0.3).effects, {}, {**movement, "lazy": np.ones((1, 15))}, 100)
    (verdict,) = judge([claim], [found(0.3, 0.6).minus(moved)])
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "the lazy network is lazy" in verdict.sentence
    broken = Evidence(found(0.0, 0.0).effects, {"lazy": "diverged"}, movement, 100)
    assert (
        "of the other network, diverged"
        in judge([claim], [found(0.3, 0.6).minus(broken)])[0].sentence
    )


def test_a_network_against_another_from_data_to_report(tmp_path):
    options = {"training": SMALL, "width": 16, "budget": Budget(1, ()), "folder": tmp_path / "a"}
    both = falsify(tiny, mlp(1, b_std=0.5), Claim("c"), versus=mlp(2), **options)
    (claim,) = both.study.claims
    for arm, effect in both.verdicts[0].effects.items():
        one, other = (tables.effects(arm, claim) for tables in (both.tables, both.versus))
        assert effect.mean == pytest.approx(float((one - other).mean()))
    assert both.versus.study.network.spec == mlp(2)
    text = str(list(both._blocks(both.record())))
    assert "Effects are differences to those of the other network, Serial, Dense" in text
    assert "nmse, all: network / other" in text
    means = [t.values("ntk", [()], "metrics", "nmse").mean() for t in (both.tables, both.versus)]
    assert f"{means[0]:.3g} / {means[1]:.3g}" in text
    assert both.record()["versus"]["metrics"]["nmse"]["ntk"] == {"all": [pytest.approx(means[1])]}
    assert both._pictures()["claim-1"]
    cells = [json.loads(f.read_text()) for f in tmp_path.rglob("cells/**/*.json")]
    assert both.seconds() == pytest.approx(sum(cell["seconds"] for cell in cells), abs=0.06)
    with pytest.raises(ValueError, match="another study"):
        falsify(
            tiny,
            mlp(1, b_std=0.5),
            Claim("c"),
            versus=mlp(3),
            **{**options, "folder": tmp_path / "a"},
        )
