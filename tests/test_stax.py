"""neural-tangents' spelling: its own networks give its own numbers,
its calls their shapes and names.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

import ntkcore as nk
from conftest import relative_error
from ntkcore import stax

DATA = Path(__file__).parent / "data"
NETS = json.loads((DATA / "nt_reference.json").read_text())
LAYERS = json.loads((DATA / "nt_layers.json").read_text())
X = np.random.default_rng(0).standard_normal((5, 4))
Z = np.random.default_rng(1).standard_normal((3, 4))
IMAGES = np.random.default_rng(2).standard_normal((2, 6, 6, 3))


def mlp():
    return stax.serial(stax.Dense(512, W_std=1.5, b_std=0.1), stax.Relu(), stax.Dense(1))


def test_reference_is_complete():
    assert len(NETS) == 24


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NETS)
def test_parity_with_neural_tangents(nt_reference, name, dtype):
    (_, _, kernel_fn), reference = eval(NETS[name], {"stax": stax}), nt_reference[1]
    x1, x2 = reference[f"{name}/x1"], reference.get(f"{name}/x2")
    near = np.zeros((len(x1), len(x1 if x2 is None else x2)), dtype=bool)
    # Neural-tangents' own error at rho = 1, and between its near-duplicates x1[0] and x1[1].
    if x2 is None:
        np.fill_diagonal(near, True)
        near[0, 1] = near[1, 0] = True
    ours = kernel_fn(x1, x2, ("nngp", "ntk"), dtype=dtype)
    for field in ours._fields:
        expected = reference[f"{name}/{field}"]
        got = getattr(ours, field)
        assert got.shape == expected.shape
        assert got.dtype == dtype
        error = np.abs(got - expected) / np.abs(expected).max()
        assert error[~near].max() <= (1e-12 if dtype == "float64" else 1e-6)
        assert not near.any() or error[near].max() <= (2e-8 if dtype == "float64" else 2e-5)


@pytest.mark.parametrize("layers", LAYERS)
def test_parity_of_layers(layers):
    """Numbers that benchmarks/nt_layers.py wrote; NaN is neural-tangents' own, at equal points."""
    _, _, kernel_fn = eval(f"stax.serial({layers})", {"stax": stax})
    rng = np.random.default_rng(0)
    shape = (4, 3, 2) if "Conv" in layers else (3,)
    x1, x2 = rng.standard_normal((3, *shape)), rng.standard_normal((2, *shape))
    for name, other in (("x1 x1", None), ("x1 x2", x2)):
        for ours, theirs in zip(
            kernel_fn(x1, other, ("nngp", "ntk")), LAYERS[layers][name], strict=True
        ):
            expected = np.array(theirs)
            known = ~np.isnan(expected)
            assert known[~np.eye(*expected.shape, dtype=bool)].all()
            assert np.abs(ours - expected)[known].max() <= 1e-12 * np.abs(expected[known]).max()
    copied = kernel_fn(x1, x1.copy(), "ntk")  # a copy is the same data set
    assert (copied == kernel_fn(x1, None, "ntk")).all()


def test_a_name_gives_an_array():
    _, _, kernel_fn = mlp()
    ntk = kernel_fn(X, Z, "ntk")
    assert type(ntk) is np.ndarray
    assert (ntk == nk.kernel(kernel_fn.net, X, Z, "ntk")).all()
    assert (kernel_fn(X, Z, "NTK") == ntk).all()
    assert (kernel_fn(X, get="cov1") == nk.kernel_diag(kernel_fn.net, X, "nngp")).all()


@pytest.mark.parametrize("get", [("ntk", "nngp"), ["ntk", "cov2"], ("shape1", "NTK"), ("ntk",)])
def test_names_give_a_namedtuple_in_their_order(get):
    result = mlp()[2](X, Z, get)
    assert type(result).__name__ == "AnalyticKernel"
    assert result._fields == tuple(name.lower() for name in get)
    assert (result.ntk == mlp()[2](X, Z, "ntk")).all()
    assert type(result) is type(mlp()[2](X, X, get))


