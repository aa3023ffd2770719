"""State dicts of other homes: the network is found under its prefix or its numbers, said, and proved."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
smp = pytest.importorskip("segmentation_models_pytorch")
torchvision = pytest.importorskip("torchvision")

from flaxunet.models.encoders import ENCODERS  # noqa: E402
from porting import identify  # noqa: E402
from porting.__main__ import main  # noqa: E402
from porting.locate import locate  # noqa: E402
from porting.peers import randomize, register_encoder  # noqa: E402
from tests.support.parity import numbers  # noqa: E402

NAMES = [name for name, entry in ENCODERS.items() if entry.torch]
BESIDE = {"projector.0.weight": np.zeros((4, 4), np.float32)}


def shapes(network):
    """A state dict's keys and shapes, without numbers or counters."""
    return {
        key: np.broadcast_to(np.float32(0), tuple(value.shape))
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def resnet(name="resnet18"):
    with torch.device("meta"):
        return getattr(torchvision.models, name)()


def below(prefix, tensors):
    return {f"{prefix}{key}": value for key, value in tensors.items()}


def children(name="resnet18"):
    return shapes(torch.nn.Sequential(*list(resnet(name).children())[:-1]))


def without_classifier(tensors):
    return {key: value for key, value in tensors.items() if not key.startswith("fc.")}


@pytest.mark.parametrize("name", NAMES)
def test_every_resnet_is_identified(name):
    found = identify.identify(shapes(resnet(name)))
    assert (found.spec.encoder, found.dialect) == (name, "torchvision")


@pytest.mark.parametrize("name", NAMES)
def test_every_resnet_is_identified_below_a_decoder(name):
    register_encoder(smp, name)
    with torch.device("meta"):
        found = identify.identify(shapes(smp.Unet(name, encoder_weights=None, classes=3)))
    assert (found.spec.arch, found.spec.encoder, found.spec.classes) == ("unet", name, 3)


@pytest.mark.parametrize(
    "prefix",
    ["backbone.", "encoder_q.", "module.encoder.", "pre.", "model.backbone.", "model._orig_mod.net."],
)
def test_a_resnet_is_found_under_any_prefix(prefix):
    plain = shapes(resnet())
    tensors, notes = locate(below(prefix, plain) | BESIDE)
    assert tensors.keys() == plain.keys()
    assert f"'{prefix}'" in notes[0]
    assert "1 arrays" in notes[1]
    assert "projector.0.weight" in notes[1]


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_numbered_children_get_their_names(prefix, name):
    tensors, notes = locate(below(prefix, children(name)))
    assert {key: x.shape for key, x in tensors.items()} == {
        key: x.shape for key, x in without_classifier(shapes(resnet(name))).items()
    }
    assert "numbered" in notes[-1]


def test_a_segmenter_is_found_under_a_prefix_before_its_encoder():
    with torch.device("meta"):
        plain = shapes(smp.Unet("resnet18", encoder_weights=None))
    tensors, _ = locate(below("lit.net.", plain) | BESIDE)
    assert tensors.keys() == plain.keys()


def test_mocos_query_encoder_is_taken_and_its_average_is_said_to_be_left_out():
    both = below("encoder_k.", shapes(resnet())) | below("encoder_q.", shapes(resnet()))
    tensors, notes = locate(both)
    assert tensors.keys() == shapes(resnet()).keys()
    assert "encoder_q." in notes[0]
    assert "encoder_k." in notes[1]


def test_two_networks_are_refused_unless_one_is_named():
    both = below("teacher.", shapes(resnet())) | below("student.", shapes(resnet("resnet34")))
    with pytest.raises(ValueError, match=r"student\., teacher\..*--prefix"):
        locate(both)
    tensors, _ = locate(both, "student.")
    assert identify.identify(tensors).spec.encoder == "resnet34"
    with pytest.raises(ValueError, match=r"'nobody\.'"):
        locate(both, "nobody.")


def test_what_is_unknown_stays_as_it_is():
    tensors, notes = locate(BESIDE)
    assert tensors == BESIDE
    assert notes == ()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "prefix", "options"),
    [
        ("resnet18", "backbone.", []),
        pytest.param("resnext50_32x4d", "model.backbone.", [], marks=pytest.mark.long),
        pytest.param("wide_resnet50_2", "teacher.", ["--prefix", "teacher."], marks=pytest.mark.long),
    ],
)
def test_from_another_home_there_and_back_with_proof(name, prefix, options, capsys, tmp_path):
    torch.manual_seed(0)
    network = randomize(getattr(torchvision.models, name)())
    layers = torch.nn.Sequential(*list(network.children())[:-1])
    torch.save(below(prefix, layers.state_dict()), tmp_path / "home.pth")
    folder = tmp_path / "encoder"
    assert main(["to-flax", str(tmp_path / "home.pth"), "--out", str(folder), *options]) == 0
    assert f"'{prefix}'" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", str(folder), str(tmp_path / "home.pth"), *options]) == 0
    assert main(["to-torch", str(folder), "--out", str(tmp_path / "back.pth")]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    for key, value in without_classifier(numbers(network)).items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key].numpy(), value)
