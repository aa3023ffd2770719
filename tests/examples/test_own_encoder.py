"""An encoder that lives outside of the package is created, trained, stored, loaded and exported."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flaxunet
from flaxunet import export
from flaxunet.models.encoders import ENCODERS

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_encoder.py"


@pytest.fixture
def registered():
    """The example's module, whose encoder is known during the test."""
    spec = importlib.util.spec_from_file_location("own_encoder", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register()
    yield module
    del ENCODERS["small"]


def test_it_trains_and_what_it_stored_predicts_and_is_exported(registered, tmp_path):
    flags = ["--steps", "2", "--size", "32", "--batch-size", "2", "--devices", "1", "--name", "own"]
    done = subprocess.run(
        [sys.executable, EXAMPLE, *flags],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "own"
    assert json.loads((run / "model" / "config.json").read_text())["model"]["encoder"] == "small"
    model = flaxunet.load(run / "model")
    image = np.zeros((1, 33, 21, 1), np.float32)
    assert model(image).shape == (1, 33, 21, 3)
    predictor = flaxunet.Predictor.load([run / "model"])
    export.save(predictor, tmp_path / "own.stablehlo", export.FORMATS["stablehlo"]())
    assert (tmp_path / "own.stablehlo").stat().st_size > 0
