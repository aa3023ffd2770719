"""A run's folder is its own; a resumed run must be the same run."""

import json

import pytest

from train.config.settings import Config, ConfigError
from train.storage import folder

DESCRIPTION = {
    "model": {"arch": "unet"},
    "begins": {"folder": "weights", "sha256": "0"},
    "data": {"train": ["a", "b"], "validation": ["c"], "test": ["d"]},
}


def test_folders_of_new_runs_are_numbered_unless_they_have_a_name(tmp_path):
    config = Config.from_flat(arch="unet", encoder="resnet34", out=str(tmp_path))
    names = [folder.make_folder(config).name for _ in range(3)]
    assert names == ["unet-resnet34", "unet-resnet34-2", "unet-resnet34-3"]
    named = config.replace(name="mine")
    assert folder.make_folder(named) == tmp_path / "mine"
    with pytest.raises(ConfigError, match=r"mine exists; expected"):
        folder.make_folder(named)


def test_how_a_run_was_started_is_not_stored():
    config = Config.from_flat(data="here", resume="run", dry_run=True, distributed=True, steps=7)
    stored = folder.settings(config)
    assert stored["steps"] == 7
    assert stored["data"].startswith("/")
    assert not {"resume", "dry_run", "distributed", "coordinator"} & stored.keys()


def test_a_run_without_its_checkpoints_is_refused_once_it_must_have_had_one(tmp_path):
    assert not folder.has_checkpoint(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n' * 2)
    assert not folder.has_checkpoint(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n' * 3)
    with pytest.raises(ConfigError, match="has no checkpoint"):
        folder.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    assert folder.has_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": {**DESCRIPTION["data"], "validation": ["c", "e"]}},
            "the validation split has changed in e",
        ),
        ({"begins": {"folder": "weights", "sha256": "1"}}, "weights no longer holds"),
        ({"model": {"arch": "unet3plus"}}, "unet3plus"),
    ],
)
def test_a_resumed_run_has_the_same_samples_weights_and_network(change, message, tmp_path):
    folder.write_config(tmp_path, DESCRIPTION)
    folder.check_same(tmp_path, json.loads(json.dumps(DESCRIPTION)))
    with pytest.raises(ConfigError, match=message):
        folder.check_same(tmp_path, {**DESCRIPTION, **change})
