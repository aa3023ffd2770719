"""`python -m porting`: there and back, with proof; a mistake is one line and leaves nothing behind."""

import json
import os
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
smp = pytest.importorskip("segmentation_models_pytorch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

import flaxunet  # noqa: E402
from porting import peers  # noqa: E402
from porting.__main__ import main  # noqa: E402
from porting.torch_unet3plus import ResNet, UNet3Plus  # noqa: E402
from porting.torch_zju import ZJUNet  # noqa: E402
from tests.support.parity import rarely  # noqa: E402

pytestmark = pytest.mark.parity

ROOT = Path(__file__).parents[2]
PLAIN = {"encoder_weights": None}


def build(name):
    """The torch networks that are converted here, with random statistics."""
    torch.manual_seed(0)
    make = {
        "resnet18": lambda: torchvision.models.resnet18(weights=None),
        "timm": lambda: timm.create_model("resnet18", pretrained=False),
        "unet": lambda: smp.Unet("resnet18", in_channels=1, classes=5, **PLAIN),
        "unetplusplus": lambda: smp.UnetPlusPlus("resnet18", in_channels=4, **PLAIN),
        "unet3plus": lambda: UNet3Plus("resnet18", 1, 3, deep_supervision=True, guidance=True),
        "zju": lambda: ZJUNet(1, 2),
    }[name]
    return peers.randomize(make())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One weight file per network, made when asked for."""
    folder = tmp_path_factory.mktemp("files")

    def path(name):
        file = folder / f"{name}.pth"
        if not file.exists():
            torch.save(build(name).state_dict(), file)
        return file

    return path


def lines(capsys, *arguments, code=0):
    """What a command says; its exit code must be this."""
    try:
        found = main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        found = stopped.code
    said = capsys.readouterr()
    assert found == code, said
    return (said.err if code == 2 else said.out).splitlines()


def fails(capsys, *arguments):
    """The one line of a command that ends with exit code 2."""
    (line,) = lines(capsys, *arguments, code=2)
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("name", "options", "dialect"),
    [
        ("resnet18", ["--arch", "resnet18"], "torchvision"),
        rarely("timm", ["--dialect", "timm"], "timm"),
        rarely("unet", ["--arch", "unet", "--encoder", "resnet18"], "smp"),
        rarely("unetplusplus", ["--arch", "unetplusplus"], "smp"),
        rarely("unet3plus", ["--arch", "unet3plus"], "flaxunet"),
        rarely("zju", [], "zju"),
    ],
)
def test_there_and_back_with_proof(name, options, dialect, files, capsys, tmp_path):
    source, folder = files(name), tmp_path / "flax"
    said = "\n".join(lines(capsys, "to-flax", source, *options, "--out", folder))
    assert ("dropped" in said) == (dialect in ("torchvision", "timm"))
    content = json.loads((folder / "config.json").read_text())
    assert content["source"]["dialect"] == dialect
    assert len(content["source"]["sha256"]) == len(content["weights"]["sha256"]) == 64
    assert {"flaxunet", "jax", "flax"} <= set(content["versions"])

    assert lines(capsys, "verify", folder, source)[-1].startswith("the same")
    proof = json.loads((folder / "parity.json").read_text())
    assert proof["passed"]
    assert max(stage["relative"] for stage in proof["stages"]) <= 1e-5
    assert {"encoder 1", "encoder 5"} <= {stage["name"] for stage in proof["stages"]}
    assert ("logits" in {stage["name"] for stage in proof["stages"]}) == (
        dialect not in ("torchvision", "timm")
    )

    back = tmp_path / "back.safetensors"
    lines(capsys, "to-torch", folder, "--dialect", dialect, "--out", back)
    assert lines(capsys, "verify", folder, back, "--out", tmp_path / "p.json")[-1].startswith("the same")
    assert {path.name for path in tmp_path.iterdir()} == {"flax", "back.safetensors", "p.json"}


def test_other_numbers_are_found_out(files, capsys, tmp_path):
    lines(capsys, "to-flax", files("resnet18"), "--out", tmp_path / "flax")
    state = build("resnet18").state_dict()
    state["layer3.0.bn2.running_mean"] += 1e-2
    torch.save(state, tmp_path / "other.pth")
    assert lines(capsys, "verify", tmp_path / "flax", tmp_path / "other.pth", code=1)[-1].startswith(
        "DIFFERENT"
    )
    proof = json.loads((tmp_path / "flax" / "parity.json").read_text())
    assert not proof["passed"]
    assert [stage["passed"] for stage in proof["stages"]][:5] == [True, True, True, False, False]


def test_nested_and_prefixed_files_are_recognised_and_said(files, capsys, tmp_path):
    state = {f"module.{key}": value.half() for key, value in build("unet").state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "trained.pth")
    said = "\n".join(lines(capsys, "to-flax", tmp_path / "trained.pth", "--out", tmp_path / "flax"))
    for note in ("state_dict", "'module.'", "float16"):
        assert note in said
    assert flaxunet.load(tmp_path / "flax").spec.classes == 5


def variants(folder):
    """Files of networks that cannot be ported, and what the line must say of them."""
    damaged = build("unet").state_dict()
    damaged["decoder.blocks.1.conv1.0.weight"] = damaged["decoder.blocks.1.conv1.0.weight"][:, :7]
    damaged["extra"] = damaged.pop("decoder.blocks.2.conv2.1.bias")
    nan = build("resnet18").state_dict()
    nan["layer1.0.bn1.bias"][3] = float("nan")
    found = {
        "attention": (smp.Unet("resnet18", decoder_attention_type="scse", **PLAIN), "has attention"),
        "widths": (
            smp.Unet("resnet18", decoder_channels=(64, 32, 16, 16, 16), **PLAIN),
            r"decoder_channels are (64, 32, 16, 16, 16); expected (256, 128, 64, 32, 16)",
        ),
        "depth": (
            smp.Unet("resnet18", encoder_depth=4, decoder_channels=(256, 128, 64, 32), **PLAIN),
            "widths",
        ),
        "norm": (smp.Unet("resnet18", decoder_use_norm="identity", **PLAIN), "no batch norm"),
        "resnext": (timm.create_model("resnext50d_32x4d", pretrained=False), "a deep stem"),
        "excited": (timm.create_model("seresnet18", pretrained=False), "squeeze-and-excitation"),
        "resnetd": (timm.create_model("resnet18d", pretrained=False), "a deep stem"),
        "fpn": (smp.FPN("resnet18", **PLAIN), "--prefix encoder. for its encoder"),
        "vgg": (torchvision.models.vgg11(weights=None, num_classes=2), "unknown network"),
        "damaged": (damaged, "1 missing: decoder.blocks.2.conv2.1.bias"),
        "nan": (nan, "layer1.0.bn1.bias"),
    }
    for name, (network, message) in found.items():
        torch.save(network if isinstance(network, dict) else network.state_dict(), folder / f"{name}.pth")
        yield name, message


def test_what_cannot_be_ported_says_why(capsys, tmp_path):
    (tmp_path / "files").mkdir()
    for name, message in variants(tmp_path / "files"):
        line = fails(capsys, "to-flax", tmp_path / "files" / f"{name}.pth", "--out", tmp_path / "flax")
        assert f"{name}.pth" in line
        assert message.replace("widths", "decoder_channels are (256, 128, 64, 32)") in line
    assert {path.name for path in tmp_path.iterdir()} == {"files"}


def test_another_network_than_asked_is_named(files, capsys, tmp_path):
    for arguments, message in (
        (
            ["--arch", "unetplusplus"],
            "looks like unet on resnet18, 1 channel, classes 5; --arch is unetplusplus",
        ),
        (
            ["--arch", "unet", "--encoder", "resnet50"],
            "--encoder is resnet50, expected --encoder resnet18",
        ),
        (["--dialect", "zju"], "is in smp's layout, not zju's"),
        (["--mean", "0.5", "0.5"], "mean is (0.5, 0.5); expected 1 numbers"),
        (["--mean", "nan"], "expected numbers from 0 to 1"),
        (["--std", "57"], "--std is (57.0,); expected numbers from 0 to 1"),
        (["--std", "0"], "std is (0.0,); expected 1 numbers, one per channel, above 0"),
        (["--arch", "vgg"], "invalid choice: 'vgg'"),
    ):
        assert message in fails(capsys, "to-flax", files("unet"), *arguments, "--out", tmp_path / "flax")
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(files("unet").read_bytes()[:100_000])
    assert "truncated.pth" in fails(capsys, "to-flax", truncated, "--out", tmp_path / "flax")
    assert [path.name for path in tmp_path.iterdir()] == ["truncated.pth"]


def test_folders_that_do_not_fit_are_named(files, capsys, tmp_path):
    folder = tmp_path / "flax"
    lines(capsys, "to-flax", files("unet3plus"), "--out", folder)
    assert "exists; expected a new folder" in fails(capsys, "to-flax", files("unet"), "--out", folder)
    assert "is unet on resnet18" in fails(capsys, "verify", folder, files("unet"))
    assert "holds no config.json" in fails(capsys, "verify", tmp_path, files("unet"))
    for arguments in (["--dialect", "smp"], ["--dialect", "torchvision"]):
        assert "flax: " in fails(capsys, "to-torch", folder, *arguments, "--out", tmp_path / "x.pth")
    assert "--upsample is for unet" in fails(
        capsys, "to-flax", files("unet3plus"), "--out", tmp_path / "other", "--upsample", "bilinear"
    )
    weights = folder / "model.safetensors"
    assert "is what is read" in fails(capsys, "to-torch", folder, "--out", weights)
    assert "cannot be written" in fails(capsys, "verify", folder, files("unet3plus"), "--out", folder)
    assert "--tolerance is nan" in fails(capsys, "verify", folder, files("unet3plus"), "--tolerance", "nan")
    assert "x.txt" in fails(capsys, "to-torch", folder, "--out", tmp_path / "x.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["flax"]


def test_without_network_a_name_says_what_to_fetch(capsys, tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    line = fails(capsys, "to-flax", "ResNet34_Weights.IMAGENET1K_V1", "--out", tmp_path / "flax")
    assert "resnet34-b627a593.pth" in line
    assert str(tmp_path / "torch") in line
    assert not (tmp_path / "flax").exists()


@pytest.mark.long
def test_training_starts_from_a_name_without_importing_torch(tmp_path, monkeypatch):
    """torchvision's name, whose file lies where torch would have put it, becomes an encoder in a run."""
    from train import weights
    from train.config.settings import ConfigError, Network

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    name, real = "ResNet18_Weights.IMAGENET1K_V1", subprocess.run

    def converted(command, **options):
        assert command[1:4] == ["-m", "porting", "to-flax"]
        torch.save(ResNet("resnet18").state_dict(), tmp_path / "r.pth")
        return real([*command[:4], str(tmp_path / "r.pth"), *command[5:]], **options)

    monkeypatch.setattr(subprocess, "run", converted)
    stored = weights.find_stored(Network(encoder="resnet18", encoder_weights=name), "dtype")
    assert stored.folder == tmp_path / "flaxunet" / name
    monkeypatch.setattr(subprocess, "run", None)  # now it is there
    assert (
        weights.find_stored(Network(encoder="resnet18", encoder_weights=name), "dtype").spec.encoder
        == "resnet18"
    )

    monkeypatch.setattr(subprocess, "run", real)
    monkeypatch.setenv("TORCH_HOME", os.fspath(tmp_path))
    with pytest.raises(ConfigError, match=r"ResNet18_Weights\.NONE"):
        weights.find_stored(Network(encoder="resnet18", encoder_weights="ResNet18_Weights.NONE"), "dtype")


@pytest.mark.parametrize("command", [[], ["to-flax"], ["to-torch"], ["verify"]])
def test_help_is_readable(command, capsys):
    said = "\n".join(lines(capsys, *command, "--help"))
    assert "usage: python -m porting" in said
    assert "SOURCE" in said or "DIR" in said or not command


def test_real_weights_convert_and_agree(capsys, tmp_path):
    """A ResNet-18 trained on ImageNet, where there is one beside the project."""
    source = ROOT.parent / "shared" / "weights" / "resnet18_imagenet.pth"
    if not source.exists():
        pytest.skip("needs pretrained weights that are not part of the project")
    lines(capsys, "to-flax", source, "--arch", "resnet18", "--out", tmp_path / "flax")
    assert lines(capsys, "verify", tmp_path / "flax", source)[-1].startswith("the same")
