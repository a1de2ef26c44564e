"""The faces of finite networks met with their neighbours' objects: one line of ours,
whatever they are handed.
"""

import copy

import numpy as np
import pytest

import ntkcore as nk
from finite_nets import torch
from ntkcore import finite
from test_neighbours import ANSWERED, KERNELS_ONLY, WRONG, K, X, Y, pairs, refused_in_a_line

MODULE = finite.to_torch(nk.mlp(1), 8, input_shape=3)
READ = {
    "a rectangle",
    "one dimension",
    "not symmetric",
    "NaN",
    "infinity",
    "three dimensions",
    "a number",
    "no rows",
}
UNREAD = {name: wrong for name, wrong in WRONG.items() if name not in READ}

TAKES_DATA = {
    "empirical_ntk": lambda x: finite.empirical_ntk(MODULE, x),
    "empirical_ntk x2": lambda x: finite.empirical_ntk(MODULE, X, x),
    "empirical_nngp": lambda x: finite.empirical_nngp(MODULE, x),
    "features": lambda x: finite.features(MODULE, x),
    "activations": lambda x: finite.activations(MODULE, x),
    "ntk_operator": lambda x: finite.ntk_operator(MODULE, x),
    "ntk_vector_product": lambda x: finite.ntk_vector_product(MODULE, x, Y),
    "train": lambda x: finite.train(MODULE, x, Y, lr=0.1, steps=0),
    "Linearized": lambda x: finite.Linearized(MODULE, x, Y),
    "laziness": lambda x: finite.laziness(MODULE, x, Y),
    "linearization_error": lambda x: finite.linearization_error(MODULE, MODULE, x),
}
TAKES_TARGETS = {
    "train y": lambda y: finite.train(MODULE, X, y, lr=0.1, steps=0),
    "cross-entropy": lambda y: finite.train(MODULE, X, y, lr=0.1, steps=0, loss="cross_entropy"),
    "Linearized y": lambda y: finite.Linearized(MODULE, X, y),
    "laziness y": lambda y: finite.laziness(MODULE, X, y),
    "ntk_vector_product v": lambda y: finite.ntk_vector_product(MODULE, X, y),
    "alignment y": lambda y: finite.alignment(K, y),
    "nmse": lambda y: finite.nmse(y, Y),
}
TAKES_ARRAYS = {
    "kernel_movement": lambda k: finite.kernel_movement(K, k),
    "alignment": lambda k: finite.alignment(k, Y),
    "nmse y": lambda y: finite.nmse(Y, y),
    "rms_deviation": lambda f: finite.rms_deviation(f, Y),
}
ANSWERED.add("alignment y: three dimensions")  # outputs of any shape
NO_MODULE = {
    "nothing": None,
    "a spec": nk.mlp(1),
    "a state": MODULE.state_dict(),
    "a function": len,
    "a class": torch.nn.Linear,
    "an array": X,
    "no parameters": torch.nn.ReLU(),
}
TAKES_MODULES = {
    "empirical_ntk": lambda m: finite.empirical_ntk(m, X),
    "empirical_nngp": lambda m: finite.empirical_nngp(m, X),
    "features": lambda m: finite.features(m, X),
    "activations": lambda m: finite.activations(m, X),
    "ntk_operator": lambda m: finite.ntk_operator(m, X),
    "train": lambda m: finite.train(m, X, Y, lr=0.1, steps=0),
    "Linearized": lambda m: finite.Linearized(m, X, Y),
    "linearize": finite.linearize,
    "laziness": lambda m: finite.laziness(m, X, Y),
    "parameter_movement": lambda m: finite.parameter_movement(m, MODULE),
    "feature_movement": lambda m: finite.feature_movement(MODULE, m, X),
}


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        *pairs(TAKES_DATA, WRONG, {"one dimension": X[0], "too few features": X[:, :2]}),
        *pairs(TAKES_TARGETS, WRONG, {"too few": Y[:3]}),
        *pairs(TAKES_ARRAYS, UNREAD, {"a rectangle": KERNELS_ONLY["a rectangle"]}),
        *pairs(TAKES_MODULES, NO_MODULE),
    ],
)
def test_one_line_of_ours(call, wrong):
    refused_in_a_line(call, wrong)


def test_tensors_with_gradients_and_copies_are_welcome():
    x = torch.tensor(X, requires_grad=True)
    np.testing.assert_array_equal(finite.empirical_ntk(MODULE, x), finite.empirical_ntk(MODULE, X))
    assert finite.parameter_movement(copy.deepcopy(MODULE), dict(MODULE.named_parameters())) == 0
    assert finite.nmse(torch.tensor(Y, requires_grad=True), Y) == 0
