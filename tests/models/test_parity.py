"""Same numbers as torch: every pyramid stage, every decoder's map and the logits, eval mode, float32."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
smp = pytest.importorskip("segmentation_models_pytorch")
timm = pytest.importorskip("timm")

from flaxunet.models import guidance  # noqa: E402
from flaxunet.models.encoders import ENCODERS  # noqa: E402
from porting import convert, torch_unet3plus  # noqa: E402
from porting.peers import randomize  # noqa: E402
from porting.torch_unet3plus import ResNet, UNet3Plus  # noqa: E402
from porting.torch_zju import ZJUNet  # noqa: E402
from tests.support.networks import network  # noqa: E402
from tests.support.parity import (  # noqa: E402
    assert_all_close,
    assert_close,
    create,
    encoder,
    filled,
    image,
    load_strictly,
    numbers,
    rarely,
    reference,
    to_torch,
)

pytestmark = pytest.mark.parity


def others(*names):
    """The ResNets besides these."""
    return [name for name, entry in ENCODERS.items() if entry.torch and name not in names]


@nnx.jit
def run(model, x):
    return model(x)


@nnx.jit
def run_stages(model, x):
    """The encoder's maps, finest first, the decoder's, finest first, and the prediction."""
    maps = model.encoder(x)
    return *maps, *model.decoder(maps, x.shape[1:3]), model(x)


# Blocks of smp's decoders behind the maps that ours return, finest first: UNet's, then UNet++'s.
FINEST = (*"43210", "x_0_4", "x_1_3", "x_2_3", "x_3_3")


@torch.no_grad()
def reference_stages(model, x):
    """What `run_stages` returns, of the torch network."""
    x = to_torch(x)
    if not hasattr(model, "segmentation_head"):
        maps = model.encoder(x)
        return [*maps, *model.decoder(maps), model(x)]
    blocks = record(model.decoder.blocks)
    maps, logits = model.encoder(x)[1:], model(x)  # smp's first map is the image
    return [*maps, *(blocks[name] for name in FINEST if name in blocks), logits]


def record(blocks):
    """What each of the blocks returns, by name, whenever it runs."""
    out = {}
    for name, block in blocks.named_children():
        block.register_forward_hook(lambda _block, _inputs, x, name=name: out.update({name: x}))
    return out


@torch.no_grad()
def logits_of(head, x, size):
    return torch.nn.functional.interpolate(head(x), size=size, mode="bilinear")


# Basic blocks, bottlenecks, and those with groups; the others have more of the same.
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnext50_32x4d",
        *map(rarely, others("resnet18", "resnet50", "resnext50_32x4d")),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (75, 53)], ids=["even", "odd"])
def test_pyramid_matches_torchvision(name, size):
    torch.manual_seed(0)
    theirs = randomize(ResNet(name))
    ours = filled(encoder(name), theirs, "torchvision")
    with torch.no_grad():
        assert_all_close(run(ours, image(*size)), theirs(to_torch(image(*size))))


@pytest.mark.parametrize("name", ["resnet18", rarely("resnet50")])
def test_pyramid_matches_timm(name):
    theirs = randomize(timm.create_model(name, pretrained=False))
    ours = filled(encoder(name), theirs, "timm")
    with torch.no_grad():
        expected = theirs.forward_intermediates(to_torch(image(64, 64)), intermediates_only=True)
    assert_all_close(run(ours, image(64, 64)), expected)


@pytest.mark.parametrize("name", ["resnet18", *map(rarely, others("resnet18"))])
@pytest.mark.parametrize("arch", ["unet", "unetplusplus", "unet3plus"])
def test_every_stage_and_the_logits_match_the_reference(arch, name):
    theirs, dialect = reference(arch, name)
    ours = filled(create(arch, name), theirs, dialect)
    assert_all_close(run_stages(ours, image(64, 96)), reference_stages(theirs, image(64, 96)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet101", "resnet152"])
@pytest.mark.parametrize("arch", ["unet", "unet3plus"])
def test_odd_sizes_match_too_where_the_reference_takes_them(arch, name):
    theirs, dialect = reference(arch, name)
    ours = filled(create(arch, name), theirs, dialect)
    assert_all_close(run_stages(ours, image(75, 53)), reference_stages(theirs, image(75, 53)))


# smp's UNet++ takes sides divisible by 32 only.
@pytest.mark.parametrize(
    ("arch", "size", "in_channels", "classes"),
    [
        ("unet", (75, 53), 1, 5),
        rarely("unet", (50, 38), 4, 1),
        rarely("unet", (3, 5), 3, 2),
        rarely("unetplusplus", (32, 96), 1, 5),
        rarely("unetplusplus", (96, 32), 4, 1),
    ],
)
def test_torch_gets_every_stage_from_our_numbers(arch, size, in_channels, classes):
    ours = network(arch, in_channels=in_channels, classes=classes)
    theirs, dialect = reference(arch, "resnet18", classes, in_channels)
    load_strictly(theirs, convert.export(ours, dialect))
    x = image(*size, channels=in_channels, batch=2)
    assert_all_close(run_stages(ours, x), reference_stages(theirs, x))


@pytest.mark.parametrize(
    ("encoder", "size", "in_channels", "classes"),
    [
        rarely("resnet18", (75, 53), 1, 5),
        rarely("resnet18", (64, 32), 4, 1),
        rarely("plain", (43, 29), 1, 5),
        rarely("plain", (48, 32), 4, 1),
    ],
)
def test_every_map_and_head_of_unet3plus_matches(encoder, size, in_channels, classes):
    torch.manual_seed(0)
    options = {"in_channels": in_channels, "classes": classes, "deep_supervision": True, "guidance": True}
    theirs = randomize(UNet3Plus(encoder, **options))
    x = image(*size, channels=in_channels, batch=2)
    x[1] *= 2
    with torch.no_grad():
        # Each class is present in one of the two images, which differ enough, and absent from the other.
        theirs.guidance.conv.bias -= theirs.presence(to_torch(x)).mean(0)
        maps = theirs.encoder(to_torch(x))
        expected = [*theirs.outputs(to_torch(x)), theirs(to_torch(x)), *maps, *theirs.decoder(maps)]
        presence = theirs.presence(to_torch(x))
        # The bias leaves little of the sums, so that their peak is no measure: what was added up is.
        added = torch.einsum("kc,bchw->bkhw", theirs.guidance.conv.weight[:, :, 0, 0].abs(), maps[-1].abs())
    ours = convert.load(network("unet3plus", encoder=encoder, **options), numbers(theirs), "flaxunet")

    @nnx.jit
    def everything(model, x):
        outputs, maps = model.outputs(x), model.encoder(x)
        return outputs.presence, (*outputs.logits, model(x), *maps, *model.decoder(maps))

    our_presence, ours = everything(ours, x)
    assert_close(our_presence, presence, peak=added.max().item())
    assert_all_close(ours, expected)


@pytest.mark.parametrize("classes", [1, 5])
def test_absent_classes_are_removed_alike(classes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 3, 2, classes), scale=30).astype(np.float32)
    presence = rng.normal(size=(8, max(classes - 1, 1))).astype(np.float32)
    expected = torch_unet3plus.suppress_absent(to_torch(logits), torch.from_numpy(presence))
    assert_close(guidance.suppress_absent(jnp.array(logits), jnp.array(presence)), expected, tolerance=0)


@pytest.mark.parametrize("arch", [rarely("unet"), rarely("unetplusplus")])
def test_bilinear_upsampling_is_the_references(arch):
    theirs, _ = reference(arch, "resnet18", 2, 4, decoder_interpolation="bilinear")
    ours = filled(create(arch, "resnet18", in_channels=4, classes=2, upsample="bilinear"), theirs, "smp")
    x = image(96, 64, channels=4)
    with torch.no_grad():
        assert_close(run(ours, x), theirs(to_torch(x)))


@pytest.mark.long
def test_side_heads_and_pruned_unetplusplus_match_the_references_grid():
    theirs, _ = reference("unetplusplus", "resnet18", 2)
    heads = [theirs.segmentation_head[0], *(torch.nn.Conv2d(64, 2, 3, padding=1) for _ in range(3))]
    whole = filled(create("unetplusplus", "resnet18", classes=2), theirs, "smp")
    ours = network("unetplusplus", classes=2, deep_supervision=True)
    nnx.update(ours, nnx.state(whole))
    for one, other in zip(ours.heads, heads, strict=True):
        one.kernel[...] = jnp.array(convert.to_flax_layout(other.weight.detach().numpy()))
        one.bias[...] = jnp.array(other.bias.detach().numpy())

    x, nodes = image(64, 32), FINEST[5:]
    grid = record(theirs.decoder.blocks)
    with torch.no_grad():
        theirs(to_torch(x))
    expected = [logits_of(head, grid[node], x.shape[1:3]) for head, node in zip(heads, nodes, strict=True)]

    @nnx.jit
    def outputs(model, x):
        return model.outputs(x).logits

    assert_all_close(outputs(ours, x), expected)
    for level in (1, 2, 3, 4):
        assert_close(run(ours.prune(level), x), expected[4 - level])


@pytest.mark.long
def test_the_published_unet3plus_gives_its_numbers_here_and_after_the_way_back():
    torch.manual_seed(0)
    theirs = randomize(ZJUNet(in_channels=1, classes=5, deep_supervision=True))
    assert all(layer.bias.abs().min() > 0 for layer in theirs.modules() if isinstance(layer, torch.nn.Conv2d))
    options = {"in_channels": 1, "classes": 5, "deep_supervision": True}
    ours = filled(create("unet3plus", "plain", **options), theirs, "zju")
    x = image(48, 32, channels=1)

    @nnx.jit
    def outputs(model, x):
        return model.outputs(x).logits

    again = ZJUNet(**options).eval()
    load_strictly(again, convert.export(ours, "zju"))
    with torch.no_grad():
        for logits, model in ((outputs(ours, x), theirs), (outputs(ours, x), again)):
            assert_all_close(logits, model.outputs(to_torch(x)))
