"""Products on workers: the bits of the local ones for any executor, whoever dies in the middle."""

import gc
import os
import random
import signal
import tempfile
import threading
import time
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

import ntkcore as nk  # noqa: E402
from conftest import relative_error  # noqa: E402
from ntkcore.engine import executors  # noqa: E402
from ntkcore.engine.tiles import one_blas_thread  # noqa: E402
from ntkcore.linalg import products  # noqa: E402
from ntkcore.linalg.cg import cg  # noqa: E402
from ntkcore.linalg.operators import MatrixFree, Stored  # noqa: E402
from test_workers import cluster, die  # noqa: E402, F401

# Dask's workers leave sockets to the garbage collector when they are killed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NET = nk.mlp(2, b_std=0.1)
N, TILE = 250, 32


def data(n=N, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype("f4")


def targets(n=N, columns=2):
    return np.sin(3 * data(n, columns, 1).astype(float))


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    group = nk.build(NET, data(), tmp_path_factory.mktemp("stores") / "k.zarr", tile=TILE)
    return group["ntk"]


def operators(store, executor=None):
    """Symmetric, rectangular, in float64, in a store."""
    common = {"tile": TILE, "executor": executor}
    return [
        MatrixFree(NET, data(), **common),
        MatrixFree(NET, data(), data(70, seed=3), dtype="float64", **common),
        Stored(store, executor=executor),
    ]


def results(operator):
    """Both products, and K^T K X."""
    X, Z = (np.random.default_rng(2).standard_normal((n, 3)) for n in operator.shape[::-1])
    with one_blas_thread:
        return [operator @ X, operator.T @ Z, operator.gram_product(X)]


def same_as_local(store, executor):
    for here, there in zip(operators(store), operators(store, executor), strict=True):
        for one, two in zip(results(here), results(there), strict=True):
            np.testing.assert_array_equal(one, two)
        assert there.passes == here.passes == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_threads(store, threads):
    with ThreadPoolExecutor(threads) as executor:
        same_as_local(store, executor)


def test_processes(store, pool):
    same_as_local(store, pool)


def test_any_number_of_workers_of_dask(store, cluster):
    import dask

    for count in (2, 1, 3):
        cluster.cluster.scale(count)
        while len(cluster.nthreads()) != count:
            time.sleep(0.05)
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 B"}):
            same_as_local(store, cluster)  # Dask's warning would be an error


def test_groups_hold_every_pair_once():
    for shape, tile, symmetric in (((250, 250), 9, True), ((250, 70), 9, False), ((3, 3), 5, True)):
        counts = np.zeros(shape, int)
        groups = products.square_groups(shape, tile, symmetric)
        for group in groups:
            for i0, i1, j0, j1 in group.tiles:
                assert group.rows.start <= i0 < i1 <= group.rows.stop
                assert group.cols.start <= j0 < j1 <= group.cols.stop
                counts[i0:i1, j0:j1] += 1
                if symmetric and i0 != j0:
                    counts[j0:j1, i0:i1] += 1
        assert (counts == 1).all()
        assert len(groups) > 20 or shape == (3, 3)
        rows = [tile for group in products.row_groups(shape, tile) for tile in group.tiles]
        assert [i for i0, i1, *_ in rows for i in range(i0, i1)] == list(range(shape[0]))
        assert {tile[2:] for tile in rows} == {(0, shape[1])}


def test_solvers_on_workers(pool):
    x, y = data(), targets()
    here, there = (MatrixFree(NET, x, tile=TILE, executor=e) for e in (None, pool))
    with one_blas_thread:
        one, two = (cg(K, y, 1e-2, rank=20) for K in (here, there))
        assert one.converged
        np.testing.assert_array_equal(one.x, two.x)
        assert one.passes == two.passes
        z = x[:40]
        inner = nk.kernel(NET, z, dtype="float64")
        one, two = (
            nk.LandmarkRegression(MatrixFree(NET, x, z, tile=TILE, executor=e), inner, y, 1e-2)
            for e in (None, pool)
        )
    np.testing.assert_array_equal(one.coefficients, two.coefficients)
    K = nk.kernel(NET, x, z).astype(float)
    exact = np.linalg.solve(K.T @ K + 1e-2 * inner, K.T @ y)
    assert relative_error(two.coefficients, exact) < 1e-4
    assert nk.rpcholesky(there, 30).trace_error == nk.rpcholesky(here, 30).trace_error


@pytest.mark.parametrize("method", ["cg", "askotch", "landmarks"])
def test_fit_on_workers(method):
    x, y = data(), targets()
    options = {"method": method, "n_landmarks": 40 if method == "landmarks" else None}
    with ThreadPoolExecutor(2) as executor, one_blas_thread:
        there = nk.fit(NET, x, y, 1e-2, **options, executor=executor)
        here = nk.fit(NET, x, y, 1e-2, **options)
    assert relative_error(there.coefficients, here.coefficients) < 1e-3


def started_up(nanny):
    return nanny.pid and nanny.status.name == nanny.process.status.name == "running"


class Killer(threading.Thread):
    """Kills one of Dask's two workers, or both, at random, so many times; each time when both have
    come back (Dask gives a worker up that dies while it starts).
    """

    def __init__(self, client, times):
        super().__init__(daemon=True)
        self.client, self.left, self.rng = client, times, random.Random(times)

    def run(self):
        while self.left > 0:
            time.sleep(self.rng.uniform(0.2, 0.6))
            nannies = list(self.client.cluster.workers.values())
            if len(self.client.nthreads()) == 2 and all(map(started_up, nannies)):
                for nanny in self.rng.sample(nannies, self.rng.choice([1, 1, 2])):
                    os.kill(nanny.pid, signal.SIGKILL)
                    self.left -= 1


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_workers_killed_in_the_middle(cluster, kills):
    here, there = (MatrixFree(NET, data(), tile=TILE, executor=e) for e in (None, cluster))
    with one_blas_thread:
        expected = cg(here, targets(), 1.0, rank=20)
        killer = Killer(cluster, kills)
        killer.start()
        while killer.left > 0:
            found = cg(there, targets(), 1.0, rank=20)
            np.testing.assert_array_equal(found.x, expected.x)


def test_all_workers_gone(cluster, monkeypatch):
    monkeypatch.setattr(executors, "PATIENCE", 1.0)
    K = MatrixFree(NET, data(), tile=TILE, executor=cluster)
    expected = K @ targets()
    cluster.cluster.scale(0)
    while cluster.nthreads():
        time.sleep(0.05)
    with pytest.raises(RuntimeError, match="no worker has been left for 1 s"):
        K @ targets()
    cluster.cluster.scale(1)
    cluster.wait_for_workers(1, timeout=30)
    np.testing.assert_array_equal(K @ targets(), expected)


def test_a_broken_pool_is_named(monkeypatch):
    monkeypatch.setattr(products, "_sum", die)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        K = MatrixFree(NET, data(), tile=TILE, executor=pool)
        with pytest.raises(RuntimeError, match="a new one; a solver with a checkpoint"):
            K @ targets()


def test_the_data_travel_once(pool, monkeypatch):
    """Tasks are as small as their vectors; the file with the data goes with the operator."""
    sizes, before = [], set(Path(tempfile.gettempdir()).glob("ntkcore-*.pickle"))
    monkeypatch.setattr(
        products.RemoteGroups,
        "call",
        lambda self, *task: sizes.append(len(executors.pickle.dumps(task))) or pool.submit(*task),
    )
    K = MatrixFree(NET, data(N, 1000), tile=TILE, executor=pool)
    K @ targets()
    assert len(sizes) > 5
    assert max(sizes) < 2 * 64 * 2 * 8 + 2000
    made = set(Path(tempfile.gettempdir()).glob("ntkcore-*.pickle")) - before
    assert len(made) == 1
    del K
    gc.collect()
    assert not made.pop().exists()


def test_an_error_of_a_tile_arrives_and_ends_the_rest(store):
    done = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *task):
            done.append(task)
            return super().submit(*task)

    broken = zarr.create_array(zarr.storage.MemoryStore(), data=store[...], chunks=(TILE, TILE))
    broken[40, 200] = np.nan
    with Counting(1) as executor, pytest.raises(ValueError, match="hold NaN"):
        Stored(broken, symmetric=True, executor=executor) @ targets()
    assert len(done) < len(products.square_groups(broken.shape, TILE, True))


