"""--dry-run tells what a run would be, draws its first batch, and leaves no run behind."""

import re

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import flaxunet
from tests.support.networks import shallow
from train.__main__ import main
from train.dry_run import stages
from train.step import Program


@pytest.fixture
def folder(tmp_path):
    """Twelve images of 40x48 with three classes."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(12):
        mask = np.kron(rng.integers(0, 3, (5, 6)), np.ones((8, 8))).astype(np.uint8)
        Image.fromarray(60 + 60 * mask).save(tmp_path / "data" / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number:02}.png")
    return tmp_path / "data"


@pytest.mark.long
def test_a_dry_run_shows_everything_and_makes_no_run(folder, tmp_path, capsys):
    out = tmp_path / "runs"
    network = ("--dry-run", "--arch", "unet", "--size", "32", "--batch-size", "8", "--devices", "2")
    settings = (*network, "--steps", "50", "--eval-every", "20")
    with shallow():
        assert main([*settings, "--data", str(folder), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for expected in (
        "encoder, map 3 8 x 8 x 16",
        "decoder 32 x 32 x 8",
        "18,403",  # by hand: 8,872 of the encoder, 9,312 of the decoder, 219 of the head
        "8 train, 2 validation, 2 test",
        "8 x 32 x 32 x 1, 4 on each of 2 x cpu",
        "50; an epoch is 1.0 steps, so 50.0 epochs",
        "3, of whole images as 64 x 64",
        "on each device",
        "GFLOP, forward and backward",
    ):
        assert expected in said
    assert [path.name for path in out.iterdir()] == ["dry-run.png"]
    with Image.open(out / "dry-run.png") as picture:
        assert picture.size[0] == 1200
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_a_dry_run_refuses_what_a_run_refuses(folder, tmp_path, capsys):
    arguments = ["--dry-run", "--data", str(folder), "--classes", "2", "--out", str(tmp_path / "runs")]
    assert main([*arguments, "--batch-size", "8"]) == 2
    assert re.search(r"expected 0..1", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arch", ["unet", "unetplusplus", "unet3plus"])
def test_stages_are_the_whole_network(arch):
    options = {"deep_supervision": True, "guidance": True, "classes": 2, "in_channels": 3}
    build = lambda: flaxunet.create(arch, encoder="resnet18", **options, rngs=nnx.Rngs(0))  # noqa: E731
    program = Program(build, None, None, "none", 0)  # pyright: ignore[reportArgumentType]
    found = stages(program, (64, 48, 3))
    whole = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(build), nnx.Param)))
    assert sum(stage.parameters for stage in found) == whole
    shapes = {stage.name: stage.shapes for stage in found}
    assert shapes["encoder, map 1"] == ((32, 24, 64),)
    assert shapes["encoder, map 5"] == ((2, 2, 512),)
    assert all(stage.flops > 0 for stage in found)
    # The stem by hand, two operations for each of 7 x 7 x 3 inputs and 64 outputs a pixel; at the border
    # padding takes some away, and norm and ReLU add a few.
    by_hand = 2 * 7 * 7 * 3 * 64 * 32 * 24
    assert 0.9 * by_hand < found[0].flops < 1.1 * by_hand
