"""Settings that cannot be used are refused in one line; a resumed run keeps those that it depends on."""

import json

import pytest

from train.config import arguments, checks
from train.config.settings import Config, ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "ram"}, "unknown cache 'ram'"),
        ({"cache_limit": 0.0}, "--cache-limit is 0.0"),
        ({"accumulate": 0}, "--accumulate is 0"),
        ({"accumulate": 3}, "--accumulate is 3"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"warmup": 1.0}, "--warmup is 1.0"),
        ({"encoder_lr": 0.0}, "--encoder-lr is 0.0"),
        ({"freeze_encoder": 0}, "--freeze-encoder is 0"),
        ({"patience": 0}, "--patience is 0"),
        ({"class_weights": "even"}, "--class-weights is 'even'"),
        ({"foreground": 1.5}, "--foreground is 1.5"),
        ({"foreground": 0.5, "fit": "resize"}, "--foreground is 0.5"),
        ({"fold": "6/5", "data": "x"}, "--fold is '6/5'"),
        ({"fold": "1/1", "data": "x"}, "--fold is '1/1'"),
        ({"fold": "1", "data": "x"}, "--fold is '1'"),
        ({"stain": 0.6}, "--stain is 0.6"),
        ({"stain": 0.1, "augment": "none"}, "--stain is 0.1"),
        ({"stain": 0.1, "intensity": "zscore"}, "--stain is 0.1"),
        ({"cutmix": 1.5}, "--cutmix is 1.5"),
        ({"mixup": -1.0}, "--mixup is -1.0"),
        ({"mixup": float("inf")}, "--mixup is inf"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(options, message):
    with pytest.raises(ConfigError) as refusal:
        checks.check(Config.from_flat(**options))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_flags_with_and_without_numbers_come_back_from_config_json(tmp_path):
    for words, expected in (
        ([], (False, None)),
        (["--freeze-encoder", "--class-weights", "balanced"], (True, "balanced")),
        (["--freeze-encoder", "20", "--class-weights", "1", "2.5", "--steps", "9"], (20, (1.0, 2.5))),
    ):
        config = arguments.parse(words)
        assert repr((config.optimization.freeze_encoder, config.optimization.class_weights)) == repr(expected)
        (tmp_path / "config.json").write_text(json.dumps({"config": config.to_flat()}))
        stored = checks.read(tmp_path)
        checks.check_resumed(arguments.parse([], stored), config)


@pytest.mark.parametrize(
    ("stored", "now", "message"),
    [
        ({"freeze_encoder": True}, {"freeze_encoder": 1}, "--freeze-encoder is 1, was True"),
        ({"accumulate": 2}, {"accumulate": 1}, "--accumulate is 1, was 2"),
        (
            {"schedule": "plateau"},
            {"schedule": "plateau", "eval_every": 7},
            "--eval-every is 7, was 20, under a plateau",
        ),
        ({"patience": 2}, {"patience": 5, "eval_every": 7}, None),
    ],
)
def test_a_resumed_run_keeps_what_it_depends_on(stored, now, message):
    if message is None:
        checks.check_resumed(Config.from_flat(**now), Config.from_flat(**stored))
        return
    with pytest.raises(ConfigError) as refusal:
        checks.check_resumed(Config.from_flat(**now), Config.from_flat(**stored))
    assert message in str(refusal.value)


def test_a_resumed_run_may_keep_its_data_elsewhere(tmp_path):
    here = Config.from_flat(cache="disk", cache_dir=str(tmp_path), cache_limit=1.0)
    checks.check_resumed(here, Config())
    with pytest.raises(ConfigError, match="--mixup"):
        checks.check_resumed(Config.from_flat(mixup=0.2), Config())
