"""What is known of a network: entries of a known kind, and scores of these very weights."""

import json

import flaxunet
from flaxunet.hub import facts, repository
from flaxunet.weights.store import CONFIG
from tests.support.stored_run import CLASSES, SECRET, card_of, change, make_run, tiny


def test_only_known_entries_of_a_source_become_public(tmp_path):
    known = {"classes": CLASSES, "fit": "resize", "size": 64, "axis": "axial", "best_step": 40}
    known["colors"] = [[250, 10, 20], [0, 90, 240]]
    noted = {
        "run": f"{SECRET}/night",
        "data": f"{SECRET}/patients/",
        "begins": r"C:\Users\somebody\resnet34",
        "images": {"train": 5, "from": SECRET},
        "settings": {"loss": "ce", "out": SECRET},
        "scores": {"split": "test", "dice": 0.5, "of": SECRET},
        "notes": SECRET,
    }
    flaxunet.save(tiny(), tmp_path / "net", source=known | noted)
    repository.push(tmp_path / "net", str(tmp_path / "repo"))
    assert json.loads((tmp_path / "repo" / CONFIG).read_text())["source"] == {
        **known,
        "run": "night",
        "data": "patients",
        "begins": "resnet34",
        "images": {"train": 5},
        "settings": {"loss": "ce"},
        "scores": {"split": "test", "dice": 0.5, "iou": None, "classes": {}},
    }
    prose = card_of(tmp_path / "repo")[1]
    assert "Trained on patients, with 5 images" in prose
    assert "axial slices of volumes, scaled from each channel's minimum" in prose
    for name in ("README.md", CONFIG):
        assert "somebody" not in (tmp_path / "repo" / name).read_text()


def test_a_resumed_run_keeps_the_score_of_the_network_it_has(tmp_path):
    run = make_run(tmp_path / "run")
    rows = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(rows[:3]) + "\n")  # the row of its test is gone
    scores = facts.read(run)[1].scores
    assert (scores.split, scores.dice, scores.classes) == ("test", 0.75, {})


def test_entries_of_another_kind_are_ignored(tmp_path):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    strange = {
        "scores": [1],
        "images": {"train": "many", "test": -1},
        "settings": {"loss": {"a": 1}},
        "data": 7,
    }
    change(tmp_path / "repo", source=strange | {"best_step": True, "begins": []}, versions=3)
    known = repository.pull(str(tmp_path / "repo"), tmp_path / "got")
    assert (known.scores, known.images, known.settings, known.data, known.step) == (None, {}, {}, None, None)
    repository.push(tmp_path / "got", str(tmp_path / "again"))
    assert "No scores are known" in card_of(tmp_path / "again")[1]
