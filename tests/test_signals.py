"""Kernels of sequences, volumes and all else with positions, against matrices over all pairs."""

import json
from pathlib import Path

import numpy as np
import pytest

import ntkcore as nk
import reference as plain
from conftest import relative_error
from examples import FULL_NETS, PLANE_SIGNAL_NETS, SIGNAL_NETS
from ntkcore import _core
from ntkcore.specs.lowering import lower
from position_reference import reference


@pytest.fixture(autouse=True, scope="module")
def closed_forms():
    """The reference's activations by closed forms (which test_dual.py checks)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "MANY", 0)
        yield


BACKENDS = [name for name in nk.backends() if not name.startswith("cuda")]


def samples(n, shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(dtype)


@pytest.fixture(scope="module")
def references():
    return {}


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        (name, backend)
        for name in SIGNAL_NETS
        for backend in (BACKENDS if name in FULL_NETS else nk.backends())
    ],
)
def test_against_the_reference(name, backend, references):
    net, shape = SIGNAL_NETS[name]
    x, z = samples(3, shape), samples(2, shape, seed=1)
    if name not in references:
        references[name] = [reference(net, x, other) for other in (None, z)]
    for other, expected in zip((None, z), references[name], strict=True):
        double = nk.kernel(net, x, other, ("nngp", "ntk"), backend=backend)
        single = nk.kernel(net, x, other, ("nngp", "ntk"), backend=backend, dtype="float32")
        for k in (0, 1):
            assert relative_error(double[k], expected[k]) < 1e-12
            assert relative_error(single[k], expected[k]) < 2e-6
    diagonal = nk.kernel_diag(net, x, ("nngp", "ntk"), backend=backend)
    for k in (0, 1):
        assert relative_error(diagonal[k], np.diag(references[name][0][k])) < 1e-12


def test_what_runs_where():
    """Displacement planes wherever they can: they are faster by an order."""
    for names, kind in ((PLANE_SIGNAL_NETS, _core.ImageProgram), (FULL_NETS, _core.FullProgram)):
        for net, shape in names.values():
            assert type(lower(net, shape, wants_ntk=True)) is kind


# neural-tangents 0.6.5 in float64, on samples of test_parity's. An odd number of convolutions
# before a ConvLocal of unequal sides or an ImageResize is left out: its kernels, whose axes a
# convolution turns, are then those of the turned layer.
NT = json.loads((Path(__file__).parent / "data" / "nt_positions.json").read_text())


@pytest.mark.parametrize("name", NT)
def test_parity_with_neural_tangents(name):
    case, rng = NT[name], np.random.default_rng(0)
    x, z = (rng.standard_normal((n, *case["shape"])) for n in (3, 2))
    ours = nk.kernel(nk.from_json(json.dumps(case["net"])), x, z, ("nngp", "ntk"))
    for kernel in ("nngp", "ntk"):
        assert relative_error(getattr(ours, kernel), np.array(case[kernel])) < 1e-10
