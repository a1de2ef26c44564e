"""Backends are listed, chosen and forced by name, and the forced one runs."""

import os
import subprocess
import sys

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore import _core
from ntkcore.engine import backends

X = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)


@pytest.fixture
def ran(monkeypatch):
    """Names of the backends that evaluated a tile."""
    names = []
    evaluate = _core.evaluate
    monkeypatch.setattr(
        _core, "evaluate", lambda name, *rest: (names.append(name), evaluate(name, *rest))[1]
    )
    return names


def test_listing():
    assert "generic" in nk.backends()
    assert {entry.name for entry in backends.info() if entry.missing is None} == set(nk.backends())
    assert all(
        entry.missing is None or "lacks" in entry.missing
        for entry in backends.info()
        if entry.name != "cuda"
    )


def test_the_fastest_is_the_default(ran, monkeypatch):
    monkeypatch.delenv("NTKCORE_BACKEND", raising=False)
    nk.kernel(nk.mlp(1), X)
    assert set(ran) == {nk.backends()[0]}


@pytest.mark.parametrize("name", nk.backends())
def test_forcing_by_argument_and_by_variable(name, ran, monkeypatch):
    nk.kernel(nk.mlp(1), X, backend=name)
    monkeypatch.setenv("NTKCORE_BACKEND", name)
    nk.kernel(nk.mlp(1), X)
    assert set(ran) == {name}


@pytest.mark.parametrize("net", [nk.mlp(1), nk.mlp(1, 1.2, 0.1, nk.Erf())], ids=["chain", "strip"])
@pytest.mark.parametrize("name", nk.backends())
def test_every_tile_runs_on_the_forced_one(net, name, ran):
    x = np.random.default_rng(1).standard_normal((600, 4))
    nk.kernel(net, x, x[:300], backend=name, threads=2)
    assert ran == [name] * 3  # 600 rows in blocks of 256


def test_the_argument_wins_over_the_variable(ran, monkeypatch):
    first, last = nk.backends()[0], nk.backends()[-1]
    monkeypatch.setenv("NTKCORE_BACKEND", first)
    nk.kernel(nk.mlp(1), X, backend=last)
    assert set(ran) == {last}
    monkeypatch.setenv("NTKCORE_BACKEND", "")  # as if unset
    assert backends.resolve() == first


def test_the_variable_counts_in_a_new_process():
    code = (
        "from ntkcore import backends; import sys;"
        " print(sys.modules['ntkcore.engine.backends'].resolve())"
    )
    environment = os.environ | {"NTKCORE_BACKEND": "generic"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "generic"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", [nk.mlp(5), nk.mlp(5, 1.2, 0.1, nk.Erf())], ids=["chain", "strip"])
def test_instruction_sets_agree_to_rounding_but_are_not_the_same_code(net, dtype):
    kernels = {name: nk.kernel(net, X, backend=name, dtype=dtype) for name in nk.backends()}
    best = kernels[nk.backends()[0]]
    for other in kernels.values():
        assert relative_error(other, best) < 20 * np.finfo(dtype).eps
    if "x86-64-v3" in kernels:  # with fused multiply-add and without
        assert (kernels["x86-64-v3"] != kernels["generic"]).any()


def test_unknown_names(monkeypatch):
    monkeypatch.setenv("NTKCORE_BACKEND", "abacus")
    for call in (nk.kernel, nk.kernel_diag):
        with pytest.raises(ValueError, match=r"unknown backend 'abacus'.*generic"):
            call(nk.mlp(1), X)
        with pytest.raises(ValueError, match="unknown backend 'cuda9'"):
            call(nk.mlp(1), X, backend="cuda9")
    with pytest.raises(ValueError, match="unknown backend"):
        backends.resolve(nk.backends()[0].upper())


def test_one_that_cannot_run_says_why(monkeypatch):
    entries = [backends.BackendInfo("x86-64-v9", "this processor lacks AVX-9000"), *backends.info()]
    monkeypatch.setattr(backends, "info", lambda: entries)
    with pytest.raises(ValueError, match=r"AVX-9000.*available: "):
        backends.resolve("x86-64-v9")
    assert "x86-64-v9" not in backends.backends()
