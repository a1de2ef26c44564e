"""The command line as a shell user meets it."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore import cli

RUN = "import sys; from ntkcore.cli import main; sys.argv = ['ntkcore', *sys.argv[1:]]; main()"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=120
    )


def here(*arguments):
    """The same in this process, which is quicker: what a shell would have seen."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        warnings.simplefilter("default")
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # which main() replaces
        patch.setattr(cli, "_leave_after", lambda seconds: None)
        patch.setattr(sys, "argv", ["ntkcore", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code or 0
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


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


def test_info_of_a_store_bounds_the_error_of_its_tables(tmp_path):
    """As `error_bounds` of all its data, of an extended one too."""
    pytest.importorskip("zarr")
    x = np.random.default_rng(0).standard_normal((30, 5))
    np.save(tmp_path / "x.npy", x[:20])
    np.save(tmp_path / "more.npy", 2 * x[20:])
    net = nk.Serial(nk.Dense(), nk.Elementwise("tanh"), nk.Dense(), nk.Relu(), nk.Dense())
    (tmp_path / "net.json").write_text(net.to_json())
    store = tmp_path / "k.zarr"
    here("build", tmp_path / "net.json", tmp_path / "x.npy", store)
    shown = json.loads(here("info", store, "--json").stdout)
    assert shown["n"] == 20
    assert shown["errors"] == nk.error_bounds(net, x[:20])
    here("extend", store, tmp_path / "more.npy")
    whole = nk.error_bounds(net, np.concatenate([x[:20], 2 * x[20:]]))
    assert list(whole) == ["layer 1, Elementwise(phi='tanh')"]
    (bound,) = whole.values()
    assert bound > shown["errors"]["layer 1, Elementwise(phi='tanh')"]
    text = here("info", store).stdout
    assert f"layer 1, Elementwise(phi='tanh') at most {bound:.1e}" in text
    assert "there is no store at" in here("info", tmp_path / "nowhere").stderr


def test_build_verify_extend_solve(tmp_path):
    pytest.importorskip("zarr")
    x = np.random.default_rng(0).standard_normal((70, 5))
    x_file, more, y, store, out = (
        str(tmp_path / name) for name in ("x.npy", "d.npz", "y.csv", "k.zarr", "a.npy")
    )
    np.save(x_file, x[:50])
    np.savez(more, new=x[50:], other=x)
    np.savetxt(y, x[:, :2], delimiter=",")
    estimate = json.loads(here("plan", "fc:2", x_file, "--json", "--tile", "16").stdout)
    assert estimate["tiles"] == 10
    assert run("build", "fc:depth=2", x_file, store, "--tile", "16").returncode == 0
    assert "say which array" in here("extend", store, more).stderr
    assert here("extend", store, f"{more}:new").returncode == 0
    assert json.loads(here("verify", store, "--json").stdout) == {
        **{"ok": True, "missing": 0, "bad": {}, "parts": {}, "recomputed": 8, "swept": 0}
    }
    solved = run("solve", store, y, out, "--ridge", "0.1")
    assert re.fullmatch(
        rf"Cholesky, 70 points: exact; 1 pass, .*\nexact\nthe coefficients: {out}\n", solved.stdout
    )
    K = nk.kernel(nk.mlp(2), x)
    expected = np.linalg.solve(K + 0.1 * np.diagonal(K).mean() * np.eye(70), x[:, :2])
    assert relative_error(np.load(out), expected) < 1e-4
    (tmp_path / "k.zarr" / "ntk" / "c" / "0" / "1").unlink()
    assert here("verify", store).returncode == 1
    assert here("verify", store, "--repair").returncode == 0
    assert here("verify", store).returncode == 0


def test_an_overflow_is_one_line(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 4, 4, 1)).astype("f4")
    for name, data in {"x": x * 1e4, "y": x[:, 0, 0], "z": x * 1e18}.items():
        np.save(tmp_path / f"{name}.npy", data)
    store, coefficients = tmp_path / "k.zarr", tmp_path / "a.npy"
    assert here("build", "cntk:depth=2,W_std=1000", tmp_path / "x.npy", store).returncode == 0
    assert here("solve", store, tmp_path / "y.npy", coefficients, "--ridge", "0.1").returncode == 0
    result = here("predict", store, coefficients, tmp_path / "z.npy", tmp_path / "p.npy")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "not finite" in result.stderr


def test_predict_and_spectrum(tmp_path):
    pytest.importorskip("zarr")
    x = np.random.default_rng(0).standard_normal((80, 5))
    names = "x.npy", "z.npy", "y.npy", "k.zarr", "a.npy", "p.npy"
    x_file, z_file, y_file, store, a_file, out = (str(tmp_path / name) for name in names)
    for file, content in ((x_file, x[:60]), (z_file, x[60:]), (y_file, x[:60, :2])):
        np.save(file, content)
    assert here("build", "fc:2", x_file, store, "--tile", "16", "--prepare").returncode == 0
    assert "10 tiles missing" in here("build", "fc:2", x_file, store, "--prepare").stdout
    assert "5 tiles missing" in here("build", "fc:2", x_file, store, "--part", "1/2").stdout
    assert "whole numbers" in here("build", "fc:2", x_file, store, "--part", "a/b").stderr
    assert "not finished" in here("spectrum", store).stderr
    assert "complete" in here("build", "fc:2", x_file, store).stdout
    assert here("solve", store, y_file, a_file, "--ridge", "0.1").returncode == 0
    assert "20 predictions" in here("predict", store, a_file, z_file, out).stdout
    K, cross = nk.kernel(nk.mlp(2), x[:60]), nk.kernel(nk.mlp(2), x[60:], x[:60])
    expected = cross @ np.linalg.solve(K + 0.1 * np.diagonal(K).mean() * np.eye(60), x[:60, :2])
    assert relative_error(np.load(out), expected) < 1e-4
    assert "the store 60 samples" in here("predict", store, z_file, z_file, out).stderr
    shown = json.loads(
        here("spectrum", store, "--largest", "3", "--targets", y_file, "--json").stdout
    )
    values, modes = np.linalg.eigh(K)
    assert relative_error(shown["eigenvalue"], values[:-4:-1]) < 1e-8
    assert relative_error(shown["trace"], values[:-4:-1].cumsum() / np.trace(K)) < 1e-8
    shares = ((modes[:, :-4:-1].T @ x[:60, :2]) ** 2).sum(1).cumsum() / (x[:60, :2] ** 2).sum()
    assert relative_error(shown["targets"], shares) < 1e-8
    assert "of the trace" in here("spectrum", store, "--largest", "3").stdout


def said(*arguments):
    """What a command says, in this process; its error is raised."""
    from typer.testing import CliRunner

    from ntkcore.cli.commands import app

    done = CliRunner().invoke(app, arguments)
    if done.exception:
        raise done.exception
    return done.stdout


def test_classes_of_a_store(files, tmp_path):
    labels, names = np.array(["b", "a", "b", "c", "a", "c"]), ("y.npy", "a.npz", "p.npy")
    y, out, predictions = (str(tmp_path / name) for name in names)
    np.save(y, labels)
    lines = said("solve", files["k"], y, out[:-4], "--ridge", "1e-6", "--landmarks", "6")
    lines = lines.splitlines()
    assert "6 points, 6 landmarks: the restricted problem" in lines[0]
    assert lines[-2].startswith("the restricted problem of 6 landmarks to a residual of 1.0e-06")
    assert lines[-1] == f"the coefficients: {out}"
    assert "6 predictions" in said("predict", files["k"], out, files["x"], predictions)
    assert np.load(predictions).tolist() == labels.tolist()
    assert said("predict", files["k"], f"{out}:coefficients", files["x"], predictions)
    assert np.load(predictions).shape == (6, 3)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ("--classify", ValueError, "would hold coefficients only, and predictions no labels"),
        ("--method cholesky --rtol 1e-3", TypeError, "method='cholesky' takes no rtol"),
        ("--seconds 0", ValueError, "seconds must be positive"),
        ("--memory 1e-12", ValueError, "too little for 6 points"),
        ("--landmarks 7", ValueError, "7 landmarks are more than the 6 samples"),
        ("--checkpoint /nowhere/c.npz", OSError, "no folder /nowhere"),
    ],
)
def test_options_of_solve(options, error, words, files, tmp_path):
    np.save(tmp_path / "y.npy", np.arange(6) % 3)
    with pytest.raises(error, match=words):
        said("solve", files["k"], str(tmp_path / "y.npy"), files["out"], *options.split())


