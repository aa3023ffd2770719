"""Creates a network by names, with random weights or with those of a stored encoder."""

from collections.abc import Sequence
from pathlib import Path

from flax import nnx
from jax.typing import DTypeLike

from flaxunet.models.decoders import DECODERS
from flaxunet.models.layers import Norm
from flaxunet.models.segmenter import Segmenter, build
from flaxunet.models.spec import Spec
from flaxunet.ops.resize import Method
from flaxunet.preprocessing import Intensity
from flaxunet.weights import store, transfer


def create(
    arch: str,
    *,
    encoder: str = "resnet34",
    encoder_weights: str | Path | None = None,
    in_channels: int = 3,
    classes: int = 1,
    deep_supervision: bool = False,
    guidance: bool = False,
    upsample: Method = "nearest",
    norm: Norm = "batch",
    dropout: float = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    intensity: Intensity = "dtype",
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> Segmenter:
    """Builds a segmenter, in training mode.

    Args:
      arch: a name in `flaxunet.models.decoders.DECODERS`: "unet", "unetplusplus" or "unet3plus".
      encoder: a name in `flaxunet.models.encoders.ENCODERS`, e.g. "resnet34" or "plain".
      encoder_weights: folder of a stored encoder or segmenter of that name (`python -m porting to-flax`,
        `flaxunet.save`); its first convolution is adapted to in_channels (`transfer.adapt`). None: random.
      in_channels: C of the image.
      classes: K. 1 is one sigmoid channel; K >= 2 is softmax over classes, class 0 is background.
      deep_supervision: side heads, for `Segmenter.outputs`; a UNet++ then predicts the mean of its heads.
      guidance: UNet 3+'s classification guidance (any arch takes it).
      upsample: "nearest" or "bilinear", inside UNet and UNet++; UNet 3+ is bilinear by definition.
      norm, dropout: "batch" or "group"; rate of dropping whole channels before each head.
      mean, std: for `Segmenter.normalize`, one per channel; by default those of the encoder's weights, or
        ImageNet's (their mean over RGB where C is not 3); 0 and 1 for z-scores.
      intensity: "dtype", "percentile" or "zscore", for `flaxunet.preprocessing.normalize_intensity`; kept
        in `model.spec`, so that prediction repeats it.
      dtype: of the computation, e.g. jnp.bfloat16; parameters, statistics and logits stay float32.
      rngs: streams "params" and "dropout"; `nnx.Rngs(0)` has both.
    Returns: the segmenter; logits are (B, H, W, K) for images (B, H, W, C) of any H, W >= 1.
    Raises: ValueError for an unknown name, or a value that is out of range, with what was expected;
      StoreError (a ValueError) if the encoder's weights cannot be used.
    """
    stored = None if encoder_weights is None else store.read(encoder_weights)
    if stored is not None:
        usual_mean, usual_std = stored.normalisation(in_channels, intensity)
        mean, std = usual_mean if mean is None else mean, usual_std if std is None else std
    heads = {"deep_supervision": deep_supervision, "guidance": guidance, "dropout": dropout}
    images = {"mean": tuple(mean or ()), "std": tuple(std or ()), "intensity": intensity}
    spec = Spec(arch, encoder, in_channels, classes, upsample=upsample, norm=norm, **heads, **images)
    if not spec.segments:
        raise ValueError(f"{arch!r} is an encoder; expected one of {', '.join(DECODERS)} over it")
    model = build(spec, dtype=dtype, rngs=rngs)
    if stored is not None:
        store.fill(model, transfer.encoder_of(stored, spec).tensors)
    return model
