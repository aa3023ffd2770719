"""Folds part a folder without a rest; their table has the right numbers and refuses what does not belong."""

import json
from itertools import chain, combinations

import numpy as np
import pytest
from PIL import Image

from flaxunet import data as layouts
from flaxunet.data.layouts import brain
from tests.support.datasets import load_dataset
from train.config.settings import Config
from train.cross_validation import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twenty pairs, empty files: nothing here opens them."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("images", "masks"):
        (root / kind).mkdir()
        for number in range(20):
            (root / kind / f"n{number:02}.png").touch()
    return root


def splits(root, fold, seed=0, problems=None):
    told = [] if problems is None else problems
    found = layouts.find(root)
    told += found.problems
    splits = layouts.split_samples(found, seed=seed, fold=fold, problems=told)
    assert problems is not None or not told
    return {name: [record.name for record in records] for name, records in splits.items()}


def test_folds_validate_every_sample_once_and_keep_the_test(data):
    plain, folds = splits(data, (1, 1)), [splits(data, (number, 4)) for number in range(1, 5)]
    assert [fold["test"] for fold in folds] == [plain["test"]] * 4
    pool = sorted(plain["train"] + plain["validation"])
    assert sorted(chain(*(fold["validation"] for fold in folds))) == pool
    for fold in folds:
        assert sorted(fold["train"] + fold["validation"]) == pool
    assert sorted(len(fold["validation"]) for fold in folds) == [4, 4, 4, 5]
    assert splits(data, (2, 4)) == folds[1]
    assert splits(data, (2, 4), seed=1) != folds[1]
    # Frozen, so that no new version of anything mixes the folds of earlier runs.
    assert folds[0]["validation"] == ["n01", "n06", "n09", "n11", "n15"]


@pytest.mark.parametrize("count", [2, 5])
def test_folds_of_the_brain_keep_their_distance(count):
    folds = [brain.splits((number, count)) for number in range(1, count + 1)]
    assert sorted(chain(*(fold["validation"] for fold in folds))) == sorted(brain.FOLDED)
    for fold in (brain.splits(), *folds):
        assert fold["test"] == brain.TEST
        for one, other in combinations(fold.values(), 2):
            assert min(abs(a - b) for a in one for b in other) > brain.GAP
        assert len(fold["train"]) > len(brain.FOLDED) / 3


def test_folds_of_split_folders_need_different_names(tmp_path):
    for split, names in (("train", "abc"), ("val", "cd"), ("test", "e")):
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True)
            for name in names:
                (tmp_path / split / kind / f"{name}.png").touch()
    problems = []
    splits(tmp_path, (1, 2), problems=problems)
    (line,) = problems
    assert line.startswith(f"{tmp_path}/val/images/c.png: the same name as {tmp_path}/train/images/c.png")
    for kind in ("images", "masks"):
        (tmp_path / "val" / kind / "c.png").unlink()
    assert splits(tmp_path, (2, 2))["test"] == ["e"]
    splits(tmp_path, (1, 5), problems=problems)
    assert problems[-1].startswith(f"{tmp_path}: 4 ")
    assert "--fold 1/5" in problems[-1]


def a_run(root, number, *, scores=(0.8, 0.7), finished=True, samples="abcdef", **options):
    """What a finished run leaves of settings and numbers."""
    config = Config.from_flat(**{"fold": f"{number}/3", "data": "data", "name": f"fold-{number}", **options})
    run = root / f"run-{number}-{len(list(root.iterdir()))}"
    run.mkdir()
    held = [samples[2 * (number - 1)], samples[2 * number - 1]]
    parts = {"train": sorted(set(samples) - set(held)), "validation": held, "test": ["t"]}
    stored = {"config": config.to_flat(), "data": {"name": "data", **parts}}
    (run / "config.json").write_text(json.dumps(stored))
    rows = [
        {"step": 20, "val_dice": scores[0], "val_dice_a": scores[0] + 0.1, "val_dice_b": None},
        {"step": 40, "val_dice": 0.1, "val_dice_a": 0.1, "val_dice_b": None},
    ]
    test = {"step": 40, "best_step": 20, "test_dice": scores[1], "test_dice_a": 0.5, "test_dice_b": None}
    rows += [test] if finished else []
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(run)


def test_the_table_has_mean_and_deviation_of_the_best_steps(tmp_path, capsys):
    scores = [(0.8, 0.70), (0.9, 0.72), (0.7, 0.77)]
    runs = [a_run(tmp_path, number, scores=one) for number, one in enumerate(scores, 1)]
    assert main([runs[2], runs[0], runs[1]]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    lines = {" ".join(row[:-5]): row[-5:] for row in rows}
    assert lines["validation mean"] == ["0.800", "0.900", "0.700", "0.800", "0.100"]
    assert lines["validation a"] == ["0.900", "1.000", "0.800", "0.900", "0.100"]
    assert lines["test mean"] == [
        "0.700",
        "0.720",
        "0.770",
        "0.730",
        f"{np.std([0.70, 0.72, 0.77], ddof=1):.3f}",
    ]
    assert lines["validation b"] == ["-"] * 5
    assert lines["test a"][-2:] == ["0.500", "0.000"]
    assert main(runs[:2]) == 0
    assert "3 folds without 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.5}, "has learning_rate 0.5, not 0.001"),
        ({"steps": 7, "arch": "unet"}, "has arch 'unet', not 'unet3plus'; steps 7, not 80"),
        ({"fold": "2/4"}, "has 4 folds, not 3"),
        ({"samples": "abcdeg"}, "has other samples"),
        ({"fold": "1/3"}, "is fold 1/3, and so is"),
        ({"fold": None}, "has no fold; expected"),
        ({"finished": False}, "has no test scores; expected"),
    ],
)
def test_what_is_no_fold_of_the_same_is_named(options, message, tmp_path, capsys):
    runs = [a_run(tmp_path, 1), a_run(tmp_path, 2, **options)]
    assert main(runs) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {runs[1]}")
    assert message in line


def test_places_and_devices_may_differ(tmp_path, capsys):
    assert (
        main([a_run(tmp_path, 1), a_run(tmp_path, 2, devices=1, workers=7, out="elsewhere", name=None)]) == 0
    )


def test_images_in_folds_are_real(tmp_path):
    """The dataset that a run loads has the fold."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(6):
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / kind / f"{number}.png")
    held = [load_dataset(tmp_path, fold=f"{number}/2").validation for number in (1, 2)]
    assert [len(split) for split in held] == [3, 2]
    assert not {s["name"] for s in held[0]} & {s["name"] for s in held[1]}
