"""Data and networks as the command line names them: what is read right,
what is refused and in which words.
"""

import numpy as np
import pytest

from ntkcore.cli.sources import load, parse_net
from ntkcore.engine.inputs import size_text, thread_count
from ntkcore.specs.text import from_json

RIGHT = {
    "plain": (b"1,2\n3,4\n", [[1, 2], [3, 4]]),
    "byte order mark": (b"\xef\xbb\xbf1,2\n3,4\n", [[1, 2], [3, 4]]),
    "names": (b"a,b\n1,2\n", [[1, 2]]),
    "an index without a name": (b",b\n1,2\n", [[1, 2]]),
    "names behind a mark": (b"\xef\xbb\xbfa,b\r\n1,2\r\n", [[1, 2]]),
    "semicolons": (b"1;2\n3;4", [[1, 2], [3, 4]]),
    "tabs": (b"1\t2\n3\t4", [[1, 2], [3, 4]]),
    "quotes": (b'"a","b"\n"1","2"\n', [[1, 2]]),
    "a column": (b"1\n2\n\n\n", [[1], [2]]),
    "a first row of nan": (b"nan,nan\n1,2\n", [[np.nan, np.nan], [1, 2]]),
}
WRONG = {
    "a first row with an empty field": (b"1,,3\n4,5,6\n", "line 1, column 2 is empty"),
    "an empty field": (b"a,b\n1,2\n3,\n", "line 3, column 2 is empty"),
    "an empty line between": (b"1\n\n3\n", "line 2 is empty"),
    "an empty line before": (b"\n1,2\n", "line 1 is empty"),
    "a ragged row": (b"1,2\n3\n", "line 2 has 1 fields"),
    "thousands": (b'"1,000",2\n', "column 1 is '1,000', not a number"),
    "decimal commas": (b"1,5;2,5\n3,5;4,5\n", "not a number|no samples"),
    "names with a number": (b"id,2019\n1,2\n", "line 1, column 1 is 'id'"),
    "names only": (b"a,b\n", "no samples"),
    "nothing": (b"", "no samples"),
    "UTF-16": ("1,2".encode("utf-16"), "UTF-8"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_csv(name, tmp_path):
    content, expected = RIGHT[name]
    (tmp_path / "x.csv").write_bytes(content)
    np.testing.assert_array_equal(load(str(tmp_path / "x.csv")), expected)


def test_labels_of_a_csv_file(tmp_path):
    (tmp_path / "y.csv").write_text("cat\ndog\ncat\n")
    assert load(str(tmp_path / "y.csv"), labels=True).tolist() == ["cat", "dog", "cat"]
    with pytest.raises(ValueError, match=r"y\.csv"):
        load(str(tmp_path / "y.csv"))
    (tmp_path / "z.csv").write_text("label\n1\n2\n")
    assert load(str(tmp_path / "z.csv"), labels=True).tolist() == [[1], [2]]


@pytest.mark.parametrize("name", WRONG)
def test_csv_refused(name, tmp_path):
    content, words = WRONG[name]
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load(str(tmp_path / "x.csv"))


def damaged(tmp_path):
    """Files that cannot be read, with the words that say so."""
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.save(tmp_path / "complex.npy", np.ones((3, 2)) * 1j)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)))
    whole = {kind: (tmp_path / f"x.{kind}").read_bytes() for kind in ("npy", "npz")}
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "short.npy").write_bytes(whole["npy"][:-8])
    (tmp_path / "short.npz").write_bytes(whole["npz"][:50])
    (tmp_path / "negative.npy").write_bytes(whole["npy"].replace(b"(3, 2), ", b"(-3, 2),"))
    (tmp_path / "huge.npy").write_bytes(
        whole["npy"].replace(b"(3, 2), }" + b" " * 12, b"(3000000000000, 2), }")
    )
    (tmp_path / "folder.npy").mkdir()
    return {
        **{
            "objects.npy": "pickled objects",
            "empty.npy": "empty.npy",
            "empty.npz": "empty, truncated",
        },
        **{"short.npy": "short.npy", "short.npz": "short.npz", "negative.npy": "shape .-3, 2"},
        **{"folder.npy": "a folder", "x.npy:foo": "no meaning", "x.npz": "say which array"},
        **{
            "complex.npy": "real numbers",
            "text.npy": "real numbers",
            "x.npy:": "no meaning",
            "huge.npy": "huge.npy",
        },
        **{"x.npz:b": "say which array", "no.npy": "no data", "": "not|must"},
    }


def test_damaged_files(tmp_path):
    for name, words in damaged(tmp_path).items():
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words):
            load(f"{tmp_path}/{name}")
    with pytest.raises(ValueError, match="download"):
        load("s3://bucket/x.npy")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fc:depth=1,depth=2", "depth is given twice"),
        ("fc:deptj=3", "fc takes depth, W_std"),
        ("fc:depth=300000000", "more than 10000 layers"),
        ("cntk:depth=1e9", "more than 10000 layers"),
        ("fc:depth=-1", "depth must be"),
        ("fc", "fc needs depth, as in fc:depth=5"),
        ("cntk:W_std=2", "cntk needs depth"),
        ("", "no network"),
        ("x" * 5000, "no network"),
    ],
)
def test_networks_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_net(text)


def test_deep_json_is_refused(tmp_path):
    (tmp_path / "net.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested"):
        parse_net(str(tmp_path / "net.json"))


def test_a_fan_of_very_many_branches_is_refused():
    with pytest.raises(ValueError, match="from 1 to 1000"):
        from_json('{"layer": "FanOut", "num": 1000000000}')


def test_sizes_have_fitting_units():
    assert [size_text(n) for n in (8, 1536, 20 * 2**30)] == ["8 bytes", "1.5 KiB", "20 GiB"]


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5"])
def test_threads_of_the_environment(value, monkeypatch):
    monkeypatch.setenv("NTKCORE_NUM_THREADS", value)
    with pytest.raises(ValueError, match="NTKCORE_NUM_THREADS"):
        thread_count(None)
