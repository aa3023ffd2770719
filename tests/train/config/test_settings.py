"""Settings are grouped in Python, and flat on the command line and in stored files."""

import argparse

import pytest

from flaxunet.cli.parse import parser_of
from train.config.settings import Config, Data, Devices


def test_flat_settings_become_groups_and_back():
    config = Config.from_flat(data="slices", devices=2, steps=7, seed=3)
    assert (config.data, config.devices) == (Data(folder="slices"), Devices(count=2))
    assert (config.optimization.steps, config.optimization.seed) == (7, 3)
    assert Config.from_flat(**config.to_flat()) == config
    assert config.replace(steps=8).to_flat() == {**config.to_flat(), "steps": 8}


def test_flat_names_are_those_of_the_flags():
    flags = {
        action.dest
        for action in parser_of(Config, prog="train", default=Config())._actions
        if not isinstance(action, argparse._HelpAction)
    }
    assert flags == set(Config().to_flat())


def test_unknown_names_are_refused():
    with pytest.raises(TypeError, match="stepz"):
        Config.from_flat(stepz=7)
