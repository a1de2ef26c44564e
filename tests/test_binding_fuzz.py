"""The binding checks what it is given: whatever Python passes,
the answer is a result or a Python exception.

A crash of the process, or a byte written beside the tile, is a failure here.
"""

import contextlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ntkcore as nk
from ntkcore import _core
from ntkcore.specs.lowering import lower

STRIP = _core.STRIP
SENTINEL = -12345.0
REFUSED = (ValueError, TypeError)
MANY = settings(max_examples=400)
KINDS = ["affine", "dual", "normalize", "scale", "dropout", "copy", "add", "multiply", "emit"]

parameters = st.tuples(
    *[
        st.floats(-2, 2)
        | st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324])
    ]
    * 4
)
any_index = st.integers(-2, 5) | st.sampled_from([2**31 - 1, -(2**31), 2**31, 2**40, 4096, 65536])
any_op = st.tuples(
    st.sampled_from([*KINDS, "", "conv"]),
    st.sampled_from([*_core.duals(), "", "tanh"]),
    any_index,
    any_index,
    parameters,
)
valid_op = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(_core.duals()),
    st.integers(0, 1),
    st.integers(0, 1),
    parameters,
)
chain_op = valid_op.map(lambda op: (op[0], "abrelu", 0, *op[3:]))  # more often a chain in registers
precisions = st.sampled_from([np.float32, np.float64])
backends = st.sampled_from(nk.backends())


def data(n, d, dtype):
    return np.random.default_rng(n + d).standard_normal((n, d)).astype(dtype)


def framed(height, width, dtype):
    """A matrix inside a frame of sentinels: (the whole, the matrix)."""
    whole = np.full((height + 2, width + 2), SENTINEL, dtype)
    return whole, whole[1:-1, 1:-1]


def frame_is_whole(whole):
    return all(
        (side == SENTINEL).all() for side in (whole[0], whole[-1], whole[:, 0], whole[:, -1])
    )


@MANY
@given(st.lists(any_op, max_size=6), any_index, any_index)
@example([], 0, 1)
@example([], 1, 0)
@example([("emit", "", 0, 1, (1.0, 0.0, 0.0, 0.0))], 1, 1)
@example([("add", "", 0, 1, (0.0, 0.0, 0.0, 0.0))], 1, 1)
def test_any_program(ops, slots, outputs):
    try:
        program = _core.Program(ops, slots, outputs)
    except REFUSED:
        return
    assert slots >= 1
    assert outputs >= 1
    assert all(0 <= slot < slots for _, _, slot, _, _ in ops)
    if slots * outputs <= 100:
        assert _core.Vectors(program, data(3, 2, np.float64)).nngp.shape == (outputs, 3)


@MANY
@given(
    st.lists(valid_op, max_size=8) | st.lists(chain_op, max_size=8),
    precisions,
    backends,
    st.booleans(),
)
def test_any_valid_program_runs_within_its_tile(ops, dtype, backend, diagonal):
    program = _core.Program(ops, 2, 2)
    points = _core.Vectors(program, data(5, 3, dtype))
    dot = np.zeros((5, STRIP), dtype)
    dot[:, :5] = points.unit @ points.unit.T
    wholes, parts = zip(*(framed(5, 5, dtype) for _ in range(4)), strict=True)
    _core.evaluate(
        backend,
        points,
        0,
        points,
        0,
        dot,
        parts[:2],
        parts[2:],
        [None, None],
        [None, None],
        diagonal,
    )
    assert all(map(frame_is_whole, wholes))


@pytest.mark.parametrize(
    "ops",
    [
        5,
        "affine",
        [("affine", "", 0, 0)],
        [("affine", "", 0, 0, (1.0, 2.0))],
        [("affine", "", 0, 0, (1.0, 2.0, 3.0, 4.0, 5.0))],
        [("affine", "", 0.5, 0, (1.0, 2.0, 3.0, 4.0))],
        [("affine", "", 0, 0, (1.0, 2.0, 3.0, "x"))],
        [(1, "", 0, 0, (1.0, 2.0, 3.0, 4.0))],
        [None],
    ],
    ids=str,
)
def test_malformed_ops(ops):
    with pytest.raises(REFUSED):
        _core.Program(ops, 1, 1)


def test_unknown_names_are_repeated():
    parameters = (0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="unknown op 'matmul'"):
        _core.Program([("matmul", "", 0, 0, parameters)], 1, 1)
    with pytest.raises(ValueError, match="unknown dual activation 'tanh'"):
        _core.Program([("dual", "tanh", 0, 0, parameters)], 1, 1)


PROGRAM = lower(nk.Serial(nk.Dense(1.2, 0.1), nk.Erf(), nk.Dense()), (3,), wants_ntk=True)
CHAIN = lower(nk.mlp(2, 1.2, 0.1), (3,), wants_ntk=True)


