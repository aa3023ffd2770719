"""The Python of the README and the documentation runs, on a small network and small files."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

import flaxunet
from tests.support import networks

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("export.md", "extend.md", "api.md")  # run by tests/export; sketches; signatures
BLOCKS = [
    (f"{page.relative_to(ROOT)}-{number}", block)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name not in ELSEWHERE
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the blocks name: networks, a picture, a slide, a volume."""
    folder, rng = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    with networks.shallow():
        model = networks.network("unet", "shallow", in_channels=1, classes=2)
        for name in ("runs/NAME", "runs/mine", "runs/fold1", "runs/fold2", "runs/fold3"):
            (folder / name).mkdir(parents=True)
            flaxunet.save(model, folder / name / "model")
        flaxunet.save(model, folder / "brain")
    for name in ("cells.tif", "slide.tif"):
        tifffile.imwrite(folder / name, rng.integers(0, 255, (64, 96), np.uint8), tile=(32, 32))
    voxels = rng.integers(0, 255, (24, 20, 3)).astype(np.uint8)
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(folder / "scan.nii.gz")
    return folder


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block, id=name, marks=[pytest.mark.long] if "unet3plus" in block else []
        )  # compiles long
        for name, block in BLOCKS
    ],
)
def test_a_block_runs(block, folder, monkeypatch):
    monkeypatch.chdir(folder)
    masks = np.random.default_rng(1).integers(0, 2, (2, 4, 16, 16)).astype(bool)
    names = {"prediction": masks[0], "truth": masks[1]}
    with networks.shallow():
        exec(block.replace("333, 500", "33, 50"), names)
