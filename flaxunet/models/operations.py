"""The operations that a network's `trace` is written in: what an export format implements."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from flaxunet.ops.resize import Method

T = TypeVar("T")


class Operations(Protocol[T]):
    """The operations that a network is made of, for its modules' `trace`.

    They compute (JAX, torch) or record what is to be computed (ONNX); `T` is their tensor, in their own order
    of axes. `trace` never looks at a size, so one graph serves images of every size.
    """

    def intensity(self, image: T, name: str) -> T:
        """As `flaxunet.preprocessing.normalize_intensity`, of each image of the batch."""
        ...

    def affine(self, x: T, scale: np.ndarray, bias: np.ndarray) -> T:
        """x * scale + bias, per channel."""
        ...

    def conv(self, x: T, kernel: np.ndarray, bias: np.ndarray | None, stride: int = 1, groups: int = 1) -> T:
        """Convolution with a kernel (k, k, cin / groups, cout), zero-padded by k // 2."""
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
        """As `flaxunet.models.guidance.suppress_absent`, of `global_max`'s map."""
        ...

    def probabilities(self, logits: T, classes: int) -> T:
        """Sigmoid for one class, softmax over the channels for more."""
        ...
