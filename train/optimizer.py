"""Builds the optax transformation that turns gradients into updates."""

from typing import Any

import jax
import optax
import optax.contrib

from train.config.settings import Optimization

MOMENTUM = 0.9  # of SGD, Nesterov's
POWER = 0.9  # of the polynomial decay
# After so many windows of --eval-every steps without a lower loss, a plateau multiplies the rate by FACTOR.
PATIENCE, FACTOR = 3, 0.5


def make_optimizer(settings: Optimization, eval_every: int) -> optax.GradientTransformation:
    """Builds AdamW or SGD under a learning-rate schedule with warm-up, after clipping by global norm.

    Only kernels decay: shrinking a norm's scale or a bias regularises nothing.

    Args:
      settings, eval_every: checked; `eval_every` is the window of the plateau schedule, in steps.
    Returns: the transformation of a tree of gradients; the plateau schedule needs the loss, as `value`.
    """
    parts = [optax.clip_by_global_norm(settings.clip), _descent(settings)]
    if settings.encoder_lr != 1:
        parts.append(optax.masked(optax.scale(settings.encoder_lr), _in_encoder))
    if settings.schedule == "plateau":
        parts.append(
            optax.contrib.reduce_on_plateau(factor=FACTOR, patience=PATIENCE, accumulation_size=eval_every)
        )
    return optax.chain(*parts)


def schedule(settings: Optimization) -> optax.Schedule:
    """Builds the learning rate as a function of the step, from 0; without the factor of a plateau."""
    peak, steps = settings.learning_rate, settings.steps
    warmup = max(int(steps * settings.warmup), 1)
    rising = optax.linear_schedule(peak / warmup, peak, warmup)
    if settings.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(peak / warmup, peak, warmup, max(steps, warmup + 1))
    if settings.schedule == "poly":
        falling = optax.polynomial_schedule(peak, 0.0, POWER, max(steps - warmup, 1))
        return optax.join_schedules([rising, falling], [warmup])
    return rising


def _descent(settings: Optimization) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(
        settings.weight_decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )
    rate = optax.scale_by_learning_rate(schedule(settings))
    if settings.optimizer == "sgd":
        return optax.chain(decay, optax.trace(MOMENTUM, nesterov=True), rate)
    adam = optax.scale_by_adam()
    if settings.frozen_steps:
        # The encoder's moments have their own step count, which is frozen too: with a bias correction for all
        # the frozen steps, its first updates would be several times too long.
        adam = optax.partition({"encoder": optax.scale_by_adam(), "others": adam}, _partition)
    return optax.chain(adam, decay, rate)


def _in_encoder(params: Any) -> Any:
    """Marks the parameters of the encoder."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "encoder", params)


def _partition(params: Any) -> Any:
    return jax.tree.map(lambda inside: "encoder" if inside else "others", _in_encoder(params))
