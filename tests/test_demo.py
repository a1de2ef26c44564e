"""The demonstration on a part of the digits: its numbers, its table, its figure."""

import sys

import numpy as np
import pytest

from ntkcore.cli import demo


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return demo.run(tmp_path_factory.mktemp("demo") / "figure.png", samples=300)


def test_the_kernels_learn_digits(results):
    assert len(results.rows) == 6
    assert all(0.75 < row.accuracy <= 1 for row in results.rows)
    assert results.accuracy["NTK, fully connected"][1] > 0.85
    assert "RBF SVM" in demo.table(results)


def test_leading_modes_are_learned_first(results):
    half = [int(np.argmax(left < 0.5)) for left in results.residuals[:3]]
    assert 0 < half[0] < half[1] < half[2]
    assert (np.diff(results.residuals, axis=1) <= 1e-12).all()


def test_spectra_are_sorted_and_positive(results):
    for values in results.spectra.values():
        assert (np.diff(values) <= 0).all()
        assert values[-1] > 0


def test_the_figure_is_written(results):
    assert results.figure.read_bytes()[:4] == b"\x89PNG"
    assert results.figure.stat().st_size > 20_000


def test_a_format_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "load", lambda samples: pytest.fail("work began"))
    with pytest.raises(ValueError, match=r"name it \.png"):
        demo.run(tmp_path / "figure.foo")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.delitem(sys.modules, "ntkcore.cli.demo")
    with pytest.raises(ImportError, match=r"ntkcore\[all\]"):
        __import__("ntkcore.cli.demo")
