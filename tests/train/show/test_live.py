"""While a run goes on: whole pictures, a bounded number of them, and Weights & Biases if asked."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from train.config import checks
from train.config.settings import Config, ConfigError
from train.data.dataset import Dataset
from train.show import figures
from train.show.live import PICTURES, LivePictures, WandbRun, examples
from train.storage.folder import settings
from train.storage.log import Log

FAKE = """
import json, pathlib
calls = []
class Image:
    def __init__(self, path):
        assert pathlib.Path(path).stat().st_size
        self.path = path
class Run:
    id = "abc123"
    def define_metric(self, *names, **options): calls.append(("define_metric", names, options))
    def log(self, row): calls.append(("log", row))
    def finish(self, exit_code): calls.append(("finish", exit_code))
def init(**options):
    if options["project"] == "refused":
        raise RuntimeError("not logged in\\nsecond line")
    calls.append(("init", options))
    return Run()
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A module of that name which records its calls."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield lambda: sys.modules["wandb"].calls
    sys.modules.pop("wandb", None)


def dataset():
    label = np.zeros((8, 8), np.int32)
    image = np.zeros((8, 8, 1), np.float32)
    split = [{"image": image, "label": label, "name": str(n)} for n in range(9)]
    return Dataset("data", ("background", "foreground"), 1, 1, split, split, split)


def show_run(folder, config, evaluations):
    """Goes through some evaluations and the test; returns the pictures for TensorBoard and their steps."""
    folder.mkdir(exist_ok=True)
    shown = []
    with WandbRun(config, folder, {"config": {}}) as wandb_run, Log(folder, 0) as log:
        log.add_picture = lambda name, path, step: shown.append((name, step))
        pictures = LivePictures(folder, config, dataset(), log, wandb_run)
        nothing = dict.fromkeys(examples(dataset().validation), np.zeros((8, 8), np.uint8))
        for number in range(1, evaluations + 1):
            row = {
                "step": number * config.run.eval_every,
                "train_loss": 1.0,
                "val_loss": 1.0,
                "val_dice": 0.5,
            }
            log.add(row)
            pictures.evaluated(row, nothing)
        row = {"step": config.optimization.steps, "best_step": 2, "test_dice": 0.5}
        log.add(row)
        pictures.tested(row, nothing)
    return shown


def test_pictures_are_few_and_the_last_step_has_one(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "write_predictions", lambda samples, names, path: path.touch())
    monkeypatch.setattr(figures, "write_curves", lambda rows, path: path.touch())
    shown = show_run(tmp_path / "run", Config.from_flat(steps=995, eval_every=10), 99)
    steps = [step for name, step in shown if name == "validation"]
    assert 15 <= len(steps) <= PICTURES
    short = show_run(tmp_path / "short", Config.from_flat(steps=40, eval_every=10), 4)
    assert short == [
        ("validation", 10),
        ("validation", 20),
        ("validation", 30),
        ("validation", 40),
        ("test", 40),
    ]


def test_a_run_is_seen_while_it_goes_on(tmp_path):
    show_run(tmp_path / "run", Config.from_flat(steps=4, eval_every=2), 2)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"curves.png", "validation.png", "predictions.png"} <= names
    assert not [name for name in names if name.endswith(".part")]
    assert "wandb" not in sys.modules


def test_a_picture_is_replaced_at_once(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    figures.write_curves([], path)
    before = path.read_bytes()

    def dies(figure, target, dpi):
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "_render", dies)
    with pytest.raises(KeyboardInterrupt):
        figures.write_curves([], path)
    assert path.read_bytes() == before


def test_the_images_shown_are_spread_and_never_more_than_there_are():
    assert examples(dataset().validation) == [0, 4, 8]
    assert examples(dataset().validation[:2]) == [0, 1]
    assert examples(dataset().validation[:1]) == [0]


def test_weights_and_biases_gets_settings_rows_and_pictures(tmp_path, wandb):
    config = Config.from_flat(steps=4, eval_every=2, wandb="brains")
    checks.check(config)
    show_run(tmp_path / "run", config, 2)
    (first, started), (second, _, axis), *logged, last = wandb()
    assert (first, second, last) == ("init", "define_metric", ("finish", 0))
    assert (started["project"], started["name"], started["id"]) == ("brains", "run", None)
    assert started["dir"] == str(tmp_path / "run")
    assert axis == {"step_metric": "step"}
    rows = [row for _, row in logged]
    assert [row["step"] for row in rows] == [2, 4, 4]
    assert rows[0]["val_dice"] == 0.5
    assert rows[2]["test_dice"] == 0.5
    assert rows[0]["validation"].path.endswith("validation.png")
    assert rows[2]["test"].path.endswith("predictions.png")

    show_run(tmp_path / "run", config, 1)  # goes on where it was
    assert [options["id"] for name, options, *_ in wandb() if name == "init"] == [None, "abc123"]


def test_a_failed_run_is_marked_as_failed(tmp_path, wandb):
    (tmp_path / "run").mkdir()
    with pytest.raises(ZeroDivisionError), WandbRun(Config.from_flat(wandb="p"), tmp_path / "run", {}):
        _ = 1 / 0
    assert wandb()[-1] == ("finish", 1)


def test_a_refusal_is_one_line_and_leaves_no_folder(tmp_path, wandb):
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match=r"^--wandb refused: not logged in$"):
        WandbRun(Config.from_flat(wandb="refused"), tmp_path / "run", {})
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError):
        WandbRun(Config.from_flat(wandb="refused", resume="run"), tmp_path / "run", {})
    assert (tmp_path / "run").exists()


def test_weights_and_biases_that_is_not_installed_is_named(tmp_path, monkeypatch):
    real = checks.importlib.util.find_spec
    monkeypatch.setattr(
        checks.importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name)
    )
    with pytest.raises(ConfigError, match="pip install wandb"):
        checks.check(Config.from_flat(wandb="p"))
    monkeypatch.undo()
    if "wandb" not in sys.modules and real("wandb") is None:
        (tmp_path / "wandb").mkdir()  # what earlier runs of Weights & Biases leave in a folder
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ConfigError, match="pip install wandb"):
            checks.check(Config.from_flat(wandb="p"))


def test_a_tracked_run_may_be_resumed_elsewhere():
    stored = Config().replace(wandb="a")
    checks.check_resumed(stored.replace(wandb="b", resume="run"), stored)
    assert json.dumps(settings(stored.replace(dry_run=True))).count("true") == 0
