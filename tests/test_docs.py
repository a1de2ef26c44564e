"""Every code block of the README and of the docs runs, in the order of its file.

Python blocks of a file share one namespace and a folder, lines that begin with `ntkcore` in its
shell blocks share that folder. What a block expects of its reader (data, a times axis) stands in
`_reader` once; `<!-- needs: ... -->` before a block says what this machine may lack.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT

FILES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>.*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)\n```", re.DOTALL
)


def _cuda():
    from ntkcore.engine.backends import info

    return any(entry.name == "cuda" and not entry.missing for entry in info())


NEEDS = {
    "a GPU and CuPy": lambda: importlib.util.find_spec("cupy") and _cuda(),
    "SLURM": lambda: shutil.which("sbatch") and importlib.util.find_spec("dask_jobqueue"),
    "minutes": lambda: False,  # the slow test runs them
}


def blocks(file):
    """(first line, language, code, needs) of every fenced block."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield (
            text[: match.start("code")].count("\n"),
            match["language"],
            match["code"],
            match["needs"],
        )


def _reader(n):
    """What the reader has: data in files, n samples of their own,
    and under the names that the text uses.
    """
    x = np.random.default_rng(0).standard_normal((n, 20))
    y = x[:, :1] * x[:, 1:2]
    files = {
        "train": x[:150],
        "more": x[:30] + 1,
        "targets": np.resize(y, (180, 1)),
        "x": x,
        "y": y,
    }
    for name, data in files.items():
        np.save(f"{name}.npy", data)
    train, test = slice(0, 100), slice(100, 120)
    names = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return {**names, "times": [0.0, 1.0, 10.0], "__name__": "__main__"}


def _shell(code):
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["ntkcore"] and "--controls" not in words:  # `make slow` runs these claims
            command = [sys.executable, "-c", "from ntkcore.cli import main; main()", *words[1:]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def _run(file, samples, needs=NEEDS):
    names = _reader(samples)
    for line, language, code, need in blocks(file):
        if need is not None and not needs[need]():
            continue
        if language == "python":
            exec(compile("\n" * line + code, str(ROOT / file), "exec"), names)
        elif language == "sh":
            _shell(code)


@pytest.mark.parametrize("file", FILES)
def test_code_blocks_run(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _run(file, 150)


@pytest.mark.parametrize("file", FILES)
def test_commands_of_minutes_begin(file, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    _reader(2000)
    for _, language, code, need in blocks(file):
        if (language, need) == ("sh", "minutes"):
            _shell(
                "\n".join(f"{line.partition(' #')[0]} --seconds 0" for line in code.splitlines())
            )


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_all_code_blocks_run(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _run(file, 2000, NEEDS | {"minutes": lambda: True})


@pytest.mark.parametrize("file", FILES)
def test_blocks_are_of_a_kind_that_runs(file):
    for line, language, _, needs in blocks(file):
        assert language in ("python", "sh"), f"{file}:{line}"
        assert needs is None or needs in NEEDS, f"{file}:{line}"


def test_links_lead_somewhere():
    for file in [*FILES, "CONTRIBUTING.md", "benchmarks/README.md"]:
        folder = (ROOT / file).parent
        for target in re.findall(
            r"\]\(([^)#:]+)[^):]*\)", (ROOT / file).read_text(encoding="utf-8")
        ):
            assert (folder / target).exists(), f"{file}: {target}"


def test_the_map_of_the_sources_is_whole():
    """Every Python file of the package stands in CONTRIBUTING's map."""
    named = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")
    files = (ROOT / "python" / "ntkcore").rglob("*.py")
    inner = {path.name for path in files if path.parent.name != "figures"} - {"__init__.py"}
    assert {name for name in inner if not any(name in block for block in named)} == set()
