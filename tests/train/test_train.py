"""`python -m train`: what a run writes, resuming, and one line for whatever a user gets wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from flaxunet import metrics
from flaxunet.weights import store
from tests.support import networks
from tests.support.datasets import load_dataset
from tests.support.squares import make_data
from train import setup
from train.__main__ import main
from train.config import checks
from train.config.settings import Config
from train.data import batches as batching
from train.loop import run
from train.storage.folder import make_folder

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "arch": "unet",
    "encoder": "resnet18",
    "steps": 6,
    "eval_every": 2,
    "batch_size": 8,
    "size": 32,
    "devices": 2,
}


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with networks.shallow():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("squares"), side=8)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs")
    return run(Config.from_flat(**SETTINGS, data=str(folder), out=str(out), name="whole"))


def rows(result):
    return [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_all_that_it_promises(finished):
    names = {path.name for path in finished.run.iterdir()}
    pictures = {"curves.png", "validation.png", "predictions.png", "report.html"}
    assert {"config.json", "split.csv", "metrics.jsonl", "checkpoints", "model", *pictures} <= names
    assert not any(name.endswith(".part") for name in names)
    assert any(name.startswith("events.out.tfevents") for name in names)
    *evaluations, last = rows(finished)
    assert [row["step"] for row in evaluations] == [2, 4, 6]
    for row in evaluations:
        assert {"train_loss", "val_loss", "val_dice", "val_dice_foreground", "images_per_second"} <= set(row)
    assert last["test_dice"] == last["test_dice_foreground"] == finished.test["test_dice"]
    assert last["best_step"] == max(evaluations, key=lambda row: (row["val_dice"], row["step"]))["step"]
    kept = {int(path.name) for path in (finished.run / "checkpoints").iterdir()}
    assert kept == {4, 6, last["best_step"]}
    for picture in ("curves.png", "predictions.png"):
        with Image.open(finished.run / picture) as opened:
            assert opened.size[0] > 600


def test_the_config_tells_the_network_and_the_split(finished):
    stored = json.loads((finished.run / "config.json").read_text())
    assert stored["model"] == {
        "arch": "unet",
        "encoder": "resnet18",
        "in_channels": 1,
        "classes": 1,
        "class_names": ["background", "foreground"],
        "mean": [0.449],
        "std": [0.226],
    }
    splits = [set(stored["data"][name]) for name in ("train", "validation", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 12
    head, *lines = (finished.run / "split.csv").read_text().splitlines()
    assert head == "split,name,group,image,mask"
    told = [line.split(",") for line in lines]
    assert [
        {row[1] for row in told if row[0] == split} for split in ("train", "validation", "test")
    ] == splits


def test_a_trained_network_comes_back_with_its_score(finished, folder):
    model = setup.load_model(finished.run)
    test = load_dataset(folder).test
    (batch,) = batching.eval_batches(test, batch_size=len(test))  # padded as the run's evaluation padded it
    logits = nnx.jit(lambda model, x: model(model.normalize(x)))(model, batch["image"])
    confusion = metrics.confusion_matrix(batch["label"], metrics.predict(logits), 1)
    assert metrics.dice(confusion)[1] == pytest.approx(finished.test["test_dice"], abs=1e-6)


@pytest.mark.parametrize(
    ("flag", "given", "same"),
    [
        ("encoder_weights", ".", ("encoder.",)),
        ("weights", "model", ("encoder.", "decoder.", "heads.")),
    ],
)
@pytest.mark.long
def test_the_best_network_is_stored_and_starts_another_run(flag, given, same, finished, folder, tmp_path):
    stored, best = store.read(finished.run / "model"), setup.load_model(finished.run)
    for path, leaf in store.leaves(best).items():
        np.testing.assert_array_equal(stored.tensors[path], leaf[...])
    assert stored.content["source"]["classes"] == ["background", "foreground"]
    settings = {**SETTINGS, "data": str(folder), "out": str(tmp_path), "steps": 1, "learning_rate": 1e-9}
    after = run(Config.from_flat(**settings, name="run", **{flag: str(finished.run / given)}))
    for path, leaf in store.read(after.run / "model").tensors.items():
        if not path.endswith((".mean", ".var")):  # batch statistics move, whatever the learning rate
            assert np.allclose(leaf, stored.tensors[path], atol=1e-7) == path.startswith(same), path
    begins = json.loads((after.run / "config.json").read_text())["begins"]
    assert begins["sha256"] == stored.content["weights"]["sha256"]
    assert begins["used"] + len(begins["unused"]) == len(stored.tensors)


def test_stored_weights_that_do_not_fit_are_named(finished, capsys, tmp_path):
    model, out = str(finished.run / "model"), ("--out", str(tmp_path / "runs"), "--batch-size", "8")
    for arguments, message in (
        (
            ["--weights", model, "--encoder-weights", model],
            "--weights and --encoder-weights: expected only one of them",
        ),
        (["--weights", model], "this network is unet3plus on resnet18"),
        (["--encoder-weights", model, "--encoder", "resnet34"], "this network's is resnet34"),
        (["--encoder-weights", str(tmp_path)], "holds no config.json"),
        (["--encoder-weights", str(finished.run / "config.json")], "is a file; expected a folder"),
        (["--weights", ""], "holds no config.json"),
        (
            ["--encoder-weights", "ResNet34_Weights.IMAGENET1K_V1"],
            "expected weights of --encoder resnet18",
        ),
    ):
        (line,) = fails(capsys, *arguments, *out)
        assert message in line
    assert not (tmp_path / "runs").exists()


def test_a_stopped_run_goes_on_to_the_same_numbers(finished, folder, tmp_path, monkeypatch):
    batches = batching.train_batches

    def interrupted(*arguments, **options):
        for number, batch in enumerate(batches(*arguments, **options)):
            if number == 4:  # two are on their way to the devices: the loop is before its third step
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr(batching, "train_batches", interrupted)
    settings = {**SETTINGS, "data": str(folder), "out": str(tmp_path), "name": "cut"}
    stopped = run(Config.from_flat(**settings))
    assert stopped.test is None
    assert rows(stopped)[-1]["step"] < 6
    monkeypatch.undo()
    resumed = run(Config.from_flat(**settings, resume=str(stopped.run)))

    evaluations = {row["step"]: row for row in rows(finished)[:-1]}
    for row in rows(resumed)[:-1]:
        if row["step"] in evaluations:  # the stop added one of its own
            expected = evaluations[row["step"]]
            assert (row["val_loss"], row["val_dice"]) == (expected["val_loss"], expected["val_dice"])
    timeless = lambda row: {key: value for key, value in row.items() if "second" not in key}  # noqa: E731
    assert timeless(rows(resumed)[-1]) == timeless(rows(finished)[-1])


@pytest.mark.parametrize(
    "options",
    [
        {"arch": "unet", "freeze_encoder": True, "fit": "resize", "upsample": "bilinear", "dropout": 0.2},
        {"arch": "unetplusplus", "deep_supervision": True, "norm": "group", "loss": "unet3plus"},
        {"arch": "unet3plus", "guidance": True, "dtype": "bfloat16", "augment": "strong", "fsdp": 2},
    ],
    ids=["unet", "unetplusplus", "unet3plus"],
)
@pytest.mark.long
def test_every_option_trains_saves_and_resumes(options, folder, tmp_path):
    settings = {
        **SETTINGS,
        **options,
        "steps": 2,
        "data": str(folder),
        "out": str(tmp_path),
        "name": "run",
        "devices": 2,
    }
    first = run(Config.from_flat(**settings))
    assert np.isfinite(first.test["test_loss"])
    longer = {**settings, "steps": 3, "resume": str(first.run)}
    second = run(Config.from_flat(**longer))
    assert [row["step"] for row in rows(second)] == [2, 3, 3]
    assert setup.load_model(second.run).frozen_encoder == options.get("freeze_encoder", False)


def fails(capsys, *arguments):
    """The message of a run that ends with exit code 2, which must be one line."""
    with pytest.raises(SystemExit) as stopped:
        sys.exit(main(list(arguments)))
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(lines)
    return lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "unet4"], "unknown arch 'unet4'"),
        (["--encoder", "vgg16"], "unknown encoder 'vgg16'"),
        (["--loss", "dice+what"], "'dice+what'"),
        (
            ["--batch-size", "6", "--devices", "4"],
            "--batch-size is 6",
        ),
        (["--batch-size", "8", "--devices", "99"], "--devices is 99"),
        (["--ema", "1"], "--ema is 1.0"),
        (["--steps", "0"], "--steps is 0"),
        (["--learning-rate", "nan"], "--learning-rate is nan"),
        (["--name", "a/b"], "--name is 'a/b'"),
        (["--resume", "nowhere"], "nowhere holds no run"),
        (["--data", "nowhere", "--batch-size", "8"], "nowhere"),
        (
            ["--class-weights", "1", "2", "--batch-size", "8"],
            "--class-weights are (1.0, 2.0)",
        ),
        (
            ["--class-weights", "1", "2", "3", "--loss", "dice", "--batch-size", "8"],
            "'dice'",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(arguments, message, capsys, tmp_path):
    lines = fails(capsys, *arguments, "--out", str(tmp_path / "runs"))
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--out: cannot make" in fails(capsys, "--out", str(tmp_path / "file"))[0]


def test_an_unknown_flag_is_named(capsys):
    assert any("--archh" in line for line in fails(capsys, "--archh", "unet"))


def test_every_unpaired_file_is_listed(folder, capsys, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    for number in (3, 5):
        (broken / "masks" / f"{number:02}.png").unlink()
    (broken / "images" / "07.png").write_bytes(b"no picture")
    text = "\n".join(
        fails(capsys, "--data", str(broken), "--batch-size", "8", "--out", str(tmp_path / "runs"))
    )
    for name in ("03", "05", "07.png"):
        assert name in text
    assert not (tmp_path / "runs").exists()


def test_labels_beyond_the_classes_are_named(folder, capsys, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(broken / "masks" / "04.png")
    arguments = ("--data", str(broken), "--classes", "2", "--batch-size", "8")
    text = "\n".join(fails(capsys, *arguments, "--out", str(tmp_path / "runs")))
    assert "04.png" in text
    assert "9; expected 0..1" in text


def test_a_run_is_not_resumed_as_another(finished, capsys):
    lines = fails(capsys, "--resume", str(finished.run), "--arch", "unet3plus", "--batch-size", "16")
    assert len(lines) == 1
    assert "--arch is 'unet3plus', was 'unet'; --batch-size is 16, was 8" in lines[0]


def copy_of(result, folder):
    shutil.copytree(result.run, folder)
    return folder


def test_a_run_goes_on_with_its_own_data_only(finished, folder, capsys, tmp_path):
    copied, more = copy_of(finished, tmp_path / "run"), tmp_path / "more"
    shutil.copytree(folder, more)
    for kind in ("images", "masks"):
        shutil.copy(more / kind / "00.png", more / kind / "99.png")
    stored = json.loads((copied / "config.json").read_text())
    stored["config"]["data"] = str(more)
    (copied / "config.json").write_text(json.dumps(stored))
    before = (copied / "config.json").read_bytes()
    assert "split has changed" in fails(capsys, "--resume", str(copied), "--steps", "8")[0]
    assert (copied / "config.json").read_bytes() == before


def test_a_damaged_run_is_named(finished, capsys, tmp_path):
    copied = copy_of(finished, tmp_path / "torn")
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "va')  # killed while writing
    assert run(checks.read(copied).replace(resume=str(copied))).test == finished.test

    assert "is at step 6" in fails(capsys, "--resume", str(copied), "--steps", "3")[0]
    for chunk in (copied / "checkpoints" / "6").rglob("*"):
        if chunk.is_file() and "/d/" in str(chunk):
            chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    assert "checkpoints/6 cannot be restored" in fails(capsys, "--resume", str(copied), "--steps", "8")[0]
    shutil.rmtree(copied / "checkpoints")
    assert "no checkpoint" in fails(capsys, "--resume", str(copied))[0]
    (copied / "config.json").write_bytes(b"\xff\x00")
    assert "is not the config of a run" in fails(capsys, "--resume", str(copied))[0]


def test_a_run_does_not_write_over_another(finished, folder, capsys):
    arguments = ("--data", str(folder), "--out", str(finished.run.parent), "--batch-size", "8")
    assert "exists; expected another --name" in fails(capsys, *arguments, "--name", "whole")[0]
    config = Config.from_flat(**{**SETTINGS, "out": str(finished.run.parent)})
    assert [make_folder(config).name for _ in range(2)] == ["unet-resnet18", "unet-resnet18-2"]


def test_help_names_every_flag():
    done = subprocess.run(
        [sys.executable, "-m", "train", "--help"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0
    for flag in (
        "--arch",
        "--encoder",
        "--data",
        "--steps",
        "--size",
        "--batch-size",
        "--name",
        "--seed",
        "--fsdp",
    ):
        assert flag in done.stdout
