"""Our path -> torch key: one small table per dialect, which holds nothing that its table does not name."""

import re
from collections.abc import Sequence
from typing import NamedTuple

# Our module, torch's convolution, torch's batch norm ("" where there is none). The first is a pattern for the
# whole path, the others may use its groups.
Table = Sequence[tuple[str, str, str]]

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Dialect(NamedTuple):
    """How one family of torch networks is called and built.

    Attributes:
      table: every module that a network of the family may have.
      needs: a key that each of them has: one deep inside, and one of a batch norm.
      holds: what the family is, in words.
      drops: beginnings of torch keys without a counterpart here.
      biased: whether the convolutions before a batch norm have biases.
    """

    table: Table
    needs: str
    holds: str
    drops: tuple[str, ...] = ()
    biased: bool = False


def zju_branch(source: int, target: int) -> str:
    """The name of the branch from scale `source` (1 is the finest) to decoder node `target` there."""
    if source > target:
        return f"hd{source}_UT_hd{target}"
    return f"h{source}_{'Cat' if source == target else 'PT'}_hd{target}"


def _inside(module: str, table: Table) -> Table:
    return [(rf"{module}\.{ours}", f"{module}.{conv}", f"{module}.{norm}") for ours, conv, norm in table]


# torchvision's ResNet, and every library that kept its names.
_RESNET: Table = [
    ("stem", "conv1", "bn1"),
    *(
        (rf"stages\.{level}\.(\d+)\.{ours}", rf"layer{level + 1}.\1.{conv}", rf"layer{level + 1}.\1.{norm}")
        for level in range(4)
        for ours, conv, norm in (
            (r"conv(\d)", r"conv\2", r"bn\2"),
            ("shortcut", "downsample.0", "downsample.1"),
        )
    ),
]

# segmentation_models_pytorch's Unet and UnetPlusPlus. Our node X[i][j], kept as nodes[i][j - 1], is its
# x_{depth}_{layer}: layers count from the deepest level, depth 0 is the outermost node.
_SMP: Table = [
    *_inside("encoder", _RESNET),
    *(
        (rf"decoder\.{ours}\.(conv\d)", rf"decoder.blocks.{theirs}.\1.0", rf"decoder.blocks.{theirs}.\1.1")
        for ours, theirs in (
            *((rf"blocks\.{index}", str(index)) for index in range(5)),
            *((rf"nodes\.{i}\.{k}", f"x_{3 - i - k}_{3 - i}") for i in range(4) for k in range(4 - i)),
            ("last", "x_0_4"),
        )
    ),
    (r"heads\.0", "segmentation_head.0", ""),
]

# Our own torch modules (porting/torch_unet3plus.py), with torchvision's ResNet or the plain encoder inside.
_FLAXUNET: Table = [
    *_inside("encoder", _RESNET),
    (r"(encoder\.stages\.\d\.\d)", r"\1.0", r"\1.1"),
    (r"(decoder\.nodes\.\d\.(branches\.\d|fuse))", r"\1.0", r"\1.1"),
    (r"(heads\.\d)", r"\1", ""),
    ("guidance", "guidance.conv", ""),
]

# The network that the authors of UNet 3+ published. It counts from 1.
_ZJU: Table = [
    *(
        (rf"encoder\.stages\.{i}\.{k}", f"conv{i + 1}.conv{k + 1}.0", f"conv{i + 1}.conv{k + 1}.1")
        for i in range(5)
        for k in range(2)
    ),
    *(
        (rf"decoder\.nodes\.{i}\.branches\.{k}", f"{branch}_conv", f"{branch}_bn")
        for i in range(4)
        for k in range(5)
        for branch in [zju_branch(k + 1, i + 1)]
    ),
    *((rf"decoder\.nodes\.{i}\.fuse", f"conv{i + 1}d_1", f"bn{i + 1}d_1") for i in range(4)),
    *((rf"heads\.{i}", f"outconv{i + 1}", "") for i in range(5)),
]

_RESNETS = Dialect(
    _RESNET,
    needs="layer4.0.bn1.running_mean",
    holds="a whole ResNet encoder with batch norm (of a segmenter, `model.encoder`)",
    drops=("fc.",),
)
DIALECTS = {
    "torchvision": _RESNETS,
    "timm": _RESNETS,
    "smp": Dialect(
        _SMP,
        needs="encoder.layer4.0.bn1.running_mean",
        holds="a UNet or UNet++ over a whole ResNet, with batch norm and one head "
        "(`model.prune(4)` leaves one to a UNet++ with deep supervision)",
        drops=("classification_head.",),
    ),
    "flaxunet": Dialect(
        _FLAXUNET, needs="decoder.nodes.0.fuse.1.running_mean", holds="a UNet 3+ with batch norm"
    ),
    "zju": Dialect(
        _ZJU,
        needs="bn1d_1.running_mean",
        holds="a UNet 3+ over the plain encoder, with batch norm and without guidance",
        biased=True,
    ),
}


def dialect_named(name: str) -> Dialect:
    """The dialect of this name.

    Raises: ValueError if there is none.
    """
    if name not in DIALECTS:
        raise ValueError(f"unknown dialect {name!r}; known are {', '.join(DIALECTS)}")
    return DIALECTS[name]


def torch_key(path: Sequence[str | int], dialect: str) -> str:
    """The torch state-dict key of one of our leaves.

    Args:
      path: from the model's root to the leaf, e.g. ("stem", "conv", "kernel").
      dialect: a name in `DIALECTS`.
    Returns: the key, e.g. "conv1.weight".
    Raises: ValueError if the dialect is unknown or has no place for the leaf.
    """
    table, holds = dialect_named(dialect).table, dialect_named(dialect).holds
    *modules, leaf = map(str, path)
    part = modules.pop() if modules and modules[-1] in ("conv", "norm") else "conv"
    for pattern, conv, norm in table:
        if match := re.fullmatch(pattern, ".".join(modules)):
            return f"{match.expand(conv if part == 'conv' else norm)}.{LEAVES[leaf]}"
    raise ValueError(f"{dialect} has no place for {'.'.join(map(str, path))}; it holds {holds}")
