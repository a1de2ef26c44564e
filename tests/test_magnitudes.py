"""Kernels of data of any magnitude: right where they are finite,
and never NaN or infinity without a word.
"""

import numpy as np
import pytest

import ntkcore as nk
from examples import PHIS
from ntkcore.store.build import build

X = np.random.default_rng(0).standard_normal((3, 8, 8, 2))
CONVOLUTIONAL = {
    "flatten": nk.cntk(3, "flatten"),
    "gap": nk.cntk(3),
    "pooled": nk.Serial(
        nk.Conv((3, 3)), nk.Relu(), nk.AvgPool((2, 2)), nk.Conv((3, 3)), nk.Relu(), nk.Flatten()
    ),
    "head": nk.Serial(
        nk.Conv((3, 3)), nk.Relu(), nk.GlobalAvgPool(), nk.Dense(), nk.Relu(), nk.Dense()
    ),
}
# A step, of scale 0, asks for the sign of what counts as 0 below the dtype's range.
SCALED = [phi for phi in [*PHIS, nk.LayerNorm()] if phi != nk.ArcCosine(0)]
PRECISION = {"float32": 2e-5, "float64": 1e-11}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize(("dtype", "low", "high"), [("float32", -17, 17), ("float64", -150, 150)])
def test_networks_that_scale_are_right_for_images_of_any_magnitude(name, dtype, low, high):
    net, scale = CONVOLUTIONAL[name], 10.0 ** np.array([low, 0, high])
    data = X * scale[:, None, None, None]
    near = nk.kernel(net, X, get=("nngp", "ntk"))
    for x2 in (None, data):
        got = nk.kernel(net, data, x2, ("nngp", "ntk"), dtype=dtype)
        # Equal images lose half the digits.
        apart = np.ones((3, 3), bool) if x2 is None else ~np.eye(3, dtype=bool)
        for part, expected in zip(got, near, strict=True):
            expected = expected * np.outer(scale, scale)
            np.testing.assert_allclose(part[apart], expected[apart], rtol=PRECISION[dtype])
    diagonal = nk.kernel_diag(net, data, dtype=dtype)
    np.testing.assert_allclose(diagonal, np.diag(near.ntk) * scale**2, rtol=PRECISION[dtype])


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_small_pixels_beside_ordinary_ones(name):
    blob = np.exp(-np.square(np.arange(8) - 4.0) * 8)
    images = np.stack([np.outer(np.roll(blob, i), blob) for i in range(4)])[..., None]
    expected = nk.kernel(CONVOLUTIONAL[name], images)
    got = nk.kernel(CONVOLUTIONAL[name], images, dtype="float32")
    np.testing.assert_allclose(got, expected, rtol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("phi", SCALED, ids=repr)
def test_no_layer_gives_nan_at_any_magnitude(phi, images, dtype):
    """Finite, as the variances in float64 say of every pair's bound, or refused."""
    first, last = (nk.Conv((3, 3)), [nk.GlobalAvgPool()]) if images else (nk.Dense(), [])
    net = nk.Serial(first, phi, first, phi, *last, nk.Dense())
    data = X if images else X.reshape(3, -1)
    for exponent in (
        (-45, -39, -21, -19, -10, 0, 10, 18, 20, 30)
        if dtype == "float32"
        else (-170, -155, 0, 76, 150)
    ):
        scaled = data * 10.0**exponent
        for x2 in (None, scaled):
            try:
                got = nk.kernel(net, scaled, x2, "nngp", dtype=dtype)
            except (ValueError, FloatingPointError) as error:
                if exponent < 0 or "not finite" not in str(error):
                    raise
                continue
            assert np.isfinite(got).all()
            apart = ~np.eye(3, dtype=bool)
            exact = nk.kernel(net, scaled, x2, "nngp", dtype="float64")
            bound = np.outer(np.sqrt(np.diag(got)), np.sqrt(np.diag(got)))
            assert (np.abs(got - exact) <= 1e-3 * bound + np.finfo(dtype).tiny)[apart].all()
            assert (np.abs(got) <= bound * (1 + 1e-4) + np.finfo(dtype).tiny).all()


def test_an_overflow_names_the_pair_and_what_helps():
    with pytest.raises(
        FloatingPointError, match=r"samples 0 and 0 .*not finite in float32.*float64"
    ):
        nk.kernel(nk.cntk(16, W_std=1000), X, X, dtype="float32")
    with pytest.raises(ValueError, match="not finite in float32"):
        nk.kernel(nk.cntk(16, W_std=1000), X, dtype="float32")


def test_a_build_never_calls_an_overflow_done(tmp_path):
    pytest.importorskip("zarr")
    import zarr

    x2 = X.copy()
    x2[2] *= 1e18
    x = X.copy()
    x[0] *= 1e18
    with pytest.raises(FloatingPointError, match="not finite"):
        build(nk.cntk(2, W_std=100.0), x, tmp_path / "k.zarr", x2, dtype="float32", tile=16)
    if (tmp_path / "k.zarr").exists():
        assert not zarr.open_group(tmp_path / "k.zarr")["done"][...].any()


def on_a_diagonal(phi, q):
    """E and D of Erf and GELU at z = z' by formulas that do not cancel, y = 1 - u."""
    factor = 2.0 if isinstance(phi, nk.Erf) else 1.0
    y = 1 / (1 + factor * q)
    angle = np.pi / 2 - 2 * np.arcsin(np.sqrt(y / 2))  # arcsin(1 - y)
    if isinstance(phi, nk.Erf):
        return 2 / np.pi * angle, 4 / np.pi / np.sqrt(1 + 4 * q)
    u, v = q * y, y * (2 - y)
    E = q / 4 + (q * angle + y * (u**2 + q**2 * v) / np.sqrt(v)) / (2 * np.pi)
    D = 1 / 4 + (angle + u / np.sqrt(v) * (y**2 / v + 2 * y)) / (2 * np.pi)
    return E, D


@pytest.mark.parametrize("size", [1.0, 1e4, 1e7, 1e8, 1e16, 1e60])
@pytest.mark.parametrize("phi", [nk.Erf(), nk.Gelu()], ids=repr)
@pytest.mark.parametrize("images", [False, True])
def test_saturated_units_are_right_on_the_diagonal_and_never_nan_beside_it(phi, size, images):
    x = np.full((2, 1, 1, 1) if images else (2, 1), size)
    net = nk.Serial(nk.Dense(), phi, *([nk.Flatten()] if images else []), nk.Dense())
    E, D = on_a_diagonal(phi, size**2)
    got = nk.kernel(net, x, None, ("nngp", "ntk"))
    for part, expected in ((got.nngp, E), (got.ntk, E + D * size**2)):
        np.testing.assert_allclose(np.diag(part), expected, rtol=1e-13)
        assert 0 < part[0, 1] <= expected * (1 + 1e-7)
