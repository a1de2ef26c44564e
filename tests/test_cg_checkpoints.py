"""Checkpoints of conjugate gradients: of this problem, whole, or refused."""

import subprocess
import sys

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg.cg import cg
from ntkcore.linalg.landmarks import LandmarkRegression
from ntkcore.linalg.operators import InMemory
from ntkcore.store.files import writing
from test_solve import NET, problem


def test_a_kernel_with_the_same_diagonal_is_another(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.choice([-1.0, 1.0], (80, 10)), rng.standard_normal(80)
    K, other = nk.kernel(NET, x), nk.kernel(NET, rng.permuted(x, axis=0))
    assert np.array_equal(np.diagonal(K), np.diagonal(other))
    cg(K, y, 1e-3, maxiter=3, every=1, checkpoint=tmp_path / "c.npz")
    with pytest.raises(ValueError, match="another problem"):
        cg(other, y, 1e-3, checkpoint=tmp_path / "c.npz")
    assert cg(K, y, 1e-3, checkpoint=tmp_path / "c.npz").converged


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "empty",
        "foreign",
        "one array",
        "shape",
        "nan",
        "no residual",
        "no directions",
        "no products",
        "iterations",
        "text",
        "complex",
    ],
)
def test_damaged_checkpoints(tmp_path, damage):
    _, K, Y = problem()
    file = tmp_path / "c.npz"
    cg(K, Y, 1e-2, maxiter=3, every=1, checkpoint=file)
    with np.load(file) as found:
        state = dict(found)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":
        np.savez(file, a=np.ones(3))
    elif damage == "one array":
        with open(file, "wb") as raw:
            np.save(raw, np.ones(3))
    else:
        name, tampered = {
            "shape": ("R", state["R"][:-1]),
            "nan": ("R", state["R"] * np.nan),
            "no residual": ("R", state["R"] * 0),
            "no directions": ("P", state["P"] * 0),
            "no products": ("rz", state["rz"] * 0),
            "iterations": ("done", np.array(-(10**9))),
            "text": ("X", state["X"].astype(str)),
            "complex": ("X", state["X"] + 1j),
        }[damage]
        np.savez(file, **{**state, name: tampered})
    with pytest.raises(ValueError, match=r"c\.npz is .* checkpoint"):
        cg(K, Y, 1e-2, checkpoint=file)


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target, other = tmp_path / "x.npy", tmp_path / ".x.npy.mine"
    target.write_bytes(b"old")
    other.write_bytes(b"somebody's")
    code = f"""
import os
from ntkcore.store.files import writing
with writing({str(target)!r}) as file:
    file.write(b"new"), os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(TypeError), writing(target) as file:
        file.write("not bytes")
    assert target.read_bytes() == b"old"
    with writing(target) as file:
        file.write(b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "x.npy": b"new",
        ".x.npy.mine": b"somebody's",
    }


def test_landmarks_go_on_with_other_tiles_but_not_other_targets(tmp_path):
    """The right side, a product, is rounded otherwise by other tiles and threads."""
    _, K, Y = problem(500, d=4)
    K_nm, K_mm, file = K[:, :40], K[:40, :40], tmp_path / "c.npz"

    def again(targets, tile, **options):
        operator = InMemory(K_nm, symmetric=False, tile=tile)
        return LandmarkRegression(operator, K_mm, targets, 1e-2, checkpoint=file, **options)

    with pytest.raises(RuntimeError, match="after 4 iterations"):
        again(Y, 100, maxiter=4, every=1)
    with pytest.raises(ValueError, match="another problem"):
        again(Y + 1e-9, 100)
    found = again(Y, 64)
    assert found.iterations > 4
    exact = LandmarkRegression(K_nm, K_mm, Y, 1e-2, rtol=1e-10).predict(K_nm)
    assert relative_error(found.predict(K_nm), exact) < 1e-4
