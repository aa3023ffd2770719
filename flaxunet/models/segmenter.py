"""Joins an encoder, a decoder and heads: from an image to logits of the image's own size."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

from flaxunet.models.decoders import DECODERS, Decoder
from flaxunet.models.encoders import ENCODERS, Encoder
from flaxunet.models.guidance import Guidance, suppress_absent
from flaxunet.models.layers import Head
from flaxunet.models.spec import IMAGENET_MEAN, IMAGENET_STD, Spec
from flaxunet.ops.resize import resize


class Outputs(NamedTuple):
    """What a loss needs.

    Attributes:
      logits: each (B, H, W, K) float32; the main head's first, then the side heads', finest first.
      presence: (B, K - 1) logits of the foreground classes ((B, 1) for K = 1), or None without guidance.
    """

    logits: tuple[Array, ...]
    presence: Array | None


class Segmenter(nnx.Module):
    """Encoder, decoder and heads.

    Args:
      encoder, decoder: modules with the attributes of `Encoder` and `Decoder`.
      classes: K. 1 is one sigmoid channel; K >= 2 is softmax over classes, class 0 is background.
      deep_supervision: one head for each of the decoder's maps instead of one for the first.
      average: predict the mean of all heads' logits (UNet++'s accurate mode) instead of the main head's.
      guidance: learn which classes an image contains and remove absent ones from the prediction.
      dropout: rate of dropping whole channels before each head.
      mean, std: of the images that the encoder expects, per channel; `normalize` applies them.
      rngs: streams "params" and "dropout".

    Attributes:
      spec: what `build` built this from; None for one of other parts, which `flaxunet.save` cannot describe.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        classes: int = 1,
        *,
        deep_supervision: bool = False,
        average: bool = False,
        guidance: bool = False,
        dropout: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        rngs: nnx.Rngs,
    ):
        self.encoder, self.decoder = encoder, decoder
        widths = decoder.channels if deep_supervision else decoder.channels[:1]
        self.heads = nnx.List([Head(width, classes, rngs=rngs) for width in widths])
        self.guidance = Guidance(encoder.channels[-1], classes, rngs=rngs) if guidance else None
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2), rngs=rngs) if dropout else None
        self.average, self.frozen_encoder = average, False
        self.mean, self.std = tuple(mean), tuple(std)
        self.spec: Spec | None = None

    def __call__(self, image: Array) -> Array:
        """Predicts.

        Args:
          image: (B, H, W, C) normalised (see `normalize`), any float dtype, any H, W >= 1.
        Returns: logits (B, H, W, K), float32.
        Raises: ValueError if the image is not 4-dimensional or has another number of channels.
        """
        return self.combine(self._run(image, len(self.heads) if self.average else 1))

    def outputs(self, image: Array) -> Outputs:
        """What a loss needs: the logits of every head, not suppressed, and of presence; as `__call__`."""
        return self._run(image, len(self.heads))

    def combine(self, outputs: Outputs) -> Array:
        """The prediction that `__call__` makes of `outputs(image)`: logits (B, H, W, K), float32."""
        chosen = outputs.logits if self.average else outputs.logits[:1]
        logits = sum(chosen[1:], chosen[0]) / len(chosen)
        return logits if outputs.presence is None else suppress_absent(logits, outputs.presence)

    def normalize(self, image: Array) -> Array:
        """(image - mean) / std per channel, of an image (..., C) after `normalize_intensity`; float32."""
        shape = (1,) * (image.ndim - 1) + (-1,)
        mean, std = (jnp.asarray(x, jnp.float32).reshape(shape) for x in (self.mean, self.std))
        return (image.astype(jnp.float32) - mean) / std

    def prune(self, level: int) -> "Segmenter":
        """A copy of a UNet++ that predicts with X[0][level] alone: less work and fewer parameters.

        Args:
          level: 1 to 4; 4 keeps the whole grid and drops the side heads.
        Raises: ValueError if this is no UNet++ with deep supervision or the level does not exist.
        """
        depth = len(self.heads)
        if not hasattr(self.decoder, "prune") or depth < 2:
            raise ValueError("only a UNet++ with deep supervision has the heads that pruning chooses from")
        if not 1 <= level <= depth:
            raise ValueError(f"cannot prune to level {level}; expected 1 to {depth}")
        pruned = nnx.clone(self)
        pruned.decoder.prune(level)  # pyright: ignore[reportAttributeAccessIssue] - a decoder that can be pruned
        pruned.heads = nnx.List([pruned.heads[depth - level]])
        pruned.average = False
        if self.spec is not None:
            pruned.spec = dataclasses.replace(self.spec, pruned=level)
        if pruned.guidance is None:  # which reads the deepest map
            pruned.encoder.truncate(level + 1)
        return pruned

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Holds the encoder as it is: no gradients, and batch statistics that do not move.

        `trainable` then leaves its parameters out, so an optimizer cannot decay them either.
        """
        self.frozen_encoder = frozen
        self.set_attributes(nnx.PathContains("encoder"), frozen=frozen, raise_if_not_found=False)

    def rematerialize(self, remat: bool = True) -> None:
        """Computes the maps inside of blocks again for their gradients, instead of keeping them.

        Training takes less memory and more time; the numbers stay the same to rounding.
        """
        self.set_attributes(remat=remat, raise_if_not_found=False)

    def trainable(self) -> Any:
        """The NNX filter of the parameters that training may change."""
        return nnx.All(nnx.Param, nnx.Not(nnx.PathContains("encoder"))) if self.frozen_encoder else nnx.Param

    def _run(self, image: Array, heads: int) -> Outputs:
        channels = len(self.mean)
        if image.ndim != 4 or image.shape[-1] != channels:
            raise ValueError(f"image has shape {image.shape}; expected (B, H, W, {channels})")
        size = image.shape[1], image.shape[2]
        maps = self.encoder(image)
        if self.frozen_encoder:
            maps = lax.stop_gradient(maps)
        drop = self.dropout or (lambda x: x)
        decoded = zip(self.decoder(maps, size)[:heads], self.heads, strict=False)
        logits = tuple(resize(head(drop(x)), size, "bilinear") for x, head in decoded)
        return Outputs(logits, None if self.guidance is None else self.guidance(maps[-1]))


def build(spec: Spec, *, dtype: DTypeLike | None = None, rngs: nnx.Rngs) -> Segmenter:
    """Builds the segmenter that a spec describes, with random weights, in training mode.

    Args:
      spec, dtype: of a whole segmenter, and of the computation; None means float32.
      rngs: streams "params" and "dropout".
    """
    entry, encoder = DECODERS[spec.arch], build_encoder(spec, dtype=dtype, rngs=rngs)
    options = {"upsample": spec.upsample, "norm": spec.norm, "dtype": dtype, "rngs": rngs}
    if not entry.upsamples:
        del options["upsample"]
    decoder = entry.build(encoder.channels, encoder.strides, **options)
    names = ("classes", "deep_supervision", "guidance", "dropout", "mean", "std")
    heads = {name: getattr(spec, name) for name in names}
    model = Segmenter(encoder, decoder, **heads, average=entry.averages, rngs=rngs)
    model.spec = dataclasses.replace(spec, pruned=None)
    return model if spec.pruned is None else model.prune(spec.pruned)


def build_encoder(spec: Spec, *, dtype: DTypeLike | None = None, rngs: nnx.Rngs) -> Encoder:
    """Builds the encoder that a spec names, alone; arguments as in `build`."""
    return ENCODERS[spec.encoder].build(spec.in_channels, norm=spec.norm, dtype=dtype, rngs=rngs)
