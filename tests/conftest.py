"""What all tests share: data, tolerances that NaN cannot pass, hypothesis' profile."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import ntkcore as nk

ROOT = Path(__file__).parent.parent
settings.register_profile("default", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=200, print_blob=True)
settings.load_profile("fuzz" if os.environ.get("NTKCORE_FUZZ") else "default")


def relative_error(actual, expected):
    """Largest difference over the largest expected entry; fails on NaN and on other shapes."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-300))


def check_against_reference(reference, net, x, z, backend, single):
    """Both dtypes, float32 to `single`, and the diagonal; reference(None) of x, reference(z)."""
    get = ("nngp", "ntk")
    for other in (None, z):
        expected = reference(other)
        double = nk.kernel(net, x, other, get, backend=backend)
        short = nk.kernel(net, x, other, get, backend=backend, dtype="float32")
        for k in (0, 1):
            assert relative_error(double[k], expected[k]) < 1e-12
            assert relative_error(short[k], expected[k]) < single
    diagonal = nk.kernel_diag(net, x, get, backend=backend)
    for k in (0, 1):
        assert relative_error(diagonal[k], np.diag(reference(None)[k])) < 1e-12


def assert_close(actual, expected, tolerance):
    """Equal shapes and finite values, apart by at most
    `tolerance` times the largest expected entry.
    """
    error = relative_error(actual, expected)
    assert error <= tolerance, f"relative error {error:.2g} > {tolerance:.2g}"


@pytest.fixture(scope="module")
def once():
    """once(function, net, *arrays): what every backend and precision is held against,
    computed once a module.
    """
    known = {}

    def call(function, net, *arrays):
        data = tuple(None if x is None else (x.dtype, x.shape, x.tobytes()) for x in arrays)
        key = function, net, data
        if key not in known:
            known[key] = function(net, *arrays)
        return known[key]

    return call


@pytest.fixture(scope="session")
def nt_reference():
    """(spelling of every case's network, arrays) of neural-tangents 0.6.5, float64."""
    folder = Path(__file__).parent / "data"
    return json.loads((folder / "nt_reference.json").read_text()), np.load(
        folder / "nt_reference.npz"
    )


@pytest.fixture(scope="session")
def data_folder():
    """The real data sets; tests that need them skip where the folder is absent."""
    folder = Path(os.environ.get("NTKCORE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}: set NTKCORE_DATA")
    return folder


# --- the table of docs/promises.md: what tests marked `chaos` tried

PAGE = ROOT / "docs" / "promises.md"
TABLE = "<!-- written by `make chaos` -->\n"
_tried: dict[str, list[tuple[int, bool]]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    mark = item.get_closest_marker("chaos")
    if mark and mark.args and call.when == "call" and not report.skipped:
        times = dict(item.user_properties).get("times", 1)
        _tried.setdefault(mark.args[0], []).append((times, report.passed))
    return report


def pytest_sessionfinish():
    if not os.environ.get("NTKCORE_CHAOS") or not _tried:
        return
    rows = ["| fault | times | outcome |", "|---|---|---|"]
    for fault, found in _tried.items():
        failed = sum(not passed for _, passed in found)
        outcome = f"WRONG in {failed} tests" if failed else "right every time"
        rows.append(f"| {fault} | {sum(times for times, _ in found)} | {outcome} |")
    before, _, after = PAGE.read_text(encoding="utf-8").split(TABLE)
    PAGE.write_text(TABLE.join([before, "\n".join(rows) + "\n", after]), encoding="utf-8")
