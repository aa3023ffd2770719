"""The main job, as a user starts it: minutes each, so run by .ci/run and by `pytest -m long`."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.browser import CHROMIUM, measure_page
from train.show import page

ROOT = Path(__file__).parents[2]
NUCLEI = ROOT.parent / "shared" / "data" / "nuclei_mini.zip"

pytestmark = pytest.mark.long


def train(out, *arguments):
    """The last row of the metrics of `python -m train`, in a process without the tests' settings."""
    command = [sys.executable, "-m", "train", "--out", str(out), "--name", "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "foreground mean" in done.stdout
    return json.loads((out / "run" / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("arch", ["unet", "unetplusplus", "unet3plus"])
def test_the_default_job_learns_brain_tissue(arch, tmp_path):
    last = train(tmp_path, "--arch", arch)
    assert last["test_dice"] >= 0.90
    assert {"test_dice_gray_matter", "test_dice_white_matter"} <= set(last)
    if CHROMIUM is not None:
        source = (tmp_path / "run" / "report.html").read_text()
        count, loaded, shown, wide, _ = measure_page(tmp_path, source, width=1100)
        assert count == loaded == shown == 1 + 4 * (page.WORST + page.BEST)
        assert wide <= 1100


@pytest.mark.skipif(
    not NUCLEI.exists(), reason="needs the microscopy images that are not part of the project"
)
def test_a_folder_of_microscopy_learns_nuclei(tmp_path):
    zipfile.ZipFile(NUCLEI).extractall(tmp_path)
    folder = next(path.parent for path in tmp_path.rglob("train") if path.is_dir())
    settings = ("--target", "foreground", "--steps", "300", "--batch-size", "8")
    last = train(tmp_path, "--arch", "unet", "--data", str(folder), *settings)
    assert last["test_dice"] > 0.8