def test_what_is_started_waits_for_the_oldest():
    """Results that wait for their turn are a few: no piece runs far ahead."""
    futures, order = {}, []

    class Slow(executors.Remote):
        def __init__(self):
            super().__init__(ThreadPoolExecutor(1))

    def start(piece):
        futures[piece] = Future()
        if piece:  # the first one is done last
            futures[piece].set_result(piece)
        elif len(futures) == 1:
            threading.Timer(0.5, lambda: futures[0].set_result(0)).start()
        return futures[piece]

    started = []
    timer = threading.Timer(0.3, lambda: started.append(len(futures)))
    timer.start()
    executors.in_order(range(50), start, Slow(), lambda piece, result: order.append(result), "")
    timer.join()
    assert order == list(range(50))
    assert started[0] <= 8


def test_a_cancelled_piece_is_no_death():
    future = Future()
    future.cancel()
    with ThreadPoolExecutor(1) as executor:
        remote = executors.Remote(executor)
        with pytest.raises(RuntimeError, match="executor or scheduler is gone"):
            executors.hand_out([0], lambda piece: future, remote, print, "")
        assert not remote.died(CancelledError())


def test_ctrl_c_cancels_what_is_outstanding(monkeypatch):
    futures = [Future() for _ in range(4)]

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(executors, "wait", interrupted)
    with ThreadPoolExecutor(2) as executor, pytest.raises(KeyboardInterrupt):
        executors.hand_out(futures, lambda f: f, executors.Remote(executor), print, "")
    assert all(future.cancelled() for future in futures)


