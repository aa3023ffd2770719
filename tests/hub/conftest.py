"""Networks here have three narrow levels."""

import pytest

from tests.support.networks import shallow


@pytest.fixture(autouse=True)
def _small_networks():
    with shallow():
        yield
