"""init_fn and apply_fn: neural-tangents' own outputs from its own parameters, and their manners."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ntkcore
from conftest import assert_close, relative_error
from finite_nets import torch
from ntkcore import stax
from ntkcore.finite.activations import FUNCTIONS
from stax_nets import nets

DATA = Path(__file__).parent / "data"
ARRAYS = np.load(DATA / "stax_reference.npz")
FACTS = json.loads((DATA / "stax_reference.json").read_text())
NETS = nets(stax)
X = np.random.default_rng(0).standard_normal((5, 4))
IMAGES = np.random.default_rng(1).standard_normal((2, 6, 5, 3))
MLP = stax.serial(stax.Dense(16, 1.3, 0.2), stax.Relu(), stax.Dense(3))


def leaves(params):
    """The tensors of nested lists, in order."""
    if isinstance(params, (list, tuple)):
        return [leaf for part in params for leaf in leaves(part)]
    return [] if params is None else [params]


def like(params, values):
    """The same lists with other tensors."""
    if isinstance(params, (list, tuple)):
        return type(params)(like(part, values) for part in params)
    return None if params is None else next(values)


def reference_params(name, params):
    """neural-tangents' parameters in the place of ours."""
    theirs = [ARRAYS[f"{name}/params{i}"] for i in range(len(leaves(params)))]
    assert f"{name}/params{len(theirs)}" not in ARRAYS
    assert [tuple(p.shape) for p in leaves(params)] == [p.shape for p in theirs]
    return like(params, iter(theirs))


@pytest.mark.parametrize("name", NETS)
def test_neural_tangents_own_outputs(name):
    (init_fn, apply_fn, _), shape = NETS[name]
    output_shape, params = init_fn(0, shape)
    assert output_shape == tuple(FACTS[name]["output_shape"])
    outputs = apply_fn(reference_params(name, params), ARRAYS[f"{name}/x"])
    assert_close(outputs, ARRAYS[f"{name}/outputs"], 2e-15)


@pytest.mark.parametrize("name", ["standard, widened", "dense", "standard images", "branches"])
def test_parameters_are_drawn_as_wide_as_neural_tangents(name):
    """Every tensor's mean square over many draws beside its, within five standard errors."""
    (init_fn, _, _), shape = NETS[name]
    draws = [leaves(init_fn(seed, shape)[1]) for seed in range(60)]
    _, params = init_fn(0, shape)
    expected = leaves(reference_params(name, params))
    for i, theirs in enumerate(expected):
        ours = np.array([draw[i].numpy() for draw in draws], float)
        error = ours.var() * (2 / ours.size + 2 / theirs.size) ** 0.5
        assert abs(ours.var() - (theirs**2).mean()) < 5 * error


@pytest.mark.parametrize(
    "net",
    [
        stax.serial(stax.Dense(512, 1.2, 0.3), stax.Relu(), stax.Dense(512, 1.1), stax.Erf()),
        stax.serial(
            stax.Dense(512, 1.2, 0.3, parameterization="standard"),
            stax.Relu(),
            stax.Dense(512, 1.1, 0.2, parameterization="standard"),
        ),
    ],
)
def test_outputs_have_the_kernel_as_covariance(net):
    draws = [
        net.apply_fn(net.init_fn(seed, X.shape)[1], torch.tensor(X)).double().numpy()
        for seed in range(20)
    ]
    mean = np.mean([f @ f.T / f.shape[1] for f in draws], axis=0)
    assert relative_error(mean, net.kernel_fn(X, None, "nngp")) < 0.05


def test_what_goes_in_comes_out():
    _, params = MLP.init_fn(0, X.shape)
    ours = MLP.apply_fn(params, X)
    assert isinstance(ours, np.ndarray)
    assert ours.dtype == np.float32
    tensor = MLP.apply_fn(params, torch.tensor(X))
    assert isinstance(tensor, torch.Tensor)
    assert (tensor.numpy() == ours).all()
    assert (MLP.apply_fn(params, X.tolist()) == ours).all()
    double = [tuple(None if p is None else p.double() for p in layer) for layer in params]
    assert MLP.apply_fn(double, X.astype("float32")).dtype == np.float64
    numpy = [tuple(None if p is None else p.numpy() for p in layer) for layer in params]
    assert (MLP.apply_fn(numpy, X) == ours).all()
    branches = stax.serial(stax.FanOut(2), stax.parallel(stax.Relu(), stax.Abs()))
    shapes, params = branches.init_fn(0, (-1, 4))
    assert shapes == [(-1, 4), (-1, 4)]
    first, second = branches.apply_fn(params, X)
    assert (first == np.maximum(X, 0)).all()
    assert (second == np.abs(X)).all()


