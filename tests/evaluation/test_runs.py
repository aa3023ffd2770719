"""`evaluate` of a run on its own data: its split and flags are used, and training samples are warned of."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from flaxunet import data as layouts
from flaxunet.data.layouts import brain
from tests.support import written
from tests.support.evaluated import errors, evaluate
from tests.support.levels import installed
from tests.support.squares import make_data


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Makes a run of a network that compiles nothing."""

    def make(name, data, splits, classes=2, names=None, **flags):
        (tmp_path / name).mkdir()
        installed(tmp_path / name / "model", monkeypatch, classes=classes, names=names)
        content = {"config": {"data": data and str(data), **flags}, "data": splits}
        (tmp_path / name / "config.json").write_text(json.dumps(content))
        return tmp_path / name

    return make


def divided(data, seed):
    """Names by split, as training cuts them."""
    cut = layouts.split_samples(layouts.find(data), seed=seed)
    return {split: [record.name for record in records] for split, records in cut.items()}


def names(rows):
    return [row["name"] for row in rows]


def test_the_split_is_that_of_the_run_whatever_was_added_since(tmp_path, run, capsys):
    data = make_data(tmp_path / "data")
    splits = divided(data, 5)
    model = run("run", data, splits, seed=5)
    for kind in ("images", "masks"):
        for number in range(12, 30):
            shutil.copy(data / kind / "00.png", data / kind / f"{number}.png")
    content, rows = evaluate(tmp_path, model, data)
    assert names(rows) == splits["test"]
    assert (content["data"]["run"], content["data"]["seed"], content["warnings"]) == (str(model), None, [])
    assert f"split test, as {model} has it" in capsys.readouterr().out
    content, rows = evaluate(tmp_path, model, data, "--split", "val")
    assert names(rows) == splits["validation"]
    assert content["warnings"][0].startswith("2 of 2 samples were for training or validation")
    content, rows = evaluate(tmp_path, model, data, "--seed", "5")
    assert names(rows) == divided(data, 5)["test"] != splits["test"]
    assert (content["data"]["run"], content["data"]["seed"]) == (None, 5)
    # To the masks that are compared with a run's, its split matters too.
    _, rows = evaluate(tmp_path, "--predictions", data / "masks", data, "--against", model)
    assert names(rows) == 2 * splits["test"]


def test_samples_of_the_training_are_warned_of(tmp_path, run, capsys):
    data = make_data(tmp_path / "data")
    splits = {"train": ["00", "01"], "validation": ["02"], "test": ["03"]}
    content, _ = evaluate(tmp_path, run("run", data, splits), data, "--split", "all")
    (line,) = content["warnings"]
    assert line.startswith("3 of 12 samples were for training or validation")
    assert "warning  3 of 12" in capsys.readouterr().out
    other = make_data(tmp_path / "other")
    assert evaluate(tmp_path, tmp_path / "run", other, "--split", "all")[0]["warnings"] == []


def test_missing_samples_of_the_split_are_named(tmp_path, run, capsys):
    data = make_data(tmp_path / "data")
    splits = divided(data, 5)
    model, gone = run("run", data, splits), splits["test"][0]
    for kind in ("images", "masks"):
        (data / kind / f"{gone}.png").unlink()
    (line,) = errors(tmp_path, capsys, model, data)
    assert line.startswith(f"{data}: no {gone}, which is for test in {model}; expected all samples")
    evaluate(tmp_path, model, data, "--split", "train")


def test_flags_of_the_run_are_the_defaults(tmp_path, run):
    data = make_data(tmp_path / "data")
    for path in (data / "masks").iterdir():
        with Image.open(path) as mask:
            stored = mask.point(lambda label: 255 * label)
        stored.paste(7, (0, 0, 5, 2))
        stored.save(path)
    flags = {"layout": "instances", "target": "foreground", "ignore_label": 7, "group": r"^(\d)"}
    model = run("run", data, divided(data, 0), **flags)
    content, rows = evaluate(tmp_path, model, data, "--split", "all")
    assert {name: content["settings"][name] for name in flags} == flags
    assert {row["group"] for row in rows} == {"0", "1"}
    assert sum(map(sum, content["models"][0]["confusion"])) == 12 * (20 * 24 - 10)
    assert content["models"][0]["objects"] is not None
    asked = ("--layout", "folders", "--group", r"(\d)\.", "--target", "foreground")
    content, rows = evaluate(tmp_path, model, data, "--split", "all", *asked)
    assert {row["group"] for row in rows} == set("0123456789")
    assert content["models"][0]["objects"] is None
    # Data of another place are read as they say themselves.
    other = make_data(tmp_path / "other")
    content, _ = evaluate(tmp_path, model, other)
    assert (content["settings"]["target"], content["data"]["seed"]) == ("classes", 0)


