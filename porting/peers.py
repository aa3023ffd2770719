"""Builds the torch network of a spec and a dialect, and runs it stage by stage."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from flaxunet.models.spec import Spec
from porting.torch_unet3plus import ResNet, UNet3Plus
from porting.torch_zju import ZJUNet


def build(spec: Spec, dialect: str) -> nn.Module:
    """Builds the torch network, with random weights, in evaluation mode.

    Args:
      spec, dialect: of an encoder or a segmenter, and a name in `porting.keymap.DIALECTS` that can hold it.
    """
    if dialect == "smp":
        import segmentation_models_pytorch as smp

        register_encoder(smp, spec.encoder)
        options = {"encoder_weights": None, "decoder_interpolation": spec.upsample}
        network = getattr(smp, DECODERS[spec.arch].smp or "")(
            spec.encoder, in_channels=spec.in_channels, classes=spec.classes, **options
        )
    elif dialect == "flaxunet":
        shape = spec.in_channels, spec.classes, spec.deep_supervision
        network = UNet3Plus(spec.encoder, *shape, guidance=spec.guidance)
    elif dialect == "zju":
        network = ZJUNet(spec.in_channels, spec.classes, spec.deep_supervision)
    else:
        network = ResNet(spec.encoder, spec.in_channels)
    return network.eval()


def register_encoder(smp: Any, name: str) -> None:
    """Registers one of torchvision's ResNets with segmentation_models_pytorch, unless it is there."""
    if name in smp.encoders.encoders:
        return
    entry = ENCODERS[name]
    block = Bottleneck if entry.channels[1] == 256 else BasicBlock
    params = {"out_channels": [3, *entry.channels], "block": block, **(entry.torch or {})}
    encoder = smp.encoders.encoders["resnet50"]["encoder"]
    smp.encoders.encoders[name] = {"encoder": encoder, "pretrained_settings": {}, "params": params}


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draws kernels, and all numbers of batch norms, in place: no two can be mixed up unseen.

    Kernels keep the signal's size: behind torch's default ones little but biases would be left to compare.
    Returns: the network, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None  # noqa: PT018 - as built
            layer.weight.data.uniform_(0.5, 1.0, generator=generator)
            layer.bias.data.uniform_(-0.2, 0.2, generator=generator)
            layer.running_mean.uniform_(-0.2, 0.2, generator=generator)
            layer.running_var.uniform_(0.8, 1.5, generator=generator)
    return network.eval()


def fill(network: nn.Module, tensors: Mapping[str, np.ndarray]) -> nn.Module:
    """Gives a network its numbers; RuntimeError names what is missing, misshapen or unused."""
    state = {key: torch.from_numpy(array.copy()) for key, array in tensors.items()}
    network.load_state_dict(state, strict=True)
    return network


def stages(network: nn.Module, image: np.ndarray, dialect: str) -> dict[str, np.ndarray]:
    """Runs the network on an image, stage by stage.

    Args:
      network, dialect: what `build` made, and of what.
      image: (B, H, W, C) float32.
    Returns: from "encoder 1" (the finest map) to "logits": arrays (B, h, w, channels).
    """
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        arrays = _run(network, x, dialect)
    return {name: array.numpy().transpose(0, 2, 3, 1) for name, array in arrays.items()}


def _run(network: Any, x: Tensor, dialect: str) -> dict[str, Tensor]:
    if dialect == "zju":
        maps = network.encoder(x)
        heads = network.outputs(x)
        return numbered("encoder", maps) | numbered("head", heads) | {"logits": heads[0]}
    if dialect == "flaxunet":
        maps = network.encoder(x)
        stages = numbered("encoder", maps) | {"decoder": network.decoder(maps)[0]}
        return stages | numbered("head", network.outputs(x)) | {"logits": network(x)}
    if dialect == "smp":
        maps = network.encoder(x)  # the first is the image
        return numbered("encoder", maps[1:]) | {"decoder": network.decoder(maps), "logits": network(x)}
    return numbered("encoder", network(x))


def numbered(what: str, several: Any) -> dict[str, Any]:
    """Names for the items of a list: "what 1", "what 2", ..."""
    return {f"{what} {number}": item for number, item in enumerate(several, 1)}
