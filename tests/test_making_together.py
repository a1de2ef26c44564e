"""Several builds and extensions of one store at once, and SIGKILL at any moment."""

import os
import signal
import threading
import time

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

import chaos  # noqa: E402
import ntkcore as nk  # noqa: E402
from ntkcore.store.build import build, extend, resume  # noqa: E402
from ntkcore.store.format import open_store, using  # noqa: E402
from ntkcore.store.verify import verify  # noqa: E402
from test_build import NET, data, same  # noqa: E402
from test_making import files, many  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def together(calls):
    """All calls in threads that start at once; what each raised."""
    barrier, raised = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number, call):
        barrier.wait()
        try:
            call()
        except Exception as error:
            raised[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def attempts(fault):
    return [*range(3), *(pytest.param(k, marks=many(fault)) for k in range(3, 60))]


@pytest.mark.parametrize("where", ["{}/k.zarr", "memory://{}/k.zarr"])
@pytest.mark.parametrize(
    "attempt",
    [
        *range(3),
        *(pytest.param(k, marks=many("six starters of one build at once")) for k in range(3, 60)),
    ],
)
def test_builds_that_start_together(tmp_path, where, attempt):
    store = where.format(tmp_path)
    call = {"net": NET, "x": data(60), "store": store, "threads": 1, "tile": 16}
    assert together([lambda: build(**call)] * 6) == [None] * 6
    build(NET, data(60), tmp_path / "whole.zarr", tile=16)
    assert same(store, tmp_path / "whole.zarr")
    assert verify(store, sample=100).ok


@pytest.mark.parametrize(
    "attempt",
    [
        *range(3),
        *(
            pytest.param(k, marks=many("four different builds at once on one store"))
            for k in range(3, 60)
        ),
    ],
)
def test_different_builds_that_start_together(tmp_path, attempt):
    """One gets the place, the others are told; no tile of one among another's."""
    nets = [nk.mlp(depth) for depth in range(1, 5)]
    store = tmp_path / "k.zarr"
    calls = [lambda net=net: build(net, data(60), store, threads=1, tile=16) for net in nets]
    raised = together(calls)
    assert [error is None for error in raised].count(True) == 1
    assert all("another network" in str(error) for error in raised if error), raised
    build(nets[raised.index(None)], data(60), tmp_path / "whole.zarr", tile=16)
    assert same(store, tmp_path / "whole.zarr")


def test_shares_without_preparing(tmp_path):
    call = {"net": NET, "x": data(60), "store": tmp_path / "k.zarr", "threads": 1}
    assert together([lambda i=i: build(**call, part=(i, 4)) for i in range(4)]) == [None] * 4
    build(
        NET,
        data(60),
        tmp_path / "whole.zarr",
        tile=open_store(tmp_path / "k.zarr").attrs["ntkcore"]["tile"],
    )
    assert same(tmp_path / "k.zarr", tmp_path / "whole.zarr")


def test_extensions_that_start_together(tmp_path):
    """The same rows are added once; who comes while others hold the store is told to wait."""
    store, x = tmp_path / "k.zarr", data(60)
    build(NET, x[:20], store, tile=16)
    raised = together([lambda: extend(store, x[20:])] * 5)
    assert all(error is None or "another process" in str(error) for error in raised)
    assert extend(store, x[20:])["x"].shape == (60, 6)
    build(NET, x, tmp_path / "whole.zarr", tile=16)
    assert same(store, tmp_path / "whole.zarr")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads beside a fork
def test_a_forked_child_does_not_hold_a_store(tmp_path):
    """As a pool's workers, which inherit what holds it and live on."""
    store = tmp_path / "k.zarr"
    build(NET, data(20), store, tile=16)
    with using(store):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        extend(store, data(5, seed=1))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_no_extension_below_a_running_build(tmp_path):
    store = tmp_path / "k.zarr"
    build(NET, data(20), store, tile=16)
    before = files(store)
    for held in (store, str(store), zarr.storage.LocalStore(store), open_store(store)):
        with using(held), pytest.raises(BlockingIOError, match="another process"):
            extend(store, data(5, seed=1))
    assert files(store) == before
    with using(store):
        build(NET, data(20), store)
    with using(store, alone=True), pytest.raises(BlockingIOError, match="wait"):
        resume(store)
    extend(store, data(5, seed=1))


# --- SIGKILL at every write, by the command line


@pytest.fixture
def folder(tmp_path):
    x = data(60)
    for name, rows in {"x": x[:20], "more": x[20:43], "y": x[:43, :1]}.items():
        np.save(tmp_path / f"{name}.npy", rows)
    build(nk.mlp(2), x[:20], tmp_path / "small.zarr", tile=16)
    build(nk.mlp(2), x[:43], tmp_path / "large.zarr", tile=16)
    return tmp_path


COMMANDS = {
    "build": (("build", "fc:2", "x.npy", "k.zarr", "--tile", "16"), "small.zarr"),
    "extend": (("extend", "k.zarr", "more.npy"), "large.zarr"),
}


def killed_then_again(folder, name, k):
    """One kill, then the same command; was there a k-th write at all?"""
    words, expected = COMMANDS[name]
    if name == "extend":
        chaos.command(*COMMANDS["build"][0], folder=folder)
    died = chaos.command(*words, at=k, folder=folder).returncode == -9
    again = chaos.command(*words, folder=folder)
    assert again.returncode == 0, again.stderr
    assert same(folder / "k.zarr", folder / expected), k
    (folder / "k.zarr").rename(folder / f"{k}.zarr")
    return died


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_a_write(folder, name):
    assert killed_then_again(folder, name, 6)


@pytest.mark.slow
@pytest.mark.chaos("SIGKILL of `ntkcore build` or `extend` at any write; the same command again")
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_every_write(folder, name, record_property):
    k = 0
    while killed_then_again(folder, name, k):
        k += 1
    assert k > 20
    record_property("times", k)


@pytest.mark.slow
@pytest.mark.chaos("five processes build one store, three of them killed at a write")
@pytest.mark.parametrize("attempt", range(4))
def test_starters_of_which_some_die(folder, attempt):
    """Processes that start together, some killed while they make the store:
    the others finish it.
    """
    ends = [*(int(k) for k in np.random.default_rng(attempt).integers(0, 20, 3)), None, None]
    finished = {}
    calls = [
        lambda i=i: finished.update(
            {i: chaos.command(*COMMANDS["build"][0], at=ends[i], folder=folder)}
        )
        for i in range(len(ends))
    ]
    assert together(calls) == [None] * len(ends)
    assert [finished[i].returncode for i in (3, 4)] == [0, 0], finished
    assert same(folder / "k.zarr", folder / "small.zarr")


def markers(folder):
    return sum(1 for _ in (folder / "k.zarr" / "done").rglob("*"))


@pytest.mark.slow
@pytest.mark.chaos("SIGKILL of `ntkcore extend` at any moment; the same extend again")
def test_an_extension_killed_at_any_moment(tmp_path, record_property):
    """In the middle of a write too, again and again until one call is left in peace."""
    rng, x, seen = np.random.default_rng(0), data(600), set()
    np.save(tmp_path / "more.npy", x[100:])
    build(NET, x[:100], tmp_path / "k.zarr", tile=16)
    build(NET, x, tmp_path / "whole.zarr", tile=16)
    for _ in range(20):
        with chaos.running("extend", "k.zarr", "more.npy", folder=tmp_path) as process:
            goal = markers(tmp_path) + rng.integers(1, 80)
            while process.poll() is None and markers(tmp_path) < goal:
                time.sleep(rng.uniform(0, 0.01))
            process.kill()
        found = open_store(tmp_path / "k.zarr", unfinished=True)
        seen.add((found.attrs["ntkcore"]["n"], found["ntk"].shape, int(found["done"][...].sum())))
    assert len(seen) > 3, seen
    record_property("times", 20)
    extend(tmp_path / "k.zarr", x[100:])
    assert same(tmp_path / "k.zarr", tmp_path / "whole.zarr")


def test_an_unset_variable(folder):
    before = files(folder)
    refused = chaos.command("build", "fc:2", "x.npy", "", folder=folder)
    assert refused.returncode == 1
    assert "unset variable" in refused.stderr
    assert files(folder) == before


def test_the_command_resumes(folder):
    chaos.command(*COMMANDS["build"][0], folder=folder)
    killed = chaos.command(*COMMANDS["extend"][0], at=8, folder=folder)
    assert killed.returncode == -9
    again = chaos.command("resume", "k.zarr", folder=folder)
    assert "complete: k.zarr, 43 samples" in again.stdout, again.stderr
    assert same(folder / "k.zarr", folder / "large.zarr")
