"""Where kernels may lie: memory, an S3 server, a disk that is full or may not be written;
who else can open them.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

import ntkcore as nk  # noqa: E402
from ntkcore.linalg.operators import Stored  # noqa: E402
from ntkcore.store.build import build, extend, resume  # noqa: E402
from ntkcore.store.format import open_store  # noqa: E402
from ntkcore.store.verify import verify  # noqa: E402
from test_build import NET, contents, data, same  # noqa: E402
from test_making import files  # noqa: E402
from test_making_together import together  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def test_in_memory(tmp_path):
    pytest.importorskip("fsspec")
    x = data(100)
    build(NET, x[:60], "memory://k.zarr", tile=16)
    extend("memory://k.zarr", x[60:])
    group = build(NET, x, "memory://k.zarr")
    build(NET, x, tmp_path / "k.zarr", tile=16)
    assert np.array_equal(
        group["ntk"][...], zarr.open_group(tmp_path / "k.zarr", mode="r")["ntk"][...]
    )
    assert verify("memory://k.zarr").ok


@pytest.fixture
def s3():
    """A local server that speaks S3, with a bucket."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "key", "secret": "secret", "endpoint_url": f"http://{host}:{port}"}
    s3fs.S3FileSystem(**options).makedirs("bucket", exist_ok=True)
    yield options
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_s3(tmp_path, s3):
    x, where = data(60), {"store": "s3://bucket/k.zarr", "storage_options": s3}
    build(NET, x, **where, tile=16, prepare=True)
    build(NET, x, **where, tile=16, part=(0, 2))
    assert len(verify(**where).missing) == 5
    group = resume(**where)
    build(NET, x, tmp_path / "k.zarr", tile=16)
    assert np.array_equal(
        group["ntk"][...], zarr.open_group(tmp_path / "k.zarr", mode="r")["ntk"][...]
    )
    with pytest.raises(ValueError, match="another network"):
        build(nk.mlp(1), x, **where)
    extend(x_new=data(20, seed=1), **where)
    build(NET, np.concatenate([x, data(20, seed=1)]), tmp_path / "larger.zarr", tile=16)
    assert np.array_equal(resume(**where)["ntk"][...], contents(tmp_path / "larger.zarr")["ntk"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_starters_on_s3(tmp_path, s3):
    """The server lets one of them make the store;
    others' objects below the address are left alone.
    """
    x, where = data(40), {"store": "s3://bucket/starters.zarr", "storage_options": s3}
    nets = [nk.mlp(1), nk.mlp(2), nk.mlp(1), nk.mlp(2)]
    raised = together([lambda net=net: build(net, x, **where, tile=16, threads=1) for net in nets])
    first = raised.index(None)
    assert [error is None for error in raised] == [net == nets[first] for net in nets]
    assert all("another network" in str(error) for error in raised if error)
    build(nets[first], x, tmp_path / "k.zarr", tile=16)
    assert np.array_equal(resume(**where)["ntk"][...], contents(tmp_path / "k.zarr")["ntk"])
    with pytest.raises(ValueError, match="did not write"):
        build(NET, x, "s3://bucket", storage_options=s3)


@pytest.mark.chaos(
    "the disk fills up during a build or an extend; the same call when there is room"
)
def test_full_disk(tmp_path):
    """A real small disk: what was written stays whole, and the build goes on when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        x = data(400)
        build(NET, x, disk / "k.zarr", tile=32, prepare=True)
        with pytest.raises(OSError, match=r"written so far are whole: make room"):
            build(NET, x, disk / "k.zarr", tile=32)
        before = verify(disk / "k.zarr", sample=100)
        assert before.missing
        assert not before.bad
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        build(NET, x, disk / "k.zarr", tile=32)
        build(NET, x, tmp_path / "whole.zarr", tile=32)
        assert same(disk / "k.zarr", tmp_path / "whole.zarr")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.chaos(
    "the disk fills up during a build or an extend; the same call when there is room"
)
def test_full_disk_in_an_extension(tmp_path, monkeypatch):
    """Refused before anything is written; where the room vanishes meanwhile,
    the same call goes on.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False
    ).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        x = data(2000)
        build(NET, x[:200], disk / "k.zarr", tile=64)
        before = files(disk)
        with pytest.raises(OSError, match="are free"):
            extend(disk / "k.zarr", x[200:])
        assert files(disk) == before
        (disk / "filler").write_bytes(b"0" * (shutil.disk_usage(disk).free - 30_000))
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: type("U", (), {"free": 2**40}))
            with pytest.raises(OSError, match="run the same"):
                extend(disk / "k.zarr", x[200:])
            with pytest.raises(ValueError, match="not finished"):
                open_store(disk / "k.zarr")
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        extend(disk / "k.zarr", x[200:])
        build(NET, x, tmp_path / "whole.zarr", tile=64)
        assert same(disk / "k.zarr", tmp_path / "whole.zarr")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_too_small_is_refused_before_any_work(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False
    ).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        with pytest.raises(OSError, match="are free"):
            build(NET, data(1000), disk / "k.zarr")
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_not_allowed_to_write(tmp_path):
    """As somebody who may read the store only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=False).returncode:
        pytest.skip("no right to mount a disk here")
    try:
        build(NET, data(60), disk / "k.zarr", tile=16, part=(0, 2))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(OSError, match="make the store writable"):
            resume(disk / "k.zarr")
        group = zarr.open_group(disk / "k.zarr", mode="r")
        with pytest.raises(ValueError, match="build is not finished"):
            Stored(group["ntk"]) @ np.ones(60)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_opened_by_xarray(tmp_path):
    xarray = pytest.importorskip("xarray")
    group = build(NET, data(40), tmp_path / "k.zarr", tile=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of consolidated metadata
        found = xarray.open_zarr(tmp_path / "k.zarr", consolidated=False, chunks=None)
        assert found["ntk"].dims == ("sample", "sample2")
        assert np.array_equal(found["ntk"].values, group["ntk"][...])


def test_nothing_read_is_executed(tmp_path):
    """A store whose attributes hold code, and targets that are pickles: refused,
    and nothing runs.
    """
    build(NET, data(30), tmp_path / "k.zarr")
    metadata = tmp_path / "k.zarr" / "zarr.json"
    text = metadata.read_text().replace('\\"Serial\\"', '\\"os.system\\"')
    metadata.write_text(re.sub(r',\s*"seal": "\w*"', "", text))
    with pytest.raises(ValueError, match="layer"):
        resume(tmp_path / "k.zarr")
    np.save(tmp_path / "y.npy", np.array([os.system], dtype=object), allow_pickle=True)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "from ntkcore.cli import main; main()",
        "solve",
        "k.zarr",
        "y.npy",
    ]
    result = subprocess.run(
        [*command, "a.npy"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode != 0
    assert "pickled objects" in result.stderr
