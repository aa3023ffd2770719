"""Trains a UNet in plain Python with optax, on the data that come with the installation.

    python examples/training_loop.py

A few minutes on two CPU cores. `python -m train` is this loop with everything around it: augmentation,
validation, checkpoints, several devices. Write your own where you need something that it does not do.
"""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import flaxunet
from flaxunet import metrics
from flaxunet.data import find
from flaxunet.losses import parse_loss


def crops(split: str, size: int, batch: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random crops of the default data's slices: images (B, S, S, 1) float32 and labels (B, S, S) int32."""
    rng = np.random.default_rng(seed)
    pairs = [record.read() for record in find(Path("brain")).records if record.split == split]
    while True:
        images, labels = [], []
        for number in rng.integers(len(pairs), size=batch):
            image, label = pairs[number]
            top, left = (rng.integers(side - size + 1) for side in label.shape)
            images.append(image[top : top + size, left : left + size])
            labels.append(label[top : top + size, left : left + size])
        yield np.stack(images), np.stack(labels)


def train(model: flaxunet.Segmenter, batches: Iterator, steps: int) -> list[float]:
    """The loop: 12 lines. Returns the loss of every step."""
    optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)
    loss = parse_loss("dice+ce")

    @nnx.jit
    def step(model, optimizer, images, labels):
        value, gradients = nnx.value_and_grad(lambda m: loss(m(m.normalize(images)), labels))(model)
        optimizer.update(model, gradients)
        return value

    model.train()
    values = [step(model, optimizer, *map(jnp.asarray, next(batches))) for _ in range(steps)]
    model.eval()
    return [float(value) for value in values]


def main(steps: int = 60, size: int = 96, batch: int = 4) -> float:
    """Trains, and returns the mean Dice of gray and white matter on the test slices."""
    model = flaxunet.create("unet", encoder="resnet18", in_channels=1, classes=3, rngs=nnx.Rngs(0))
    losses = train(model, crops("train", size, batch), steps)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")

    test = [record.read() for record in find(Path("brain")).records if record.split == "test"]
    images, labels = zip(*test, strict=True)
    predicted = jnp.asarray(flaxunet.predict(model, np.stack(images))).argmax(-1)
    dice = metrics.mean_foreground(metrics.dice(metrics.confusion_matrix(jnp.asarray(labels), predicted, 3)))
    print(f"test Dice {dice:.3f}")
    return dice


if __name__ == "__main__":
    main()
