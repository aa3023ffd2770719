"""Files and folders are written whole or not at all, and leave nothing beside them."""

import json
import os

import pytest

from flaxunet import files


def fail(*_):
    raise OSError(28, "No space left on device")


def test_a_file_replaces_an_older_one_in_one_step(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 1})
    with files.whole_file(path, sync=True) as part:
        part.write_text("new")
        assert json.loads(path.read_text()) == {"n": 1}
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("function", ["replace", "write_bytes"])
def test_an_older_file_stays_when_writing_fails(tmp_path, monkeypatch, function):
    path = tmp_path / "a"
    path.write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(files.Path, function, fail)
        with pytest.raises(OSError, match="No space left"):
            files.write_whole(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_appears_whole_with_its_parents(tmp_path):
    with files.whole_folder(tmp_path / "a" / "b") as part:
        (part / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_folder_is_replaced_only_if_asked(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    with pytest.raises(FileExistsError), files.whole_folder(folder):
        pass
    with files.whole_folder(folder, replace=True) as part:
        (part / "new").touch()
    assert os.listdir(folder) == ["new"]
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("calls", [1, 2])
def test_an_older_folder_stays_when_writing_fails(tmp_path, monkeypatch, calls):
    """Also if only the second of two renamings fails."""
    folder, rename = tmp_path / "a", files.Path.rename
    folder.mkdir()
    (folder / "old").touch()
    count = 0

    def fail_once(path, target):
        nonlocal count
        count += 1
        return fail() if count == calls else rename(path, target)

    monkeypatch.setattr(files.Path, "rename", fail_once)
    with pytest.raises(OSError, match="No space left"), files.whole_folder(folder, replace=True) as part:
        (part / "new").touch()
    assert os.listdir(folder) == ["old"]
    assert os.listdir(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    folder = tmp_path / "a"
    files.temporary_sibling(folder).mkdir()
    files.temporary_sibling(tmp_path / "b").write_text("torn")
    with files.whole_folder(folder):
        pass
    files.write_whole(tmp_path / "b", b"whole")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert os.listdir(folder) == []


def test_a_circle_of_causes_ends():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert list(files.causes(first)) == [first, second]


def test_a_message_is_one_short_line():
    assert files.first_line(ValueError("one\ntwo")) == "one"
    assert files.first_line(ValueError()) == "ValueError"
    assert len(files.first_line(ValueError("x" * 999))) == 200
