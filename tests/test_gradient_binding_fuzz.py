"""The extension's gradients with any arguments: results, or errors that say what does not fit."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ntkcore as nk
from ntkcore import _core
from test_binding_fuzz import (
    CHAIN,
    MANY,
    PROGRAM,
    REFUSED,
    SENTINEL,
    SLOPES,
    STRIP,
    M,
    N,
    any_knob,
    backends,
    data,
    frame_is_whole,
    framed,
    odd_result,
    parameters,
    places,
    valid_op,
)


@st.composite
def gradient_calls(draw):
    """As calls(), for the gradient: (arguments, the frames of its results)."""
    odd = draw(st.sets(st.sampled_from(SLOPES), max_size=2))
    other = CHAIN if "program" in odd else PROGRAM
    rows = _core.VectorSlopes(_core.Vectors(PROGRAM, data(N, 3, np.float64)))
    cols = _core.VectorSlopes(_core.Vectors(PROGRAM, data(M, 3, np.float64)))
    if "points" in odd or "program" in odd:
        cols = _core.VectorSlopes(
            _core.Vectors(other, data(*draw(st.sampled_from([(2, 3), (M, 2), (M, 3)])), np.float64))
        )
    row = draw(places if "row" in odd else st.integers(0, N - 1))
    col = draw(places if "col" in odd else st.sampled_from([0, STRIP]))
    height, width = (
        draw(st.integers(1, max(1, N - abs(row)))),
        draw(st.integers(1, max(1, M - abs(col)))),
    )
    dot = np.zeros((height, width))
    if "dot" in odd:
        dot = draw(
            st.sampled_from(
                [dot[1:], dot[:, :-1], dot.T, dot.astype(np.float32), dot[0], dot[..., None]]
            )
        )
    frames, results = [], []
    for _ in range(draw(st.integers(0, 6)) if "count" in odd else 5):
        fits = "results" not in odd or draw(st.booleans())
        frame, part = (
            framed(height, width, np.float64)
            if fits
            else odd_result(draw, height, width, np.float64)
        )
        frames.append(frame)
        results.append(draw(st.sampled_from([part, part, None])))
    knobs = draw(
        st.lists(
            any_knob
            if "knobs" in odd
            else st.tuples(st.integers(0, 3), st.integers(0, 1), parameters)
        )
    )
    return (draw(backends), rows, row, cols, col, dot, draw(st.booleans()), knobs, results), frames


@MANY
@given(gradient_calls())
def test_any_gradient_stays_inside(drawn):
    arguments, frames = drawn
    with contextlib.suppress(*REFUSED):
        _core.gradient(*arguments)
    assert all(map(frame_is_whole, frames))


@MANY
@given(st.lists(valid_op, max_size=8), backends, st.booleans(), st.lists(any_knob, max_size=3))
def test_the_gradient_of_any_valid_program_runs_within_its_tile(ops, backend, ntk, knobs):
    program = _core.Program(ops, 2, 2)
    slopes = _core.VectorSlopes(_core.Vectors(program, data(5, 3, np.float64)))
    wholes, parts = zip(*(framed(5, 5, np.float64) for _ in range(4)), strict=True)
    knobs = [(op, 0, slope) for op, _, slope in knobs if 0 <= op < len(ops)]
    _core.gradient(backend, slopes, 0, slopes, 0, np.zeros((5, 5)), ntk, knobs, parts)
    assert all(map(frame_is_whole, wholes))
    assert all((part != SENTINEL).all() for part in parts)


def gradient(**changes):
    """A call that fits, with changes."""
    slopes = _core.VectorSlopes(_core.Vectors(PROGRAM, data(N, 3, np.float64)))
    arguments = {
        "backend": nk.backends()[0],
        "rows": slopes,
        "row": 0,
        "cols": slopes,
        "col": 0,
        "dot": np.zeros((N, N)),
        "ntk": True,
        "knobs": [(0, 0, (1.0, 0.0, 0.0, 0.0))],
        "results": [np.empty((N, N)) for _ in range(4)],
    }
    return _core.gradient(**(arguments | changes))


def test_a_gradient_that_fits():
    assert PROGRAM.dense_ops == [0, 2]
    gradient()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "abacus"}, "unknown backend 'abacus'"),
        ({"row": 1}, "rows out of range"),
        ({"col": STRIP}, "columns out of range"),
        (
            {"cols": _core.VectorSlopes(_core.Vectors(CHAIN, data(N, 3, np.float64)))},
            "different programs",
        ),
        ({"cols": _core.VectorSlopes(_core.Vectors(PROGRAM, data(N, 4, np.float64)))}, "width"),
        ({"dot": np.zeros((N, N - 1))}, "smaller"),
        ({"dot": np.zeros((N, N), np.float32)}, "float64"),
        ({"knobs": [(3, 0, (0.0,) * 4)]}, "op is out of range"),
        ({"knobs": [(-1, 0, (0.0,) * 4)]}, "op is out of range"),
        ({"knobs": [(0, 1, (0.0,) * 4)]}, "result is out of range"),
        ({"results": [np.empty((N, N))] * 2}, "between 3 and"),
        ({"results": [None] * 4}, "no result"),
        ({"results": [np.empty((N, N), np.float32)] * 4}, "dtype"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_refusals_of_the_gradient_say_what_does_not_fit(changes, words):
    with pytest.raises(ValueError, match=words):
        gradient(**changes)


def test_slopes_need_float64():
    with pytest.raises(ValueError, match="float64"):
        _core.VectorSlopes(_core.Vectors(PROGRAM, data(N, 3, np.float32)))


def test_slopes_need_the_data():
    with pytest.raises(ValueError, match="without their data"):
        _core.VectorSlopes(_core.Vectors.of_norms(PROGRAM, np.ones(N), 3, True, 1))
