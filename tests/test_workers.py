"""Who computes the tiles: threads, processes, Dask's workers and their deaths,
GPUs (stood in for by the host).
"""

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

import ntkcore as nk  # noqa: E402
from ntkcore.engine import executors as handing_out  # noqa: E402
from ntkcore.store import workers as executors  # noqa: E402
from ntkcore.store.build import build, resume  # noqa: E402
from ntkcore.store.verify import verify  # noqa: E402
from test_build import NET, data, same  # noqa: E402

# Zarr warns that parts of v3 may change; Dask's workers leave sockets to the garbage collector when
# they are killed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def whole(tmp_path):
    build(NET, data(300), tmp_path / "whole.zarr", tile=16)
    return tmp_path / "whole.zarr"


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=60
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_processes(tmp_path, whole):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        build(NET, data(300), tmp_path / "k.zarr", tile=16, executor=pool)
    assert same(tmp_path / "k.zarr", whole)


def die(*arguments):
    os._exit(1)


def test_a_broken_pool_is_named(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(executors, "run_tile", die)
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.raises(RuntimeError, match="a new one"),
    ):
        build(NET, data(300), tmp_path / "k.zarr", tile=16, executor=pool)
    monkeypatch.undo()
    resume(tmp_path / "k.zarr")
    assert same(tmp_path / "k.zarr", whole)


def kill_one(client):
    for pid in list(client.run(os.getpid).values())[:1]:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_workers_of_dask_killed_in_the_middle(tmp_path, cluster, kills):
    tile = 16 if kills == 2 else 4
    killers = [threading.Timer(0.3 + 0.6 * k, kill_one, [cluster]) for k in range(kills)]
    for killer in killers:
        killer.start()
    build(NET, data(300), tmp_path / "k.zarr", tile=tile, executor=cluster)
    for killer in killers:
        killer.join()
    build(NET, data(300), tmp_path / "uninterrupted.zarr", tile=tile)
    assert verify(tmp_path / "k.zarr", sample=400).ok
    assert same(tmp_path / "k.zarr", tmp_path / "uninterrupted.zarr")


def test_all_workers_of_dask_gone(tmp_path, whole, cluster, monkeypatch):
    monkeypatch.setattr(handing_out, "PATIENCE", 1.0)
    build(NET, data(300), tmp_path / "k.zarr", tile=16, prepare=True)
    cluster.cluster.scale(0)
    while cluster.nthreads():
        time.sleep(0.05)
    with pytest.raises(RuntimeError, match="no worker has been left"):
        build(NET, data(300), tmp_path / "k.zarr", tile=16, executor=cluster)
    assert len(verify(tmp_path / "k.zarr").missing) == 19 * 20 // 2
    cluster.cluster.scale(1)
    cluster.wait_for_workers(1, timeout=30)
    build(NET, data(300), tmp_path / "k.zarr", tile=16, executor=cluster)
    assert same(tmp_path / "k.zarr", whole)


def test_shares_of_a_job_array(tmp_path, whole):
    call = {"net": NET, "x": data(300), "store": tmp_path / "k.zarr", "tile": 16}
    build(**call, prepare=True)
    assert len(verify(tmp_path / "k.zarr").missing) == 19 * 20 // 2
    threads = [threading.Thread(target=build, kwargs=call | {"part": (i, 3)}) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(tmp_path / "k.zarr", whole)
    with pytest.raises(ValueError, match="share i of n"):
        build(**call, part=(3, 3))


def test_each_tile_takes_one_of_the_devices(tmp_path, monkeypatch):
    used = []

    def compute(self, task, backend, devices=None):
        used.append(tuple(devices))
        a = self.arrays["x"][self.slices(task)[0]]
        b = None if task[0] == task[1] else self.arrays["x"][self.slices(task)[1]]
        return nk.kernel(self.net, a, b, self.names)

    build(NET, data(100), tmp_path / "k.zarr", tile=16, prepare=True)
    monkeypatch.setattr(executors.Tiles, "compute", compute)
    tiles = executors.Tiles(zarr.open_group(tmp_path / "k.zarr", mode="r+"))
    executors.compute_tiles(
        tiles, tiles.missing(), executors.Threads(tiles, "cuda", 1, [0, 1]), False
    )
    monkeypatch.undo()
    assert set(used) == {(0,), (1,)}
    assert len(used) == 28
    assert verify(tmp_path / "k.zarr", sample=0).ok


def test_no_executor(tmp_path):
    with pytest.raises(TypeError, match=r"dask\.distributed\.Client"):
        build(NET, data(30), tmp_path / "k.zarr", executor="cluster")


def test_an_error_of_a_tile_arrives(tmp_path, monkeypatch):
    def broken(self, task, blocks):
        raise ZeroDivisionError(str(task))

    monkeypatch.setattr(executors.Tiles, "write", broken)
    with pytest.raises(ZeroDivisionError):
        build(NET, np.asarray(data(30)), tmp_path / "k.zarr")
