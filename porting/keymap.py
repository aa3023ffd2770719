"""Translates our paths to torch keys, by the tables that encoders and decoders own."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS

# Our module, torch's convolution, torch's batch norm ("" where there is none). The first is a pattern for the
# whole path, the others may use its groups.
Table = Sequence[tuple[str, str, str]]

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


class Dialect(NamedTuple):
    """How one family of torch networks names its modules."""

    needs: str  # a key that each of them has: one deep inside, and one of a batch norm
    holds: str  # what the family is, in words
    heads: Table = ()  # rows of what follows the decoder
    drops: tuple[str, ...] = ()  # beginnings of torch keys without a counterpart here
    alone: bool = False  # whether it is an encoder alone
    flat: bool = False  # whether encoder and decoder share one namespace in torch
    biased: bool = False  # whether the convolutions before a batch norm have biases


_ENCODER = Dialect(
    needs="layer4.0.bn1.running_mean",
    holds="a whole ResNet encoder with batch norm (of a segmenter, `model.encoder`)",
    drops=("fc.",),
    alone=True,
)
DIALECTS = {
    "torchvision": _ENCODER,
    "timm": _ENCODER,
    "smp": Dialect(
        needs="encoder.layer4.0.bn1.running_mean",
        holds="a UNet or UNet++ over a whole ResNet, with batch norm and one head "
        "(`model.prune(4)` leaves one to a UNet++ with deep supervision)",
        heads=((r"heads\.0", "segmentation_head.0", ""),),
        drops=("classification_head.",),
    ),
    "flaxunet": Dialect(
        needs="decoder.nodes.0.fuse.1.running_mean",
        holds="a UNet 3+ with batch norm",
        heads=((r"(heads\.\d)", r"\1", ""), ("guidance", "guidance.conv", "")),
    ),
    "zju": Dialect(
        needs="bn1d_1.running_mean",
        holds="a UNet 3+ over the plain encoder, with batch norm and without guidance",
        heads=tuple((rf"heads\.{i}", f"outconv{i + 1}", "") for i in range(5)),
        flat=True,
        biased=True,
    ),
}


def table(name: str) -> Table:
    """Composes a dialect's rows from those of the encoders and the decoders, and of its heads."""
    dialect = dialect_named(name)
    rows = []
    for part, entries in (("encoder", ENCODERS), ("decoder", DECODERS)):
        several = [row for entry in entries.values() for row in entry.torch_keys.get(name, ())]
        if dialect.alone:
            return several
        start = "" if dialect.flat else f"{part}."
        rows += [(rf"{part}\.{ours}", start + conv, start + norm) for ours, conv, norm in several]
    return [*rows, *dialect.heads]


def dialect_named(name: str) -> Dialect:
    """Looks a dialect up; raises ValueError if there is none of this name."""
    if name not in DIALECTS:
        raise ValueError(f"unknown dialect {name!r}; expected one of {', '.join(DIALECTS)}")
    return DIALECTS[name]


def torch_key(path: Sequence[str | int], dialect: str) -> str:
    """Translates the path of one of our leaves to its key in a torch state dict.

    Args:
      path: from the model's root to the leaf, e.g. ("stem", "conv", "kernel").
      dialect: a name in `DIALECTS`.
    Returns: the key, e.g. "conv1.weight".
    Raises: ValueError if the dialect is unknown or has no place for the leaf.
    """
    *modules, leaf = map(str, path)
    part = modules.pop() if modules and modules[-1] in ("conv", "norm") else "conv"
    for pattern, conv, norm in table(dialect):
        if match := re.fullmatch(pattern, ".".join(modules)):
            return f"{match.expand(conv if part == 'conv' else norm)}.{LEAVES[leaf]}"
    leaf = ".".join(map(str, path))
    raise ValueError(f"{dialect} has no place for {leaf}; it holds {DIALECTS[dialect].holds}")