def test_no_name_gives_a_kernel():
    _, _, kernel_fn = mlp()
    both = kernel_fn(X, Z)
    assert (both.ntk == kernel_fn(X, Z, "ntk")).all()
    assert (both.nngp == kernel_fn(X, Z, "nngp")).all()
    assert relative_error(both.cov1, np.diag(kernel_fn(X, None, "nngp"))) == 0
    assert relative_error(both.cov2, np.diag(kernel_fn(Z, None, "nngp"))) == 0
    assert (both.x1_is_x2, both.is_gaussian, both.shape1, both.shape2) == (
        False,
        True,
        (5, 1),
        (3, 1),
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        both.ntk = None


def test_one_data_set():
    _, _, kernel_fn = mlp()
    alone, twice = kernel_fn(X), kernel_fn(X, X)
    assert alone.cov2 is None
    assert (twice.cov2 == twice.cov1).all()
    assert (twice.ntk == alone.ntk).all()
    assert alone.x1_is_x2
    assert twice.x1_is_x2
    assert kernel_fn(X, X.copy(), "x1_is_x2") is True
    assert alone.shape2 == (5, 1)


# As neural-tangents says of the same networks.
@pytest.mark.parametrize(
    ("layers", "x", "gaussian", "shape"),
    [
        ((stax.Dense(7), stax.Relu()), X, False, (5, 7)),
        ((stax.Dense(7), stax.Relu(), stax.Dense(2)), X, True, (5, 2)),
        ((stax.Conv(5, (3, 3)), stax.Relu(), stax.Flatten()), IMAGES, False, (2, 80)),
        ((stax.Conv(5, (3, 3)), stax.Flatten()), IMAGES, False, (2, 80)),
        ((stax.Conv(5, (3, 3)), stax.Flatten(), stax.Relu(), stax.Dense(3)), IMAGES, True, (2, 3)),
        ((stax.Conv(5, (3, 3)), stax.GlobalAvgPool()), IMAGES, True, (2, 5)),
        ((stax.Conv(5, (3, 3)), stax.Relu(), stax.GlobalAvgPool()), IMAGES, False, (2, 5)),
    ],
)
def test_what_the_outputs_are(layers, x, gaussian, shape):
    assert stax.serial(*layers)[2](x, None, ("is_gaussian", "shape1", "shape2")) == (
        gaussian,
        shape,
        shape,
    )


def test_options_reach_the_engine():
    _, _, kernel_fn = mlp()
    single = kernel_fn(X, Z, threads=1, dtype="float32", backend=nk.backends()[0], progress=False)
    assert {single.ntk.dtype, single.cov1.dtype, single.cov2.dtype} == {np.dtype("float32")}
    assert kernel_fn(X.astype("float32"), Z).cov1.dtype == "float64"
    hints = kernel_fn(
        X, Z, "ntk", diagonal_batch=True, diagonal_spatial=False, pattern=None, mask_constant=None
    )
    assert (hints == kernel_fn(X, Z, "ntk")).all()
    for get in ("ntk", "cov1"):
        with pytest.raises(ValueError, match="nonesuch"):
            kernel_fn(X, Z, get, backend="nonesuch")
        with pytest.raises(ValueError, match="threads"):
            kernel_fn(X, Z, get, threads=0)


def test_net_is_the_spec():
    assert mlp().kernel_fn.net == nk.Serial(
        nk.Dense(1.5, 0.1, width=512), nk.Relu(), nk.Dense(width=1)
    )
    assert stax.Dense(np.int64(3), parameterization="NTK")[2].net == nk.Dense(width=3)
    conv = stax.Conv(8, [3, 3], padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert conv[2].net == nk.Conv((3, 3), padding="SAME", channels=8)
    assert stax.AvgPool((2, 2), normalize_edges=True)[2].net == nk.AvgPool(
        (2, 2), normalize_edges=True
    )
    assert stax.LayerNorm(axis=(-1,), eps=0.1)[2].net == nk.LayerNorm(0.1)
    assert stax.LayerNorm(axis=[1, 2, 3])[2].net == nk.LayerNorm(axis=(1, 2, 3))
    assert stax.Sigmoid_like()[2].net == nk.Erf(0.5, 1 / 2.4020563531719796, 0.5)
    assert stax.Relu(do_stabilize=True)[2].net == stax.Relu()[2].net == nk.Relu()


def test_arguments_as_scripts_write_them():
    """Numbers of other libraries, jax.image's names, axes counted from either end."""
    assert stax.Dense(3, W_std=np.array(1.5))[2].net == nk.Dense(1.5, width=3)
    assert stax.Polynomial(np.array([0.1, 2.0]))[2].net == nk.Polynomial((0.1, 2.0))
    assert stax.Dense(3, W_std=Scalar(1.5))[2].net == nk.Dense(1.5, width=3)
    assert stax.Conv(3, np.array([3]))[2].net == nk.Conv((3,), channels=3)
    assert stax.ExpNormalized(shift=True)[2].net == nk.ExpNormalized(1, 1.0)
    for name, spec in (("bilinear", "linear"), ("TRIANGLE", "linear"), ("bicubic", "cubic")):
        assert stax.ImageResize((-1, 3, 4, -1), name)[2].net == nk.ImageResize((3, 4), spec)
    assert stax.LayerNorm((1, 2), channel_axis=1)[2].net == nk.LayerNorm(axis=(-1, 1))
    assert stax.LayerNorm((0, -2), batch_axis=-1, channel_axis=0)[2].net == nk.LayerNorm(
        axis=(-1, -2)
    )


class Scalar:
    """An array of no axes, as JAX has them."""

    shape = ()

    def __init__(self, value):
        self.item = lambda: value


def test_layer_norm_with_channels_first():
    x = np.moveaxis(IMAGES, -1, 1)
    letters = ("NCHW", "OIHW", "NCHW")
    for axis, last in (((1, 2), (3, 1)), ((1, 3), (3, 2)), ((1, 2, 3), (1, 2, 3)), (1, 3)):
        first = stax.serial(
            stax.Conv(4, (3, 3), dimension_numbers=letters),
            stax.LayerNorm(axis, 0.1, channel_axis=1),
            stax.Flatten(),
        )
        usual = stax.serial(stax.Conv(4, (3, 3)), stax.LayerNorm(last, 0.1), stax.Flatten())
        assert (first[2](x, None, "ntk") == usual[2](IMAGES, None, "ntk")).all()


@pytest.mark.parametrize("end", [(), (stax.GlobalAvgPool(),), (stax.Flatten(),)])
def test_index_from_the_last_axis(end):
    below = stax.Conv(4, (3, 3), padding="SAME"), stax.Relu()
    of = [
        stax.serial(*below, stax.Index(idx), *end)[2](IMAGES, None, "ntk")
        for idx in (stax.Slice[:, :, 1], stax.Slice[..., 1, :], stax.Slice[:, ..., np.int64(1), :])
    ]
    assert (of[0] == of[1]).all()
    assert (of[0] == of[2]).all()


def test_dot_general_mixes_positions():
    """Of K with its pixels: A K A' on one axis, and b K b' over both."""
    below = stax.serial(stax.Conv(4, (3, 3), padding="SAME", b_std=0.1), stax.Relu())
    before = below[2](IMAGES)
    height, width = IMAGES.shape[1:3]
    A, b = np.random.default_rng(0).standard_normal((2, 7, height)), np.ones((height, width))
    A, b = A[0], b + np.arange(width)
    for numbers, constant, sums in (
        ((((1,), (1,)), ((), ())), A, "ph,qi,nmhiwx->nmwxpq"),
        ((((1, 2), (0, 1)), ((), ())), b, "hw,ix,nmhiwx->nm"),
    ):
        dotted = stax.DotGeneral(rhs=constant, dimension_numbers=numbers)
        after = stax.serial(below, dotted)[2](IMAGES)
        for name in ("nngp", "ntk"):
            expected = np.einsum(sums, constant, constant, getattr(before, name))
            assert relative_error(getattr(after, name), expected) < 1e-13
    with pytest.raises(NotImplementedError, match=r"DotGeneral.*without samples \(axis 0\)"):
        stax.DotGeneral(rhs=np.ones(3), dimension_numbers=(((0,), (0,)), ((), ())))


def _erf_kernel(c, q1, q2):
    return 2 / np.pi * np.arcsin(2 * c / np.sqrt((1 + 2 * q1) * (1 + 2 * q2)))


def _erf_slope_kernel(c, q1, q2):
    return 4 / np.pi / np.sqrt((1 + 2 * q1) * (1 + 2 * q2) - 4 * c**2)


def test_kernels_of_an_activation_are_compared_with_its_own():
    given = stax.Elementwise(erf, _erf_kernel, _erf_slope_kernel)
    ours, exact = (
        stax.serial(stax.Dense(3), phi, stax.Dense(1))[2](X, Z, "ntk")
        for phi in (given, stax.Erf())
    )
    assert relative_error(ours, exact) < 1e-11
    with pytest.raises(ValueError, match=r"Elementwise: nngp_fn\(0.5, 1.0, 1.0\) is .* fn is"):
        stax.Elementwise("tanh", _erf_kernel)
    with pytest.raises(ValueError, match=r"Elementwise: d_nngp_fn\(.*leave d_nngp_fn out"):
        stax.Elementwise(erf, d_nngp_fn=_erf_kernel)
    with pytest.raises(NotImplementedError, match="give fn"):
        stax.Elementwise(nngp_fn=_erf_kernel)


@pytest.mark.parametrize("axis", [1, 2, -2])
def test_positions_side_by_side(axis):
    """K and T of each branch at its places, 0 between them; outputs as np.concatenate's."""
    below = stax.Conv(5, (3, 3), padding="SAME", b_std=0.1), stax.Relu()
    branch = (
        stax.Conv(6, (2, 2), padding="SAME", W_std=1.2),
        stax.Conv(6, (2, 2), (2, 1) if axis == 1 else (1, 2), "SAME", 1.1, 0.2),
    )
    net = stax.serial(*below, stax.FanOut(2), stax.parallel(*branch), stax.FanInConcat(axis))
    ours = net[2](IMAGES)
    parts = [stax.serial(*below, one)[2](IMAGES) for one in branch]
    size = parts[0].shape1[axis]
    assert ours.shape1[axis] == sum(part.shape1[axis] for part in parts)
    first = 2 * (axis % 4)  # of the pair of axes
    for name in ("nngp", "ntk"):
        K = np.moveaxis(getattr(ours, name), (first, first + 1), (0, 1))
        K1, K2 = (np.moveaxis(getattr(p, name), (first, first + 1), (0, 1)) for p in parts)
        assert relative_error(K[:size, :size], K1) < 1e-13
        assert relative_error(K[size:, size:], K2) < 1e-13
        assert not K[:size, size:].any()
        assert not K[size:, :size].any()
    shape, params = net[0](0, IMAGES.shape)
    outputs = net[1](params, IMAGES)
    assert outputs.shape == shape == ours.shape1
    alone = stax.serial(*below, branch[1])[1]([*params[:2], params[3][1]], IMAGES)
    assert relative_error(np.split(outputs, [size], axis)[1], alone) < 1e-6
    correlated = stax.parallel(stax.Identity(), stax.Identity())
    twice = stax.serial(*below, stax.FanOut(2), correlated, stax.FanInConcat(axis))
    with pytest.raises(ValueError, match="correlated"):
        twice[2](IMAGES)


def test_channels_side_by_side():
    """apply_fn too, and nothing of data with channels first, whose axes mean others."""
    fans = stax.parallel(stax.Conv(3, (1, 1)), stax.Conv(5, (1, 1))), stax.FanInConcat(-1)
    init_fn, apply_fn, kernel_fn = stax.serial(stax.FanOut(2), *fans)
    shape, params = init_fn(0, IMAGES.shape)
    outputs = apply_fn(params, IMAGES)
    assert outputs.shape == shape == kernel_fn(IMAGES).shape1 == (*IMAGES.shape[:-1], 8)
    alone = fans[0][1](params[1], [IMAGES, IMAGES])
    assert (outputs == np.concatenate(alone, -1)).all()
    first = stax.Conv(3, (1, 1), dimension_numbers=("NCHW", "OIHW", "NCHW"))
    net = stax.serial(stax.FanOut(2), stax.parallel(first, first), stax.FanInConcat(-1))
    with pytest.raises(NotImplementedError, match=r"FanInConcat: .*put samples first and channels"):
        net[2](IMAGES)


def test_repeat():
    block = stax.serial(stax.Dense(8, 1.3), stax.Relu())
    repeated = stax.serial(stax.repeat(block, 3), stax.Dense(1))[2](X, Z, "ntk")
    assert (repeated == stax.serial(block, block, block, stax.Dense(1))[2](X, Z, "ntk")).all()
    assert (
        stax.serial(stax.repeat(block, 0), stax.Dense(1))[2](X, Z, "ntk")
        == stax.Dense(1)[2](X, Z, "ntk")
    ).all()


def test_parallel():
    branch = stax.serial(stax.Relu(), stax.Dense(8, 1.3))
    fan = (stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum())
    ours = stax.serial(stax.Dense(8), *fan)[2](X, Z, "ntk")
    alone = stax.Dense(8)[2](X, Z, "ntk") + stax.serial(stax.Dense(8), branch)[2](X, Z, "ntk")
    assert relative_error(ours, alone) < 1e-15


@pytest.mark.parametrize("x", [X, IMAGES])
def test_samples_alone_are_indexed(x):
    net = stax.serial(stax.Index(stax.Slice[1:]), stax.Flatten(), stax.Dense(1))
    expected = stax.serial(stax.Flatten(), stax.Dense(1)).kernel_fn(x[1:], x[1:], "ntk")
    assert (net.kernel_fn(x, x, "ntk") == expected).all()


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 7}, {"device_count": 0, "store_on_device": False}]
)
def test_batch_changes_nothing(options):
    _, _, kernel_fn = mlp()
    assert (stax.batch(kernel_fn, **options)(X, Z, "ntk") == kernel_fn(X, Z, "ntk")).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: stax.Conv(3, (3, 3), dimension_numbers=("NHWC", "HWIO", "NWHC")),
            NotImplementedError,
            "Conv: dimension_numbers=.*transpose",
        ),
        (lambda: stax.Relu(do_stabilize=None), NotImplementedError, "Relu: do_stabilize=None"),
        (lambda: stax.batch(mlp()[2], device_count=2), NotImplementedError, "device_count=2.*cuda"),
        (lambda: stax.batch(mlp()[2], store_on_device=3), NotImplementedError, "store_on_device=3"),
        (lambda: mlp()[2](X, Z, "ntk", pattern=X), NotImplementedError, "pattern"),
        (lambda: stax.Index(stax.Slice[0, 1]), NotImplementedError, "picks one sample"),
        (lambda: stax.Index(stax.Slice[..., 1]), NotImplementedError, "or some channels"),
        (
            lambda: stax.Index(stax.Slice[..., 1, :, :, :])[2](IMAGES),
            NotImplementedError,
            "Index: .* must hold a slice for samples",
        ),
        (
            lambda: stax.Index(stax.Slice[:, 1, 2, 0])[2](IMAGES),
            NotImplementedError,
            "Index: .* and : for channels",
        ),
    ],
)
def test_what_is_not_here_says_what_to_do(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mlp()[2](X, Z, "foo"), KeyError, "foo.*nngp, ntk, cov1"),
        (lambda: mlp()[2](X, Z, ("ntk", "mask3")), KeyError, "mask3"),
        (lambda: mlp()[2](X, Z, ()), ValueError, "non-empty"),
        (lambda: mlp()[2](X, Z, ""), ValueError, "non-empty"),
        (lambda: mlp()[2](X, Z, ("ntk", "NTK")), ValueError, "unique"),
        (lambda: mlp()[2](X, Z, "ntk", rng=0), TypeError, "rng"),
        (lambda: mlp()[2](X, Z[:, :2], "cov1"), ValueError, "features"),
        (lambda: stax.serial(), ValueError, "at least one"),
        (lambda: stax.serial(stax.Relu), TypeError, r"stax.serial takes.*stax.Relu\(\)"),
        (lambda: stax.parallel(nk.Relu()), TypeError, "stax.parallel takes"),
        (lambda: stax.repeat(mlp(), -1), ValueError, "-1"),
        (lambda: stax.repeat(mlp(), 10**9), ValueError, "from 0 to 100000"),
        (lambda: stax.FanOut(10**9), ValueError, "from 1 to 1000"),
        (lambda: stax.batch(mlp()[2], batch_size=-1), ValueError, "batch_size"),
        (lambda: stax.batch(mlp()), TypeError, "kernel_fn"),
        (lambda: stax.Dense(3, parameterization="foo"), ValueError, "foo"),
        (lambda: stax.Dense(3, s=(0, 1)), ValueError, "Dense: s must be two positive"),
        (lambda: stax.Conv(3, (3, 3), s=(1,)), ValueError, "Conv: s must be two positive"),
        (
            lambda: stax.serial(
                stax.Dense(3, parameterization="standard", s=(1, 2)),
                stax.Dense(1, parameterization="standard"),
            )[2](X),
            ValueError,
            r"Dense: s=\(1, 1\), but the layer before has s\[1\] = 2",
        ),
        (
            lambda: stax.Dense(3, parameterization="standard", s=(2, 1))[2](X, None, "ntk"),
            ValueError,
            r"data: 1",
        ),
        (lambda: stax.Dense(2.5), TypeError, "stax.Dense: out_dim must be a whole number"),
        (lambda: stax.Dense(3, channel_axis="a"), TypeError, "stax.Dense: channel_axis must be"),
        (lambda: stax.Dense(3, parameterization=3), ValueError, "Dense: parameterization must"),
        (lambda: stax.Dense(3, s=3), ValueError, "stax.Dense: s must be two positive"),
        (lambda: stax.Conv("a", (3, 3)), TypeError, "stax.Conv: out_chan must be a whole"),
        (lambda: stax.Conv(3, None), ValueError, "Conv: filter_shape must hold whole numbers"),
        (
            lambda: stax.Conv(3, (3, 3), dimension_numbers=("NHWC", "HWIO")),
            ValueError,
            "stax.Conv: dimension_numbers=.* must be the letters",
        ),
        (lambda: stax.Index(stax.Slice[:, np.arange(2)]), ValueError, "Index: items must be"),
        (lambda: stax.ImageResize(None, "linear"), TypeError, "stax.ImageResize: shape must"),
        (lambda: stax.DotGeneral(lhs=1.0, rhs=2.0), ValueError, "stax.DotGeneral: give one of"),
        (
            lambda: stax.DotGeneral(rhs=np.ones(3), dimension_numbers=(1, 2)),
            ValueError,
            "stax.DotGeneral: dimension_numbers=",
        ),
        (lambda: stax.repeat(stax.Relu(), 1.5), TypeError, "stax.repeat: n must be a whole"),
        (lambda: stax.Monomial("a"), TypeError, "stax.Monomial: degree must be a whole number"),
        (lambda: stax.Polynomial(None), TypeError, "Polynomial: coef must be a sequence"),
        (lambda: stax.ElementwiseNumerical(np.tanh, "a"), TypeError, "Numerical: deg must be"),
        (lambda: stax.Elementwise("tanh", lambda *q: np.nan), ValueError, "nngp_fn.* is nan, but"),
        (lambda: stax.Elementwise("tanh", lambda c: c), ValueError, "nngp_fn.* raised TypeError"),
        (lambda: mlp()[2](X, None, 3), TypeError, '"get" must be a name'),
        (lambda: mlp()[2](X, None, "ntk", mask_constant="a"), TypeError, "mask_constant must be"),
        (lambda: mlp()[2](X, None, "ntk", mask_constant=[1.0]), TypeError, "mask_constant must"),
        (
            lambda: mlp()[2](stax.Identity()[2](X).replace(mask1=np.ones((1, 1), bool))),
            ValueError,
            "mask1 must be of bool and of shape .* not bool of shape",
        ),
        (
            lambda: mlp()[2](stax.Identity()[2](X).replace(mask1=np.ones((len(X), 1)))),
            ValueError,
            "mask1 must be of bool.*float64",
        ),
        (lambda: stax.Flatten(batch_axis_out=2), ValueError, "batch_axis_out must be 0 or 1"),
        (
            lambda: stax.Conv(3, (3, 3), dimension_numbers=("NHWC", "HWIO", "NHC")),
            ValueError,
            "dimension_numbers=.*must name",
        ),
        (
            lambda: stax.Conv(3, (3, 3), dimension_numbers=("NHC", "HIO", "NHC")),
            ValueError,
            "2 of them spatial",
        ),
        (
            lambda: stax.serial(
                stax.Conv(3, (3, 3), dimension_numbers=("NCHW", "OIHW", "NCHW")),
                stax.GlobalAvgPool(),
            )[2](IMAGES),
            ValueError,
            "GlobalAvgPool: channel_axis=-1, but the layer before leaves channels on axis 1 of 4",
        ),
        (
            lambda: stax.serial(
                stax.FanOut(2),
                stax.parallel(stax.Dense(3, channel_axis=0, batch_axis=1), stax.Dense(3)),
                stax.FanInSum(),
            )[2](X, None, "ntk"),
            ValueError,
            "Dense: batch_axis=0",
        ),
        (lambda: stax.Dense(3, channel_axis=0)[2](X), ValueError, "must be two axes"),
        (lambda: stax.Dense(3, channel_axis=2)[2](X), ValueError, "that has 2"),
        (lambda: stax.serial(stax.Relu())[2](X, Z, "ntk"), ValueError, "affine"),
        (
            lambda: stax.serial(
                stax.FanOut(2), stax.parallel(stax.Identity(), stax.Identity()), stax.FanInSum()
            )[2](X),
            ValueError,
            "correlated",
        ),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
