"""Backends are listed, chosen and forced by name, and the forced one runs."""

import sys

import numpy as np
import pytest

import ntkcore as nk
from ntkcore import _core

backends = sys.modules["ntkcore.backends"]  # ntkcore.backends itself is the function

X = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)


@pytest.fixture
def ran(monkeypatch):
    """Names of the backends that evaluated a tile."""
    names = []
    evaluate = _core.evaluate
    monkeypatch.setattr(_core, "evaluate", lambda name, *rest: (names.append(name), evaluate(name, *rest))[1])
    return names


def test_listing():
    assert "generic" in nk.backends()
    assert {entry.name for entry in backends.info() if entry.missing is None} == set(nk.backends())
    assert all(entry.missing is None or "lacks" in entry.missing for entry in backends.info())


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


def test_instruction_sets_agree_to_rounding_but_are_not_the_same_code():
    net = nk.mlp(5, 1.2, 0.1, nk.Erf())
    kernels = {name: nk.kernel(net, X, backend=name) for name in nk.backends()}
    best = kernels.pop(nk.backends()[0])
    for other in kernels.values():
        assert np.abs(other - best).max() < 1e-5
    if "x86-64-v3" in kernels:  # with fused multiply-add and without
        assert (kernels["x86-64-v3"] != kernels["generic"]).any()


def test_unknown_names(monkeypatch):
    monkeypatch.setenv("NTKCORE_BACKEND", "abacus")
    with pytest.raises(ValueError, match=r"unknown backend 'abacus'.*generic"):
        nk.kernel(nk.mlp(1), X)


def test_one_that_cannot_run_says_why(monkeypatch):
    entries = [backends.BackendInfo("x86-64-v9", "this processor lacks AVX-9000"), *backends.info()]
    monkeypatch.setattr(backends, "info", lambda: entries)
    with pytest.raises(ValueError, match=r"AVX-9000.*available: "):
        backends.resolve("x86-64-v9")
    assert "x86-64-v9" not in backends.backends()
