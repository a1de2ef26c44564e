"""Kernels on disk: the same as in memory, whatever interrupts the build, and every damage found."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

import ntkcore as nk  # noqa: E402
from conftest import relative_error  # noqa: E402
from ntkcore.linalg.operators import Stored  # noqa: E402
from ntkcore.store.build import build, extend, resume  # noqa: E402
from ntkcore.store.format import Tiles  # noqa: E402
from ntkcore.store.planning import plan  # noqa: E402
from ntkcore.store.verify import verify  # noqa: E402

NET = nk.mlp(3, b_std=0.1)
BOTH = ("nngp", "ntk")
# Zarr warns that the dimension names and codecs of v3 may change.
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def data(n, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def contents(store):
    group = zarr.open_group(store, mode="r")
    return {name: group[name][...] for name in sorted(group.array_keys())}


def same(a, b):
    a, b = contents(a), contents(b)
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("n", [1, 40, 64, 100])
def test_same_as_in_memory(tmp_path, n):
    x, z = data(n), data(37, seed=1)
    for other in (None, z):
        store = tmp_path / f"{other is None}.zarr"
        group = build(NET, x, store, other, BOTH, tile=32)
        for name, expected in zip(BOTH, nk.kernel(NET, x, other, BOTH), strict=True):
            assert relative_error(group[name][...], expected) < 1e-6
            assert group[name].chunks == (32, 32)
            assert group[name].metadata.dimension_names == ("sample", "sample2")
        assert (group["done"][...] == 1).all()
        assert verify(store).ok
        assert np.array_equal(group["x"][...], x)


def test_images_and_double(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 5, 4, 2))
    group = build(nk.cntk(2), x, tmp_path / "k.zarr", tile=16)
    assert group["ntk"].dtype == np.float64
    assert relative_error(group["ntk"][...], nk.kernel(nk.cntk(2), x)) < 1e-12
    assert relative_error(group["diagonal_ntk"][...], nk.kernel_diag(nk.cntk(2), x)) < 1e-12
    assert (
        relative_error(Stored(group["ntk"]) @ x[:, 0, 0], nk.kernel(nk.cntk(2), x) @ x[:, 0, 0])
        < 1e-12
    )


def test_only_what_is_missing_is_computed(tmp_path, monkeypatch):
    x, store = data(100), tmp_path / "k.zarr"
    calls = []
    compute = Tiles.compute

    def counted(self, task, backend, devices=None):
        calls.append(task)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return compute(self, task, backend, devices)

    monkeypatch.setattr(Tiles, "compute", counted)
    with pytest.raises(KeyboardInterrupt):
        build(NET, x, store, tile=16, threads=1)
    before = len(calls)
    assert len(verify(store).missing) == 28 - (before - 1)
    calls[:] = [None] * 9
    build(NET, x, store, threads=1)
    assert len(calls) - 9 == 28 - (before - 1)
    build(NET, x, tmp_path / "other.zarr", tile=16)
    assert same(store, tmp_path / "other.zarr")
    calls.clear()
    build(NET, x, store, tile=16)
    assert calls == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": nk.mlp(2)}, "another network"),
        ({"x": data(40, seed=5)}, "another x"),
        ({"get": BOTH}, "another get"),
        ({"dtype": "float64"}, "another dtype"),
        ({"tile": 32}, "another tile"),
        ({"x2": data(40)}, "another x2"),
    ],
)
def test_another_kernel_is_refused_by_name(tmp_path, change, words):
    call = {"net": NET, "x": data(40), "store": tmp_path / "k.zarr", "tile": 16}
    build(**call)
    before = contents(call["store"])
    with pytest.raises(ValueError, match=words):
        build(**(call | change))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(before.values(), contents(call["store"]).values(), strict=True)
    )


def test_foreign_and_absent_stores(tmp_path):
    zarr.open_group(tmp_path / "foreign.zarr", mode="w").attrs["name"] = "else"
    with pytest.raises(ValueError, match="not a kernel built by ntkcore"):
        build(NET, data(10), tmp_path / "foreign.zarr")
    for call in (resume, verify):
        with pytest.raises(FileNotFoundError, match="build it first"):
            call(tmp_path / "absent.zarr")


def test_plan_and_room(tmp_path, monkeypatch):
    estimate = plan(NET, data(3000), get=BOTH)
    assert estimate.pairs == 3000 * 3001 // 2
    assert estimate.disk > 2 * 4 * 3000**2
    assert "MiB on disk" in str(estimate)
    assert build(NET, data(30), tmp_path / "k.zarr", dry_run=True).tiles == 1
    assert not (tmp_path / "k.zarr").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("U", (), {"free": 10}))
    with pytest.raises(OSError, match="bytes are free"):
        build(NET, data(30), tmp_path / "k.zarr")
    assert not (tmp_path / "k.zarr").exists()


@pytest.mark.parametrize("n", [32, 45])
def test_extending(tmp_path, n):
    x = data(80)
    build(NET, x[:n], tmp_path / "k.zarr", tile=16)
    extend(tmp_path / "k.zarr", x[n:])
    build(NET, x, tmp_path / "whole.zarr", tile=16)
    assert same(tmp_path / "k.zarr", tmp_path / "whole.zarr")
    assert verify(tmp_path / "k.zarr").ok
    build(NET, x, tmp_path / "k.zarr")  # from here on it is the larger kernel's store
    with pytest.raises(ValueError, match="samples have shape"):
        extend(tmp_path / "k.zarr", data(3, d=7))


def chunk(store, name="ntk", at=(0, 1)):
    return store / name / "c" / str(at[0]) / str(at[1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "flipped bit": (flip, "cannot be read"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:100]), "cannot be read"),
    "lost": (lambda path: path.unlink(), "NaN"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_repaired(tmp_path, kind):
    store, (damage, words) = tmp_path / "k.zarr", DAMAGE[kind]
    build(NET, data(60), store, tile=16)
    shutil.copytree(store, tmp_path / "whole.zarr")
    damage(chunk(store))
    (store / "ntk" / "c" / "0" / f"7.{32 * 'a'}.partial").write_bytes(b"half")
    report = verify(store, repair=True)
    assert not report.ok
    assert words in report.bad[0, 1]
    assert report.swept == 1
    assert verify(store).ok
    assert same(store, tmp_path / "whole.zarr")


def test_a_false_tile_is_found(tmp_path):
    store = tmp_path / "k.zarr"
    group = build(NET, data(60), store, tile=16)
    group["ntk"][3, 20] += 1
    assert verify(store).bad[0, 1].endswith("not symmetric")
    group["ntk"][20, 3] += 1
    assert "differs" in verify(store, sample=1000, repair=True).bad[0, 1]
    assert verify(store, sample=1000).ok


def test_opened_by_others(tmp_path):
    group = build(NET, data(40), tmp_path / "k.zarr", tile=16)
    dask = pytest.importorskip("dask.array")
    assert np.array_equal(
        dask.from_zarr(str(tmp_path / "k.zarr"), component="ntk").compute(), group["ntk"][...]
    )


CODE = """
import sys, time, numpy as np, ntkcore as nk
from ntkcore.store import build as b
from ntkcore.store import format as store
x = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)
write = store.Tiles.write
def slow(self, task, blocks):
    time.sleep(0.004)
    write(self, task, blocks)
store.Tiles.write = slow
print("ready", flush=True)
b.build(nk.mlp(3, b_std=0.1), x, sys.argv[1], tile=16, threads=2)
print("done", flush=True)
"""


def killed(store, rng):
    """Did the process finish before its random end?"""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CODE, str(store)], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    time.sleep(rng.uniform(0.02, 0.7))
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()
    return "done" in rest


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path, kills):
    rng, store = np.random.default_rng(kills), tmp_path / "k.zarr"
    for _ in range(kills):
        killed(store, rng)
    x = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)
    build(NET, x, store, tile=16)
    build(NET, x, tmp_path / "whole.zarr", tile=16)
    assert verify(store, sample=1000).ok
    assert same(store, tmp_path / "whole.zarr")


@pytest.mark.parametrize("part", [3, (0.5, 2), (1, 1), (0, 1, 2), "01"])
def test_a_share_is_two_whole_numbers(tmp_path, part):
    with pytest.raises(ValueError, match=r"part must be \(i, n\)"):
        build(NET, data(10), tmp_path / "k", part=part)
    assert not (tmp_path / "k").exists()
