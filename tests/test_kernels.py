"""The main call on vectors: what comes back, in which precision,
and that nothing else changes it.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

import ntkcore as nk
from conftest import relative_error
from examples import OTHER_NETS, RELU_NETS, VECTOR_NETS
from ntkcore import _core
from ntkcore.engine import tiles
from ntkcore.engine.inputs import thread_count
from reference import reference


def data(n, d=5, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("net", VECTOR_NETS.values(), ids=VECTOR_NETS)
def test_against_the_reference(net, backend, once):
    x, z = data(7), data(4, seed=1)
    # There T is not 0 where K is, and ReLU's slope at 0 is a convention.
    if net is not RELU_NETS["standard"]:
        x[2] = 0
    for other in (None, z):
        expected = once(reference, net, x, other)
        double = nk.kernel(net, x, other, ("nngp", "ntk"), backend=backend)
        single = nk.kernel(net, x, other, ("nngp", "ntk"), backend=backend, dtype="float32")
        for k in (0, 1):
            assert relative_error(double[k], expected[k]) < 1e-12
            assert relative_error(single[k], expected[k]) < 1e-6


def error_of(actual, expected, off_diagonal=False):
    """Largest difference relative to sqrt(K_ii K_jj), for a symmetric matrix."""
    assert np.isfinite(actual).all()
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    error = np.abs(actual.astype(float) - expected) / scale
    return error[~np.eye(len(error), dtype=bool)].max() if off_diagonal else error.max()


@pytest.mark.parametrize("net", VECTOR_NETS.values(), ids=VECTOR_NETS)
def test_every_entry_of_larger_matrices(net):
    """More than one block and strip in both directions, ragged at the ends."""
    x, z = data(259, 6), data(1091, 6, seed=1)
    for other in (None, z):
        expected = reference(net, x, other)
        for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-6)):
            ours = nk.kernel(net, x, other, ("nngp", "ntk"), dtype=dtype, threads=2)
            assert relative_error(ours.nngp, expected[0]) < tolerance
            assert relative_error(ours.ntk, expected[1]) < tolerance


activation = st.sampled_from(
    [nk.Relu(), nk.LeakyRelu(0.3), nk.Erf(), nk.Sin(), nk.ABRelu(-0.4, 1.1), nk.ArcCosine(1)]
)
dense = st.builds(nk.Dense, st.floats(0.3, 1.5), st.none() | st.floats(0, 0.5))


hidden_layers = st.lists(st.tuples(dense, activation), max_size=3)


@given(hidden_layers, dense, st.integers(1, 4), st.integers(1, 3), st.integers(2, 6))
def test_drawn_networks(hidden, last, n1, n2, d):
    net = nk.Serial(*(layer for pair in hidden for layer in pair), last)
    x, z = data(n1, d), data(n2, d, seed=1)
    ours, expected = nk.kernel(net, x, z, ("nngp", "ntk")), reference(net, x, z)
    assert relative_error(ours.nngp, expected[0]) < 1e-12
    assert relative_error(ours.ntk, expected[1]) < 1e-12


def test_get_decides_what_comes_back():
    net, x = nk.mlp(2), data(6)
    ntk = nk.kernel(net, x)
    assert type(ntk) is np.ndarray
    both = nk.kernel(net, x, get=("ntk", "nngp"))
    assert both._fields == ("ntk", "nngp")
    assert (both.ntk == ntk).all()
    assert (both.nngp == nk.kernel(net, x, get="nngp")).all()
    (alone,) = nk.kernel(net, x, get=("ntk",))
    assert (alone == ntk).all()


@pytest.mark.parametrize(
    "net", [nk.mlp(4, 1.3, 0.2), nk.mlp(3, 1.2, 0.1, nk.Erf()), OTHER_NETS["residual"]]
)
def test_depths_are_the_networks_cut(net):
    x, z = data(5), data(3, seed=1)
    layers = list(net.layers)
    ends = [i for i, layer in enumerate(layers) if layer.nonlinear]
    for other in (None, z):
        all_depths = list(range(len(ends) + 1))
        many = nk.kernel(net, x, other, ("nngp", "ntk"), depths=all_depths)
        for depth in all_depths:
            cut = layers[: ends[depth - 1] + 1] if depth else []
            alone = nk.kernel(nk.Serial(*cut, layers[-1]), x, other, ("nngp", "ntk"))
            assert relative_error(many.nngp[depth], alone.nngp) < 1e-14
            assert relative_error(many.ntk[depth], alone.ntk) < 1e-14
    reversed_ = nk.kernel(net, x, depths=[2, 1])
    assert (reversed_[::-1] == nk.kernel(net, x, depths=[1, 2])).all()
    assert (
        relative_error(
            nk.kernel_diag(net, x, depths=[2]), np.diag(nk.kernel(net, x, depths=[2])[0])[None]
        )
        == 0
    )


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 255, 256, 257, 511, 512, 513, 1030])
@pytest.mark.parametrize(
    "net", [nk.mlp(2, 1.3, 0.1), OTHER_NETS["residual"]], ids=["chain", "strip"]
)
def test_sizes_symmetry_and_diagonal(net, n):
    x = data(n, dtype=np.float32)
    k = nk.kernel(net, x, get=("nngp", "ntk"))
    cross = nk.kernel(net, x, x.copy(), ("nngp", "ntk"))
    for name in ("nngp", "ntk"):
        matrix = getattr(k, name)
        assert (matrix == matrix.T).all()
        assert (np.diag(matrix) == nk.kernel_diag(net, x, name)).all()
        off = ~np.eye(n, dtype=bool)
        assert np.abs(matrix - getattr(cross, name))[off].max(initial=0) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_neither_threads_nor_tiles_change_a_bit(dtype):
    x, z = data(700, 20), data(900, 20, seed=1)
    for net in (nk.mlp(2, 1.2, 0.1), OTHER_NETS["residual"]):
        for other in (None, z):
            first = nk.kernel(net, x, other, dtype=dtype, threads=1)
            for threads, tile in ((2, 256), (3, 512), (1, 1024)):
                assert (
                    nk.kernel(net, x, other, dtype=dtype, threads=threads, tile=tile) == first
                ).all()


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [
        ("float64", "float64"),
        ("float32", "float32"),
        ("float16", "float32"),
        ("int32", "float64"),
        ("bool", "float64"),
    ],
)
def test_dtypes(given_dtype, expected):
    x = (data(4) > 0).astype(given_dtype)
    assert nk.kernel(nk.mlp(1, b_std=0.1), x).dtype == expected
    assert nk.kernel(nk.mlp(1, b_std=0.1), x, dtype="float32").dtype == np.float32
    assert nk.kernel(nk.mlp(1, b_std=0.1), x, data(3)).dtype == np.float64
    assert nk.kernel(nk.mlp(1, b_std=0.1), data(3), x).dtype == np.float64
    assert nk.kernel_diag(nk.mlp(1, b_std=0.1), x).dtype == expected


def test_a_wider_dtype_is_that_of_the_data_converted():
    x = data(4, dtype=np.float32)
    assert (
        nk.kernel(nk.mlp(2), x, dtype="float64") == nk.kernel(nk.mlp(2), x.astype(np.float64))
    ).all()
    assert (
        nk.kernel(nk.mlp(2), x.astype(np.longdouble)) == nk.kernel(nk.mlp(2), x.astype(np.float64))
    ).all()


def test_the_data_stay_as_they_are():
    x, z = data(5), data(3, seed=1)
    before = x.copy(), z.copy()
    k = nk.kernel(nk.mlp(2), x, z)
    k[:] = 0
    assert (x == before[0]).all()
    assert (z == before[1]).all()


def test_any_memory_order():
    net, x = nk.mlp(2), data(9, 6)
    expected = nk.kernel(net, x)
    frozen = x.copy()
    frozen.flags.writeable = False
    wide = np.zeros((18, 12))
    wide[::2, ::2] = x
    for same in (np.asfortranarray(x), frozen, wide[::2, ::2], x.tolist(), x.astype(">f8")):
        assert (nk.kernel(net, same) == expected).all()


def test_out_is_filled():
    net, x = nk.mlp(2), data(5)
    out = np.full((5, 5), np.nan)
    assert nk.kernel(net, x, out=out) is out
    assert (out == nk.kernel(net, x)).all()
    single = np.full((5, 3), np.nan, np.float32)
    assert nk.kernel(net, x, data(3, seed=1), dtype="float32", out=single) is single
    assert (single == nk.kernel(net, x, data(3, seed=1), dtype="float32")).all()
    pair = np.full((2, 5, 5), np.nan), np.full((2, 5, 5), np.nan)
    both = nk.kernel(net, x, get=("nngp", "ntk"), depths=[1, 2], out=pair)
    assert both.nngp is pair[0]
    assert np.isfinite(pair[1]).all()


DEEP = {
    "he": nk.mlp(30),
    "bias": nk.mlp(30, 1.4, 0.1),
    "leaky": nk.mlp(30, 1.4, 0.1, nk.LeakyRelu(0.1)),
    "erf": nk.mlp(30, 1.2, 0.1, nk.Erf()),
    "residual": nk.Serial(
        nk.Dense(1.4), *[nk.Residual(nk.Relu(), nk.Dense(0.3))] * 30, nk.Relu(), nk.Dense()
    ),
}


@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("net", DEEP.values(), ids=DEEP)
def test_single_precision_at_depth_30(net, backend):
    x = data(60, 20, dtype=np.float32)
    single, double = (
        nk.kernel(net, x, None, ("nngp", "ntk"), dtype=t, backend=backend) for t in ("f4", "f8")
    )
    for ours, expected in zip(single, double, strict=True):
        assert relative_error(np.diag(ours), np.diag(expected)) < 1e-6
        assert error_of(ours, expected, off_diagonal=True) < 1e-6


@pytest.mark.parametrize("net", [nk.mlp(10), nk.mlp(10, 1.4, 0.1)], ids=["he", "bias"])
def test_near_duplicates_keep_the_spectrum(net):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 20))
    x = np.concatenate([x, x + 1e-3 * rng.standard_normal(x.shape)]).astype(np.float32)
    single, double = (
        nk.kernel(net, x, None, ("nngp", "ntk"), dtype=t) for t in ("float32", "float64")
    )
    for ours, expected in zip(single, double, strict=True):
        low, high = np.linalg.eigvalsh(ours.astype(float))[0], np.linalg.eigvalsh(expected)
        assert abs(low - high[0]) < 1e-5 * high[-1]
        assert error_of(ours, expected) < 1e-6
    assert np.linalg.eigvalsh(single.ntk.astype(float))[0] > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_identical_and_proportional_rows(dtype):
    x = data(4)
    x = np.concatenate([x, x, 3 * x]).astype(dtype)
    k = nk.kernel(nk.mlp(5), x, x.copy())
    eps = np.finfo(dtype).eps
    assert relative_error(k[:4, 4:8].diagonal(), k[:4, :4].diagonal()) < 8 * eps
    assert relative_error(k[:4, 8:].diagonal(), 3 * k[:4, :4].diagonal()) < 8 * eps
    assert np.linalg.eigvalsh(k.astype(float))[0] > -1e-5 * np.trace(k)


def test_scale_of_a_network_without_biases():
    x = data(6)
    for scale in (1e-100, 1e-3, 1e3, 1e100):
        scaled = nk.kernel(nk.mlp(3), scale * x)
        assert relative_error(scaled / scale**2, nk.kernel(nk.mlp(3), x)) < 1e-14


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_positive_semidefinite(n, d, seed):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-6)):
        for matrix in nk.kernel(
            nk.mlp(2, 1.4, 0.1), data(n, d, seed), None, ("nngp", "ntk"), dtype=dtype
        ):
            assert np.linalg.eigvalsh(matrix.astype(float))[0] > -tolerance * np.trace(matrix)


def blas_threads():
    return [
        pool["num_threads"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]


def test_calls_at_the_same_time_do_not_disturb_each_other():
    nets = [nk.mlp(depth, 1.2, 0.1) for depth in range(1, 5)]
    x = data(300, 10)
    expected = [nk.kernel(net, x) for net in nets]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: nk.kernel(nets[i % 4], x, threads=2), range(24)))
    assert all((k == expected[i % 4]).all() for i, k in enumerate(found))


@pytest.mark.skipif(max(blas_threads(), default=1) == 1, reason="BLAS has one thread only")
@pytest.mark.parametrize("last", [0, 1])  # threadpoolctl lets one thread only change the setting
def test_blas_gets_its_threads_back_whichever_caller_ends_last(last):
    before = blas_threads()
    limit = tiles.one_blas_thread
    callers = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
    try:
        for caller in callers:
            caller.submit(limit.__enter__).result()
        inside = blas_threads()
        callers[1 - last].submit(limit.__exit__, None, None, None).result()
        still_inside = blas_threads()
        callers[last].submit(limit.__exit__, None, None, None).result()
        after = blas_threads()
    finally:
        for caller in callers:
            caller.shutdown()
    assert inside == still_inside == [1] * len(before)
    assert after == before


@pytest.mark.skipif(max(blas_threads(), default=1) == 1, reason="BLAS has one thread only")
def test_blas_runs_on_one_thread_where_the_program_has_set_its_own_limit():
    code = """
