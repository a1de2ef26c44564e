"""Finite networks: their layers, the infinite limit, parameterizations and learning rates."""

import copy
import math
import subprocess
import sys

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from examples import NEURONS, SIGNAL_NETS
from finite_nets import CONV, DENSE, NETS, RELU, data, shape_of, torch
from ntkcore.finite import (
    ABC,
    activation_movement,
    empirical_nngp,
    empirical_ntk,
    parameter_groups,
    to_torch,
    train,
)
from ntkcore.finite.activations import FUNCTIONS, Nonlinearity
from ntkcore.finite.making import MAKERS
from ntkcore.specs.activations import ACTIVATIONS
from reference_duals import PHI

DRAWS = 12


def test_every_activation_has_its_torch_function():
    assert set(FUNCTIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("layer", NEURONS, ids=repr)
def test_activations(layer):
    z = np.linspace(-3, 3, 61) + 0.01
    phi = PHI[type(layer).__name__](layer)[0]
    assert relative_error(Nonlinearity(layer)(torch.tensor(z)).numpy(), phi(z)) < 1e-14


def test_a_kernel_that_no_function_has_has_no_finite_network():
    net = nk.Serial(DENSE, nk.ExpNormalized(), DENSE)
    with pytest.raises(ValueError, match=r"ExpNormalized\(\).*no finite network"):
        to_torch(net, 8, input_shape=3)


def samples_of(name):
    """A network and data for it."""
    if name in NETS:
        return NETS[name], data(NETS[name])
    net, shape = SIGNAL_NETS[name]
    return net, np.random.default_rng(0).standard_normal((3, *shape))


# Of each layer of positions one.
POSITIONS = ["sequence, residual", "volume, pools", "four axes", "dilated", "local"]
POSITIONS += ["recurrent, flatten", "recurrent, gap of two"]
POSITIONS += ["transposed, circular", "resized", "cropped", "a pixel", "mixed", "circular pool"]
WIDER = {"concatenated", "flattened images", "a pixel"}  # whose draws scatter more
WIDER |= {"recurrent, flatten", "recurrent, gap of two"}


@pytest.mark.parametrize("name", [*NETS, *POSITIONS])
def test_kernels_scatter_about_the_infinite_ones(name):
    """The mean of a few draws, within 4.5 of its standard errors and a bias of order 1/width."""
    net, x = samples_of(name)
    width = 256 if x.ndim == 2 else 96 if name in WIDER else 48
    nets = [
        to_torch(net, width, input_shape=x.shape[1:], seed=seed, dtype="float64")
        for seed in range(DRAWS)
    ]
    exact = nk.kernel(net, x, None, ("nngp", "ntk"))
    for function, kernel in zip((empirical_nngp, empirical_ntk), exact, strict=True):
        draws = np.array([function(module, x) for module in nets])
        assert np.isfinite(draws).all()
        mean, error = draws.mean(0), draws.std(0, ddof=1) / DRAWS**0.5
        scale = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        assert (error < 0.12 * scale).all()
        assert (np.abs(mean - kernel) < 4.5 * error + 4 / width * scale).all()


def test_a_wide_network_has_the_infinite_kernels():
    net = nk.mlp(2, 1.4, 0.1)
    x = data(net, 5)
    errors = []
    for width in (64, 4096):
        module = to_torch(net, width, input_shape=7, dtype="float64")
        ntk = relative_error(empirical_ntk(module, x), nk.kernel(net, x))
        nngp = relative_error(empirical_nngp(module, x), nk.kernel(net, x, None, "nngp"))
        errors.append((ntk, nngp))
    assert max(errors[1]) < 0.06
    assert max(errors[1]) < min(errors[0]) / 2


def test_outputs_are_distributed_as_the_nngp():
    net = nk.Serial(nk.Dense(1.3, 0.2), RELU, nk.Dense(1.1, 0.2, width=4000))
    x = data(net, 3)
    f = to_torch(net, 2000, input_shape=7, dtype="float64")(torch.tensor(x)).detach().numpy()
    assert f.shape == (3, 4000)
    assert relative_error(f @ f.T / 4000, nk.kernel(net, x, None, "nngp")) < 0.1


@pytest.mark.parametrize("name", ["dense", "conv residual", "flatten"])
def test_parameterizations_with_the_same_seed_start_as_the_same_function(name):
    net = NETS[name]
    x = torch.tensor(data(net))
    made = {
        p: to_torch(net, 32, input_shape=shape_of(net), parameterization=p, dtype="float64")
        for p in ("ntk", "standard", "mup")
    }
    f = {p: module(x).detach().numpy() for p, module in made.items()}
    assert relative_error(f["standard"], f["ntk"]) < 1e-12
    for module in made.values():  # µP's read-out is smaller by the root of its width
        torch.nn.init.zeros_(module.body[-1].bias)
    f = {p: module(x).detach().numpy() for p, module in made.items()}
    assert relative_error(math.sqrt(32) * f["mup"], f["ntk"]) < 1e-12


MUP_TABLE = {"weights": (-0.5, 0.0, 0.5), "sgd": (0, 0, 0), "adam": (0.5, 1, 0.5)}


def test_the_table_of_mup():
    """Yang & Hu 2021; Adam's rates by Yang et al. 2022, table 3, in units of the multipliers."""
    n = 64
    module = to_torch(nk.mlp(2, 1.0), n, input_shape=9, parameterization="mup")
    layers = [module.body[i] for i in (0, 2, 4)]
    assert [layer.multiplier for layer in layers] == pytest.approx(
        [n**-a for a in MUP_TABLE["weights"]]
    )
    assert [layer.std for layer in layers] == pytest.approx(
        [1 / 3 / n**0.5, 1 / n**0.5, 1 / n**0.5]
    )
    for optimizer in ("sgd", "adam"):
        rates = [group["lr"] for group in parameter_groups(module, 0.1, optimizer)]
        assert rates == pytest.approx([0.1 * n**-c for c in MUP_TABLE[optimizer]])
    groups = parameter_groups(module, 1, "adam")
    effective = [
        group["lr"] * layer.multiplier for group, layer in zip(groups, layers, strict=True)
    ]
    assert effective == pytest.approx([1, 1 / n, 1 / n])  # of W itself: table 3's


def test_groups_cover_what_trains():
    module = to_torch(nk.mlp(2, 1.0, 0.1), 8, input_shape=3, parameterization="mup", alpha=3.0)
    module.body[0].weight.requires_grad_(False)
    groups = parameter_groups(module, 0.5, "adamw", base_width=4, weight_decay=0.01)
    assert [group["name"] for group in groups] == [
        name for name, _ in module.named_parameters() if name != "body.0.weight"
    ]
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["body.2.weight"] == pytest.approx(0.5 / 3 / 2)
    assert rates["body.4.bias"] == pytest.approx(0.5 / 3)
    assert all(group["lr"] * group["weight_decay"] == pytest.approx(0.5 * 0.01) for group in groups)
    assert parameter_groups(module, 0.5)[0]["lr"] == pytest.approx(0.5 / 9)


def trained(parameterization, optimizer, seed=1, **options):
    """Outputs after training a network of one hidden layer."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((10, 3)), rng.standard_normal(10)
    net = nk.Serial(nk.Dense(), nk.Erf(), nk.Dense())
    module = to_torch(net, 50, input_shape=3, parameterization=parameterization, dtype="float64")
    train(module, x, y, optimizer=optimizer, **options)
    return module(torch.tensor(x)).detach().numpy()


@pytest.mark.parametrize(
    ("optimizer", "lr", "tolerance"), [("sgd", 0.2, 1e-10), ("adam", 0.02, 1e-4)]
)
def test_mean_field_and_mup_are_one_up_to_the_symmetry_of_abc(optimizer, lr, tolerance):
    """a + s, b - s, c - 2s (Adam: c - s) train alike (Yang & Hu 2021, eq. 5)."""
    mup = ABC(a=(-0.5, 0, 0.5), b=0.5, c=0, c_adam=(0.5, 1, 0.5))
    one, other = (trained(p, optimizer, lr=lr, steps=30) for p in (mup, "mean_field"))
    assert relative_error(one, other) < tolerance
    assert relative_error(trained("ntk", optimizer, lr=lr, steps=30), other) > 0.01


@pytest.mark.parametrize("parameterization", ["ntk", "mup"])
def test_every_layer_under_adam_moves_the_output_alike_at_all_widths(parameterization):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 5)), np.ones(8)
    moved = {}
    for width in (128, 2048):
        module = to_torch(
            nk.mlp(2),
            width,
            input_shape=5,
            parameterization=parameterization,
            dtype="float64",
            centred=True,
        )
        for layer in (0, 2, 4):
            one = copy.deepcopy(module)
            for name, parameter in one.named_parameters():
                parameter.requires_grad_(name == f"body.{layer}.weight")
            train(one, x, y, optimizer="adam", lr=1e-3, steps=1)
            moved[width, layer] = float(one(torch.tensor(x)).detach().abs().mean())
    for layer in (0, 2, 4):
        assert 0.6 < moved[2048, layer] / moved[128, layer] < 1.7


def test_coordinate_check():
    """µP moves hidden coordinates by as much at all widths,
    the NTK parameterization by n^-1/2 (Yang et al. 2022).
    """
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 8)), rng.standard_normal(16)
    slopes = {}
    for parameterization in ("mup", "ntk"):
        moved = []
        for width in (64, 1024):
            seeds = []
            for seed in range(3):
                options = {"parameterization": parameterization, "seed": seed, "dtype": "float64"}
                module = to_torch(nk.mlp(2), width, input_shape=8, **options)
                before = copy.deepcopy(module)
                train(module, x, y, lr=0.1, steps=5)
                seeds.append(activation_movement(module, before, x)["body.2"][0])
            moved.append(np.mean(seeds))
        slopes[parameterization] = math.log(moved[1] / moved[0]) / math.log(16)
    assert abs(slopes["mup"]) < 0.12
    assert slopes["ntk"] == pytest.approx(-0.5, abs=0.12)


def test_alpha_and_centring():
    net, x = NETS["flatten"], torch.tensor(data(NETS["flatten"]))
    options = {"input_shape": (4, 6, 2), "dtype": "float64"}
    plain = to_torch(net, 8, **options)
    scaled = to_torch(net, 8, alpha=5.0, **options)
    centred = to_torch(net, 8, alpha=5.0, centred=True, **options)
    assert relative_error(scaled(x).detach(), 5 * plain(x).detach()) < 1e-14
    assert not centred(x).any()
    with torch.no_grad():
        for module in (plain, centred):
            module.body[0].weight += 0.1
    start = to_torch(net, 8, **options)(x)
    assert relative_error(centred(x).detach(), 5 * (plain(x) - start).detach()) < 1e-12
    again = to_torch(net, 8, alpha=5.0, centred=True, seed=3, **options)
    again.load_state_dict(centred.state_dict())
    assert torch.equal(again(x), centred(x))


def test_seeds_and_dtypes():
    make = lambda **options: to_torch(nk.mlp(1), 16, input_shape=4, **options)  # noqa: E731
    x = torch.tensor(np.random.default_rng(0).standard_normal((3, 4)))
    one = make(dtype="float64")(x)
    assert torch.equal(one, make(dtype=torch.float64)(x))
    assert not torch.allclose(one, make(dtype=np.float64, seed=1)(x))
    assert make()(x.float()).dtype == torch.float32
    assert relative_error(make()(x.float()).detach(), one.detach()) < 1e-5
    state = torch.random.get_rng_state()
    make()
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (nk.Serial(DENSE, RELU), {}, r"ends with Dense\(\).*Relu"),
        (nk.Serial(CONV, RELU, DENSE), {"input_shape": (4, 4, 2)}, "ends with an image"),
        (nk.mlp(1), {"width": 0}, "width must be a positive number"),
        (nk.mlp(1), {"width": True}, "width must be a positive number"),
        (nk.mlp(1), {"alpha": math.nan}, "alpha must be a positive finite number"),
        (nk.mlp(1), {"input_shape": (3, 4)}, "ends with an image"),
        (nk.mlp(1), {"parameterization": "neural"}, "parameterization must be one of ntk"),
        (nk.mlp(1), {"dtype": "float16"}, "dtype must be float32 or float64"),
        (nk.mlp(2), {"parameterization": "mean_field"}, "one hidden layer, and this network has 2"),
        (nk.Serial(nk.Residual(DENSE), DENSE, RELU, DENSE), {}, "cannot be joined"),
        (nk.Serial(RELU, DENSE), {}, "Gaussian input"),
    ],
)
def test_bad_specs(net, options, message):
    with pytest.raises(ValueError, match=message):
        to_torch(net, **{"width": 8, "input_shape": 3, **options})


def test_a_layer_without_a_finite_counterpart_is_named(monkeypatch):
    monkeypatch.delitem(MAKERS, nk.LayerNorm)
    with pytest.raises(ValueError, match=r"LayerNorm\(\) has no finite counterpart"):
        to_torch(NETS["layer norm"], 8, input_shape=7)


def test_bad_exponents_and_inputs():
    with pytest.raises(ValueError, match="a must be one exponent or three"):
        ABC(a=(0, 1), b=0)
    with pytest.raises(ValueError, match="constants must be"):
        ABC(a=0, b=0, constants="both")
    with pytest.raises(ValueError, match=r"samples of shape \(3,\), got \(4,\)"):
        to_torch(nk.mlp(1), 8, input_shape=3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="optimizer must be one of"):
        parameter_groups(to_torch(nk.mlp(1), 8, input_shape=3), 0.1, "lbfgs")


def test_without_torch_the_extra_is_named():
    """And `import ntkcore` asks for no torch."""
    code = "import sys; sys.modules['torch'] = None; import ntkcore; import ntkcore.finite"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        'ImportError: finite networks need PyTorch: pip install "ntkcore[torch]"'
    )


def test_positions_side_by_side():
    """Means of the empirical kernel over draws, as the infinite kernel says."""
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    conv = nk.Conv((2, 2), padding="SAME", b_std=0.1)
    fan = nk.Parallel(nk.Serial(conv, RELU, conv), nk.Conv((2, 2), (2, 1), "SAME", 1.1))
    layers = nk.FanOut(2), fan, nk.FanInConcat(1), RELU, nk.Conv((3, 2)), nk.GlobalAvgPool()
    net = nk.Serial(*layers, nk.Dense(width=1))
    draws = [
        empirical_ntk(to_torch(net, 256, input_shape=(4, 5, 2), seed=seed), x.astype("f"))
        for seed in range(6)
    ]
    assert relative_error(np.mean(draws, axis=0), nk.kernel(net, x)) < 0.1
