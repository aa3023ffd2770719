"""What a network begins with besides random numbers: a stored encoder, or a whole stored network."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxunet.files import cache_folder
from flaxunet.models.encoders import ENCODERS
from flaxunet.models.spec import Spec
from flaxunet.weights import store, transfer
from flaxunet.weights.store import Stored, StoreError
from flaxunet.weights.transfer import Transfer
from train.config.settings import ConfigError, Network
from train.step import State

NAME = re.compile(r"(\w+_Weights)\.\w+")
"""torchvision's names of its pretrained weights."""


def find(network: Network, intensity: str) -> Stored | None:
    """The stored network that --weights or --encoder-weights names.

    Raises: ConfigError if it cannot be found or read.
    """
    given = network.encoder_weights if network.weights is None else network.weights
    if given is None:
        return None
    named = NAME.fullmatch(given) if network.weights is None else None
    if named and named[1] != ENCODERS[network.encoder].weights:
        raise ConfigError(f"--encoder-weights is {given}; expected weights of --encoder {network.encoder}")
    if Path(given).is_file():
        raise ConfigError(f"{given} is a file; expected a folder: python -m porting to-flax makes one of it")
    folder = _converted(given, network.encoder) if named else Path(given)
    try:
        stored = store.read(store.network_folder(folder))
    except StoreError as error:
        raise ConfigError(str(error)) from None
    if network.weights is not None and stored.spec.intensity != intensity:
        # An encoder learns new images more easily than a whole network, so --encoder-weights may.
        raise ConfigError(
            f"--intensity is {intensity}; expected {stored.spec.intensity}, as of --weights {given}"
        )
    return stored


def choose(network: Network, stored: Stored, spec: Spec) -> Transfer:
    """What the network takes over: all with --weights (heads where they fit), or the encoder.

    Raises: ConfigError if it does not fit.
    """
    try:
        return (transfer.encoder_of if network.weights is None else transfer.all_of)(stored, spec)
    except StoreError as error:
        raise ConfigError(str(error)) from None


def put(state: State, taken: Transfer) -> State:
    """The state, and its average, with the stored arrays in their places, sharded as the random ones were."""

    def replaced(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        array = taken.tensors.get(".".join(str(entry.key) for entry in path))
        return leaf if array is None else _placed(array, leaf)

    def filled(state: State) -> State:
        parts = {part: jax.tree_util.tree_map_with_path(replaced, state[part]) for part in ("params", "rest")}
        return {**state, **parts}

    state = filled(state)
    return {**state, "ema": filled(state["ema"])} if "ema" in state else state


def about(stored: Stored, taken: Transfer) -> dict[str, Any]:
    """What the run's config.json says of it."""
    return {
        "folder": str(stored.folder.resolve()),
        "sha256": stored.content["weights"]["sha256"],
        "source": stored.content["source"],
        "used": len(taken.tensors),
        "unused": sorted(taken.unused),
        "left_random": sorted(taken.fresh),
        "first_convolution": taken.adapted,
    }


def describe(stored: Stored, taken: Transfer) -> str:
    """What was taken and what was not, in a line for the terminal; config.json has every name."""
    text = f"{stored.folder}: {len(taken.tensors)} arrays used"
    for paths, what in ((taken.unused, "unused"), (taken.fresh, "left random")):
        parts = sorted(paths) if len(paths) <= 4 else sorted({path.split(".")[0] for path in paths})
        text += f", {len(paths)} {what} ({', '.join(parts)})" if paths else ""
    return text + (f"; first convolution for {taken.adapted}" if taken.adapted else "")


def _converted(name: str, encoder: str) -> Path:
    """The folder of torchvision's weights, converted once per machine and kept in the user's cache."""
    cache = cache_folder(name)
    if not cache.exists():
        # Another process, because training never imports torch.
        command = [sys.executable, "-m", "porting", "to-flax", name, "--arch", encoder, "--out", str(cache)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and not cache.exists():  # another process may have been faster
            lines = done.stderr.strip().splitlines() or ["python -m porting failed"]
            raise ConfigError(lines[-1].removeprefix("error: "))
    return cache


def _placed(array: np.ndarray, like: jax.Array) -> jax.Array:
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: array[index])