def test_run(tmp_path):
    assert "spectral_bias" in run("run").stdout
    shown = run("run", "spectral_bias", "--quick", "--output", str(tmp_path))
    assert shown.returncode == 0
    assert shown.stdout.count("met: ") == 9
    assert (tmp_path / "spectral_bias.png").exists()
    assert "no experiment 'nothing'" in run("run", "nothing").stderr


def test_data_by_name(tmp_path):
    from ntkcore.cli.sources import load

    x = np.random.default_rng(0).standard_normal((4, 3))
    for head in ("", "a,b,c"):
        np.savetxt(tmp_path / "x.csv", x, delimiter=",", header=head, comments="")
        assert relative_error(load(str(tmp_path / "x.csv")), x) < 1e-15
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        arrow.table({name: x[:, k] for k, name in enumerate("abc")}), tmp_path / "x.parquet"
    )
    assert np.array_equal(load(str(tmp_path / "x.parquet")), x)
    (tmp_path / "x.txt").write_text("1")
    for name, words in (("x.txt", "must be .npy"), ("no.npy", "no data at")):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            load(str(tmp_path / name))


def test_names_complete_themselves():
    environment = {
        **os.environ,
        "_NTKCORE_COMPLETE": "complete_bash",
        "COMP_WORDS": "ntkcore plan c",
        "COMP_CWORD": "2",
    }
    code = (
        "import sys; sys.argv = ['ntkcore']; from ntkcore.cli.commands import app;"
        " app(prog_name='ntkcore')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert shown.stdout.strip() == "cntk:depth="


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
    from ntkcore.cli.sources import parse_net

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
    code = "import sys; sys.modules['typer'] = None; from ntkcore.cli import main; main()"
    failed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert failed.returncode == 1
    assert 'pip install "ntkcore[cli]"' in failed.stderr


USELESS = {
    "build fc:2 {x} {new} --devices 0": "--devices has no effect without --backend cuda",
    "build fc:2 {x} {new} --prepare --part 0/2": "--part has no effect with --prepare",
    "build fc:2 {x} {new} --part 0/2/3": "--part must be I/N",
    "build fc:2 {x}:foo {new}": "has no meaning",
    "build fc:2 {x} s3:/x --get ntk,": "get must be",
    "spectrum {k} --kernel done": "no kernel 'done'",
    "solve {k} {x} {out} --kernel nngp": "no kernel 'nngp'",
    "predict {k} {x} {x} {out} --kernel nngp": "no kernel 'nngp'",
    "spectrum {k} --targets {z}": "the store 6 samples",
    "spectrum {k} --targets {nan}": "NaN, infinity or zeros",
    "build fc:2 {x} {new} --backend=": "unknown backend ''",
    "predict {k} {cube} {x} {out}": "cube.npy must have shape (6,) or (6, outputs)",
    "predict {k} {nan} {x} {out}": "nan.npy holds NaN",
    "build {x} fc:2 {new}": "the network comes before the data",
    "run --quick": "--quick has no effect",
    "falsify --controls --axis n": "--axis has no effect",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    pytest.importorskip("zarr")
    folder = tmp_path_factory.mktemp("cli")
    x = np.random.default_rng(0).standard_normal((6, 2))
    np.save(folder / "x.npy", x)
    np.save(folder / "z.npy", x[:4])
    np.save(folder / "nan.npy", np.full((6, 1), np.nan))
    np.save(folder / "cube.npy", np.ones((6, 2, 2)))
    from ntkcore.store.build import build

    build(nk.mlp(1), x, folder / "k.zarr", progress=False)
    names = {
        "x": "x.npy",
        "z": "z.npy",
        "nan": "nan.npy",
        "cube": "cube.npy",
        "k": "k.zarr",
        "new": "new.zarr",
        "out": "out.npy",
    }
    return {key: str(folder / name) for key, name in names.items()}


@pytest.mark.parametrize("command", USELESS)
def test_what_has_no_effect_is_refused(command, files):
    if command.startswith("falsify"):
        pytest.importorskip("torch")
    failed = here(*command.format(**files).split())
    assert failed.returncode == 1
    assert USELESS[command] in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not os.path.exists(files["new"])


def test_a_url_is_no_folder(files, tmp_path):
    pytest.importorskip("fsspec")
    folder = tmp_path / "here"
    folder.mkdir()
    build = [sys.executable, "-c", RUN, "build", "fc:1", files["x"]]
    options = {"capture_output": True, "text": True, "cwd": folder, "timeout": 120}
    made = subprocess.run([*build, f"file://{tmp_path}/k.zarr"], **options)
    assert made.returncode == 0, made.stderr
    assert json.loads(run("verify", f"{tmp_path}/k.zarr", "--json").stdout)["ok"]
    lost = subprocess.run([*build, "memory://k.zarr"], **options)
    assert lost.returncode == 2
    assert "would be lost" in lost.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "command", ["demo --output", "run spectral_bias --output", "solve k.zarr y.npy"]
)
def test_results_go_to_no_url(command, tmp_path):
    failed = here(*command.split(), "s3://bucket/out")
    assert failed.returncode == 2
    assert "local files" in failed.stderr
