"""The operations that a network's `trace` is written in: what an export format implements."""

# ruff: noqa: D102 - the docstring of the class describes its methods

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from flaxunet.ops.resize import Method

T = TypeVar("T")
Bias = np.ndarray | None


class Operations(Protocol[T]):
    """The operations that a network is made of, for its modules' `trace`.

    They compute (JAX, torch) or record what is to be computed (ONNX); `T` is their tensor, in their own order
    of axes. `trace` never looks at a size, so one graph serves images of every size.

    Methods:
      intensity: as `flaxunet.preprocessing.normalize_intensity`, of each image of the batch.
      affine: x * scale + bias, per channel.
      conv: with a kernel (k, k, cin / groups, cout), zero-padded by k // 2.
      group_norm: group normalisation, then scale and bias per channel.
      relu, add, concat: the larger of x and 0; the sum; joined channels.
      stem_pool: max pooling of 3x3 windows, stride 2, padded by 1.
      pool: max pooling, window and stride `ratio`, rounding up; to the size of `like`, where that is given.
      resize: as `flaxunet.ops.resize.resize`, to the size of `like`, along the axes named.
      shift_sum: the sum of three thirds of the channels: moved by +1 along H or W, as it is, by -1.
      global_max: the largest value of each channel of each image, as a map of one pixel.
      suppress: as `flaxunet.models.guidance.suppress_absent`, of `global_max`'s map.
      probabilities: sigmoid for one class, softmax over the channels for more.
    """

    def intensity(self, image: T, name: str) -> T: ...
    def affine(self, x: T, scale: np.ndarray, bias: np.ndarray) -> T: ...
    def conv(self, x: T, kernel: np.ndarray, bias: Bias, stride: int = 1, groups: int = 1) -> T: ...
    def group_norm(self, x: T, groups: int, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> T: ...
    def relu(self, x: T) -> T: ...
    def add(self, a: T, b: T) -> T: ...
    def concat(self, maps: Sequence[T]) -> T: ...
    def stem_pool(self, x: T) -> T: ...
    def pool(self, x: T, ratio: int, like: T | None = None) -> T: ...
    def resize(self, x: T, like: T, method: Method, axes: str = "HW") -> T: ...
    def shift_sum(self, x: T, axis: str) -> T: ...
    def global_max(self, x: T) -> T: ...
    def suppress(self, logits: T, presence: T, classes: int) -> T: ...
    def probabilities(self, logits: T, classes: int) -> T: ...