import threadpoolctl, numpy, ntkcore
from ntkcore import _core
pools = threadpoolctl.threadpool_info
blas = lambda: {pool["num_threads"] for pool in pools() if pool["user_api"] == "blas"}
threadpoolctl.threadpool_limits(2, "blas")
evaluate, inside = _core.evaluate, []
_core.evaluate = lambda *arguments: (inside.append(blas()), evaluate(*arguments))[1]
ntkcore.kernel(ntkcore.mlp(1), numpy.eye(3))
assert inside == [{1}], inside
assert blas() == {2}, blas()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_blas_runs_on_one_thread_inside_and_gets_them_back_after_an_error(monkeypatch):
    before, inside = blas_threads(), []

    def evaluate(*arguments):
        inside.append(blas_threads())
        raise RuntimeError("stop")

    monkeypatch.setattr(_core, "evaluate", evaluate)
    with pytest.raises(RuntimeError, match="stop"):
        nk.kernel(nk.mlp(1), data(5))
    assert inside == [[1] * len(before)]
    assert blas_threads() == before


def test_a_memory_mapped_out(tmp_path):
    x = data(300)
    out = np.lib.format.open_memmap(tmp_path / "k.npy", "w+", np.float64, (300, 300))
    nk.kernel(nk.mlp(1), x, out=out)
    out.flush()
    assert (np.load(tmp_path / "k.npy") == nk.kernel(nk.mlp(1), x)).all()


