"""Locates a network that a state dict keeps under a prefix, or as numbered children."""

from collections.abc import Collection, Mapping

import numpy as np

from flaxunet.models.encoders import ENCODERS

Tensors = Mapping[str, np.ndarray]

SEGMENTERS = (
    *("h1_PT_hd4_conv.weight", "decoder.nodes.0.fuse.0.weight"),
    *("decoder.blocks.x_0_0.conv1.0.weight", "decoder.blocks.0.conv1.0.weight"),
)
"""A key of each segmenter that can be ported; looked for first, because a segmenter holds a ResNet too."""
RESNET, CHILDREN = "layer1.0.conv1.weight", "4.0.conv1.weight"
"""A key of a ResNet, and the same one in `nn.Sequential(*resnet.children())`."""
NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Numbers of a ResNet's children (2 is the ReLU, 3 the pooling) -> their names."""
SHOWN = 3


def locate(tensors: Tensors, prefix: str | None = None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Takes a network out of a state dict, whatever lies around it.

    Known homes are RadImageNet's `backbone.0.weight`, MoCo's `encoder_q.`, Lightning's `model.backbone.`, the
    wrappers' `module.` and `_orig_mod.`; in general any prefix under which a whole network lies.

    Args:
      tensors: torch keys -> arrays.
      prefix: where the network lies; found if left out.
    Returns: the network's arrays without the prefix, with torchvision's names; and notes on what was done. An
      unknown network is returned as it is, without notes.
    Raises: ValueError if several networks could be meant, or the prefix holds none.
    """
    for signature in (*SEGMENTERS, RESNET, CHILDREN):
        prefixes = [key.removesuffix(signature) for key in tensors if key.endswith(signature)]
        prefixes = [each for each in prefixes if not each or each.endswith(".")]
        prefixes = [each for each in prefixes if prefix in (None, each)]
        found = {each: _below(tensors, each, signature == CHILDREN) for each in prefixes}
        if signature == CHILDREN or (signature == RESNET and len(found) > 1):
            whole = {each: keys for each, keys in found.items() if _whole(tensors, keys)}
            found = whole or (found if signature == RESNET else {})
        if found:
            chosen = _choose(found)
            decoder = f"{chosen.removesuffix('encoder.')}decoder."
            foreign = chosen.endswith("encoder.") and any(key.startswith(decoder) for key in tensors)
            if foreign and prefix is None:
                raise ValueError(
                    f"a segmenter whose decoder is unknown; expected --prefix {chosen} for its encoder, "
                    "or a Unet or UnetPlusPlus of segmentation_models_pytorch, or a UNet 3+"
                )
            notes = _notes(tensors, chosen, found[chosen], signature == CHILDREN)
            return {name: tensors[key] for name, key in found[chosen].items()}, notes
    if prefix is not None:
        raise ValueError(f"no network under the prefix {prefix!r}; expected one such as 'encoder_q.'")
    return dict(tensors), ()


def _below(tensors: Tensors, prefix: str, numbered: bool) -> dict[str, str]:
    """Names in the network -> keys of the state dict."""
    inside = {key.removeprefix(prefix): key for key in tensors if key.startswith(prefix)}
    if not numbered:
        return inside
    parts = ((*name.partition("."), key) for name, key in inside.items())
    return {f"{NAMES[number]}.{rest}": key for number, _, rest, key in parts if number in NAMES}


def _whole(tensors: Tensors, keys: Mapping[str, str]) -> bool:
    """Whether these are a whole ResNet."""
    shapes = {name: tensors[key].shape for name, key in keys.items()}
    return "conv1.weight" in keys and any(entry.fits and entry.fits(shapes) for entry in ENCODERS.values())


def _choose(prefixes: Collection[str]) -> str:
    """The network without a prefix, the only one, or MoCo's query encoder."""
    queries = [prefix for prefix in prefixes if prefix.endswith("encoder_q.")]
    for several in ([prefix for prefix in prefixes if not prefix], list(prefixes), queries):
        if len(several) == 1:
            return several[0]
    names = ", ".join(sorted(prefixes))
    raise ValueError(f"several networks, under {names}; expected --prefix with one of them")


def _notes(tensors: Tensors, prefix: str, keys: Mapping[str, str], numbered: bool) -> tuple[str, ...]:
    notes = [f"took what lies under the prefix '{prefix}'"] if prefix else []
    if numbered:
        notes.append("took its numbered children for conv1 (0), bn1 (1) and layer1 to layer4 (4 to 7)")
    used = set(keys.values())
    if outside := [key for key in tensors if key not in used]:
        more = f" and {len(outside) - SHOWN} more" if len(outside) > SHOWN else ""
        notes.append(f"left out {len(outside)} arrays beside it: {', '.join(outside[:SHOWN])}{more}")
    return tuple(notes)
