"""`python -m benchmarks.parity`: how far our networks are from torch's, for every ResNet and decoder.

Random weights and statistics go through `porting.convert`; both networks see the same images. Float32 is
compared stage by stage with torch's float32; of bfloat16 the logits are, ours and those of torch's autocast.
Prints one Markdown table; every number is an error over the peak of what it is compared to.
"""

import argparse
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flaxunet.models.encoders import ENCODERS
from flaxunet.models.segmenter import build
from flaxunet.models.spec import Spec
from porting import convert, peers, verify

DIALECTS = {"unet": "smp", "unetplusplus": "smp", "unet3plus": "flaxunet"}
SIZE = (96, 128)


def error(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The largest difference and the root mean square of the difference, over the peak."""
    difference = np.asarray(ours, np.float32) - theirs
    peak = np.abs(theirs).max()
    return float(np.abs(difference).max() / peak), float(np.sqrt(np.square(difference).mean()) / peak)


def autocast(network: Any, image: np.ndarray) -> np.ndarray:
    """torch's logits (B, H, W, K) in bfloat16."""
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return network(x).float().numpy().transpose(0, 2, 3, 1)


def row(arch: str, encoder: str) -> list[str]:
    """The numbers of one network."""
    torch.manual_seed(0)
    spec, dialect = Spec(arch, encoder), DIALECTS[arch]
    network = peers.randomize(peers.build(spec, dialect))
    tensors = {key: value.numpy() for key, value in network.state_dict().items()}
    wide, narrow = (
        convert.load(
            nnx.eval_shape(lambda dtype=dtype: build(spec, dtype=dtype, rngs=nnx.Rngs(0))), tensors, dialect
        )
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    wide.eval()
    narrow.eval()
    (image,) = verify.images(3, [SIZE])
    theirs, ours = peers.stages(network, image, dialect), verify.stages(wide, image)
    found = {stage.name: stage.relative for stage in verify.compare(ours, theirs)}
    maps = max(value for name, value in found.items() if name.startswith("encoder"))
    half = error(verify.stages(narrow, image)["logits"], theirs["logits"])
    their_half = error(autocast(network, image), theirs["logits"])
    columns = (maps, found["decoder"], found["logits"], *half, *their_half)
    return [arch, encoder, *(f"{value:.1e}" for value in columns)]


def main() -> None:
    """Prints the table."""
    argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__).parse_args()
    head = ("decoder", "encoder", "encoder maps", "decoder map", "logits")
    head += ("bf16 max", "bf16 rms", "torch bf16 max", "torch bf16 rms")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for arch in DIALECTS:
        for name in (name for name, entry in ENCODERS.items() if entry.torch):
            print("| " + " | ".join(row(arch, name)) + " |", flush=True)


if __name__ == "__main__":
    main()
