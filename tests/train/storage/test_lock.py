"""A run's folder is locked by one process at a time."""

import os

import pytest

from train.config.settings import ConfigError
from train.storage import lock


def test_a_folder_has_one_run(tmp_path):
    message = f"is in use by process {os.getpid()} on"
    with lock.hold(tmp_path), pytest.raises(ConfigError, match=message), lock.hold(tmp_path):
        pass
    with lock.hold(tmp_path):
        pass
