"""Kernels of data of any magnitude: right where they are finite,
and never NaN or infinity without a word.
"""

import numpy as np
import pytest

import ntkcore as nk
from examples import PHIS, jumps
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
# A table ends where its activation gets too steep, long before that of floating point.
SCALED = [*(p for p in PHIS if not (jumps(p) or p.tabulated)), nk.LayerNorm()]
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


def smooth_duals(q):
    """E and D of a point with itself, of variance q, by forms that lose nothing at large q."""
    root = np.sqrt(1 + 2 * q)
    angle = np.arctan2(q, root)  # asin(q / (1 + q))
    gelu = (
        q / 4 + (q * angle + 2 * q**2 / ((1 + q) * root)) / (2 * np.pi),
        1 / 4 + (angle + q / root * (1 / root**2 + 2 / (1 + q))) / (2 * np.pi),
    )
    far = np.sqrt(1 + 4 * q)
    erf = 2 / np.pi * np.arctan2(2 * q, far), 4 / np.pi / far
    return {nk.Gelu(): gelu, nk.Erf(): erf, nk.Gaussian(1.0, -0.5): (1 / root, q / root**3)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4, 1e6, 1e8, 1e12, 1e17])
def test_smooth_activations_of_one_point_at_huge_variances(size, images, dtype):
    """1 - u^2 would cancel there: it is f^2 (2 - f^2)."""
    x = np.full((1, 1, 1, 1) if images else (1, 1), size)
    for phi, (E, D) in smooth_duals(size**2).items():
        net = nk.Serial(nk.Dense(), phi, *([nk.Flatten()] if images else []), nk.Dense())
        nngp, ntk = nk.kernel(net, x, get=("nngp", "ntk"), dtype=dtype)
        tolerance = {"rtol": 2e-6 if dtype == "float32" else 1e-13}
        np.testing.assert_allclose(nngp[0, 0], E, **tolerance)
        np.testing.assert_allclose(ntk[0, 0], E + size**2 * D, **tolerance)
        diagonal = nk.kernel_diag(net, x, get=("nngp", "ntk"), dtype=dtype)
        np.testing.assert_allclose(diagonal.nngp[0], E, **tolerance)
        np.testing.assert_allclose(diagonal.ntk[0], E + size**2 * D, **tolerance)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("phi", [*smooth_duals(1.0), nk.Sin(), nk.Rbf(0.5)], ids=repr)
def test_equal_points_of_huge_variances_stay_within_the_diagonal(phi, images):
    """Whatever rounding leaves of K - q: |E|^2 <= E(q, q) E(q', q'), to the root of eps."""
    x = np.random.default_rng(0).standard_normal((20, 3)).repeat(2, axis=0)
    net = nk.Serial(nk.Dense(1.3), phi, *([nk.Flatten()] if images else []), nk.Dense())
    for size in (1e6, 1e7, 1e8, 1e9):
        data = size * (x[:, None, None, :] if images else x)
        both = nk.kernel(net, data, data.copy(), ("nngp", "ntk"))
        one = nk.kernel(net, data, None, ("nngp", "ntk"))
        for got in (both, one):
            bound = np.sqrt(np.outer(np.diag(one.nngp), np.diag(one.nngp)))
            assert (np.abs(got.nngp) <= bound * (1 + 2e-8)).all()
            assert np.isfinite(got.ntk).all()
            assert (got.ntk == got.ntk.T).all()
