"""Takes weights over from a stored network: its encoder for another decoder, or all but the heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxunet.models.encoders import ENCODERS
from flaxunet.models.spec import Spec
from flaxunet.weights.store import Stored, StoreError, Tensors, abstract, check_fit, leaves


@dataclass(frozen=True)
class Transfer:
    """What one network takes over from another.

    Attributes:
      tensors: what is taken, under the segmenter's dotted paths.
      unused: paths of the stored network that have no place.
      fresh: paths of the segmenter, in the part that was asked for, that keep their random numbers.
      adapted: "1 channel from 3", if the first convolution was made for another number of channels.
    """

    tensors: Tensors
    unused: tuple[str, ...]
    fresh: tuple[str, ...]
    adapted: str | None


def encoder_of(stored: Stored, spec: Spec) -> Transfer:
    """Takes over the encoder of a stored network, alone or not, for the segmenter of another spec.

    Raises: StoreError if the encoder is another one.
    """
    return _transfer(stored, spec, part="encoder.", may_differ=())


def all_of(stored: Stored, spec: Spec) -> Transfer:
    """Takes over all of a stored segmenter that another one has a place for; heads and guidance may differ.

    Raises: StoreError if the decoder or the encoder is another one.
    """
    theirs, ours = ((each.arch, each.upsample, each.pruned) for each in (stored.spec, spec))
    if theirs != ours:
        raise StoreError(f"{stored.folder} holds {stored.spec}; this network is {spec}")
    return _transfer(stored, spec, part="", may_differ=("heads.", "guidance."))


def _transfer(stored: Stored, spec: Spec, part: str, may_differ: tuple[str, ...]) -> Transfer:
    theirs, ours = (f"{each.encoder} with {each.norm} norm" for each in (stored.spec, spec))
    if theirs != ours:
        raise StoreError(f"the encoder in {stored.folder} is {theirs}; this network's is {ours}")
    prefix = "" if stored.spec.segments else "encoder."
    everything = {prefix + path: x for path, x in stored.tensors.items()}
    tensors = {path: x for path, x in everything.items() if path.startswith(part)}
    places = {path: leaf for path, leaf in leaves(abstract(spec)).items() if path.startswith(part)}
    first, adapted = f"encoder.{ENCODERS[spec.encoder].first_conv}", None
    if stored.spec.in_channels != spec.in_channels and first in tensors:
        tensors[first] = adapt(tensors[first], spec.in_channels)
        adapted = f"{spec.in_channels} from {stored.spec.in_channels} channels"
    check_fit(stored, _without(places, may_differ), _without(tensors, may_differ))
    fitting = {path: x for path, x in tensors.items() if path in places and places[path].shape == x.shape}
    unused, fresh = (tuple(path for path in tree if path not in fitting) for tree in (everything, places))
    return Transfer(fitting, unused, fresh, adapted)


def _without(tree: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    return {path: leaf for path, leaf in tree.items() if not path.startswith(prefixes)}


def adapt(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapts a first convolution to images of another number of channels.

    Args:
      kernel: (h, w, 3, O), made for RGB.
      channels: C of the images.
    Returns: (h, w, C, O): the sum over RGB for C = 1, as if a gray image were shown as RGB; for others the
      RGB kernels in turn, times 3 / C, so that sums keep their size.
    Raises: StoreError if the kernel is not made for RGB.
    """
    if kernel.shape[2] != 3:
        expected = f"expected weights for {channels} or 3 channels"
        raise StoreError(f"the first convolution takes {kernel.shape[2]} channels; {expected}")
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * np.float32(3 / channels)
