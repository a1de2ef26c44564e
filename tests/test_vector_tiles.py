"""Single tiles of the GPU's engine for vectors, on the host: ragged,
mirrored and diagonal ones at any alignment.
"""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore import _core
from ntkcore.specs.lowering import lower

BOUNDS = {"float32": 3e-6, "float64": 1e-12}
SENTINEL = -12345.0
NETS = {
    "chain": nk.mlp(3),
    "chain with biases": nk.mlp(2, b_std=0.3),
    "leaky": nk.mlp(2, activation=nk.LeakyRelu(0.2)),
    "one slot": nk.Serial(
        nk.Dense(0.8, 0.1), nk.Sin(), nk.Dense(), nk.LayerNorm(), nk.Gelu(), nk.Dense()
    ),
    "two slots": nk.Serial(
        nk.Dense(), nk.Residual(nk.Erf(), nk.Dense()), nk.Gelu(), nk.Dense(1.2, 0.1)
    ),
    "many slots": nk.Serial(
        nk.Dense(),
        nk.Residual(
            nk.Erf(),
            nk.Dense(),
            nk.Residual(nk.Gelu(), nk.Dense(), nk.Residual(nk.Relu(), nk.Dense()), nk.Dense()),
            nk.Dense(),
        ),
    ),
}
X, Z = np.random.default_rng(0).standard_normal((2, 75, 6))


class Side:
    """Points as the engine takes them: numbers and addresses."""

    def __init__(self, program, x):
        points = _core.Vectors(program, x)
        self.arrays = [points.unit, *points.arrays, points.nngp, points.ntk]  # keeps them alive
        self.unit = points.unit
        self.numbers = [
            *points.unit.shape,
            len(self.arrays[1]),
            *(array.ctypes.data for array in self.arrays),
        ]


def framed(height, width, stride, dtype):
    """A matrix of this row stride inside sentinels: (the whole, the matrix)."""
    whole = np.full((height + 2, stride), SENTINEL, dtype)
    return whole, whole[1:-1, 1 : 1 + width]


def run(net, dtype, place, names, z=Z, mirrored=False, diagonal=False):
    """Results of one tile and their mirror images by name; nothing else may be written."""
    program = lower(net, X.shape[1:], wants_ntk=True)
    left, right = (Side(program, data.astype(dtype)) for data in (X, z))
    row, rows, col, cols = place
    product = left.unit @ right.unit.T
    dot = np.full((rows, cols + 3), np.nan, dtype)  # beside the tile: nothing to read
    dot[:, 1 : 1 + cols] = product[row : row + rows, col : col + cols]
    stride = max(rows, cols) + 2
    tiles = {name: framed(rows, cols, stride, dtype) for name in names}
    mirrors = {name: framed(cols, rows, stride, dtype) for name in names if mirrored}
    out = [
        [parts[name][1].ctypes.data if name in parts else 0]
        for parts in (tiles, mirrors)
        for name in ("nngp", "ntk")
    ]
    double = dtype == "float64"
    address = dot[:, 1:].ctypes.data
    _core.emulated_cuda.evaluate(
        program,
        left.numbers,
        right.numbers,
        place,
        address,
        cols + 3,
        out,
        stride,
        diagonal,
        double,
        0,
        0,
    )
    found = []
    for parts in (tiles, mirrors):
        found.append({name: part.copy() for name, (_, part) in parts.items()})
        for whole, part in parts.values():
            part[:] = SENTINEL
            assert (whole == SENTINEL).all()
    return found


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("net", NETS.values(), ids=list(NETS))
@pytest.mark.parametrize(
    "place", [(0, 32, 32, 32), (3, 33, 5, 70), (1, 70, 74, 1), (74, 1, 0, 31), (2, 9, 7, 15)]
)
def test_ragged_and_mirrored(net, place, dtype):
    row, rows, col, cols = place
    expected = nk.kernel(
        net, X[row : row + rows], Z[col : col + cols], ("nngp", "ntk"), dtype="float64"
    )
    ours, mirrors = run(net, dtype, place, ("nngp", "ntk"), mirrored=True)
    for name, values in zip(("nngp", "ntk"), expected, strict=True):
        assert relative_error(ours[name], values) < BOUNDS[dtype]
        assert (mirrors[name] == ours[name].T).all()
        for mirrored in (False, True):
            alone, its_mirror = run(net, dtype, place, (name,), mirrored=mirrored)
            assert (alone[name] == ours[name]).all()
            assert not mirrored or (its_mirror[name] == ours[name].T).all()


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("net", NETS.values(), ids=list(NETS))
@pytest.mark.parametrize("place", [(0, 75), (3, 33), (5, 32), (7, 15), (9, 1)])
def test_diagonal(net, place, dtype):
    row, rows = place
    part = slice(row, row + rows)
    points = _core.Vectors(lower(net, X.shape[1:], wants_ntk=True), X.astype(dtype))
    expected = nk.kernel(net, X[part], None, ("nngp", "ntk"), dtype="float64")
    ours, _ = run(net, dtype, (*place, *place), ("nngp", "ntk"), X, diagonal=True)
    for name, values in zip(("nngp", "ntk"), expected, strict=True):
        assert relative_error(ours[name], values) < BOUNDS[dtype]
        assert (ours[name] == ours[name].T).all()
        assert (np.diagonal(ours[name]) == getattr(points, name)[0, part].astype(dtype)).all()
    beside, _ = run(net, dtype, (*place, *place), ("nngp", "ntk"), X)
    above = np.triu_indices(rows, 1)
    for name in ours:
        assert (ours[name][above] == beside[name][above]).all()


def test_near_duplicates_are_compared_by_difference():
    """In float32 the rounding of 1 - cos alone would leave an error of 1e-4."""
    near = X[:40] + 1e-6 * np.random.default_rng(1).standard_normal((40, 6))
    both = np.concatenate([X[:40], near]).astype(np.float32)
    expected = nk.kernel(nk.mlp(3), both.astype(np.float64))
    assert relative_error(nk.kernel(nk.mlp(3), both, backend="cuda-emulation"), expected) < 3e-6
