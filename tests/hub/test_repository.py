"""Networks are pushed and pulled whole and checked, or not at all."""

import shutil

import numpy as np
import pytest
from flax import nnx

import flaxunet
from flaxunet.__main__ import main
from flaxunet.hub import repository
from flaxunet.weights.store import CONFIG, WEIGHTS, StoreError
from tests.support.stored_run import change, left_in, make_run


def test_a_pulled_network_gives_the_same_numbers_bit_for_bit(tmp_path):
    run = make_run(tmp_path / "run")
    repository.push(run, str(tmp_path / "repo"))
    repository.pull(f"file://{tmp_path / 'repo'}", tmp_path / "deep" / "er" / "got")
    x = np.random.default_rng(0).random((2, 19, 33, 1), np.float32)
    logits = nnx.jit(lambda model: model(x))
    here, there = (logits(flaxunet.load(at)) for at in (run / "model", tmp_path / "deep" / "er" / "got"))
    np.testing.assert_array_equal(np.asarray(here), np.asarray(there))
    assert left_in(tmp_path / "deep" / "er") == ["got"]
    assert left_in(tmp_path / "deep" / "er" / "got") == ["README.md", CONFIG, WEIGHTS, "predictions.png"]


def test_a_pulled_network_is_pushed_with_the_same_card(tmp_path):
    run = make_run(tmp_path / "run")
    repository.push(run, str(tmp_path / "one" / "repo"), picture=False)
    repository.pull(str(tmp_path / "one" / "repo"), tmp_path / "got")
    repository.push(tmp_path / "got", str(tmp_path / "two" / "repo"))
    for name in ("README.md", CONFIG, WEIGHTS):
        one, two = (tmp_path / at / "repo" / name for at in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert not (tmp_path / "one" / "repo" / "predictions.png").exists()


def test_a_run_that_is_not_done_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "model")
    (run / "checkpoints").mkdir()
    with pytest.raises(
        StoreError, match=r"run is a run that has not stored its best network in model/ yet; expected one"
    ):
        repository.push(run, str(tmp_path / "repo"))
    assert left_in(tmp_path) == ["run"]


def flip_a_bit(repo):
    content = bytearray((repo / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (repo / WEIGHTS).write_bytes(content)


BROKEN = {
    "a flipped bit": (flip_a_bit, "is damaged: its sha256 is not the one in config.json"),
    "another format": (lambda repo: change(repo, format=2), "is of format 2; expected 1"),
    "another network": (
        lambda repo: change(repo, model={"arch": "unet", "encoder": "plain", "in_channels": 2, "classes": 3}),
        "is not unet on plain",
    ),
    "a foreign config": (
        lambda repo: (repo / CONFIG).write_text('{"model_type": "bert"}'),
        "does not describe",
    ),
    "no weights": (lambda repo: (repo / WEIGHTS).unlink(), f"holds no {WEIGHTS}"),
    "no config": (lambda repo: (repo / CONFIG).unlink(), f"holds no {CONFIG}"),
    "odd classes": (
        lambda repo: change(repo, source={"classes": 3}),
        "its classes are 3; expected 3 names",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_repository_is_refused_and_nothing_is_left(tmp_path, how, capsys):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    BROKEN[how][0](tmp_path / "repo")
    assert main(["pull", str(tmp_path / "repo"), "--out", str(tmp_path / "new" / "got")]) == 2
    out, line = capsys.readouterr()
    assert line.startswith(f"error: {tmp_path / 'repo'}")  # and not the place where it was looked at
    assert BROKEN[how][1] in line
    assert line.count("\n") == 1
    assert out == ""
    assert left_in(tmp_path / "new") == []


def test_an_existing_folder_stays_as_it_is(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    repository.push(run, str(tmp_path / "repo"))
    (tmp_path / "mine").mkdir()
    for words in (
        ("pull", str(tmp_path / "repo"), "--out", str(tmp_path / "mine")),
        ("push", str(run), str(tmp_path / "mine")),
    ):
        assert main(words) == 2
        assert capsys.readouterr().err == f"error: {tmp_path / 'mine'} exists; expected a new folder\n"
    assert left_in(tmp_path / "mine") == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        repository.push(run, str(tmp_path / "new" / "repo"))
    assert left_in(tmp_path / "new") == []


@pytest.mark.parametrize(
    "repo", ["name", "a/b/c", "https://x.y/a/b", "a b/c", "", "file://elsewhere/a", "a/-b"]
)
def test_a_name_that_is_no_repository_is_refused(repo):
    with pytest.raises(StoreError, match="not a repository; expected OWNER/NAME"):
        repository.locate(repo)


def test_where_a_repository_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for repo, folder in (
        ("./a", "a"),
        ("../a", "../a"),
        ("/a/b", "/a/b"),
        ("file:///a%20b", "/a b"),
        ("~/a", "/home/me/a"),
    ):
        assert str(repository.locate(repo)) == folder
    assert repository.locate("owner/name.v1") is None


def test_a_license_is_an_identifier(tmp_path):
    with pytest.raises(StoreError, match="--license is 'A B'; expected an identifier"):
        repository.push(tmp_path, str(tmp_path / "repo"), license="A B")
