"""The examples run: quickly on a small network by default, and as they stand in the long tests."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.support import networks

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"
PARAMETERS = "steps, size, batch = 40, 96, 4"


def cells(**replaced):
    """The code cells of the notebook, with some replaced by their text."""
    stored = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in stored if cell["cell_type"] == "code"]
    assert PARAMETERS in code
    return [replaced.get("parameters", cell) if cell == PARAMETERS else cell for cell in code]


@pytest.fixture
def no_windows(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


def test_the_training_loop_learns(capsys):
    example = runpy.run_path(str(EXAMPLES / "training_loop.py"))
    with networks.shallow():
        dice = example["main"](steps=12, size=48, batch=2)
    first, last = map(float, capsys.readouterr().out.split("\n")[0].removeprefix("loss ").split(" -> "))
    assert last < first
    assert 0 <= dice <= 1


def test_the_notebook_ends_with_a_mask_of_a_test_image(no_windows):
    names = {}
    with networks.shallow():
        for cell in cells(parameters="steps, size, batch = 3, 48, 2"):
            exec(cell, names)
    assert names["mask"].shape == names["test_mask"].shape
    assert set(np.unique(names["mask"])) <= {0, 1, 2}


def test_the_notebook_is_stored_without_results():
    stored = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in stored)


@pytest.mark.long
def test_the_training_loop_as_it_stands(tmp_path):
    command = [sys.executable, str(EXAMPLES / "training_loop.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("test Dice ")[1]) > 0.8


@pytest.mark.long
def test_the_notebook_as_it_stands(no_windows):
    names = {}
    for cell in cells():
        exec(cell, names)
    assert np.mean(names["losses"][-5:]) < 0.7 * np.mean(names["losses"][:5])
