"""Who may import whom, and what an import may do."""

import ast
import subprocess
import sys

import pytest

from tests.support.imports import PACKAGES, ROOT, imported, importers
from tests.support.rooms import GROUND, MAY_IMPORT


@pytest.mark.parametrize("package", ["torch", "torchvision", "segmentation_models_pytorch"])
def test_torch_stays_in_porting(package):
    assert all(file.startswith("porting/") for file in importers(package))


def test_orbax_stays_in_one_file():
    assert importers("orbax") == {"train/storage/checkpoint.py"}


EXCEPTIONS: dict[str, set[str]] = {}
"""File -> what it imports against the table, until it is put right."""


def module_of(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


MODULES = {module_of(file): file for package in PACKAGES for file in (ROOT / package).rglob("*.py")}


def room_of(module):
    """The entry of the table that a module belongs to."""
    return max(
        (room for room in MAY_IMPORT if module == room or module.startswith(f"{room}.")),
        key=len,
        default=None,
    )


def local_imports(file):
    """The modules of the project that a file imports, each as the file that it is."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
        for several in names:  # a name is a module, or something in its face
            candidates = [each for name in several for each in (name, f"{name}.__init__")]
            yield from [each for each in candidates if each in MODULES][:1]


def test_every_file_has_a_room():
    assert [module for module in MODULES if room_of(module) is None] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_file_imports_what_its_room_may(module):
    room, file = room_of(module), MODULES[module]
    allowed = (
        GROUND | MAY_IMPORT[room] | {room} | (set() if room.startswith("flaxunet") else {"flaxunet.__init__"})
    )
    found = {
        name
        for name in local_imports(file)
        if not any(name == each or name.startswith(f"{each}.") for each in allowed)
    }
    assert found == EXCEPTIONS.get(module, set())


def circles(graph):
    """The strongly connected sets of more than one node, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            part = [stack.pop()]
            while part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_no_circle_between_files():
    graph = {module: set(local_imports(file)) - {module} for module, file in MODULES.items()}
    faces = {module for module in MODULES if module.endswith("__init__")}  # which only pass names on
    assert circles({module: names - faces for module, names in graph.items() if module not in faces}) == []


def test_no_circle_between_rooms():
    graph = {}
    for module, file in MODULES.items():
        room = room_of(module)
        graph.setdefault(room, set()).update({room_of(name) for name in local_imports(file)} - {room})
    assert circles({room: others for room, others in graph.items() if room != "flaxunet.__init__"}) == []


def test_decoders_and_encoders_do_not_know_each_other():
    models = ROOT / "flaxunet" / "models"
    for here, there in (("encoders", "decoders"), ("decoders", "encoders")):
        for file in (models / here).glob("*.py"):
            found = set(imported(file))
            assert not any(name.startswith(f"flaxunet.models.{there}") for name in found)
            assert "flaxunet.models.segmenter" not in found


def test_reading_a_png_imports_no_network():
    done = python(
        "import sys; from flaxunet.io.images import read_image\n"
        "loaded = {'flax', 'optax', 'orbax', 'torch', 'flaxunet.losses', 'flaxunet.models'}\n"
        "loaded &= sys.modules.keys()\n"
        "assert not loaded, loaded"
    )
    assert done.returncode == 0, done.stderr


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