def test_bad_executors(store):
    for call in (
        lambda: MatrixFree(NET, data(), executor="cluster"),
        lambda: Stored(store, executor=2),
        lambda: Stored(store, executor=ThreadPoolExecutor),
        lambda: nk.fit(NET, data(), targets(), executor=[]),
    ):
        with pytest.raises(TypeError, match=r"dask\.distributed\.Client"):
            call()
    client = SimpleNamespace(get_executor=0, nthreads=0, asynchronous=True, status="closed")
    with pytest.raises(TypeError, match="made without asynchronous=True"):
        MatrixFree(NET, data(), executor=client)
    client.asynchronous = False
    with pytest.raises(RuntimeError, match="the Dask client is closed: connect a new one"):
        MatrixFree(NET, data(), executor=client) @ targets()
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="their own"):
        MatrixFree(NET, data(), backend="cuda", devices=[0], executor=executor)


def test_arrays_of_dask_are_read_in_the_tasks_own_thread():
    """Of its cluster a task that waits in another thread keeps its place: two wait for ever."""
    seen = set()

    class Lazy:
        shape, dtype, chunks = (4, 4), np.dtype("f8"), (2, 2)

        def __dask_graph__(self):
            return {}

        def __getitem__(self, at):
            seen.add(threading.current_thread().name)
            return np.eye(4)[at]

    with ThreadPoolExecutor(1, "task") as executor:
        operator = Stored(Lazy(), symmetric=True, executor=executor)
        np.testing.assert_array_equal(operator @ np.ones(4), np.ones(4))
    assert seen == {"task_0"}


def test_an_array_that_cannot_travel_is_named(pool):
    class Local:
        shape, dtype, chunks = (4, 4), np.dtype("f8"), (2, 2)

        def __init__(self):
            self.lock = threading.Lock()

        def __getitem__(self, at):
            return np.eye(4)[at]

    with pytest.raises(TypeError, match="cannot be sent to workers"):
        Stored(Local(), executor=pool) @ np.ones(4)