def test_gelu_by_a_tanh():
    z = np.linspace(-3, 3, 7)
    expected = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    assert_close(stax.Gelu(approximate=True).apply_fn((), z[None])[0], expected, 1e-14)
    assert stax.Gelu(approximate=True).kernel_fn.net == stax.Gelu().kernel_fn.net


def _tanh(z):
    return np.where(z > 0, np.tanh(z), np.tanh(z))


def _sech2(z):
    return 1 - np.tanh(z) ** 2


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    "layer",
    [
        stax.Elementwise(torch.tanh),
        stax.Elementwise(torch.nn.Tanh()),
        stax.ElementwiseNumerical(_tanh, 9, _sech2),
        stax.ElementwiseNumerical(np.tanh, 9, _sech2),
    ],
)
def test_activations_of_ones_own(layer):
    """Outputs and all derivatives of tensors' functions and NumPy's, as of the name."""
    named = stax.serial(stax.Dense(9, 1.3, 0.2), stax.Elementwise("tanh"), stax.Dense(1))
    own = stax.serial(named.kernel_fn.part.layers[0], layer, named.kernel_fn.part.layers[2])
    _, params = named.init_fn(0, X.shape)
    x = torch.tensor(X, dtype=torch.float32)
    assert_close(own.apply_fn(params, X), named.apply_fn(params, X), 1e-6)
    for derivative in (torch.func.jacrev, torch.func.jacfwd):
        ours, theirs = (
            derivative(lambda W, net=net: net.apply_fn([(W, params[0][1]), *params[1:]], x))
            for net in (own, named)
        )
        assert_close(ours(params[0][0]).numpy(), theirs(params[0][0]).numpy(), 1e-5)


def test_derivatives_of_an_activation_without_one():
    layer = stax.Elementwise(_tanh)
    assert layer.apply_fn((), X).shape == X.shape
    with pytest.raises(NotImplementedError, match=r"Elementwise.*need its derivative dphi"):
        layer.apply_fn((), torch.tensor(X, requires_grad=True)).sum().backward()


def test_derivatives_run_through():
    _, params = MLP.init_fn(0, X.shape)
    weight = params[0][0].requires_grad_()
    MLP.apply_fn(params, torch.tensor(X)).sum().backward()
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "rng",
    [
        lambda: 3,
        lambda: np.array([0, 3], "uint32"),
        lambda: np.random.default_rng(3),
        lambda: np.random.SeedSequence(3),
        lambda: torch.Generator().manual_seed(3),
    ],
)
def test_sources_of_randomness(rng):
    first, again = (leaves(MLP.init_fn(rng(), X.shape)[1]) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    other = leaves(MLP.init_fn(4, X.shape)[1])
    assert not any((a == b).all() for a, b in zip(first, other, strict=True))
    same = stax.serial(stax.Dense(4), stax.Dense(4))
    one, two = leaves(same.init_fn(rng(), X.shape)[1])
    assert not (one == two).any()


def test_networks_travel():
    """Between processes, as pickles."""
    (init_fn, apply_fn, kernel_fn), shape = pickle.loads(pickle.dumps(NETS["branches"]))
    _, params = init_fn(0, shape)
    assert (apply_fn(params, X) == NETS["branches"][0].apply_fn(params, X)).all()
    assert (kernel_fn(X, None, "ntk") == NETS["branches"][0].kernel_fn(X, None, "ntk")).all()


def test_a_generator_goes_on():
    source = np.random.default_rng(0)
    first, second = (leaves(MLP.init_fn(source, X.shape)[1])[0] for _ in range(2))
    assert not (first == second).any()


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (stax.Conv(7, (3, 2), (2, 1), "SAME"), (-1, 6, 5, 3), (-1, 3, 5, 7)),
        (stax.Conv(7, (3, 2)), (None, 6, 5, 3), (None, 4, 4, 7)),
        (stax.AvgPool((2, 2), (2, 2)), (9, 6, 5, 3), (9, 3, 2, 3)),
        (stax.Flatten(), (-1, 6, 5, 3), (-1, 90)),
        (stax.Flatten(batch_axis_out=1), (-1, 6, 5, 3), (90, -1)),
        (stax.Flatten(batch_axis=-1), (6, 5, 3, -1), (-1, 90)),
        (stax.GlobalAvgPool(channel_axis=1), (-1, 6, 5, 3), (-1, 6)),
        (stax.Relu(), (-1, 6, 5, 3), (-1, 6, 5, 3)),
        (stax.FanInSum(), [(-1, 4), (-1, 4)], (-1, 4)),
        (stax.repeat(stax.Dense(4), 0), (-1, 4), (-1, 4)),
        (stax.repeat(stax.serial(stax.Dense(6), stax.Relu()), 3), (-1, 4), (-1, 6)),
    ],
)
def test_output_shapes(layer, shape, expected):
    assert layer.init_fn(0, shape)[0] == expected


