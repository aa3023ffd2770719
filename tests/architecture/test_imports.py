"""Who may import whom, and what an import may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("flaxunet", "porting", "train")


def imported(file):
    """Top-level names and dotted modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(prefix):
    """Files outside tests and benchmarks that import a package."""
    return {
        str(file.relative_to(ROOT))
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        if any(name == prefix or name.startswith(prefix + ".") for name in imported(file))
    }


@pytest.mark.parametrize("package", ["torch", "torchvision", "segmentation_models_pytorch"])
def test_torch_stays_in_porting(package):
    assert all(file.startswith("porting/") for file in importers(package))


def test_orbax_stays_in_one_file():
    assert importers("orbax") == {"train/storage/checkpoint.py"}


@pytest.mark.parametrize(
    ("room", "allowed"),
    [("flaxunet", ("flaxunet",)), ("train", ("flaxunet", "train")), ("porting", ("flaxunet", "porting"))],
)
def test_rooms_keep_their_order(room, allowed):
    others = set(ROOMS) - set(allowed)
    assert not [file for other in others for file in importers(other) if file.startswith(f"{room}/")]


def test_decoders_and_encoders_do_not_know_each_other():
    models = ROOT / "flaxunet" / "models"
    for here, there in (("encoders", "decoders"), ("decoders", "encoders")):
        for file in (models / here).glob("*.py"):
            found = set(imported(file))
            assert not any(name.startswith(f"flaxunet.models.{there}") for name in found)
            assert "flaxunet.models.segmenter" not in found


@pytest.mark.parametrize("room", ["losses", "metrics", "io", "ops"])
def test_a_room_knows_no_model(room):
    for file in (ROOT / "flaxunet" / room).rglob("*.py"):
        assert not any(name.startswith("flaxunet.models") for name in imported(file)), file


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


def test_importing_is_silent_starts_no_backend_and_sets_nothing():
    done = python(
        "import jax; before = {k: v for k, v in jax.config.values.items()}\n"
        "import flaxunet, sys\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert before == {k: jax.config.values[k] for k in before}\n"
        "assert 'torch' not in sys.modules"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_readers_of_volumes_are_imported_when_they_are_needed():
    done = python(
        "import sys; import flaxunet.io.images\n"
        "assert not {'nibabel', 'pydicom'} & sys.modules.keys(), sys.modules.keys()"
    )
    assert done.returncode == 0, done.stderr


def test_training_needs_no_torch():
    done = python(
        "import sys\n"
        "for name in ('torch', 'torchvision'): sys.modules[name] = None\n"
        "import train.loop, train.__main__"
    )
    assert done.returncode == 0, done.stderr
