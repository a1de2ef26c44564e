"""The binding of images checks what it is given: whatever Python passes,
the answer is a result or an exception.

A crash of the process, or a byte written beside the tile, is a failure here;
tests/test_images.py says if it is right.
"""

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ntkcore as nk
from ntkcore import _core
from test_binding_fuzz import any_index, frame_is_whole, framed, parameters, precisions

REFUSED = (ValueError, TypeError, MemoryError)
MANY = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
LANES = 16
KINDS = [
    *("conv", "dual", "normalize", "scale", "dropout"),
    *("copy", "add", "multiply", "pool", "readout"),
]
backends = st.sampled_from(nk.backends())


def data(n, shape=(4, 4, 2), dtype=np.float64):
    return np.random.default_rng(n).standard_normal((n, *shape)).astype(dtype)


def run(program, shape, dtype, backend, diagonal=False, n=3):
    """The whole life of a program on small images;
    every write is checked against the frames of its results.
    """
    x = data(n, shape, dtype)
    nngp, ntk, head = _core.image_diagonal(program, backend, x)
    assert nngp.shape == ntk.shape
    images = _core.Images(program, backend, x, head)
    wholes, parts = zip(*(framed(n, n, dtype) for _ in range(4)), strict=True)
    outputs = len(nngp)
    lists = [[part] + [None] * (outputs - 1) for part in parts]
    _core.evaluate_images(backend, images, 0, images, 0, *lists, diagonal)
    assert all(map(frame_is_whole, wholes))


some_number = (
    st.integers(1, 5)
    | st.integers(-1, 8)
    | st.sampled_from([0, 1024, 2**14, 2**14 + 1, 2**31 - 1, -(2**31), 2**31])
)
any_plane_op = st.tuples(
    st.sampled_from([*KINDS, "", "affine"]),
    st.sampled_from([*_core.duals(), "", "tanh"]),
    any_index,
    any_index,
    parameters,
    st.tuples(*[some_number] * 14),
)


@MANY
@given(
    st.lists(any_plane_op, max_size=5),
    any_index,
    any_index,
    any_index,
    st.tuples(*[some_number] * 3),
)
@example([], 1, 1, 1, (1024, 1024, 2**31 - 1))
@example([], 65, 1, 1, (4, 4, 2))
@example([], 0, 1, 1, (4, 4, 2))
def test_any_program(ops, slots, head_slots, outputs, shape):
    try:
        program = _core.ImageProgram(ops, slots, [], head_slots, outputs, shape)
    except REFUSED:
        return
    assert 1 <= slots <= 64
    assert min(head_slots, outputs) >= 1
    assert all(1 <= n <= 2**14 for n in shape[:2])
    assert all(0 <= op[2] < slots for op in ops)
    assert program.table_size >= 0


@st.composite
def programs(draw):
    """(a program whose geometry the binding accepts, however odd; the shape of its images)."""
    h, w, channels = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    slots = 3
    size = {0: (h, w), 1: (0, 0), 2: (0, 0)}
    ops = []

    def window_op(kind, slot):
        out = draw(st.integers(1, 6)), draw(st.integers(1, 6))
        window = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        strides = (
            draw(st.sampled_from([1, 1, 2, 3, 1024])),
            draw(st.sampled_from([1, 1, 2, 3, 1024])),
        )
        steps = tuple(
            draw(st.sampled_from([1, 1, 2, 1024])) if kind == "conv" else 1 for _ in window
        )
        low = tuple(draw(st.integers(0, (k - 1) * d)) for k, d in zip(window, steps, strict=True))
        if draw(st.booleans()):  # as the convolution that runs in place
            out, window, strides, low, steps = size[slot], (3, 3), (1, 1), (1, 1), (1, 1)
        flags = (int(draw(st.booleans())) if kind == "conv" else 0, int(draw(st.booleans())))
        geometry = (*size[slot], *out, *window, *strides, *low, *flags, *steps)
        size[slot] = out
        return geometry

    for _ in range(draw(st.integers(0, 8))):
        kind, slot, other = (
            draw(st.sampled_from(KINDS)),
            draw(st.integers(0, 2)),
            draw(st.integers(0, 2)),
        )
        dual = draw(st.sampled_from(["abrelu", *_core.duals()]))
        params = draw(
            st.sampled_from([(0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 1.0, 0.0), (1.0, 0.1, 1.0, 0.1)])
            | parameters
        )
        if kind == "pool":
            slot = 0
        if min(size[slot]) < 1 and kind not in ("copy",):
            continue
        if kind in ("conv", "pool"):
            geometry = window_op(kind, slot)
            if kind == "pool":
                size[1] = size[2] = (0, 0)
        elif kind == "readout":
            other = draw(st.integers(0, 1))
            half = draw(st.sampled_from([(-1, -1), (0, 0), (1, 1), (-1, 2), (3, -1), (1024, 1024)]))
            geometry = (*size[slot], *size[slot], *half, 1, 1, 0, 0, 0, 0, 1, 1)
        else:
            if kind in ("copy", "add", "multiply") and (slot == other or min(size[other]) < 1):
                continue
            if kind == "copy":
                size[slot] = size[other]
            elif kind in ("add", "multiply") and size[slot] != size[other]:
                continue
            geometry = (*size[slot], *size[slot], 1, 1, 1, 1, 0, 0, 0, 0, 1, 1)
        ops.append((kind, dual, slot, other, params, geometry))
    head = [("dual", "erf", 0, 0, (1.0, 1.0, 0.0, 0.0))] if draw(st.booleans()) else []
    head += [("add", "", 0, 1, (0.0,) * 4), ("emit", "", 0, 0, (1.0, 0.1, 1.0, 0.1))]
    return ops, slots, head, 2, 1, (h, w, channels)


@MANY
@given(programs(), precisions, backends, st.booleans())
def test_any_valid_program_runs_within_its_tile(arguments, dtype, backend, diagonal):
    try:
        program = _core.ImageProgram(*arguments)
    except REFUSED:
        return
    run(program, arguments[-1], dtype, backend, diagonal)


@pytest.mark.parametrize(("stride", "fits"), [(1, True), (2, False)])
def test_circular_padding_has_one_period(stride, fits):
    """Planes of 5 pixels close under +-5; 3 pixels at stride 2 would wrap at 6."""
    params, size = (1.0, 0.0, 1.0, 0.0), -(-5 // stride)
    strided = (5, 5, size, size, 1, 1, stride, stride, 0, 0, 0, 0, 1, 1)
    around = [(n, n, n, n, 3, 3, 1, 1, 1, 1, 1, 0, 1, 1) for n in (5, size)]
    ops = [("conv", "", 0, 0, params, geometry) for geometry in (around[0], strided, around[1])]
    with (
        contextlib.nullcontext()
        if fits
        else pytest.raises(ValueError, match="circular padding at sizes")
    ):
        _core.ImageProgram(ops, 1, [("emit", "", 0, 0, params)], 1, 1, (5, 5, 1))
