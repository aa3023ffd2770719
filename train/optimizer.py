"""Settings enter; the optax transformation that turns gradients into updates leaves."""

from typing import Any

import jax
import optax
import optax.contrib

from train.config.settings import Config, held_steps

MOMENTUM = 0.9  # of SGD, Nesterov's
POWER = 0.9  # of the polynomial decay
# At a plateau: windows of --eval-every steps without a lower loss, and the factor that follows.
PATIENCE, FACTOR = 3, 0.5


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW or SGD under a learning-rate schedule with warm-up, after clipping by global norm.

    Only kernels decay: shrinking a norm's scale or a bias regularises nothing.

    Args:
      config: checked.
    Returns: the transformation of a tree of gradients; a plateau's is told the loss, as `value`.
    """
    parts = [optax.clip_by_global_norm(config.clip), _descent(config)]
    if config.encoder_lr != 1:
        parts.append(optax.masked(optax.scale(config.encoder_lr), _encoder))
    if config.schedule == "plateau":
        parts.append(
            optax.contrib.reduce_on_plateau(
                factor=FACTOR, patience=PATIENCE, accumulation_size=config.eval_every
            )
        )
    return optax.chain(*parts)


def schedule(config: Config) -> optax.Schedule:
    """The learning rate of each step, from 0; without the factor that a plateau brings."""
    peak, steps = config.learning_rate, config.steps
    warmup = max(int(steps * config.warmup), 1)
    rising = optax.linear_schedule(peak / warmup, peak, warmup)
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(peak / warmup, peak, warmup, max(steps, warmup + 1))
    if config.schedule == "poly":
        falling = optax.polynomial_schedule(peak, 0.0, POWER, max(steps - warmup, 1))
        return optax.join_schedules([rising, falling], [warmup])
    return rising


def _descent(config: Config) -> optax.GradientTransformation:
    """From clipped gradients to updates."""
    decay = optax.add_decayed_weights(
        config.weight_decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )
    rate = optax.scale_by_learning_rate(schedule(config))
    if config.optimizer == "sgd":
        return optax.chain(decay, optax.trace(MOMENTUM, nesterov=True), rate)
    adam = optax.scale_by_adam()
    if held_steps(config):
        # A count of its own, which is held too: corrected as if it had moved all the time, the encoder
        # would begin with steps several times too long.
        adam = optax.partition({"encoder": optax.scale_by_adam(), "others": adam}, _labels)
    return optax.chain(adam, decay, rate)


def _encoder(params: Any) -> Any:
    """Whether each parameter is the encoder's."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "encoder", params)


def _labels(params: Any) -> Any:
    return jax.tree.map(lambda ours: "encoder" if ours else "others", _encoder(params))
