"""The command line as a shell user meets it."""

import json
import subprocess
import sys

import ntkcore as nk

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


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['typer'] = None; import ntkcore.cli"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert 'pip install "ntkcore[cli]"' in failed.stderr
