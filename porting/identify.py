"""Identifies the network of a torch state dict, and its layout, by keys and shapes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flaxunet.models.decoders.unet import decoder_widths
from flaxunet.models.encoders import ENCODERS
from flaxunet.models.spec import Spec

Tensors = Mapping[str, np.ndarray]


class Found(NamedTuple):
    """The network of a state dict; its spec has ImageNet's normalisation, and the default upsampling."""

    spec: Spec
    dialect: str  # a name in `porting.keymap.DIALECTS`


def identify(tensors: Tensors) -> Found:
    """Identifies a state dict.

    Args:
      tensors: torch keys to arrays in torch's layout.
    Raises: ValueError if it is none of the networks that can be ported; the line says what it looks like.
    """

    def spec(arch: str, encoder: str, first: str, head: str, **options: Any) -> Spec:
        return Spec(arch, encoder, _shape(tensors, first)[1], _shape(tensors, head)[0], **options)

    if "h1_PT_hd4_conv.weight" in tensors:
        deep = "outconv2.weight" in tensors
        return Found(spec("unet3plus", "plain", "conv1.conv1.0", "outconv1", deep_supervision=deep), "zju")
    if "decoder.nodes.0.fuse.0.weight" in tensors:
        plain = "encoder.stages.0.0.0.weight" in tensors
        encoder = "plain" if plain else _resnet(tensors, "encoder.")
        first = "encoder.stages.0.0.0" if plain else "encoder.conv1"
        deep, guidance = "heads.1.weight" in tensors, "guidance.conv.weight" in tensors
        extras = {"deep_supervision": deep, "guidance": guidance}
        return Found(spec("unet3plus", encoder, first, "heads.0", **extras), "flaxunet")
    for arch, node in (("unetplusplus", "x_0_{}"), ("unet", "{}")):
        outermost = [node.format(level) for level in range(5)]
        if f"decoder.blocks.{outermost[0]}.conv1.0.weight" in tensors:
            encoder = _resnet(tensors, "encoder.")
            _check_smp_decoder(tensors, outermost)
            return Found(spec(arch, encoder, "encoder.conv1", "segmentation_head.0"), "smp")
    if "layer1.0.conv1.weight" in tensors:
        encoder = _resnet(tensors, "")
        return Found(Spec(encoder, encoder, in_channels=_shape(tensors, "conv1")[1]), "torchvision")
    first = ", ".join(key[:60] for key in list(tensors)[:3])
    raise ValueError(
        f"unknown network: its keys begin {first}; expected a ResNet of torchvision or timm, "
        "segmentation_models_pytorch's Unet or UnetPlusPlus on one, or a UNet 3+"
    )


def _shape(tensors: Tensors, module: str) -> tuple[int, ...]:
    """Of a convolution's kernel (O, I, h, w)."""
    array = tensors.get(f"{module}.weight")
    if array is None or array.ndim != 4:
        found = "is missing" if array is None else f"has shape {array.shape}"
        raise ValueError(f"{module}.weight {found}; expected a kernel (O, I, h, w)")
    return array.shape


def _resnet(tensors: Tensors, prefix: str) -> str:
    """The name of the ResNet under a prefix, by its blocks and their inner width."""
    shapes = {key.removeprefix(prefix): x.shape for key, x in tensors.items() if key.startswith(prefix)}
    known = {name: entry.fits for name, entry in ENCODERS.items() if entry.fits is not None}
    others = any(key.startswith(("layer1.0.se.", "conv1.0.")) for key in shapes)
    if names := [name for name, fits in known.items() if fits(shapes) and not others]:
        return names[0]
    expected = f"expected one of {', '.join(known)}"
    stages = (f"layer{number}." for number in (1, 2, 3, 4))
    blocks = [len({key.split(".")[1] for key in shapes if key.startswith(stage)}) for stage in stages]
    if not any(blocks):
        raise ValueError(f"its encoder is no ResNet of torchvision; {expected}")
    shallow = " (encoder_depth is not 5)" if prefix and 0 in blocks else ""
    variant = ", with squeeze-and-excitation or a deep stem" if others else ""
    conv = f"{prefix}layer1.0.conv2"
    kernel = f"{_shape(tensors, conv) if blocks[0] else 'no'} as the kernel of {conv}{variant}"
    raise ValueError(
        f"its encoder has {blocks} blocks in {prefix}layer1 to 4{shallow} and {kernel}; {expected}"
    )


def _check_smp_decoder(tensors: Tensors, outermost: list[str]) -> None:
    """Refuses decoders of segmentation_models_pytorch that were built with options that ours lack."""
    decoder = [key for key in tensors if key.startswith("decoder.")]
    if any("attention" in key for key in decoder):
        raise ValueError("its decoder has attention; expected decoder_attention_type=None")
    if f"decoder.blocks.{outermost[0]}.conv1.1.running_mean" not in tensors:
        raise ValueError("its decoder has no batch norm; expected decoder_use_norm='batchnorm'")
    blocks = [name for name in outermost if f"decoder.blocks.{name}.conv1.0.weight" in tensors]
    widths = tuple(_shape(tensors, f"decoder.blocks.{name}.conv1.0")[0] for name in blocks)
    expected = decoder_widths((64,) * 5, (2,) * 5)
    if widths != expected:
        raise ValueError(f"its decoder_channels are {widths}; expected {expected}")
