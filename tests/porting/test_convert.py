"""Torch's keys and shapes here and back: nothing is lost, left over or invented, in any dialect."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
smp = pytest.importorskip("segmentation_models_pytorch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from flaxunet.models.encoders import ENCODERS  # noqa: E402
from flaxunet.models.encoders.plain import PlainEncoder  # noqa: E402
from porting import convert  # noqa: E402
from porting.peers import randomize  # noqa: E402
from porting.torch_unet3plus import UNet3Plus  # noqa: E402
from porting.torch_zju import ZJUNet  # noqa: E402
from tests.support.networks import network  # noqa: E402
from tests.support.parity import abstract, create, load_strictly, numbers  # noqa: E402

pytestmark = pytest.mark.parity


def resnet18():
    return ENCODERS["resnet18"].build(3, rngs=nnx.Rngs(0))


def smp_unet(**options):
    return smp.Unet("resnet18", encoder_weights=None, **options)


def smp_unetplusplus(**options):
    return smp.UnetPlusPlus("resnet18", encoder_weights=None, **options)


WHOLE = {"deep_supervision": True, "guidance": True, "classes": 3}
NETWORKS = {
    "torchvision": (torchvision.models.resnet18, resnet18, "torchvision"),
    "timm": (lambda: timm.create_model("resnet18", pretrained=False), resnet18, "timm"),
    "smp unet": (smp_unet, create("unet", "resnet18"), "smp"),
    "smp unetplusplus": (smp_unetplusplus, create("unetplusplus", "resnet18"), "smp"),
    "flaxunet": (lambda: UNet3Plus("resnet18"), create("unet3plus", "resnet18"), "flaxunet"),
    "flaxunet whole": (
        lambda: UNet3Plus("plain", **WHOLE),
        create("unet3plus", "plain", **WHOLE),
        "flaxunet",
    ),
}


@pytest.mark.parametrize("which", NETWORKS)
def test_there_and_back_is_bit_exact_and_loads_strictly(which):
    build, create_ours, dialect = NETWORKS[which]
    module = randomize(build())
    given = numbers(module)
    exported = convert.export(convert.load(abstract(create_ours), given, dialect), dialect)
    dropped = {key: given[key] for key in convert.dropped(given, dialect)}
    assert exported.keys() | dropped.keys() == given.keys()
    for key, value in exported.items():
        assert value.dtype == given[key].dtype
        np.testing.assert_array_equal(value, given[key])
    load_strictly(build(), exported | dropped)


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_the_published_unet3plus_comes_back_with_its_biases_in_the_means(deep_supervision):
    build = create("unet3plus", "plain", deep_supervision=deep_supervision)
    module = randomize(ZJUNet(deep_supervision=deep_supervision))
    given = numbers(module)
    exported = convert.export(convert.load(abstract(build), given, "zju"), "zju")
    layers = [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d)
    ]
    expected = dict(given)
    for (conv, before), (norm, layer) in pairwise(layers):
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert before.bias.abs().min() > 0
            expected[f"{norm}.running_mean"] = given[f"{norm}.running_mean"] - given[f"{conv}.bias"]
            expected[f"{conv}.bias"] = np.zeros_like(given[f"{conv}.bias"])
    assert exported.keys() == expected.keys()
    for key, value in exported.items():
        np.testing.assert_array_equal(value, expected[key])
    again = convert.export(convert.load(abstract(build), exported, "zju"), "zju")
    for key, value in exported.items():
        np.testing.assert_array_equal(again[key], value)
    load_strictly(ZJUNet(deep_supervision=deep_supervision), exported)


def test_our_module_has_the_published_unet3plus_keys_and_shapes():
    shapes = {key: tuple(value.shape) for key, value in ZJUNet().state_dict().items()}
    assert shapes["conv5.conv2.0.weight"] == (1024, 1024, 3, 3)
    assert shapes["h1_PT_hd4_conv.weight"] == (64, 64, 3, 3)
    assert shapes["h3_Cat_hd3_bn.running_var"] == (64,)
    assert shapes["hd5_UT_hd1_conv.weight"] == (64, 1024, 3, 3)
    assert shapes["hd3_UT_hd2_conv.bias"] == (64,)
    assert shapes["conv1d_1.weight"] == (320, 320, 3, 3)
    assert shapes["outconv1.weight"] == (1, 320, 3, 3)
    lines = [
        f"{key} {'x'.join(map(str, shape))}"
        for key, shape in shapes.items()
        if not key.endswith("num_batches_tracked")
    ]
    # Of the published network's 206 such lines, in the order of its state dict.
    digest = "95ab7b3d32ddcae8fc2b8e2fc4249ede038cceb403ac8b7252b355ca528f51ea"
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


@pytest.mark.parametrize("name", [name for name, entry in ENCODERS.items() if entry.torch])
def test_timm_has_torchvisions_keys_and_shapes(name):
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False).state_dict()
        torchvisions = getattr(torchvision.models, name)().state_dict()
    assert {key: value.shape for key, value in theirs.items()} == {
        key: value.shape for key, value in torchvisions.items()
    }


def test_classifiers_are_dropped_and_named():
    state = numbers(torchvision.models.resnet18())
    assert convert.dropped(state, "torchvision") == convert.dropped(state, "timm") == ["fc.bias", "fc.weight"]
    state = numbers(smp_unet(aux_params={"classes": 4}))
    head = ["classification_head.3.bias", "classification_head.3.weight"]
    assert convert.dropped(state, "smp") == head
    convert.load(abstract(create("unet", "resnet18")), state, "smp")
    assert convert.dropped(state, "zju") == []


def test_a_loaded_model_shares_no_memory_with_torch():
    state = numbers(randomize(torchvision.models.resnet18()))
    model = convert.load(abstract(resnet18), state, "torchvision")
    before = np.array(model.stem.norm.scale[...])
    state["bn1.weight"] += 1
    np.testing.assert_array_equal(model.stem.norm.scale[...], before)


def test_a_pruned_unetplusplus_with_the_whole_grid_fits_into_smp():
    load_strictly(
        smp_unetplusplus(), convert.export(network("unetplusplus", deep_supervision=True).prune(4), "smp")
    )


@pytest.mark.parametrize(
    ("build", "dialect", "why"),
    [
        (create("unet", "resnet18"), "torchvision", r"no place for .*`model.encoder`"),
        (create("unet", "resnet18", norm="group"), "smp", "needs .*running_mean.* with batch norm"),
        (create("unet", "resnet18", guidance=True), "smp", r"no place for guidance\.conv.* UNet or UNet\+\+"),
        (create("unet", "plain"), "smp", r"no place for encoder\.stages\.0\.0\.conv.* over a whole ResNet"),
        (create("unetplusplus", "plain"), "smp", r"no place for encoder\.stages.* over a whole ResNet"),
        (
            create("unetplusplus", "resnet18", deep_supervision=True),
            "smp",
            r"no place for heads\.1.*`model.prune\(4\)`",
        ),
        (create("unet3plus", "resnet18"), "smp", r"no place for decoder\.nodes\.0\.branches"),
        (create("unet", "resnet18"), "flaxunet", r"no place for decoder\.blocks.* a UNet 3\+"),
        (create("unet3plus", "resnet18", norm="group"), "flaxunet", "needs .*running_mean.* with batch norm"),
        (create("unet", "plain"), "zju", r"no place for decoder\.blocks.* a UNet 3\+ over the plain encoder"),
        (create("unet3plus", "resnet18"), "zju", r"no place for encoder\.stages\.0.*over the plain encoder"),
        (create("unet3plus", "plain", guidance=True), "zju", "no place for guidance.*without guidance"),
        (lambda: PlainEncoder(rngs=nnx.Rngs(0)), "timm", r"no place for stages\.0\.0\.conv.*ResNet encoder"),
        (resnet18, "keras", "unknown dialect 'keras'; expected one of torchvision, timm, smp, flaxunet, zju"),
    ],
)
def test_what_a_dialect_cannot_hold_is_refused(build, dialect, why):
    model = abstract(build)
    with pytest.raises(ValueError, match=why):
        convert.export(model, dialect)
    with pytest.raises(ValueError, match=why):
        convert.load(model, {}, dialect)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_smaller_grid_is_refused_by_smp(level):
    pruned = network("unetplusplus", deep_supervision=True).prune(level)
    with pytest.raises(ValueError, match=r"needs encoder\.layer4.* a whole ResNet"):
        convert.export(pruned, "smp")


def test_weights_that_do_not_fit_are_all_listed():
    state = numbers(torchvision.models.resnet18())
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    state["layer1.0.bn1.bias"] = state["layer1.0.bn1.bias"].astype(np.float64)
    state["extra.weight"] = state.pop("bn1.weight")
    with pytest.raises(ValueError) as error:
        convert.load(abstract(resnet18), state, "torchvision")
    assert str(error.value) == (
        "the weights do not fit torchvision: 1 missing: bn1.weight (64,); "
        "2 misshapen: conv1.weight is float32 (64, 1, 7, 7), not float32 (64, 3, 7, 7), "
        "layer1.0.bn1.bias is float64 (64,), not float32 (64,); 1 unused: extra.weight"
    )


def test_long_lists_are_complete_and_counted():
    state = {f"module.{key}": value for key, value in numbers(torchvision.models.resnet18()).items()}
    with pytest.raises(ValueError, match=r"100 missing: .*; 102 unused: .*$") as error:
        convert.load(abstract(resnet18), state, "torchvision")
    assert str(error.value).count("module.") == 102
    assert "\n" not in str(error.value)


def test_the_published_unet3plus_needs_its_biases():
    state = numbers(ZJUNet())
    del state["conv1.conv1.0.bias"]
    with pytest.raises(ValueError, match=r"1 missing: conv1\.conv1\.0\.bias \(64,\)$"):
        convert.load(abstract(create("unet3plus", "plain")), state, "zju")
