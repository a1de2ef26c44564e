"""The command line as a shell user meets it."""

import json
import subprocess
import sys

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error

RUN = "import sys; from ntkcore.cli import main; sys.argv = ['ntkcore', *sys.argv[1:]]; main()"


def run(*arguments):
    return subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=120)


def test_info_for_people_and_for_machines():
    shown = run("info")
    assert shown.returncode == 0
    assert nk.backends()[0] in shown.stdout
    found = json.loads(run("info", "--json").stdout)
    assert found["backends"][nk.backends()[0]] == "available"
    assert found["ntkcore"] == nk.__version__
    assert found["default backend"] == nk.backends()[0]


def test_version_and_help():
    assert run("--version").stdout.strip() == f"ntkcore {nk.__version__}"
    assert "ntkcore demo" in run("--help").stdout
    assert "--output" in run("demo", "--help").stdout


def test_a_users_error_is_one_line():
    failed = run("demo", "--output", "/no/such/folder/figure.png")
    assert failed.returncode == 1
    assert failed.stderr.startswith("ntkcore: no folder /no/such/folder")
    assert "Traceback" not in failed.stderr
    assert run("no-such-command").returncode == 2


def test_build_verify_extend_solve(tmp_path):
    pytest.importorskip("zarr")
    x = np.random.default_rng(0).standard_normal((70, 5))
    x_file, more, y, store, out = (str(tmp_path / name) for name in ("x.npy", "d.npz", "y.csv", "k.zarr", "a.npy"))
    np.save(x_file, x[:50])
    np.savez(more, new=x[50:], other=x)
    np.savetxt(y, x[:, :2], delimiter=",")
    estimate = json.loads(run("plan", "fc:2", x_file, "--json", "--tile", "16").stdout)
    assert estimate["tiles"] == 10
    assert run("build", "fc:depth=2", x_file, store, "--tile", "16").returncode == 0
    assert "say which array" in run("extend", store, more).stderr
    assert run("extend", store, f"{more}:new").returncode == 0
    assert json.loads(run("verify", store, "--json").stdout) == {
        **{"ok": True, "missing": 0, "bad": {}, "recomputed": 8, "swept": 0}
    }
    assert run("solve", store, y, out, "--ridge", "0.1").returncode == 0
    K = nk.kernel(nk.mlp(2), x)
    expected = np.linalg.solve(K + 0.1 * np.diagonal(K).mean() * np.eye(70), x[:, :2])
    assert relative_error(np.load(out), expected) < 1e-4
    (tmp_path / "k.zarr" / "ntk" / "c" / "0" / "1").unlink()
    assert run("verify", store).returncode == 1
    assert run("verify", store, "--repair").returncode == 0
    assert run("verify", store).returncode == 0


@pytest.mark.parametrize(
    ("text", "net"),
    [
        ("fc", nk.mlp),
        ("fc:depth=3", nk.mlp(3)),
        ("fc:3,W_std=1.5", nk.mlp(3, 1.5)),
        ("cntk:depth=4,head=flatten", nk.cntk(4, "flatten")),
        ("myrtle:10", nk.myrtle(10)),
        ("resnet:2", nk.resnet(2)),
    ],
)
def test_networks_by_name(text, net, tmp_path):
    from ntkcore.cli import parse_net

    if callable(net):
        with pytest.raises(ValueError, match="depth"):
            parse_net(text)
        return
    assert parse_net(text) == net
    file = tmp_path / "net.json"
    file.write_text(net.to_json())
    assert parse_net(str(file)) == net
    with pytest.raises(ValueError, match="no network"):
        parse_net("mlp9")


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['typer'] = None; import ntkcore.cli"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert 'pip install "ntkcore[cli]"' in failed.stderr
