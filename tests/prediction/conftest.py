"""Fixtures of the tests of prediction."""

import pytest

from flaxunet.prediction import resumable
from tests.support.levels import installed
from tests.support.networks import shallow


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder that is loaded as a predictor of two levels of gray."""
    return installed(tmp_path / "network", monkeypatch)


@pytest.fixture
def images(tmp_path):
    """An empty folder for images."""
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def small_tiles(monkeypatch):
    """Gives small outputs many tiles."""
    monkeypatch.setattr(resumable, "TILE", 64)


@pytest.fixture(scope="module")
def narrow():
    """Networks are stored and loaded with three narrow levels."""
    with shallow():
        yield
