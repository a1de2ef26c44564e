"""Targets of a cross-entropy: class numbers and probabilities, by every way they come in;
the rest is refused.
"""

import math

import numpy as np
import pytest

import ntkcore as nk
from ntkcore import predict
from ntkcore.theory.loss_dynamics import LossDynamics
from ntkcore.theory.losses import CrossEntropy, class_targets

X = np.random.default_rng(0).standard_normal((6, 3))
K = nk.kernel(nk.mlp(1), X)
LABELS = np.array([0, 2, 1, 1, 0, 2])
ONE_HOT = np.eye(3)[LABELS]
SOFT = np.full((6, 3), 1 / 3)


def test_what_targets_are():
    for given in (
        LABELS,
        LABELS.tolist(),
        LABELS.astype("u1"),
        ONE_HOT,
        ONE_HOT.astype("f4"),
        ONE_HOT.astype(int),
    ):
        np.testing.assert_array_equal(class_targets(given), ONE_HOT)
        np.testing.assert_array_equal(class_targets(given, 3), ONE_HOT)
    np.testing.assert_array_equal(class_targets(SOFT), SOFT)
    assert class_targets(LABELS, 5).shape == (6, 5)
    assert class_targets([0, 0]).shape == (2, 2)  # one class alone has no softmax


@pytest.mark.parametrize("targets", [LABELS, ONE_HOT, ONE_HOT.astype(np.float32)])
def test_it_starts_at_log_3_in_every_face(targets):
    dynamics = LossDynamics(K, targets, CrossEntropy())
    assert dynamics.train.loss(0.0) == pytest.approx(math.log(3), rel=1e-14)
    assert CrossEntropy()(np.zeros((6, 3)), targets) == pytest.approx(math.log(3), rel=1e-14)
    expected = LossDynamics(K, ONE_HOT, CrossEntropy()).train
    np.testing.assert_array_equal(dynamics.train.mean(4.0), expected.mean(4.0))
    assert expected.loss(50.0) < math.log(3) - 0.1
    points = dynamics.points(K[:4])
    assert points.loss(4.0, LABELS[:4]) == pytest.approx(
        float(points.loss(4.0, ONE_HOT[:4])), rel=1e-14
    )
    found = predict.gradient_descent(CrossEntropy(), K, targets)(4.0)
    np.testing.assert_allclose(found, expected.mean(4.0), rtol=1e-6)


def test_more_classes_than_labels_by_the_first_outputs():
    dynamics = LossDynamics(K, LABELS, CrossEntropy(), f0=np.zeros((6, 4)))
    assert dynamics.train.loss(0.0) == pytest.approx(math.log(4), rel=1e-14)


REFUSED = {
    "one column": (ONE_HOT[:, :1], "class numbers"),
    "plus and minus one": (np.array([1, -1, 1, -1, 1, 1]), "-1 and 1 are numbered"),
    "plus and minus one, floats": (np.array([1.0, -1, 1, -1, 1, 1]), "astype"),
    "labels as floats": (LABELS.astype(float), "astype"),
    "booleans": (LABELS > 0, "astype"),
    "plus and minus one, one-hot": (2 * ONE_HOT - 1, "probabilities"),
    "several labels a sample": (np.ones((6, 3)), "probabilities"),
    "centred": (ONE_HOT - 1 / 3, "probabilities"),
    "NaN": (np.where(ONE_HOT > 0, np.nan, 0), "NaN"),
    "complex": (ONE_HOT * 1j, "real"),
    "text": (LABELS.astype(str), "real"),
    "a number": (1, "shape"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("face", ["losses", "the loss itself", "predict", "train"])
def test_everything_else_is_refused(name, face):
    targets, words = REFUSED[name]

    def in_torch():
        finite = pytest.importorskip("ntkcore.finite")
        net = nk.Serial(nk.Dense(), nk.Relu(), nk.Dense(width=3))
        finite.train(
            finite.to_torch(net, 8, input_shape=3),
            X,
            targets,
            lr=0.1,
            steps=1,
            loss="cross_entropy",
        )

    calls = {
        "losses": lambda: LossDynamics(K, targets, CrossEntropy()),
        "the loss itself": lambda: CrossEntropy().gradient(np.zeros((6, 3)), targets),
        "predict": lambda: predict.gradient_descent(CrossEntropy(), K, targets),
        "train": in_torch,
    }
    with pytest.raises((ValueError, TypeError), match=words):
        calls[face]()


def test_identifiers_are_no_classes():
    with pytest.raises(ValueError, match=r"class number 10000000000, of more than 100000"):
        LossDynamics(K, [0, 10**10, 1, 1, 1, 1], CrossEntropy())
    assert class_targets([0, 99_999]).shape == (2, 100_000)


def test_labels_out_of_range():
    with pytest.raises(ValueError, match=r"from 0 to 3.*0 … 2 for 3 outputs"):
        LossDynamics(K, LABELS, CrossEntropy()).points(K[:2]).loss(1.0, [0, 3])
    with pytest.raises(ValueError, match="0 … 1 for 2 outputs"):
        class_targets(LABELS, 2)
