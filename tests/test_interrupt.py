"""Ctrl-C: heard while a tile is being computed, one line, exit code 130, nothing half written."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

import ntkcore as nk
from ntkcore import _core
from ntkcore.engine import tiles
from ntkcore.store.build import build

COMMAND = "from ntkcore.cli import main; main()"
LINE = "ntkcore: interrupted; what is written stays, and the same command goes on where it can"
NET, SIDE = "cntk:depth=20", 64  # 256 pairs, the smallest tile, take most of a minute


@pytest.fixture
def pictures(tmp_path):
    np.save(
        tmp_path / "x.npy",
        np.random.default_rng(0).standard_normal((40, SIDE, SIDE, 3)).astype("f4"),
    )
    return tmp_path


def interrupted(folder, code, *args, after=0.5):
    """Starts a program, sends SIGINT so many seconds after it says that it begins;
    (exit code, output, errors).
    """
    command = [sys.executable, "-c", code, *args]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=-1, stderr=-1) as process:
        assert process.stdout.readline() == "begins\n"
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        try:
            out, error = process.communicate(timeout=20)
        finally:
            process.kill()
    return process.returncode, out, error


@pytest.mark.parametrize(
    "call", ["kernel(net, x, threads=1)", "kernel(net, x)", "kernel_diag(net, x, threads=1)"]
)
def test_a_call_ends_in_the_middle_of_a_tile(pictures, call):
    code = f"""
import numpy as np, ntkcore as nk
x, net = np.repeat(np.load("x.npy"), 20, 0), nk.cntk(20)
print("begins", flush=True)
try:
    nk.{call}
except KeyboardInterrupt:
    print("interrupted")
"""
    assert interrupted(pictures, code) == (0, "interrupted\n", "")


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3])
def test_imports_end(pictures, after):
    code = "from ntkcore.cli import main; print('begins', flush=True); main()"
    call = ["build", NET, "x.npy", "k.zarr"]
    assert interrupted(pictures, code, *call, after=after)[::2] == (130, LINE + "\n")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_build_ends_and_goes_on(pictures, threads):
    call = ["build", NET, "x.npy", "k.zarr", "--threads", threads]
    code = "print('begins', flush=True)\n" + COMMAND
    assert interrupted(pictures, code, *call, after=2.0)[::2] == (130, LINE + "\n")


def test_compiled_code_of_others_ends(tmp_path):
    code = """
import hashlib, sys
from ntkcore.cli import commands as cli, main
@cli.app.command("hash")
def command():
    print("begins", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
sys.argv = ["ntkcore", "hash"]
main()
"""
    assert interrupted(tmp_path, code)[::2] == (130, LINE + "\n")


def test_lapack_that_keeps_the_gil_ends(tmp_path):
    code = """
import sys, numpy, scipy.linalg
from ntkcore.cli import commands as cli, main
@cli.app.command("eigh")
def command():
    matrix = numpy.random.default_rng(0).standard_normal((6000, 6000))
    print("begins", flush=True)
    scipy.linalg.eigh(matrix)
sys.argv = ["ntkcore", "eigh"]
main()
"""
    assert interrupted(tmp_path, code)[::2] == (130, LINE + "\n")


def test_a_stopped_tile_is_not_written(tmp_path, monkeypatch):
    x = np.random.default_rng(0).standard_normal((40, 8, 8, 2)).astype("f4")
    right = nk.kernel(nk.cntk(2), x)
    build(nk.cntk(2), x, tmp_path / "k", tile=16, prepare=True)
    evaluate, calls = _core.evaluate_images, []

    def stops(*args):
        calls.append(args)
        if len(calls) == 3:
            tiles._thread.stop.set()
        evaluate(*args)

    monkeypatch.setattr(_core, "evaluate_images", stops)
    with pytest.raises(_core.StoppedError):
        build(nk.cntk(2), x, tmp_path / "k", threads=1)
    monkeypatch.undo()
    values = zarr.open(tmp_path / "k")["ntk"][...]
    there = ~np.isnan(values)
    assert 0 < there.sum() < values.size
    assert np.array_equal(values[there], right[there])
    assert np.array_equal(build(nk.cntk(2), x, tmp_path / "k")["ntk"][...], right)


def test_the_first_error_is_the_one_that_is_told():
    def work(task):
        if task[0] == 3:
            raise ValueError("three")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="three"):
        tiles.run([(i, i, i, i) for i in range(100)], lambda: work, 4, False)


def test_workers_that_begin_say_nothing(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "slow.py").write_text("""
import os, time
if os.environ.setdefault("FIRST", str(os.getpid())) != str(os.getpid()):
    os.write(1, b"%d\\n" % os.getpid())  # in one write: two workers may begin at once
    time.sleep(60)
def metric(outcome): return 0.5
""")
    (tmp_path / "work.py").write_text("""
import sys, numpy as np, slow
from ntkcore import mlp
from ntkcore.cli import commands as cli, main
from ntkcore import falsifier
@cli.app.command("work")
def work():
    x = np.random.default_rng(0).standard_normal((40, 3))
    claim = falsifier.Claim("c", slow.metric, minimum=0.5)
    falsifier.falsify((x, x[:, :1]), mlp(1), claim, workers=2)
if __name__ == "__main__":
    sys.argv.append("work")
    main()
""")
    command = [sys.executable, "work.py"]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=-1, stderr=-1) as process:
        # A terminal's Ctrl-C reaches all of them.
        os.kill(int(process.stdout.readline()), signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, error) == (130, LINE + "\n")
