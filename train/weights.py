"""Starts a network with stored weights: those of an encoder, or of a whole network."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from flaxunet.files import cache_folder
from flaxunet.models.spec import Spec
from flaxunet.weights import store, transfer
from flaxunet.weights.store import Stored, StoreError
from flaxunet.weights.transfer import Transfer
from train.config.settings import ConfigError, Network
from train.step import State

NAME = re.compile(r"(\w+_Weights)\.\w+")  # torchvision's names of its pretrained weights


def find_stored(network: Network, intensity: str) -> Stored | None:
    """Reads the stored network that --weights or --encoder-weights names.

    Args:
      network, intensity: settings; the intensity has to be that of a whole stored network.
    Returns: the stored network; None if neither setting names one.
    Raises: ConfigError if it cannot be found or read.
    """
    name = network.encoder_weights if network.weights is None else network.weights
    if name is None:
        return None
    pretrained = NAME.fullmatch(name) if network.weights is None else None
    if pretrained and pretrained[1].lower() != f"{network.encoder}_weights":
        raise ConfigError(f"--encoder-weights is {name}; expected weights of --encoder {network.encoder}")
    if Path(name).is_file():
        raise ConfigError(f"{name} is a file; expected a folder: python -m porting to-flax makes one of it")
    folder = _converted(name, network.encoder) if pretrained else Path(name)
    try:
        stored = store.read(store.network_folder(folder))
    except StoreError as error:
        raise ConfigError(str(error)) from None
    if network.weights is not None and stored.spec.intensity != intensity:
        # An encoder learns new images more easily than a whole network, so --encoder-weights may.
        expected = f"expected {stored.spec.intensity}, as of --weights {name}"
        raise ConfigError(f"--intensity is {intensity}; {expected}")
    return stored


@dataclass(frozen=True)
class InitialWeights:
    """A stored network that the network of a run starts with, and what its arrays are used for."""

    stored: Stored
    transfer: Transfer

    @classmethod
    def choose(cls, network: Network, stored: Stored, spec: Spec) -> "InitialWeights":
        """Chooses all arrays with --weights (of heads, those that fit), otherwise those of the encoder.

        Raises: ConfigError if they do not fit the network.
        """
        select = transfer.encoder_of if network.weights is None else transfer.all_of
        try:
            return cls(stored, select(stored, spec))
        except StoreError as error:
            raise ConfigError(str(error)) from None

    def put_into(self, state: State) -> State:
        """Replaces arrays of a state, and of its average, by the stored ones, with the same sharding."""

        def replace(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            array = self.transfer.tensors.get(".".join(str(entry.key) for entry in path))
            if array is None:
                return leaf
            return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index])

        def fill(state: State) -> State:
            mapped = jax.tree_util.tree_map_with_path
            return state | {name: mapped(replace, state[name]) for name in ("params", "rest")}

        state = fill(state)
        return {**state, "ema": fill(state["ema"])} if "ema" in state else state

    def record(self) -> dict[str, Any]:
        """Returns what the run's config.json keeps of them."""
        return {
            "folder": str(self.stored.folder.resolve()),
            "sha256": self.stored.content["weights"]["sha256"],
            "source": self.stored.content["source"],
            "used": len(self.transfer.tensors),
            "unused": sorted(self.transfer.unused),
            "left_random": sorted(self.transfer.fresh),
            "first_convolution": self.transfer.adapted,
        }

    def __str__(self) -> str:
        """Returns a line for the terminal: how many arrays are used and which are not."""
        text = f"{self.stored.folder}: {len(self.transfer.tensors)} arrays used"
        for paths, what in ((self.transfer.unused, "unused"), (self.transfer.fresh, "left random")):
            parts = sorted(paths) if len(paths) <= 4 else sorted({path.split(".")[0] for path in paths})
            text += f", {len(paths)} {what} ({', '.join(parts)})" if paths else ""
        return text + (f"; first convolution for {self.transfer.adapted}" if self.transfer.adapted else "")


def _converted(name: str, encoder: str) -> Path:
    """Converts torchvision's weights once per machine; returns their folder in the user's cache."""
    cache = cache_folder(name)
    if not cache.exists():
        # Another process, because training never imports torch.
        command = [sys.executable, "-m", "porting", "to-flax", name, "--arch", encoder, "--out", str(cache)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and not cache.exists():  # another process may have been faster
            lines = done.stderr.strip().splitlines() or ["python -m porting failed"]
            raise ConfigError(lines[-1].removeprefix("error: "))
    return cache
