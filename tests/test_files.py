"""Results on disk: nothing of somebody else's is overwritten,
and the place is refused before any work.
"""

import os
import resource

import numpy as np
import pytest

from ntkcore import experiments, mlp
from ntkcore.falsifier.controls import write_overview
from ntkcore.falsifier.report import MARK, refuse_folder
from ntkcore.store import files
from ntkcore.store.build import build


def test_a_link_stays_one_and_its_target_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.npy").symlink_to("there/x.npy")
    for content in (b"first", b"second"):
        files.write(files.check_place(tmp_path / "link.npy"), content)
        assert (tmp_path / "there" / "x.npy").read_bytes() == content
    assert (tmp_path / "link.npy").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.npy", "there", "x.npy"]
    (tmp_path / "lost.npy").symlink_to("nowhere/x.npy")
    with pytest.raises(FileNotFoundError, match="no folder"):
        files.check_place(tmp_path / "lost.npy")


def test_a_full_disk_is_said_with_the_way_on(tmp_path):
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    files.write(tmp_path / "x", "old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match=r"cannot write .*x: .*make room"):
            files.write(tmp_path / "x", "new" * 100)
        with pytest.raises(OSError, match=r"too large.*make room"):
            build(mlp(1), np.ones((3, 2)), tmp_path / "k.zarr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert (tmp_path / "x").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {"x", "k.zarr"}
    assert build(mlp(1), np.ones((3, 2)), tmp_path / "k.zarr")["ntk"].shape == (3, 3)


def test_a_pipe_and_a_folder_are_no_place(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no file"):
        files.check_place(tmp_path / "pipe")
    for folder, suffix in (("", ".npy"), (".", ".npy"), (tmp_path, None)):
        with pytest.raises(IsADirectoryError, match="name a file"):
            files.check_place(folder, suffix)


@pytest.mark.parametrize("name", ["x.npy", "x", "link.npy", "../{}/x.npy"])
def test_an_input_is_not_overwritten_by_the_result(tmp_path, name):
    np.save(tmp_path / "x.npy", np.ones(3))
    (tmp_path / "link.npy").symlink_to("x.npy")
    with pytest.raises(ValueError, match="is read by this call"):
        files.check_place(
            tmp_path / name.format(tmp_path.name), ".npy", ["nothing", tmp_path / "x.npy"]
        )
    assert files.check_place(tmp_path / "y", ".npy", [tmp_path / "x.npy"]) == tmp_path / "y.npy"


@pytest.mark.parametrize("below", [".", "deeper"])
def test_a_file_is_no_folder_of_results(tmp_path, below):
    (tmp_path / "x.npy").write_text("mine")
    with pytest.raises(NotADirectoryError, match="choose another folder"):
        files.make_folder(tmp_path / "x.npy" / below)


@pytest.mark.parametrize("name", ["spectral_bias.png", "spectral_bias.json", "index.md"])
def test_an_experiment_overwrites_nobodys_files(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="another folder"):
        experiments.run("spectral_bias", tmp_path, quick=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["report.md", "report.html", "report.json", "kernels.png"])
def test_a_report_overwrites_nobodys_files(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="another folder"):
        refuse_folder(tmp_path)
    (tmp_path / "report.md").write_text(f"# {MARK}: present in the kernel")
    refuse_folder(tmp_path)


@pytest.mark.parametrize("name", ["controls.md", "controls.png"])
def test_the_overview_of_controls_overwrites_nobodys_files(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="another folder"):
        write_overview([], tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