@pytest.mark.parametrize(
    "x",
    [
        None,
        3.0,
        [[1.0, 2.0]],
        np.ones(3),
        np.ones((2, 3, 1)),
        np.ones((0, 3)),
        np.ones((3, 0)),
        np.ones((2, 3), int),
        np.ones((2, 3), np.float16),
        np.ones((2, 3), complex),
        np.ones((4, 6))[::2, ::2],
        np.asfortranarray(np.ones((4, 3))),
        np.ones((2, 3), ">f8"),
        np.array([["a", "b"]]),
        np.array([[None, 1.0]]),
    ],
    ids=repr,
)
def test_points_of_anything_else(x):
    with pytest.raises(REFUSED):
        _core.Vectors(PROGRAM, x)


def test_points_keep_their_program_and_results_their_points():
    points = _core.Vectors(
        _core.Program([("emit", "", 0, 0, (1.0, 0.0, 0.0, 0.0))], 1, 1), data(4, 3, np.float64)
    )
    unit, expected = points.unit, np.array(points.unit)
    del points
    junk = [np.full((4, 3), 7.0) for _ in range(100)]  # would land where the points were
    assert (unit == expected).all()
    assert len(junk) == 100


N, M = 5, 300
places = (
    st.just(0)
    | st.integers(-1, 6)
    | st.sampled_from([STRIP, STRIP + 1, 2 * STRIP, M, -(2**63), 2**63 - 1, 2**62])
)


def odd_result(draw, height, width, dtype):
    """A result that rarely fits, in a frame."""
    kind = draw(
        st.sampled_from(
            ["size", "dtype", "columns", "reversed", "frozen", "1d", "strided", "square"]
        )
    )
    if kind == "size":
        height, width = draw(st.integers(0, N + 1)), draw(st.sampled_from([0, 1, 44, STRIP, M + 1]))
    if kind == "square":
        height = width = max(height, width)
    if kind == "dtype":
        dtype = draw(st.sampled_from([np.float32, np.float64, np.int64]))
    whole, part = framed(height, width, dtype)
    if kind == "columns":
        whole = np.asfortranarray(whole)
        part = whole[1:-1, 1:-1]
    part.flags.writeable = kind != "frozen"
    changed = {"reversed": part[::-1], "1d": part.ravel(), "strided": part[:, ::2]}
    return whole, changed.get(kind, part)


ARGUMENTS = [
    "row",
    "col",
    "points",
    "program",
    "dot",
    "dot",
    "results",
    "results",
    "mirrors",
    "count",
    "diagonal",
]


