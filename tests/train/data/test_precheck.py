"""Training examines its data before it begins, once for the same files."""

import numpy as np
import pytest

from flaxunet.data import inspection
from tests.support.datasets import pattern, write_pair, write_pairs
from train.config.settings import Data
from train.data import precheck
from train.data.dataset import DataError


def test_training_examines_the_same_files_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_pairs(tmp_path / "data", 6, height=40, width=40)
    write_pair(root, "n05", np.full((40, 40), 51, np.uint8), pattern(5, 40, 40)[1])
    data = Data(str(root))
    first = precheck.check(data, 0)
    assert first == (f"{root}/images/n05.png: all pixels are equal (0.2)",)
    with monkeypatch.context() as patched:
        patched.setattr(inspection, "examine", None)  # not called
        assert precheck.check(data, 0) == first
    (root / "images" / "n05.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"n05.png: unrecognised format"):
        precheck.check(data, 0)
    assert precheck.check(Data(), 0) == ()
