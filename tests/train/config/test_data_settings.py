"""Settings of the data that make no sense are refused before anything is read."""

import re

import pytest

from train.config import checks
from train.config.settings import Config, ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "d", "layout": "voc"}, "unknown layout 'voc'"),
        ({"target": "edges"}, "unknown target 'edges'"),
        ({"axis": "up"}, "unknown axis 'up'"),
        ({"layout": "csv"}, "--layout is 'csv'"),
        ({"group": "patient"}, "--group is 'patient'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        checks.check(Config.from_flat(**settings))