@st.composite
def calls(draw):
    """(arguments of a call that fits but for up to two oddities, the frames of its results)."""
    odd = draw(st.sets(st.sampled_from(ARGUMENTS), max_size=2))
    dtype, program = draw(precisions), draw(st.sampled_from([PROGRAM, CHAIN]))
    other = draw(st.sampled_from([PROGRAM, CHAIN])) if "program" in odd else program
    rows, cols = _core.Vectors(program, data(N, 3, dtype)), _core.Vectors(other, data(M, 3, dtype))
    if "points" in odd:
        cols = draw(
            st.sampled_from(
                [
                    rows,
                    _core.Vectors(other, data(2, 3, dtype)),
                    _core.Vectors(other, data(M, 2, dtype)),
                ]
            )
        )
    row = draw(places if "row" in odd else st.integers(0, N - 1))
    col = draw(places if "col" in odd else st.sampled_from([0, STRIP]))
    height, width = (
        draw(st.integers(1, max(1, N - abs(row)))),
        draw(st.integers(1, max(1, M - abs(col)))),
    )
    dot = np.zeros((height, -(-width // STRIP) * STRIP), dtype)
    if "dot" in odd:
        dot = draw(
            st.sampled_from(
                [dot[1:], dot[:, :-1], dot.T, dot.astype(np.float16), dot[0], dot[..., None]]
            )
        )
    frames = []

    def group(shape, kind):
        fits = kind not in odd or draw(st.booleans())
        frame, part = framed(*shape, dtype) if fits else odd_result(draw, *shape, dtype)
        frames.append(frame)
        return draw(st.sampled_from([[], [part, part], [None, None]])) if "count" in odd else [part]

    lists = [group((height, width), "results") for _ in range(2)]
    lists += [group((width, height), "mirrors") if "mirrors" in odd else [None] for _ in range(2)]
    diagonal = "diagonal" in odd
    return (draw(backends), rows, row, cols, col, dot, *lists, diagonal), frames


@MANY
@given(calls())
def test_any_call_stays_inside(drawn):
    arguments, frames = drawn
    with contextlib.suppress(*REFUSED):
        _core.evaluate(*arguments)
    assert all(map(frame_is_whole, frames))


@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("program", [PROGRAM, CHAIN], ids=["strip", "chain"])
@given(st.integers(0, N - 1), st.sampled_from([0, STRIP]), st.integers(1, N), st.integers(1, STRIP))
def test_every_tile_is_written_and_nothing_else(program, dtype, backend, row, col, height, width):
    rows, cols = (
        _core.Vectors(program, data(N, 3, dtype)),
        _core.Vectors(program, data(M, 3, dtype)),
    )
    height, width = min(height, N - row), min(width, M - col)
    product = rows.unit @ cols.unit.T
    dot = np.zeros((height, STRIP), dtype)
    dot[:, :width] = product[row : row + height, col : col + width]
    whole, part = framed(height, width, dtype)
    mirror_whole = np.full((width + 2, width + 2), SENTINEL, dtype)  # the same row stride
    mirror = mirror_whole[1:-1, 1 : 1 + height] if height <= width else None
    _core.evaluate(backend, rows, row, cols, col, dot, [None], [part], [None], [mirror], False)
    assert frame_is_whole(whole)
    assert np.isfinite(part).all()
    assert (part != SENTINEL).all()
    if mirror is not None:
        assert (mirror == part.T).all()
        mirror[:] = SENTINEL
        assert (mirror_whole == SENTINEL).all()


def call(**changes):
    """A call that fits, with changes."""
    rows = _core.Vectors(PROGRAM, data(N, 3, np.float64))
    arguments = {
        "backend": nk.backends()[0],
        "rows": rows,
        "row": 0,
        "cols": rows,
        "col": 0,
        "dot": np.zeros((N, STRIP)),
        "nngp": [np.empty((N, N))],
        "ntk": [np.empty((N, N))],
        "nngp_mirror": [None],
        "ntk_mirror": [None],
        "diagonal": False,
    }
    return _core.evaluate(**(arguments | changes))


def test_a_call_that_fits():
    call()
    call(diagonal=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "abacus"}, "unknown backend 'abacus'"),
        ({"row": 1}, "rows out of range"),
        ({"row": -1}, "rows out of range"),
        ({"row": 2**63 - 1}, "rows out of range"),
        ({"col": -STRIP}, "columns out of range"),
        ({"col": STRIP}, "columns out of range"),
        ({"col": 1, "nngp": [np.empty((N, 1))], "ntk": [None]}, "columns out of range"),
        ({"cols": _core.Vectors(CHAIN, data(N, 3, np.float64))}, "different programs"),
        ({"cols": _core.Vectors(PROGRAM, data(N, 3, np.float32))}, "dtype"),
        ({"cols": _core.Vectors(PROGRAM, data(N, 4, np.float64))}, "width"),
        ({"cols": _core.Vectors(PROGRAM, data(N, 3, np.float64)), "diagonal": True}, "diagonal"),
        ({"dot": np.zeros((N, STRIP - 1))}, "whole strips"),
        ({"dot": np.zeros((N - 1, STRIP))}, "whole strips"),
        ({"dot": np.zeros((N, STRIP), np.float32)}, "dtype"),
        ({"dot": np.zeros((N, 2 * STRIP))[:, ::2]}, "C-contiguous"),
        ({"dot": np.zeros(N * STRIP)}, "whole strips"),
        ({"nngp": []}, "per output"),
        ({"nngp": [None, None]}, "per output"),
        ({"nngp": [None], "ntk": [None]}, "no result"),
        ({"nngp": [np.empty((N, N, 1))]}, "matrix"),
        ({"nngp": [np.empty((N, N), np.float32)]}, "dtype"),
        ({"nngp": [np.empty((N, N - 1))]}, "shape"),
        ({"nngp": [np.empty((N, N)).T]}, "contiguous"),
        ({"nngp": [np.empty((N, 2 * N))[:, :N]]}, "row stride"),
        ({"nngp": [np.empty((0, N))]}, "out of range"),
        ({"ntk_mirror": [np.empty((N, N + 1))]}, "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_refusals_say_what_does_not_fit(changes, words):
    with pytest.raises(ValueError, match=words):
        call(**changes)


def test_a_frozen_result_is_refused():
    frozen = np.zeros((N, N))
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        call(nngp=[frozen])
    assert (frozen == 0).all()


SLOPES = ["row", "col", "points", "program", "dot", "results", "knobs", "count"]
any_knob = st.tuples(any_index, any_index, parameters)


@pytest.mark.parametrize("backend", [name for name, why in _core.backends() if why is None])
def test_near_pairs_of_points_without_their_data(backend):
    """A chain asks for the difference of near points, which are not there: 1 - c serves."""
    program = lower(nk.mlp(2), (3,), wants_ntk=True)
    points = _core.Vectors.of_norms(program, np.ones(40), 3, True, 1)
    dot = np.zeros((40, STRIP))
    dot[:, :40] = 1 - np.linspace(0, 0.5, 40)
    nngp, ntk = np.empty((2, 40, 40))
    _core.evaluate(backend, points, 0, points, 0, dot, [nngp], [ntk], [None], [None], False)
    assert np.allclose(nngp[:, 0], points.nngp[0])
    assert np.allclose(ntk[:, 0], points.ntk[0])
    assert (np.diff(ntk[0]) < 0).all()
