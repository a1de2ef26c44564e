"""Every public entry point met with its neighbour's object:
one line of ours that names the argument, or an answer.

A new entry point is one line of `TAKES`: how it is called with an object in the place of one
argument. A new wrong object is one line of `WRONG`.
"""

import traceback
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import ntkcore as nk
from ntkcore import predict, stax
from ntkcore.engine.gradients import kernel_gradient
from ntkcore.estimators import (
    NTKClassifier,
    NTKFeatures,
    NTKRegressor,
    StreamedRidge,
    StreamedRidgeClassifier,
)
from ntkcore.theory.dynamics import Dynamics, eigenmodes
from ntkcore.theory.learning_curves import LearningCurve
from ntkcore.theory.loss_dynamics import LossDynamics
from ntkcore.theory.losses import CrossEntropy, SquaredError
from ntkcore.theory.spectrum import conditioning, spectrum
from ntkcore.theory.sphere import order_power

sparse = pytest.importorskip("scipy.sparse")
zarr = pytest.importorskip("zarr")

N = 5
X = np.random.default_rng(0).standard_normal((N, 3))
Y = np.random.default_rng(1).standard_normal(N)
NET = nk.mlp(1)
BOTH = nk.kernel(NET, X, get=("nngp", "ntk"))
K = BOTH.ntk
KERNEL_FN = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))[2]


def group():
    made = zarr.create_group(zarr.storage.MemoryStore())
    made["ntk"] = K
    return made


def with_hole():
    damaged = K.copy()
    damaged[1, 2] = damaged[2, 1] = np.nan
    return damaged


# What may be handed over in place of a kernel (n, n), or of data (n, d).
WRONG = {
    "a path": Path("kernel.zarr"),
    "text": "kernel.zarr",
    "nothing at all": object(),
    "a dictionary": {"ntk": K},
    "a group": group(),
    "both kernels": BOTH,
    "both kernels, unnamed": (BOTH.nngp, BOTH.ntk),
    "a Kernel of stax": KERNEL_FN(X),
    "another namedtuple": namedtuple("Mine", ("a", "b"))(K, K),
    "a sparse matrix": sparse.csr_matrix(K),
    "a sparse mapping": sparse.dok_matrix(K),
    "an operator": sparse.linalg.aslinearoperator(sparse.csr_matrix(K)),
    "a function": KERNEL_FN,
    "a network": NET,
    "ragged rows": [[1.0, 2.0], [3.0]],
    "complex numbers": K * 1j,
    "NaN": with_hole(),
    "infinity": np.full((N, N), np.inf),
    "a masked array": np.ma.masked_less(K, K.mean()),
    "objects": np.full((N, N), None),
    "strings": np.full((N, N), "a"),
    "dates": np.full((N, N), "2020", "M8[D]"),
    "three dimensions": np.ones((N, N, 2)),
    "no rows": np.ones((0, 0)),
    "a number": 3.0,
}
KERNELS_ONLY = {  # data may well look so
    "a rectangle": K[:, :3],
    "one dimension": K[0],
    "not symmetric": K + np.triu(np.ones((N, N)), 1) * K.max(),
}
TARGETS = {
    "too few targets": Y[:3],
    "a transposed column": Y[None],
    "targets with NaN": np.where(Y > 0, np.nan, Y),
}

TAKES_KERNELS = {
    "Dynamics": lambda k: Dynamics(k, Y),
    "Dynamics nngp": lambda k: Dynamics(K, Y, nngp=k),
    "LossDynamics": lambda k: LossDynamics(k, Y, SquaredError()),
    "eigenmodes": eigenmodes,
    "spectrum": spectrum,
    "conditioning": conditioning,
    "LearningCurve.from_gram": lambda k: LearningCurve.from_gram(k, Y),
    "gradient_descent_mse": lambda k: predict.gradient_descent_mse(k, Y[:, None])(1.0),
    "gradient_descent": lambda k: predict.gradient_descent(SquaredError(), k, Y[:, None])(1.0),
    "max_learning_rate": predict.max_learning_rate,
}
TAKES_CROSS = {
    "Dynamics.points": lambda k: Dynamics(K, Y).points(k),
    "LossDynamics.points": lambda k: LossDynamics(K, Y, SquaredError()).points(k),
    "gradient_descent_mse test": lambda k: predict.gradient_descent_mse(K, Y[:, None])(
        1.0, 0.0, 0.0, k
    ),
}
TAKES_DATA = {
    "kernel": lambda x: nk.kernel(NET, x),
    "kernel x2": lambda x: nk.kernel(NET, X, x),
    "kernel_diag": lambda x: nk.kernel_diag(NET, x),
    "kernel_gradient": lambda x: kernel_gradient(NET, x),
    "kernel_fn": KERNEL_FN,
    "Dynamics.from_net": lambda x: Dynamics.from_net(NET, x, Y),
    "Dynamics.at": lambda x: Dynamics.from_net(NET, X, Y).at(x),
    "ensemble": lambda x: predict.gradient_descent_mse_ensemble(KERNEL_FN, x, Y[:, None])(1.0),
    "order_power": lambda x: order_power(x, Y, [0]),
}
TAKES_TARGETS = {
    "Dynamics y": lambda y: Dynamics(K, y),
    "LossDynamics y": lambda y: LossDynamics(K, y, SquaredError()),
    "cross-entropy": lambda y: LossDynamics(K, y, CrossEntropy()),
    "spectrum y": lambda y: spectrum(K, y),
    "Points.loss": lambda y: Dynamics(K, Y).points(K).loss(1.0, y),
    "gradient_descent_mse y": lambda y: predict.gradient_descent_mse(K, y)(1.0),
    "gradient_descent y": lambda y: predict.gradient_descent(SquaredError(), K, y)(1.0),
    "gp_inference y": lambda y: predict.gp_inference(K, y)("ntk", K),
}


