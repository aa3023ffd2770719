"""Averages predictions over mirror images and quarter turns (test-time augmentation)."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Turn = tuple[bool, bool, bool]  # whether rows are mirrored, then columns, then both are exchanged
TURNS: dict[str, tuple[Turn, ...]] = {
    "none": ((False, False, False),),
    "flips": tuple((rows, columns, False) for rows in (False, True) for columns in (False, True)),
    "d4": tuple(itertools.product((False, True), (False, True), (False, True))),
}
"""By the name of the augmentation; d4 are the eight symmetries of a square."""

Function = Callable[[np.ndarray], Any]  # (B, h, w, C) float32 to probabilities (B, h, w, K) of numpy or JAX


def augment(function: Function, tta: str) -> Function:
    """A function that averages another one over the turned images, after turning its results back.

    Args:
      function: gives probabilities of images; called once for each turn.
      tta: a name in `TURNS`; "none" returns the function itself.
    """
    if tta == "none":
        return function
    turns = TURNS[tta]
    return lambda images: _mean_turned_back(tuple(function(turn(images, how)) for how in turns), turns=turns)


def turn(images: np.ndarray, how: Turn) -> np.ndarray:
    """Images (B, h, w, C), mirrored and with rows and columns exchanged; contiguous."""
    mirrored = images[:, :: -1 if how[0] else 1, :: -1 if how[1] else 1]
    return np.ascontiguousarray(mirrored.swapaxes(1, 2) if how[2] else mirrored)


@partial(jax.jit, static_argnames="turns")
def _mean_turned_back(results: tuple[jax.Array, ...], *, turns: tuple[Turn, ...]) -> jax.Array:
    total = jnp.zeros((), jnp.float32)
    for x, (rows, columns, exchanged) in zip(results, turns, strict=True):
        x = x.swapaxes(1, 2) if exchanged else x
        x = jnp.flip(x, 1) if rows else x
        total = total + (jnp.flip(x, 2) if columns else x)
    return total / len(turns)
