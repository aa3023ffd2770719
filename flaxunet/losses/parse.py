"""Parses a sum of losses by name, such as "dice+ce", to the function that computes it."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array

from flaxunet.losses import terms
from flaxunet.losses.terms import Loss

LOSSES: dict[str, Callable[..., Array]] = {
    "ce": terms.cross_entropy,
    "dice": terms.dice,
    "focal": terms.focal,
    "jaccard": terms.jaccard,
    "lovasz": terms.lovasz,
    "ms_ssim": terms.ms_ssim,
    "tversky": terms.tversky,
    "unet3plus": terms.unet3plus,
}
"""The losses that can be named. A new one is a function in `terms` and a line here."""

TAKE_CLASS_WEIGHTS = tuple(
    name for name, loss in LOSSES.items() if "class_weights" in inspect.signature(loss).parameters
)


def parse_loss(spec: str, *, class_weights: Sequence[float] | None = None) -> Loss:
    """Parse a weighted sum of losses such as "dice+ce" or "0.5*dice + ce".

    Args:
      spec: names from `LOSSES` joined by "+", each with an optional factor > 0 before "*".
      class_weights: passed to the terms in `TAKE_CLASS_WEIGHTS`.
    Returns: `loss(logits, labels) -> scalar float32`.
    Raises: ValueError for an unknown name, a factor not > 0, or class weights that no term takes.
    """
    summands = [_summand(part, spec, class_weights) for part in spec.split("+")]
    if class_weights is not None and not any(name in TAKE_CLASS_WEIGHTS for _, name, _ in summands):
        expected = ", ".join(TAKE_CLASS_WEIGHTS)
        raise ValueError(f"class weights with loss {spec!r}; expected one of {expected} in it")
    return lambda logits, labels: sum(
        (factor * term(logits, labels) for factor, _, term in summands), jnp.float32(0)
    )


def _summand(part: str, spec: str, class_weights: Sequence[float] | None) -> tuple[float, str, Loss]:
    """Factor, name and function of one summand."""
    text, star, name = part.rpartition("*")
    name = name.strip()
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r} in {spec!r}; expected one of {', '.join(LOSSES)}")
    try:
        factor = float(text) if star else 1.0
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise ValueError(f"factor {text.strip()!r} in {spec!r}; expected a number > 0")
    if name in TAKE_CLASS_WEIGHTS:
        return factor, name, functools.partial(LOSSES[name], class_weights=class_weights)
    return factor, name, LOSSES[name]
