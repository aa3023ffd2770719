"""Which network a torch state dict belongs to, and in whose layout, read off its keys and shapes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flaxunet.models.decoders.unet import decoder_widths
from flaxunet.models.encoders.resnet import BLOCKS, Bottleneck
from flaxunet.models.spec import Arch, EncoderName, Spec

Tensors = Mapping[str, np.ndarray]


class IdentifyError(ValueError):
    """A state dict of no network that is known here; its message is one line that says what it looks like."""


class Found(NamedTuple):
    """What a state dict turned out to be.

    Attributes:
      spec: the network, with ImageNet's normalisation; what no key can tell (upsample) has its default.
      dialect: a name in `porting.keymap.DIALECTS`.
    """

    spec: Spec
    dialect: str


def identify(tensors: Tensors) -> Found:
    """Says what a state dict is.

    Args:
      tensors: torch keys to arrays in torch's layout.
    Raises: IdentifyError if it is none of the networks that can be ported.
    """
    if "h1_PT_hd4_conv.weight" in tensors:
        deep = "outconv2.weight" in tensors
        return Found(_spec("unet3plus", "plain", tensors, "conv1.conv1.0", "outconv1", deep), "zju")
    if "decoder.nodes.0.fuse.0.weight" in tensors:
        plain = "encoder.stages.0.0.0.weight" in tensors
        encoder = "plain" if plain else _resnet(tensors, "encoder.")
        first = "encoder.stages.0.0.0" if plain else "encoder.conv1"
        deep, guidance = "heads.1.weight" in tensors, "guidance.conv.weight" in tensors
        spec = _spec("unet3plus", encoder, tensors, first, "heads.0", deep, guidance=guidance)
        return Found(spec, "flaxunet")
    nested: tuple[tuple[Arch, list[str]], ...] = (
        ("unetplusplus", [f"x_0_{level}" for level in range(5)]),
        ("unet", [f"{level}" for level in range(5)]),
    )
    for arch, outermost in nested:
        if f"decoder.blocks.{outermost[0]}.conv1.0.weight" in tensors:
            encoder = _resnet(tensors, "encoder.")
            _check_smp_decoder(tensors, outermost)
            return Found(_spec(arch, encoder, tensors, "encoder.conv1", "segmentation_head.0"), "smp")
    if "layer1.0.conv1.weight" in tensors:
        encoder = _resnet(tensors, "")
        return Found(Spec(encoder, encoder, in_channels=_shape(tensors, "conv1")[1]), "torchvision")
    first = ", ".join(key[:60] for key in list(tensors)[:3])
    raise IdentifyError(
        f"no network that is known here: its keys begin {first}; accepted are "
        "ResNets of torchvision or timm, segmentation_models_pytorch's Unet and UnetPlusPlus on them, UNet 3+"
    )


def _spec(
    arch: Arch,
    encoder: EncoderName,
    tensors: Tensors,
    first: str,
    head: str,
    deep: bool = False,
    **options: Any,
) -> Spec:
    channels, classes = _shape(tensors, first)[1], _shape(tensors, head)[0]
    return Spec(arch, encoder, channels, classes, deep_supervision=deep, **options)


def _shape(tensors: Tensors, module: str) -> tuple[int, ...]:
    """Of a convolution's kernel (O, I, h, w)."""
    array = tensors.get(f"{module}.weight")
    if array is None or array.ndim != 4:
        found = "is missing" if array is None else f"has shape {array.shape}"
        raise IdentifyError(f"{module}.weight {found}; accepted is a kernel (O, I, h, w)")
    return array.shape


def _resnet(tensors: Tensors, prefix: str) -> EncoderName:
    """The name of the ResNet under a prefix, by its number of blocks and the width of the first."""
    blocks = tuple(
        len(
            {
                key.split(".")[prefix.count(".") + 1]
                for key in tensors
                if key.startswith(f"{prefix}layer{stage}.")
            }
        )
        for stage in (1, 2, 3, 4)
    )
    deep = f"{prefix}layer1.0.conv3.weight" in tensors
    known = {(tuple(repeats), block is Bottleneck): depth for depth, (block, repeats) in BLOCKS.items()}
    if not any(blocks):
        raise IdentifyError(
            "its encoder is no ResNet of torchvision; accepted are resnet18, 34, 50, 101, 152"
        )
    if (blocks, deep) not in known:
        raise IdentifyError(
            f"{prefix}layer1 to 4 have {blocks} blocks, which is no ResNet-18, 34, 50, 101 or 152"
            + (" (encoder_depth is not 5)" if prefix and 0 in blocks else "")
        )
    second = f"{prefix}layer1.0.conv2"
    others = [key for key in tensors if key.startswith((f"{prefix}layer1.0.se.", f"{prefix}conv1.0."))]
    if _shape(tensors, second)[:2] != (64, 64) or others:
        raise IdentifyError(
            f"{second}.weight has shape {_shape(tensors, second)}: a ResNeXt, "
            "wide, SE or D variant; accepted are resnet18, 34, 50, 101, 152"
        )
    return f"resnet{known[blocks, deep]}"  # pyright: ignore[reportReturnType] - one of the names


def _check_smp_decoder(tensors: Tensors, outermost: list[str]) -> None:
    """Refuses decoders of segmentation_models_pytorch that were built with options that ours lack."""
    decoder = [key for key in tensors if key.startswith("decoder.")]
    if any("attention" in key for key in decoder):
        raise IdentifyError("its decoder has attention; accepted is decoder_attention_type=None")
    if f"decoder.blocks.{outermost[0]}.conv1.1.running_mean" not in tensors:
        raise IdentifyError("its decoder has no batch norm; accepted is decoder_use_norm='batchnorm'")
    blocks = [name for name in outermost if f"decoder.blocks.{name}.conv1.0.weight" in tensors]
    widths = tuple(_shape(tensors, f"decoder.blocks.{name}.conv1.0")[0] for name in blocks)
    accepted = decoder_widths((64,) * 5, (2,) * 5)
    if widths != accepted:
        raise IdentifyError(f"its decoder_channels are {widths}; accepted are {accepted}")