TAKES_KERNELS |= {
    "gp_inference": lambda k: predict.gp_inference(k, Y[:, None])("ntk", K),
}


TAKES_SAMPLES = {
    "NTKRegressor": lambda x: NTKRegressor().fit(x, Y),
    "NTKClassifier": lambda x: NTKClassifier().fit(x, Y > 0),
    "NTKRegressor.predict": lambda x: NTKRegressor().fit(X, Y).predict(x),
    "NTKRegressor y": lambda y: NTKRegressor().fit(X, y),
    "NTKFeatures": lambda x: NTKFeatures(n_components=20).fit(x),
    "NTKFeatures.transform": lambda x: NTKFeatures(n_components=20).fit(X).transform(x),
    "StreamedRidge": lambda x: StreamedRidge().fit(x, Y),
    "StreamedRidge y": lambda y: StreamedRidge().partial_fit(X, y),
    "StreamedRidgeClassifier": lambda x: StreamedRidgeClassifier().partial_fit(x, Y > 0),
}


def pairs(entries, *objects):
    return [
        pytest.param(call, wrong, id=f"{entry}: {name}")
        for entry, call in entries.items()
        for kinds in objects
        for name, wrong in kinds.items()
        if f"{entry}: {name}" not in ANSWERED
    ]


def refused_in_a_line(call, wrong):
    """By a raise of ours, not of NumPy, SciPy, Zarr or torch."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call(wrong)
    message, last = str(caught.value), traceback.extract_tb(caught.tb)[-1]
    assert "\n" not in message
    assert Path(nk.__file__).parent in Path(last.filename).parents, f"{last.filename}: {message}"
    assert (last.line or "").startswith("raise "), f"{last.filename}:{last.lineno}: {message}"


# Combinations that have an answer.
ANSWERED = {
    "LossDynamics: an operator",
    "Dynamics.points: an operator",
    "LossDynamics.points: an operator",
    "gp_inference: both kernels",
    "gp_inference: a Kernel of stax",
    "max_learning_rate: a number",
    "Points.loss: a number",
    "NTKRegressor.predict: both kernels, unnamed",
    "kernel: both kernels, unnamed",
    "kernel_fn: both kernels, unnamed",
    "kernel_fn: three dimensions",
    "kernel_fn: a Kernel of stax",
    "ensemble: a Kernel of stax",
}
NO_ARRAYS = (
    "a path",
    "text",
    "a dictionary",
    "a group",
    "a Kernel of stax",
    "both kernels",
    "a sparse matrix",
    "a masked array",
    "an operator",
)
NO_TARGETS = {name: wrong for name, wrong in WRONG.items() if name != "three dimensions"}


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        *pairs(TAKES_KERNELS, WRONG, KERNELS_ONLY),
        *pairs(TAKES_CROSS, WRONG),
        *pairs(TAKES_DATA, WRONG),
        *pairs(TAKES_TARGETS, NO_TARGETS, TARGETS),
    ],
)
def test_one_line_of_ours(call, wrong):
    refused_in_a_line(call, wrong)


def test_what_holds_an_array_is_read():
    """Lists, Dask's and Zarr's arrays, tensors with gradients, frames with nullable columns:
    the same numbers.
    """
    dask, pandas, torch = (pytest.importorskip(name) for name in ("dask.array", "pandas", "torch"))
    expected_kernel, expected = nk.kernel(NET, X), Dynamics(K, Y).train.mean(3.0)
    kinds = {
        "list": np.ndarray.tolist,
        "dask": lambda array: dask.from_array(array, chunks=2),
        "zarr": lambda array: zarr.array(array),
        "tensor": lambda array: torch.tensor(array, requires_grad=True),
        "frame": lambda array: (pandas.DataFrame if array.ndim == 2 else pandas.Series)(
            array
        ).convert_dtypes(),
    }
    for name, made in kinds.items():
        np.testing.assert_array_equal(nk.kernel(NET, made(X)), expected_kernel, err_msg=name)
        np.testing.assert_array_equal(
            Dynamics(made(K), made(Y)).train.mean(3.0), expected, err_msg=name
        )
        found = predict.gradient_descent_mse(made(K), made(Y[:, None]))(3.0, made(0.1 * Y[:, None]))
        expected_mse = predict.gradient_descent_mse(K, Y[:, None])(3.0, 0.1 * Y[:, None])
        np.testing.assert_array_equal(found, expected_mse, err_msg=name)
    half = torch.tensor(X).bfloat16()
    np.testing.assert_array_equal(nk.kernel(NET, half), nk.kernel(NET, half.float().numpy()))
    damaged = pandas.DataFrame(X).convert_dtypes()
    damaged.iloc[1, 1] = pandas.NA
    with pytest.raises(ValueError, match="x1 holds NaN"):
        nk.kernel(NET, damaged)


@pytest.mark.parametrize(
    ("call", "wrong"), pairs(TAKES_SAMPLES, {name: WRONG[name] for name in NO_ARRAYS})
)
def test_estimators(call, wrong):
    """Scikit-learn's own checks speak of arrays; what is none, ours."""
    refused_in_a_line(call, wrong)


@pytest.mark.parametrize(("call", "wrong"), pairs(TAKES_SAMPLES, WRONG))
def test_estimators_never_answer(call, wrong):
    with pytest.raises((ValueError, TypeError)):
        call(wrong)
