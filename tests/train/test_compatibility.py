"""A run folder written before the modules moved still resumes, predicts, evaluates and is tabulated."""

import csv
import json

import pytest

from flaxunet.__main__ import main as flaxunet_main
from tests.support.before_the_move import unpack_finished_run, unpack_run
from tests.support.survivor import tiny_network
from train import __main__ as command
from train import cross_validation, loop, setup

RELATIVE = 1e-5
"""Another processor sums in another order."""


def test_a_run_resumes_with_the_same_losses_and_metrics(tmp_path, monkeypatch):
    run, expected = unpack_run(tmp_path)
    monkeypatch.setattr(setup, "_build", tiny_network)
    original, steps = loop.run, []

    def listener(step, out):
        steps.append({"step": step, "loss": float(out["loss"]), "index": out["index"].tolist()})

    monkeypatch.setattr(
        loop, "run", lambda config, console, **options: original(config, console, listener, **options)
    )
    assert command.main(["--resume", str(run), "--steps", "8"]) == 0
    assert [(one["step"], one["index"]) for one in steps] == [
        (one["step"], one["index"]) for one in expected["resumed"]
    ]
    losses = [one["loss"] for one in expected["resumed"]]
    assert [one["loss"] for one in steps] == pytest.approx(losses, rel=RELATIVE)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 8]
    for row, then in zip(rows[2:], expected["rows"], strict=True):
        assert {key: row[key] for key in then} == pytest.approx(then, rel=RELATIVE)


def test_predict_and_evaluate_accept_the_run_folder(tmp_path):
    run, expected = unpack_finished_run(tmp_path)
    images, masks, scores = run.parent / "data" / "images", tmp_path / "masks", tmp_path / "scores"
    assert flaxunet_main(["predict", str(run), str(images), "--out", str(masks)]) == 0
    with (masks / "measures.csv").open() as file:
        pixels = {row["image"]: int(row["pixels"]) for row in csv.DictReader(file)}
    assert pixels == expected["predicted_pixels"]
    assert flaxunet_main(["evaluate", str(run), str(images.parent), "--out", str(scores)]) == 0
    (model,) = json.loads((scores / "scores.json").read_text())["models"]
    means = {name: model["means"]["cell"][name]["mean"] for name in expected["evaluated"]}
    assert means == pytest.approx(expected["evaluated"], rel=RELATIVE)


def test_a_fold_is_tabulated(tmp_path):
    run, _ = unpack_run(tmp_path)
    fold = cross_validation.read(run)
    assert fold.numbers == (1, 3)
    assert fold.scores["val_dice_cell"] == pytest.approx(0.7272727)
    assert fold.scores["test_dice"] == pytest.approx(0.7975739)
