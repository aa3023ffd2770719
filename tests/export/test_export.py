"""An exported file computes what the network does, for images of any size, or does not exist."""

import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
import torch
from flax import nnx

import flaxunet
import porting.__main__
from flaxunet import export
from flaxunet.__main__ import main
from flaxunet.export import check, stablehlo
from flaxunet.export import onnx as onnx_file
from flaxunet.models.fold import fold
from flaxunet.models.spec import Spec
from flaxunet.prediction.predictor import Predictor
from flaxunet.weights import store
from porting import deploy
from tests.support.networks import network, shallow

ROOT = Path(__file__).parents[2]
KINDS = {"onnx": onnx_file, "stablehlo": stablehlo, "torch": deploy}
SIZES = [(2, 33, 50), (1, 3, 20)]  # another size, and another oddness, than those of the check itself


def probabilities(model, intensity, batch):
    """Those of the network as it is, neither folded nor looked at by what is tested."""
    graph, state = nnx.split(model)
    ready = np.stack([flaxunet.preprocessing.normalize_intensity(image, intensity) for image in batch])

    def predict(state, image):
        model = nnx.merge(graph, state)
        logits = model(model.normalize(image))
        return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)

    return check.run_once(predict, state, ready)


def assert_same(model, kinds, intensity="dtype", sizes=SIZES):
    whole = Predictor((fold(model),), ("background", "cell"), len(model.mean), intensity)
    runs = {kind: KINDS[kind].read(KINDS[kind].write(whole, export.about(whole, ""))) for kind in kinds}
    rng = np.random.default_rng(1)
    for size in sizes:
        batch = rng.random((*size, whole.channels), np.float32)
        if intensity != "dtype":
            batch = 50 * batch - 700
            batch[0, ..., 0] = 3  # one channel without any structure
        wanted = probabilities(model, intensity, batch)
        assert np.ptp(wanted) > 1e-3
        for kind, run in runs.items():
            np.testing.assert_allclose(run(batch), wanted, rtol=0, atol=check.TOLERANCE, err_msg=kind)


