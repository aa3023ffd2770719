"""Traces the prediction of a folded segmenter in the operations of an export format."""

from functools import reduce

import numpy as np

from flaxunet.models.layers import array
from flaxunet.models.operations import Operations, T
from flaxunet.models.segmenter import Segmenter


def predict(model: Segmenter, image: T, ops: Operations[T], intensity: str) -> T:
    """Traces from an image in [0, 1] (or of any range, as `intensity` says) to the probabilities of classes.

    Args:
      model: a segmenter that `flaxunet.fold` made.
      image: the tensor of `ops` for a batch of images of any size.
    Returns: the tensor of probabilities, one channel per class.
    """
    mean, std = (np.asarray(x, np.float32) for x in (model.mean, model.std))
    x = ops.affine(ops.intensity(image, intensity), 1 / std, -mean / std)
    maps = model.encoder.trace(ops, x)
    decoded = model.decoder.trace(ops, maps, x)[: len(model.heads) if model.average else 1]
    logits = [head.trace(ops, each, x) for head, each in zip(model.heads, decoded, strict=False)]
    out = reduce(ops.add, logits)
    classes = array(model.heads[0].kernel).shape[-1]
    if len(logits) > 1:
        out = ops.affine(out, np.full(classes, 1 / len(logits), np.float32), np.zeros(classes, np.float32))
    if model.guidance is not None:
        out = ops.suppress(out, model.guidance.trace(ops, maps[-1]), classes)
    return ops.probabilities(out, classes)