ARGUMENTS = {
    "LeakyRelu": (0.2,),
    "ABRelu": (0.2, 1.1),
    "Monomial": (2,),
    "RectifiedMonomial": (2,),
    "Polynomial": ([0.3, 1.0, 0.2],),
    "Hermite": (2,),
    "Elementwise": ("tanh",),
}


@pytest.mark.parametrize("image", [False, True])
def test_every_layer_has_all_three_functions(image):
    """One call each: what has no finite counterpart would say so here."""
    x = IMAGES if image else X
    layers = [
        getattr(stax, name)(*ARGUMENTS.get(name, ())) for name in FUNCTIONS if hasattr(stax, name)
    ]
    layers += [stax.Dense(6, 1.1, 0.2), stax.LayerNorm(), stax.Identity(), stax.Flatten()]
    if image:
        layers += [stax.Conv(6, (3, 3), padding=p) for p in ("SAME", "VALID", "CIRCULAR")]
        layers += [stax.AvgPool((2, 2)), stax.SumPool((2, 2)), stax.GlobalAvgPool()]
        layers += [stax.GlobalSumPool()]
    for layer in layers:
        if layer.kernel_fn.net == ntkcore.ExpNormalized():  # a kernel only
            continue
        shape, params = layer.init_fn(0, x.shape)
        outputs = layer.apply_fn(params, x)
        assert outputs.shape == shape
        assert np.isfinite(outputs).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: MLP.init_fn("seed", (1, 4)), TypeError, "rng must be an int.*'seed'"),
        (lambda: MLP.init_fn(-1, (1, 4)), TypeError, "rng must be an int >= 0"),
        (lambda: MLP.init_fn(None, (1, 4)), TypeError, "rng must be an int"),
        (lambda: MLP.init_fn(0, (1, 0)), ValueError, r"Dense: input_shape.*\(1, 0\)"),
        (lambda: MLP.init_fn(0, (1, -1)), ValueError, "of samples: any"),
        (lambda: stax.Conv(4, (9, 9)).init_fn(0, (1, 6, 5, 3)), ValueError, r"Conv.*\(9, 9\)"),
        (lambda: stax.FanInSum().init_fn(0, [(1, 4), (1, 5)]), ValueError, "cannot be joined"),
        (lambda: MLP.apply_fn(MLP.init_fn(0, (1, 3))[1], X), ValueError, "of another input"),
        (lambda: MLP.apply_fn([], X), ValueError, "serial: 3 layers.*not 0"),
        (lambda: MLP.apply_fn((), X * 1j), TypeError, "real numbers"),
        (lambda: MLP.apply_fn((), X, mask_constant=0.0), NotImplementedError, "mask_constant"),
        (lambda: MLP.apply_fn((), X, pattern=X), NotImplementedError, "pattern"),
        (
            lambda: stax.parallel(stax.Relu(), stax.Relu()).apply_fn([(), ()], [X]),
            ValueError,
            "parallel: 2 layers.*not 1",
        ),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_without_torch():
    """kernel_fn works; init_fn says what is missing."""
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from ntkcore import stax\n"
        "net = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1))\n"
        "assert net.kernel_fn([[1.0, 2.0]]).shape1 == (1, 1)\n"
        "for call in (lambda: net.init_fn(0, (1, 2)), lambda: net.apply_fn([], [[1.0, 2.0]])):\n"
        "    try:\n"
        "        call()\n"
        "    except ImportError as error:\n"
        "        assert 'ntkcore[torch]' in str(error)\n"
        "    else:\n"
        "        raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
