"""A network of three convolutions and its training step: what any network would show, in seconds."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxunet import losses
from flaxunet.models.layers import ConvNorm
from flaxunet.models.segmenter import Segmenter
from train.config.settings import Config
from train.optimizer import make_optimizer
from train.step import Program


class Encoder(nnx.Module):
    """Two maps."""

    channels, strides = (4, 6), (1, 2)

    def __init__(self, norm, rngs):
        self.first = ConvNorm(1, 4, norm=norm, rngs=rngs)
        self.second = ConvNorm(4, 6, stride=2, norm=norm, rngs=rngs)

    def __call__(self, image):
        x = self.first(image)
        return x, self.second(x)


class Decoder(nnx.Module):
    """The first map, and the second one's mean."""

    channels = (4,)

    def __init__(self, norm, rngs):
        self.block = ConvNorm(10, 4, norm=norm, rngs=rngs)

    def __call__(self, maps, size=None):
        mean = jnp.broadcast_to(maps[1].mean((1, 2), keepdims=True), (*maps[0].shape[:3], 6))
        return (self.block(jnp.concatenate([maps[0], mean], axis=-1)),)


def make_program(norm="batch", **options):
    config = Config.from_flat(**{"batch_size": 8, "augment": "none", "ema": 0.9, "warmup": 0.0, **options})

    def build():
        rngs = nnx.Rngs(0)
        model = Segmenter(
            Encoder(norm, rngs), Decoder(norm, rngs), 2, dropout=0.0, mean=(0.4,), std=(0.2,), rngs=rngs
        )
        if config.optimization.freeze_encoder is True:
            model.freeze_encoder()
        return model

    return Program(
        build=build,
        optimizer=make_optimizer(config.optimization, config.run.eval_every),
        loss=losses.dice,
        augmentation=config.augmentation,
        seed=0,
        ema=config.optimization.ema,
        skip_nonfinite=config.run.skip_nonfinite,
        accumulate=config.optimization.accumulate,
        frozen_steps=config.optimization.frozen_steps,
    )


def make_batch(seed=0, rows=8, size=16):
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, 2, (rows, 4, 4)), np.ones((1, size // 4, size // 4))).astype(np.int32)
    image = (
        (0.25 + label[..., None] / 2 + rng.normal(0, 0.1, (rows, size, size, 1)))
        .clip(0, 1)
        .astype(np.float32)
    )
    return {"image": image, "label": label, "index": np.arange(rows, dtype=np.int32)}
