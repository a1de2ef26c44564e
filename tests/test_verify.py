"""What `verify` finds: every part of a store damaged in every way, named,
and mended by the way that it names.
"""

import json
import shutil

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

import ntkcore as nk  # noqa: E402
from ntkcore.store.build import build, extend, resume  # noqa: E402
from ntkcore.store.verify import verify  # noqa: E402

NET = nk.mlp(2, b_std=0.1)
X = np.random.default_rng(0).standard_normal((50, 6))
ARRAYS = ("ntk", "nngp", "done", "x", "diagonal_ntk", "diagonal_nngp")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store, and another of two data sets; copied before they are damaged."""
    folder = tmp_path_factory.mktemp("whole")
    build(NET, X, folder / "own", get=("nngp", "ntk"), tile=16)
    build(NET, X, folder / "two", X[:20] + 1, get="ntk", tile=16)
    return folder


@pytest.fixture
def store(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "stores")
    return tmp_path / "stores" / "own"


def files(store, array):
    return sorted(p for p in (store / array / "c").rglob("*") if p.is_file())


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-3])


def delete(file):
    file.unlink()


def swap(file):
    other = next(
        p for p in files(*array_of(file)) if p != file and p.stat().st_size == file.stat().st_size
    )
    content = other.read_bytes()
    other.write_bytes(file.read_bytes())
    file.write_bytes(content)


def array_of(file):
    folder = next(p for p in file.parents if p.name in (*ARRAYS, "x2"))
    return folder.parent, folder.name


DAMAGES = (flip, truncate, delete, swap)


def equal(group, other):
    return all(np.array_equal(group[name][...], other[name][...]) for name in other.array_keys())


def check(store, whole, data, **second):
    """The damage is found; by the way on that is named the store is what it was."""
    report = verify(store, sample=1000)
    assert not report.ok
    assert not report.repaired
    told = report.parts | {str(task): reason for task, reason in report.bad.items()}
    assert told or report.missing
    if any("run the same build" in reason for reason in told.values()):
        before = (store / "ntk" / "c" / "0" / "1").read_bytes()
        # Nothing is computed from damaged data.
        assert not verify(store, sample=1000, repair=True).repaired
        assert (store / "ntk" / "c" / "0" / "1").read_bytes() == before
        build(NET, data, store, tile=16, **second)
    else:
        assert verify(store, sample=1000, repair=True).repaired
    assert verify(store, sample=1000).ok
    assert equal(zarr.open_group(store), zarr.open_group(whole))
    return told


def chunks(array):
    """Numbers of its chunks that are tried: on a diagonal and off it."""
    return (0, 1) if array in ("ntk", "nngp", "x") else (0,)


# Chunks of "done" are all alike; a diagonal is one chunk.
SOME = [
    (a, d, k)
    for a in ARRAYS
    for d in DAMAGES
    for k in chunks(a)
    if d is not swap or a in ("ntk", "nngp", "x")
]


@pytest.mark.chaos(
    "a chunk of an array flipped, cut short, lost or swapped: `verify` names it; the way that it"
    " names"
)
@pytest.mark.parametrize(("array", "damage", "number"), SOME)
def test_a_damaged_chunk(store, whole, array, damage, number):
    chunk = files(store, array)[number]
    damage(chunk)
    told = check(store, whole / "own", X, get=("nngp", "ntk"))
    assert (
        damage is delete
        or array == "done"
        or any(array in name or array in reason for name, reason in told.items())
    )


@pytest.mark.parametrize("array", ["x", "x2", "ntk"])
def test_a_kernel_of_two_data_sets(store, whole, array):
    two = store.parent / "two"
    flip(files(two, array)[0])
    check(two, whole / "two", X, x2=X[:20] + 1, get="ntk")


CHANGES = {
    "n": 49,
    "tile": -1,
    "net": nk.mlp(3).to_json(),
    "dtype": "float32",
    "kernels": ["ntk"],
    "backend": "generic",
    "x": "0" * 64,
    "format": 1.0,
    "version": "9",
    "precision": "",
}


@pytest.mark.chaos(
    "an attribute changed: every command refuses the store, and computes nothing from it"
)
@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_attribute(store, key):
    file = store / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["ntkcore"][key] = CHANGES[key]
    file.write_text(json.dumps(content))
    for call in (verify, resume, lambda s: extend(s, X[:3])):
        with pytest.raises(ValueError, match=r"attributes \(zarr.json\) were changed"):
            call(store)


@pytest.mark.parametrize("number", [1, 4, 15])
def test_a_lost_marker_on_either_side(store, whole, number):
    delete(files(store, "done")[number])
    check(store, whole / "own", X)


OTHER = {"shape": None, "data_type": "int16", "chunk_grid": None, "fill_value": 3, "codecs": "y"}


@pytest.mark.chaos("an array's own description (zarr.json) changed: named, and nothing computed")
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("key", OTHER)
def test_a_changed_description(store, array, key):
    file = store / array / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: OTHER[key]}))
    for call in (verify, resume, lambda s: extend(s, X[:3] + 2)):
        with pytest.raises(ValueError, match=f"store's (array ')?{array}.*build the kernel anew"):
            call(store)


@pytest.mark.chaos("an array's shape or chunks changed: named, and nothing computed")
@pytest.mark.parametrize(
    ("array", "key"),
    [(a, "shape") for a in ARRAYS] + [(a, "chunks") for a in ARRAYS if "diagonal" not in a],
)
def test_changed_shapes(store, array, key):
    file = store / array / "zarr.json"
    content = json.loads(file.read_text())
    if key == "shape":
        content["shape"][0] += 1
    else:
        content["chunk_grid"]["configuration"]["chunk_shape"][0] += 1
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"store's {array} has shape .*build the kernel anew"):
        verify(store)


def test_swapped_tiles_on_the_diagonal(store):
    a, b = (store / "ntk" / "c" / str(i) / str(i) for i in (0, 1))
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    report = verify(store, sample=0)
    assert set(report.bad) == {(0, 0), (1, 1)}
    assert "diagonal of other samples" in report.bad[0, 0]


def test_nothing_is_computed_from_damaged_data(store):
    delete(files(store, "x")[0])
    zarr.open_group(store)["done"][0, 0] = 0
    for call in (resume, lambda s: extend(s, X[:3] + 2)):
        with pytest.raises(ValueError, match="store's x"):
            call(store)


def test_only_partial_files_of_zarr_are_swept(store):
    name = "0." + 32 * "a" + ".partial"
    ours = [store / "ntk" / "c" / "0" / name, store / f"zarr.{32 * 'b'}.partial"]
    theirs = [store / "notes.partial", store / "ntk" / "c" / "mine.partial", store / "other" / name]
    (store / "other").mkdir()
    for file in (*ours, *theirs):
        file.write_text("half")
    assert verify(store).swept == 2
    assert all(file.exists() for file in theirs)
    assert not any(file.exists() for file in ours)


def test_a_store_without_a_seal_is_read(store):
    file = store / "zarr.json"
    content = json.loads(file.read_text())
    del content["attributes"]["ntkcore"]["seal"]
    file.write_text(json.dumps(content))
    assert verify(store).ok


@pytest.mark.parametrize("width", [2, 7])
def test_data_of_another_shape_are_not_written_over(store, width):
    file = store / "x" / "zarr.json"
    content = json.loads(file.read_text())
    content["shape"][1] = content["chunk_grid"]["configuration"]["chunk_shape"][1] = width
    file.write_text(json.dumps(content))
    assert "x" in verify(store).parts
    with pytest.raises(ValueError, match="x has another shape"):
        build(NET, X, store, get=("nngp", "ntk"), tile=16)


UNSEALED = [
    ("tile", 0),
    ("tile", -1),
    ("n", None),
    ("net", None),
    ("kernels", 3),
    ("dtype", "y"),
    ("x2", 1),
]


@pytest.mark.parametrize(("key", "value"), UNSEALED)
def test_attributes_without_a_seal_have_their_types(store, key, value):
    file = store / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["ntkcore"][key] = value
    del content["attributes"]["ntkcore"]["seal"]
    file.write_text(json.dumps(content))
    for call in (verify, resume, lambda s: extend(s, X[:3] + 2)):
        with pytest.raises(ValueError, match=r"attributes \(zarr.json\) were changed"):
            call(store)
