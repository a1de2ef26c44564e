"""Making and enlarging stores: nothing foreign is touched; a kill after any write,
or many starters, do no harm.
"""

import contextlib

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

import chaos  # noqa: E402
import ntkcore as nk  # noqa: E402
from ntkcore.linalg.operators import Stored  # noqa: E402
from ntkcore.store.build import build, extend, resume  # noqa: E402
from ntkcore.store.format import local_folder, open_store  # noqa: E402
from ntkcore.store.verify import verify  # noqa: E402
from test_build import BOTH, NET, contents, data, same  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def files(folder):
    """Every file below a folder, with its bytes."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def a_file(path):
    path.write_text("a thesis")


def a_folder(path):
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def hidden_file(path):
    path.mkdir()
    (path / ".env").write_text("x")


def v2_group(path):
    zarr.open_group(path, mode="w", zarr_format=2).create_array("ntk", data=np.ones((3, 3)))


def v3_group(path):
    zarr.open_group(path, mode="w").create_array("ntk", data=np.ones((3, 3)))


def v3_array(path):
    zarr.create_array(path, data=np.ones((3, 3)))


def damaged(path):
    build(NET, data(10), path)
    (path / "zarr.json").write_text("{")


FOREIGN = [a_file, a_folder, hidden_file, v2_group, v3_group, v3_array, damaged]


@pytest.mark.parametrize("make", FOREIGN)
def test_what_is_not_ours_is_refused_and_untouched(tmp_path, make):
    make(tmp_path / "k.zarr")
    before = files(tmp_path)
    for call in (
        lambda: build(NET, data(10), tmp_path / "k.zarr"),
        lambda: build(NET, data(10), f"{tmp_path}/k.zarr"),
    ):
        with pytest.raises(ValueError, match=r"ntkcore|must be a folder of its own"):
            call()
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["", ".", "./", "../here"])
@pytest.mark.parametrize("empty", [False, True])
def test_the_working_directory_is_no_store(tmp_path, monkeypatch, name, empty):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if not empty:
        (tmp_path / "here" / "thesis.tex").write_text("years of work")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="working directory"):
        build(NET, data(10), name)
    assert files(tmp_path) == before
    with pytest.raises(TypeError, match="None"):
        build(NET, data(10), None)


@pytest.mark.parametrize("name", ["file", "file/k.zarr", "link"])
def test_what_cannot_be_a_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ValueError, match="is a file, or a link to nothing"):
        build(NET, data(10), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize(
    "name", ["file://{}/k.zarr", "local://{}/k.zarr", "{}/a::b.zarr", "{}/ü ☃/k.zarr/"]
)
def test_names_of_local_folders(tmp_path, name):
    store = name.format(tmp_path)
    build(NET, data(40)[:30], store, tile=16)
    extend(store, data(40)[30:])
    assert verify(store).ok
    folder = local_folder(store)
    assert folder.is_relative_to(tmp_path)
    assert np.array_equal(
        zarr.open(folder)["ntk"][...], build(NET, data(40), tmp_path / "right", tile=16)["ntk"][...]
    )


@pytest.mark.parametrize("store", [None, b"k.zarr", 3, ["k.zarr"]])
def test_what_is_no_place(store):
    for call in (lambda: build(NET, data(10), store), lambda: verify(store)):
        with pytest.raises(TypeError, match="store must be a path"):
            call()


def test_urls_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"s3://bucket/k\.zarr"):
        build(NET, data(10), "s3:/bucket/k.zarr")
    with pytest.raises(ValueError, match="no kind of URL"):
        build(NET, data(10), "foo://bucket/k.zarr")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_a_place(tmp_path):
    (tmp_path / "k.zarr").mkdir()
    # Of a marker whose writer was killed.
    (tmp_path / "k.zarr" / f"zarr.{'0' * 32}.partial").write_bytes(b"")
    build(NET, data(10), tmp_path / "k.zarr")
    assert verify(tmp_path / "k.zarr").ok


def test_other_objects_below_a_url_stay():
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/k.zarr/thesis.tex", b"years of work")
    files.pipe_file("/bucket/other.zarr2/thesis.tex", b"more")
    with pytest.raises(ValueError, match="did not write"):
        build(NET, data(10), "memory://bucket/k.zarr")
    assert files.find("/bucket/k.zarr") == ["/bucket/k.zarr/thesis.tex"]
    build(NET, data(10), "memory://bucket/other.zarr")
    assert verify("memory://bucket/other.zarr").ok
    assert files.cat_file("/bucket/other.zarr2/thesis.tex") == b"more"


def test_stores_of_zarr_itself(tmp_path):
    """A mapping, a store object, a place inside a store beside others' arrays,
    a group that build returned.
    """
    expected = contents(build(NET, data(40), tmp_path / "k.zarr", tile=16).store_path)
    shared = zarr.storage.MemoryStore()
    zarr.open_group(shared, mode="w", path="mine").create_array("ntk", data=np.ones(3))
    places = [
        {},
        zarr.storage.LocalStore(tmp_path / "l.zarr"),
        zarr.storage.StorePath(shared, "kernel"),
    ]
    for place in places:
        group = build(NET, data(40)[:20], place, tile=16)
        found = contents(extend(group, data(40)[20:]).store_path)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert (zarr.open_group(shared, path="mine")["ntk"][...] == 1).all()
    with pytest.raises(ValueError, match="ntkcore"):
        build(NET, data(40), zarr.storage.StorePath(shared, "mine"))


REFUSED = {
    "data": {"x": np.full((4, 6), np.nan)},
    "network": {"net": nk.Serial(nk.Conv((3, 3)), nk.Flatten(), nk.Dense())},
    "get": {"get": "ntkk"},
    "tile": {"tile": -1},
    "backend": {"backend": "abacus"},
    "executor": {"executor": "cluster"},
    "part": {"part": (3, 3)},
    "devices": {"devices": [0]},
    "not finite, at the end": {"x": np.concatenate([data(600), np.full((1, 6), 1e19, np.float32)])},
    "not finite": {"net": nk.mlp(3), "x": np.full((4, 6), 1e30, np.float32)},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_build_leaves_nothing(tmp_path, what):
    with pytest.raises((ValueError, TypeError)):
        build(**({"net": NET, "x": data(10), "store": tmp_path / "k.zarr"} | REFUSED[what]))
    assert not list(tmp_path.iterdir())


# --- faults


def writes_of(call):
    with chaos.fail_at() as counter:
        call()
    return counter.writes


def many(fault):
    """Marks of a test that `make chaos` runs, and tells by these words."""
    return [pytest.mark.slow, pytest.mark.chaos(fault)]


def steps(fault):
    return pytest.mark.parametrize("step", [5, pytest.param(1, marks=many(fault))])


@steps("a write of a build fails, any of them; the same build again")
@pytest.mark.parametrize("x2", [None, data(37, seed=1)], ids=["symmetric", "rectangular"])
def test_a_build_that_fails_at_any_write(tmp_path, step, x2, record_property):
    """The same call again gives the same bytes."""
    x = data(40)
    build(NET, x, tmp_path / "whole.zarr", x2, BOTH, tile=16)
    count = writes_of(lambda: build(NET, x, tmp_path / "count.zarr", x2, BOTH, tile=16))
    assert count > 30
    record_property("times", len(range(0, count, step)))
    for k in range(0, count, step):
        store = tmp_path / f"{k}.zarr"
        with chaos.fail_at(k), pytest.raises(OSError, match="on purpose"):
            build(NET, x, store, x2, BOTH, tile=16)
        build(NET, x, store, x2, BOTH, tile=16)
        assert same(store, tmp_path / "whole.zarr"), k


def small_store(path):
    """A store of two tiles, the last one ragged, extended once before; and rows to come."""
    x = data(60)
    build(NET, x[:20], path, get=BOTH, tile=16)
    extend(path, x[20:27])
    return x[27:43]


AGAIN = {
    "the same extend": lambda store, rows: extend(store, rows),
    "resume, else the same extend": lambda store, rows: resumed(store, rows),
}


def resumed(store, rows):
    """By `resume`, if it says so or leaves the old kernel (nothing was recorded)
    by the same extend.
    """
    with words_of_error("run the same extend again"):
        if resume(store)["x"].shape[0] == 43:
            return
    extend(store, rows)


@contextlib.contextmanager
def words_of_error(words):
    """A ValueError may come, but then with these words."""
    try:
        yield
    except ValueError as error:
        if words not in str(error):
            raise


@steps("a write of an extend fails, any of them; the same extend or resume again")
@pytest.mark.parametrize("way", AGAIN)
def test_an_extension_that_fails_at_any_write(tmp_path, way, step, record_property):
    """At every point: never two times the samples, nor the old kernel for the new one,
    nor arrays that disagree.
    """
    rows = small_store(tmp_path / "whole.zarr")
    count = writes_of(lambda: extend(tmp_path / "whole.zarr", rows))
    build(NET, data(60)[:43], tmp_path / "direct.zarr", get=BOTH, tile=16)
    assert same(tmp_path / "whole.zarr", tmp_path / "direct.zarr")
    assert count > 25
    record_property("times", len(range(0, count, step)))
    pending, expected = 0, product(tmp_path / "direct.zarr")
    for k in range(0, count, step):
        store = tmp_path / f"{k}.zarr"
        small_store(store)
        with chaos.fail_at(k), pytest.raises(OSError, match="on purpose"):
            extend(store, rows)
        seen = product(store) if k else None
        # Never half an extension taken for a kernel.
        assert seen is None or np.array_equal(seen, expected), k
        pending += "pending" in open_store(store, unfinished=True).attrs["ntkcore"]
        AGAIN[way](store, rows)
        assert same(store, tmp_path / "direct.zarr"), k
        assert verify(store, sample=100).ok
    assert pending > 10 // step


def product(store):
    """The kernel's rows summed as a solver sees them;
    None where it is told that the store is not finished.
    """
    with words_of_error("not finished"):
        return Stored(open_store(store, mode="r")["ntk"]) @ np.ones(43)


def test_repeating_a_finished_extension_changes_nothing(tmp_path):
    store, x = tmp_path / "k.zarr", data(60)
    build(NET, x[:20], store, tile=16)
    extend(store, x[20:30])
    extend(store, x[30:60])
    before = files(store)
    for rows in (x[20:30], x[30:60]):
        assert extend(store, rows)["x"].shape == (60, 6)
    assert files(store) == before


def test_a_pending_extension_is_not_mistaken(tmp_path):
    store, x = tmp_path / "k.zarr", data(60)
    build(NET, x[:20], store, tile=16)
    with chaos.fail_at(1), pytest.raises(OSError, match="on purpose"):  # after its record
        extend(store, x[20:40])
    before = files(store)
    calls = {
        "other samples is not finished": lambda: extend(store, x[40:60]),
        "run the same extend again": lambda: resume(store),
        "or the same extend again": lambda: open_store(store),
        "is not finished": lambda: verify(store, repair=True),
        "20 to 40 samples is not finished": lambda: build(NET, x[:20], store),
        "ntkcore resume": lambda: build(NET, x[:40], store),
    }
    for words, call in calls.items():
        with pytest.raises(ValueError, match=words):
            call()
    assert files(store) == before
    np.save(tmp_path / "y.npy", np.zeros(20))
    result = chaos.command("solve", store, tmp_path / "y.npy", tmp_path / "a.npy")
    assert "not finished" in result.stderr
    extend(store, x[20:40])
    build(NET, x[:40], tmp_path / "whole.zarr", tile=16)
    assert same(store, tmp_path / "whole.zarr")


def test_a_store_whose_arrays_disagree_is_named(tmp_path):
    """No extension is on record: nothing is computed, nor resized."""
    store, x = tmp_path / "k.zarr", data(40)
    group = build(NET, x[:20], store, tile=16)
    group["ntk"].resize((40, 40))
    before = files(store)
    for call in (resume, verify, lambda place: extend(place, x[20:])):
        with pytest.raises(ValueError, match="its attributes say"):
            call(store)
    assert files(store) == before


@pytest.mark.parametrize("name", ["ntk", "done", "x"])
@pytest.mark.parametrize("content", [None, "{"])
def test_a_lost_array_is_named(tmp_path, name, content):
    build(NET, data(20), tmp_path / "k.zarr", tile=16)
    metadata = tmp_path / "k.zarr" / name / "zarr.json"
    metadata.unlink() if content is None else metadata.write_text(content)
    for call in (resume, lambda store: build(NET, data(20), store)):
        with pytest.raises(ValueError, match=f"'{name}' is lost or damaged"):
            call(tmp_path / "k.zarr")


def test_a_half_made_store(tmp_path):
    store = tmp_path / "k.zarr"
    with chaos.fail_at(4), pytest.raises(OSError, match="on purpose"):
        build(NET, data(20), store, tile=16)
    for call in (resume, verify, lambda s: extend(s, data(3)), lambda s: open_store(s, mode="r")):
        with pytest.raises(ValueError, match="run the same build again"):
            call(store)
    before = files(store)
    with pytest.raises(ValueError, match="another network"):
        build(nk.mlp(1), data(20), store)
    assert files(store) == before


def test_damaged_rows_are_not_extended(tmp_path):
    store = tmp_path / "k.zarr"
    group = build(NET, data(20), store, tile=16)
    group["x"][3, 3] += 1
    before = files(store)
    with pytest.raises(ValueError, match="damaged"):
        extend(store, data(5, seed=1))
    assert files(store) == before