@pytest.mark.parametrize(
    ("arch", "options", "kinds"),
    [
        (
            "unet",
            {"encoder": "shallow", "norm": "group", "in_channels": 1, "upsample": "bilinear"},
            ["onnx", "stablehlo"],
        ),
        (
            "unetplusplus",
            {"encoder": "shallow", "deep_supervision": True, "classes": 3},
            ["onnx", "stablehlo"],
        ),
        (
            "unet3plus",
            {"encoder": "shallow", "guidance": True, "classes": 3, "intensity": "percentile"},
            ["onnx", "stablehlo"],
        ),
        pytest.param(
            "unet",
            {"encoder": "shallow", "norm": "group", "in_channels": 1, "upsample": "bilinear"},
            ["torch"],
            marks=pytest.mark.long,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_compute_what_the_network_does(arch, options, kinds):
    assert_same(network(arch, **options), kinds, options.get("intensity", "dtype"))


def test_residual_encoders():
    assert_same(network("unet", intensity="zscore", guidance=True), ["onnx"], "zscore", SIZES[:1])


@pytest.mark.long
@pytest.mark.parametrize("encoder", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "plain"])
@pytest.mark.parametrize("arch", ["unet", "unetplusplus", "unet3plus"])
def test_every_family(arch, encoder):
    options = {"classes": 3, "guidance": True, "deep_supervision": True, "intensity": "zscore"}
    assert_same(network(arch, encoder, **options), KINDS, "zscore")


@pytest.mark.long
@pytest.mark.parametrize("guidance", [False, True])
@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_pruned_networks(level, guidance):
    options = {"deep_supervision": True, "guidance": guidance, "classes": 3}
    model = network("unetplusplus", "shallow" if level < 3 else "resnet18", **options)
    assert_same(model.prune(level), KINDS)


@pytest.mark.parametrize("kind", ["onnx", "stablehlo", "torch"])
@pytest.mark.parametrize("name", ["percentile", "zscore"])
def test_intensities_inside(kind, name):
    """Large offsets, constant channels, almost empty images, single pixels: as in preprocessing."""
    rng = np.random.default_rng(0)
    sparse = np.zeros((1, 40, 41, 2), np.float32)
    sparse[0, 7, 5] = 3
    images = [
        20 * rng.random((2, 31, 17, 2), np.float32) + 1e5,
        sparse,
        np.full((1, 1, 1, 2), -7, np.float32),
        rng.normal(size=(1, 300, 1, 2)).astype(np.float32),
    ]
    for image in images:
        wanted = np.stack([flaxunet.preprocessing.normalize_intensity(each, name) for each in image])
        peak = max(1, np.abs(wanted).max())
        np.testing.assert_allclose(_intensity(kind, image, name), wanted, rtol=0, atol=1e-5 * peak)


def _intensity(kind, image, name):
    if kind == "stablehlo":
        return stablehlo._Maps().intensity(image, name)
    if kind == "torch":
        tensor = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
        return deploy._Maps(torch.from_numpy).intensity(tensor, name).numpy().transpose(0, 2, 3, 1)
    nodes = onnx_file._Nodes()
    return onnx_file.read(onnx_file.finish(nodes, nodes.intensity("image", name), 2, 2, {"version": "0"}))(
        image
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stored UNet, whose encoder is shallow as long as the fixture lives."""
    path = tmp_path_factory.mktemp("stored") / "model"
    classes = ["background", "gray matter", "[white] matter"]
    model = network("unet", "shallow", in_channels=1, classes=3)
    flaxunet.save(model, path, source={"classes": classes})
    with shallow():
        yield path


@pytest.fixture
def here(monkeypatch):
    """What the command leaves to a process of its own happens in this one, where encoders are shallow."""

    def run(command, check):
        assert command[:3] == [sys.executable, "-m", "porting"]
        return subprocess.CompletedProcess(command, porting.__main__.main(command[3:]))

    monkeypatch.setattr(subprocess, "run", run)


def run(folder, kind, out):
    return main(["export", str(folder), "--format", kind, "--out", str(out)])


@pytest.mark.parametrize("kind", KINDS)
def test_command(kind, folder, tmp_path, capsys, here):
    out = tmp_path / "network.file"
    out.write_text("older")
    assert run(folder, kind, out) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["network.file"]
    content = out.read_bytes()
    assert str(ROOT).encode() not in content  # nor anything else of this machine
    page = " ".join(capsys.readouterr().out.split())
    assert "gives background, gray matter, [white] matter" in page
    assert "checked batch x height x width 2 x 64 x 96, 1 x 75 x 53, 1 x 1 x 1" in page
    about = _about(kind, content)
    assert json.loads(about.pop("classes")) == ["background", "gray matter", "[white] matter"]
    layout = "(B, H, W, C)" if kind == "stablehlo" else "(B, C, H, W)"
    assert about == {
        "name": "flaxunet",
        "version": "0.1.0",
        "layout": layout,
        "intensity": "dtype",
        "mean": "[0.449]",
        "std": "[0.226]",
    }


def _about(kind, content):
    if kind == "onnx":
        return {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    if kind == "torch":
        files = {"about.json": ""}
        torch.export.load(io.BytesIO(content), extra_files=files)
        return json.loads(files["about.json"])
    exported = jax.export.deserialize(bytearray(content))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    return json.loads(exported.fun_name)


@pytest.mark.parametrize(
    ("kind", "operation"),
    [("onnx", "pool"), ("onnx", "resize"), ("stablehlo", "resize")],
)
def test_a_file_that_computes_anything_else_does_not_exist(
    kind, operation, folder, tmp_path, capsys, monkeypatch
):
    """Windows that leave the border out, pixels that are taken a little off, a row that is a little wrong."""
    operations = {"onnx": onnx_file._Nodes, "stablehlo": stablehlo._Maps}[kind]
    right = getattr(operations, operation)

    def wrong(self, x, *rest):
        result = right(self, x, *rest)
        if kind == "stablehlo":
            return result.at[:, -1].multiply(1.01)
        (node,) = (node for node in self.nodes if node.output[0] == result)
        for name, value in (("ceil_mode", 0), ("nearest_mode", b"ceil")):
            for attribute in node.attribute:
                if attribute.name == name:
                    attribute.CopyFrom(onnx.helper.make_attribute(name, value))
        return result

    monkeypatch.setattr(operations, operation, wrong)
    out = tmp_path / "network.file"
    out.write_text("older")
    code = run(folder, kind, out)
    assert (code, [path.name for path in tmp_path.iterdir()]) == (2, ["network.file"])
    assert out.read_text() == "older"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_a_network_that_finds_nothing_is_compared_all_the_same(tmp_path, monkeypatch):
    """Its guidance removes the only class from every image: any file with the same guidance gives zeros."""
    model = network("unet", "shallow", guidance=True)
    model.guidance.conv.bias[...] -= 1e6
    whole = Predictor((fold(model),), ("background", "cell"), 3, "dtype")
    assert export.save(whole, tmp_path / "right", onnx_file) < 1e-6
    monkeypatch.setattr(onnx_file._Nodes, "relu", lambda self, x: self.add_node("Abs", [x]))
    with pytest.raises(export.ExportError, match="is not the network, and was removed"):
        export.save(whole, tmp_path / "wrong", onnx_file)
    assert [path.name for path in tmp_path.iterdir()] == ["right"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--format": "tflite"}, "error: --format is 'tflite'; expected stablehlo, onnx or torch"),
        (
            {"--out": "{tmp}/none/x"},
            "error: {tmp}/none/x cannot be written; expected a file in an",
        ),
        ({"--out": "{tmp}"}, "error: {tmp} cannot be written; expected a file in an existing"),
        ({"--out": "{model}/config.json"}, "error: --out {model}/config.json is what is read; expected"),
        (
            {"MODEL": "{tmp}"},
            "error: {tmp} holds no config.json; expected a folder that flaxunet.save, a run",
        ),
        ({"MODEL": "{encoder}"}, "error: {encoder} is resnet18, 3 channels; expected a whole segmenter"),
    ],
)
@pytest.mark.parametrize("kind", ["stablehlo", "torch"])
def test_what_cannot_be_used_is_one_line(change, message, kind, folder, tmp_path, capsys, here):
    encoder = tmp_path / "encoder"
    spec = Spec("resnet18", "resnet18")
    flaxunet.save(network("unet").encoder, encoder, spec=spec)
    words = {"MODEL": str(folder), "--format": kind, "--out": str(tmp_path / "x"), **change}
    places = {"tmp": tmp_path, "model": folder, "encoder": encoder}
    words = {name: word.format(**places) for name, word in words.items()}
    assert main(["export", words["MODEL"], "--format", words["--format"], "--out", words["--out"]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message.format(**places))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder"]
    store.read(folder)


@pytest.mark.long
def test_the_torch_format_has_a_process_of_its_own(tmp_path, capfd):
    assert main(["export", str(tmp_path), "--format", "torch", "--out", str(tmp_path / "x.pt2")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path} holds no config.json; expected")


def test_a_missing_extra_is_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "flaxunet.export.onnx")
    monkeypatch.delattr(export, "onnx")
    assert main(["export", str(folder), "--format", "onnx", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == 'error: onnxruntime is not installed: pip install "flaxunet[onnx]"\n'


def test_what_stablehlo_files_are_written_with_is_installed_with_us():
    """jax.export needs flatbuffers, jax does not ask for it, and here onnxruntime may have brought it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(one.startswith("flatbuffers") for one in project["dependencies"])


@pytest.mark.parametrize("kind", ["onnx", "stablehlo", pytest.param("torch", marks=pytest.mark.long)])
def test_the_loaders_of_the_documentation_run_without_us(kind, folder, tmp_path):
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "how-to" / "export.md").read_text(), re.DOTALL
    )
    suffix = {"onnx": "onnx", "stablehlo": "stablehlo", "torch": "pt2"}[kind]
    (block,) = (block for block in blocks if f"network.{suffix}" in block)
    loaded = Predictor.load([folder])
    content = KINDS[kind].write(loaded, export.about(loaded, ""))
    (tmp_path / f"network.{suffix}").write_bytes(content)
    image = np.random.default_rng(0).random((21, 34, 1), np.float32)
    np.save(tmp_path / "image.npy", image)
    others = ("flaxunet", "porting", "train", "flax", *(() if kind == "stablehlo" else ("jax",)))
    before = f"import sys\nfor name in {others!r}: sys.modules[name] = None\n"
    code = before + block + "np.save('out.npy', probabilities)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    given = np.load(tmp_path / "out.npy")
    given = given if kind == "stablehlo" else given.transpose(0, 2, 3, 1)
    whole = loaded.windows(loaded.prepare(image)[None])  # a call of the predictor would pad it
    np.testing.assert_allclose(given, whole, rtol=0, atol=check.TOLERANCE)