def test_objects_of_a_run_on_classes_can_be_counted(tmp_path, run):
    data = written.written("coco", tmp_path / "data")
    model = run("run", data, divided(data, 0), names=("background", "square"), target="classes")
    content, _ = evaluate(tmp_path, model, data, "--split", "all", "--objects")
    assert content["data"]["target"] == "foreground"
    assert content["models"][0]["objects"]["pooled"]["hits"] > 0


def test_runs_with_different_splits_or_flags_are_refused(tmp_path, run, capsys):
    data = make_data(tmp_path / "data")
    one, other = divided(data, 0), divided(data, 2)
    assert one["test"] != other["test"]
    fold = {**one, "train": one["validation"] + one["train"][1:], "validation": one["train"][:1]}
    first = run("first", data, one)
    second, third, fourth = (
        run("second", data, other),
        run("third", data, one, ignore_label=9),
        run("4", data, fold),
    )
    (line,) = errors(tmp_path, capsys, first, second, data)
    assert line.startswith(f"{first} and {second} have different samples for test; expected equal ones")
    (line,) = errors(tmp_path, capsys, first, third, data)
    assert line.startswith(f"--ignore-label was None for {first} and 9 for {third}; expected equal values")
    (line,) = errors(tmp_path, capsys, first, fourth, data, "--split", "val")
    assert "have different samples for validation" in line
    for words in (
        (first, second, data, "--split", "all"),
        (first, second, data, "--seed", "2"),
        (first, third, data, "--ignore-label", "9"),
        (first, fourth, data),
    ):
        evaluate(tmp_path, *words)


def test_volumes_of_a_split_are_the_same_along_another_axis(tmp_path, run):
    data = written.written("nifti", tmp_path / "data")
    splits = divided(data, 3)
    model = run("run", data, splits, names=("background", "square"))
    for axis in ("axial", "coronal"):
        content, rows = evaluate(tmp_path, model, data, "--axis", axis)
        assert set(names(rows)) == {name.partition("/")[0] for name in splits["test"]}
        assert content["warnings"] == []
    content, _ = evaluate(tmp_path, model, data, "--axis", "coronal", "--split", "all")
    (line,) = content["warnings"]
    assert "were for training or validation" in line


def test_a_name_in_two_splits_is_two_samples(tmp_path, run):
    for split in ("train", "test"):
        make_data(tmp_path / "data" / split)
    data = tmp_path / "data"
    model = run("run", data, divided(data, 0))
    content, rows = evaluate(tmp_path, model, data)
    assert len(rows) == 12
    assert content["warnings"] == []
    content, _ = evaluate(tmp_path, model, data, "--split", "all")
    (line,) = content["warnings"]
    assert line.startswith("12 of 24 samples")
    content, rows = evaluate(tmp_path, model, data, "--split", "train")
    assert len(rows) == 10  # two of the folder were cut for validation


def test_folds_of_given_splits_mix_training_and_validation(tmp_path, run):
    data = written.written("splits", tmp_path / "data")
    listing = layouts.find(data)
    cut = layouts.split_samples(listing, seed=0, fold=(1, 3))
    splits = {split: [record.name for record in records] for split, records in cut.items()}
    model = run("run", data, splits, fold="1/3")
    _, rows = evaluate(tmp_path, model, data, "--split", "val")
    assert names(rows) == splits["validation"] != [r.name for r in listing.records if r.split == "validation"]


def test_the_default_data_are_known_as_such(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = {split: [f"slice{z:03}" for z in slab] for split, slab in brain.splits().items()}
    model = run("run", None, splits, classes=3, names=brain.CLASS_NAMES)
    content, rows = evaluate(tmp_path, model, Path("brain"), "--split", "val", "--cases", "0")
    assert len(rows) == 9 * 2
    (line,) = content["warnings"]
    assert line.startswith("9 of 9 samples were for training or validation")


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"config": {"data": 3}, "data": {}}', '{"config": [], "data": []}']
)
def test_other_config_files_beside_a_network_are_no_run(tmp_path, run, content):
    data = make_data(tmp_path / "data")
    model = run("run", data, divided(data, 0))
    (model / "config.json").write_text(content)
    assert evaluate(tmp_path, model, data)[0]["data"]["seed"] == 0