def test_number_of_threads(monkeypatch):
    for name in ("NTKCORE_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert thread_count(None) >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count(None) == 3
    monkeypatch.setenv("NTKCORE_NUM_THREADS", "2")
    assert thread_count(None) == 2
    assert thread_count(np.int64(5)) == 5


def test_an_error_in_a_worker_reaches_the_caller():
    def make_worker():
        def work(tile):
            raise KeyboardInterrupt

        return work

    with pytest.raises(KeyboardInterrupt):
        tiles.run([(0, 1, 0, 1)] * 5, make_worker, 2, False)


def test_a_sample_and_its_copy_are_dropped_apart(tmp_path):
    """The diagonal alone knows the mask: of kernels, stores and operators of one data set."""
    net, x = OTHER_NETS["dropout"], data(40)
    x[7] = x[3]
    K, apart = nk.kernel(net, x), nk.kernel(net, x, x.copy())
    same = np.eye(len(x), dtype=bool)
    assert relative_error(K[~same], apart[~same]) < 1e-14
    assert K[3, 3] > 1.2 * K[3, 7]
    assert K[3, 7] == pytest.approx(apart[3, 3])
    assert (nk.kernel_diag(net, x) == np.diag(K)).all()
    once = nk.Serial(*net.layers[:-1], nk.Dropout(1.0), net.layers[-1])
    assert (nk.kernel(once, x) == K).all()
    operator = nk.MatrixFree(net, x, tile=16)
    assert relative_error(operator @ np.eye(len(x)), K) < 1e-12
    assert relative_error(operator.rows([3, 7]), K[[3, 7]]) < 1e-12
    stored = nk.build(net, x, tmp_path / "store.zarr", tile=16)["ntk"][...]
    assert relative_error(stored, K) < 1e-12
