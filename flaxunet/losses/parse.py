"""A sum of losses by its name, such as "dice+ce", enters; the function that computes it leaves."""

import functools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array

from flaxunet import losses
from flaxunet.losses.terms import Loss

LOSSES: dict[str, Callable[..., Array]] = {
    "ce": losses.cross_entropy,
    "dice": losses.dice,
    "focal": losses.focal,
    "jaccard": losses.jaccard,
    "lovasz": losses.lovasz,
    "ms_ssim": losses.ms_ssim,
    "tversky": losses.tversky,
    "unet3plus": losses.unet3plus,
}
TAKE_CLASS_WEIGHTS = ("ce", "focal", "unet3plus")


def parse(spec: str, *, class_weights: Sequence[float] | None = None) -> Loss:
    """The loss that a sum such as "dice+ce" or "0.5*dice + ce" names.

    Args:
      spec: names from `LOSSES` joined by "+", each with an optional factor > 0 before "*".
      class_weights: handed to the terms in `TAKE_CLASS_WEIGHTS`.
    Returns: `loss(logits, labels) -> scalar float32`.
    Raises: ValueError for an unknown name, a factor not > 0, or class weights that no term takes.
    """
    terms = [_term(part, spec, class_weights) for part in spec.split("+")]
    if class_weights is not None and not any(name in TAKE_CLASS_WEIGHTS for _, name, _ in terms):
        raise ValueError(
            f"no term of {spec!r} takes class weights; these do: {', '.join(TAKE_CLASS_WEIGHTS)}"
        )

    def loss(logits: Array, labels: Array) -> Array:
        return sum((factor * term(logits, labels) for factor, _, term in terms), jnp.float32(0))

    return loss


def _term(part: str, spec: str, class_weights: Sequence[float] | None) -> tuple[float, str, Loss]:
    """One summand: its factor, its name and its function."""
    factor_text, star, name = part.rpartition("*")
    name = name.strip()
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r} in {spec!r}; known: {', '.join(LOSSES)}")
    try:
        factor = float(factor_text) if star else 1.0
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise ValueError(f"factor {factor_text.strip()!r} in {spec!r}; expected a number > 0")
    if name in TAKE_CLASS_WEIGHTS:
        return factor, name, functools.partial(LOSSES[name], class_weights=class_weights)
    return factor, name, LOSSES[name]
