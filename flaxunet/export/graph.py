"""A folded segmenter and a set of operations enter; its prediction, written in those operations, leaves.

The operations compute (JAX, torch) or write down what is to be computed (ONNX). What passes between them is
theirs: here nothing looks at a size, so one walk serves every image.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from flax import nnx

from flaxunet.models.decoders.unet import DecoderBlock, UNetDecoder
from flaxunet.models.decoders.unet3plus import FullScaleNode, UNet3PlusDecoder
from flaxunet.models.decoders.unetplusplus import UNetPlusPlusDecoder
from flaxunet.models.encoders.plain import PlainEncoder
from flaxunet.models.encoders.resnet import ResNetEncoder
from flaxunet.models.fold import Shift
from flaxunet.models.layers import ConvNorm
from flaxunet.models.segmenter import Segmenter
from flaxunet.ops.resize import Method

T = TypeVar("T")
MIX_FROM = 4
"""Enlargement from which channels are mixed before a bilinear resize instead of behind it."""


class Operations(Protocol[T]):
    """What a network is made of. What passes between them has their own order of axes."""

    def intensity(self, image: T, name: str) -> T:
        """As `flaxunet.preprocessing.apply`, of each image of the batch."""
        ...

    def affine(self, x: T, scale: np.ndarray, bias: np.ndarray) -> T:
        """x * scale + bias, per channel."""
        ...

    def conv(self, x: T, kernel: np.ndarray, bias: np.ndarray | None, stride: int = 1) -> T:
        """Convolution with a kernel (k, k, cin, cout), zero-padded by k // 2."""
        ...

    def group_norm(self, x: T, groups: int, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> T:
        """Group normalisation, then scale and bias per channel."""
        ...

    def relu(self, x: T) -> T:
        """The larger of x and 0."""
        ...

    def add(self, a: T, b: T) -> T:
        """The sum."""
        ...

    def concat(self, maps: Sequence[T]) -> T:
        """Joined channels."""
        ...

    def stem_pool(self, x: T) -> T:
        """Max pooling of 3x3 windows, stride 2, padded by 1."""
        ...

    def pool(self, x: T, ratio: int, like: T | None = None) -> T:
        """Max pooling, window and stride `ratio`, rounding up; to the size of `like`, where that is given."""
        ...

    def resize(self, x: T, like: T, method: Method, axes: str = "HW") -> T:
        """As `flaxunet.ops.resize.resize`, to the size of `like`, along the axes named."""
        ...

    def shift_sum(self, x: T, axis: str) -> T:
        """The sum of three thirds of the channels: moved by +1 along H or W, as it is, by -1."""
        ...

    def global_max(self, x: T) -> T:
        """The largest value of each channel of each image, as a map of one pixel."""
        ...

    def suppress(self, logits: T, presence: T, classes: int) -> T:
        """As `flaxunet.models.decoders.unet3plus.suppress_absent`, of `global_max`'s map."""
        ...

    def probabilities(self, logits: T, classes: int) -> T:
        """Sigmoid for one class, softmax over the channels for more."""
        ...


def predict(model: Segmenter, image: T, ops: Operations[T], intensity: str) -> T:
    """From an image in [0, 1] (or of any range, as `intensity` says) to the probabilities of its classes.

    Args:
      model: a segmenter that `flaxunet.fold` made.
      image: what the operations take for a batch of images of any size.
      ops: the operations.
      intensity: "dtype", "percentile" or "zscore".
    """
    mean, std = (np.asarray(x, np.float32) for x in (model.mean, model.std))
    x = ops.affine(ops.intensity(image, intensity), 1 / std, -mean / std)
    maps = _encode(model.encoder, x, ops)
    sized = _decode(model.decoder, maps, x, ops)[: len(model.heads) if model.average else 1]
    logits = [_head(head, each, x, ops) for head, each in zip(model.heads, sized, strict=False)]
    out = logits[0]
    for other in logits[1:]:
        out = ops.add(out, other)
    classes = _array(model.heads[0].kernel).shape[-1]
    if len(logits) > 1:
        out = ops.affine(out, np.full(classes, 1 / len(logits), np.float32), np.zeros(classes, np.float32))
    if model.guidance is not None:
        conv = model.guidance.conv
        presence = ops.conv(maps[-1], _array(conv.kernel), _array(conv.bias))
        out = ops.suppress(out, ops.global_max(presence), classes)
    return ops.probabilities(out, classes)


def _array(variable: Any) -> np.ndarray:
    return np.asarray(variable[...])


def _finish(layer: ConvNorm, x: T, ops: Operations[T]) -> T:
    """What follows a convolution whose bias is in."""
    norm = layer.norm
    if isinstance(norm, nnx.GroupNorm):
        x = ops.group_norm(x, norm.num_groups, _array(norm.scale), _array(norm.bias), norm.epsilon)
    return ops.relu(x) if layer.relu else x


def _bias(layer: ConvNorm) -> np.ndarray | None:
    return _array(layer.norm.bias) if isinstance(layer.norm, Shift) else None


def _conv(layer: ConvNorm, x: T, ops: Operations[T]) -> T:
    return _finish(layer, ops.conv(x, _array(layer.conv.kernel), _bias(layer), layer.stride), ops)


def _resized(
    layer: ConvNorm, x: T, like: T, ratio: int, method: Method, skips: Sequence[T], ops: Operations[T]
):
    """The layer of concat[x resized, *skips]. Far enlargements mix channels first; see `ops.resize`."""
    kernel = _array(layer.conv.kernel)
    if skips or ratio < MIX_FROM:
        joined = ops.concat([ops.resize(x, like, method), *skips]) if skips else ops.resize(x, like, method)
        return _finish(layer, ops.conv(joined, kernel, _bias(layer)), ops)
    cin, cout = kernel.shape[2:]
    # Of the nine taps those of one row of the kernel lie together, within them those of one column.
    taps = kernel.transpose(2, 1, 0, 3).reshape(1, 1, cin, 9 * cout)
    columns = ops.shift_sum(ops.resize(ops.conv(x, taps, None), like, method, "W"), "W")
    rows = ops.shift_sum(ops.resize(columns, like, method, "H"), "H")
    bias = _bias(layer)
    return _finish(layer, rows if bias is None else ops.affine(rows, np.ones_like(bias), bias), ops)


def _encode(encoder: object, x: T, ops: Operations[T]) -> list[T]:
    maps: list[T] = []
    if isinstance(encoder, PlainEncoder):
        for first, second in encoder.stages:
            below = ops.pool(maps[-1], 2) if maps else x
            maps.append(_conv(second, _conv(first, below, ops), ops))
        return maps
    assert isinstance(encoder, ResNetEncoder)
    maps.append(_conv(encoder.stem, x, ops))
    x = ops.stem_pool(maps[0])
    for stage in encoder.stages:
        for block in stage:
            shortcut = x if block.shortcut is None else _conv(block.shortcut, x, ops)
            for name in ("conv1", "conv2", "conv3"):
                if hasattr(block, name):
                    x = _conv(getattr(block, name), x, ops)
            x = ops.relu(ops.add(x, shortcut))
        maps.append(x)
    return maps


def _decode(decoder: object, maps: Sequence[T], image: T, ops: Operations[T]) -> list[T]:
    """The decoder's maps, finest first."""
    if isinstance(decoder, UNetDecoder):
        *skips, x = maps
        out: list[T] = []
        for index, block in enumerate(decoder.blocks):
            x = _block(block, x, [skips[-1 - index]] if index < len(skips) else [], image, ops)
            out.append(x)
        return out[::-1]
    if isinstance(decoder, UNetPlusPlusDecoder):
        grid = [[x] for x in maps]
        for column in range(len(decoder.nodes)):
            for row, nodes in enumerate(decoder.nodes):
                if column < len(nodes):
                    grid[row].append(
                        _block(nodes[column], grid[row + 1][column], grid[row][::-1], image, ops)
                    )
        finest = grid[0][:0:-1]
        if decoder.last is not None:
            finest[0] = _block(decoder.last, finest[0], [], image, ops)
        return finest
    assert isinstance(decoder, UNet3PlusDecoder)
    decoded = [maps[-1]]
    for level, node in reversed(list(enumerate(decoder.nodes))):
        decoded.insert(0, _node(node, [*maps[: level + 1], *decoded], ops))
    return decoded


def _block(block: DecoderBlock, x: T, skips: Sequence[T], image: T, ops: Operations[T]) -> T:
    x = _resized(block.conv1, x, skips[0] if skips else image, 2, block.upsample, skips, ops)
    return _conv(block.conv2, x, ops)


def _node(node: FullScaleNode, scales: Sequence[T], ops: Operations[T]) -> T:
    here = scales[node.level]
    out: list[T] = []
    for index, (branch, x) in enumerate(zip(node.branches, scales, strict=True)):
        if index < node.level:
            out.append(_conv(branch, ops.pool(x, node.ratios[index], here), ops))
        elif index == node.level:
            out.append(_conv(branch, x, ops))
        else:
            out.append(_resized(branch, x, here, 2 ** (index - node.level), "bilinear", [], ops))
    return _conv(node.fuse, ops.concat(out), ops)


def _head(head: nnx.Conv, x: T, image: T, ops: Operations[T]) -> T:
    return ops.resize(ops.conv(x, _array(head.kernel), _array(head.bias)), image, "bilinear")
