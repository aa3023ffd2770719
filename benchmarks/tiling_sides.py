"""`python -m benchmarks.tiling_sides NAME`: one side of `benchmarks.tiling`, alone in its process.

It is asked as `benchmarks.sides` is. The image is random, the network the same on all sides.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks import sides
from benchmarks.sides import DIALECTS, Ready

FIRST, LAST, OURS = "monai", "monai channels_last", "ours"
SIDES = (FIRST, LAST, OURS)


@dataclass(frozen=True)
class Case:
    """What is predicted (a square image, side in pixels), with what, and how (window in pixels)."""

    arch: str
    encoder: str
    size: int
    window: int
    overlap: float
    batch: int
    dtype: str = "float32"


def image(case: Case) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1], smooth enough to look like one."""
    coarse = np.random.default_rng(0).random((case.size // 16, case.size // 16, 3), np.float32)
    return np.kron(coarse, np.ones((16, 16, 1), np.float32))


def ours(case: Case, weights: Path) -> Ready:
    """`Predictor` as `load` makes it."""
    import jax.numpy as jnp
    from flax import nnx
    from safetensors.numpy import load_file

    from flaxunet.models.fold import fold
    from flaxunet.models.segmenter import build
    from flaxunet.models.spec import Spec
    from flaxunet.prediction.predictor import Predictor
    from flaxunet.prediction.tiling import Tiling
    from porting import convert

    spec = Spec(*cast(Any, (case.arch, case.encoder)))
    empty = nnx.eval_shape(lambda: build(spec, dtype=jnp.dtype(case.dtype), rngs=nnx.Rngs(0)))
    model = fold(convert.load(empty, load_file(weights), DIALECTS[case.arch]))
    how = Tiling(case.window, case.overlap, batch=case.batch)
    predictor = Predictor((model,), ("background", "foreground"), 3, "dtype", tiling=how)
    picture = image(case)
    window = picture[None, : case.window, : case.window]
    started = time.perf_counter()
    first = np.asarray(predictor.windows(window))
    facts = {"compile_s": time.perf_counter() - started, "window": _summary(first)}
    return Ready(lambda: predictor(picture), np.asarray, sides.resident, facts)


def theirs(case: Case, weights: Path, *, channels_last: bool) -> Ready:
    """MONAI's sliding windows with Gaussian weights over the network in torch; probabilities are blended."""
    import torch
    from monai.inferers.utils import sliding_window_inference
    from safetensors.torch import load_file, save_file

    from flaxunet.models.spec import IMAGENET_MEAN, IMAGENET_STD, Spec
    from porting import peers

    torch.set_num_threads(sides.cores())
    torch.manual_seed(0)
    network: Any = peers.build(Spec(*cast(Any, (case.arch, case.encoder))), DIALECTS[case.arch])
    if not weights.exists():
        save_file(peers.randomize(network).state_dict(), weights)
    network.load_state_dict(load_file(weights))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout).eval()
    mean, std = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    picture = torch.from_numpy(image(case)).permute(2, 0, 1)[None].contiguous()
    narrow = torch.autocast("cpu", torch.bfloat16, enabled=case.dtype == "bfloat16")

    def probabilities(windows: Any) -> Any:
        return torch.sigmoid(network(((windows - mean) / std).contiguous(memory_format=layout))).float()

    def step() -> Any:
        size = (case.window, case.window)
        with torch.inference_mode(), narrow:
            return sliding_window_inference(
                picture, size, case.batch, probabilities, overlap=case.overlap, mode="gaussian"
            )

    with torch.inference_mode(), narrow:
        first = probabilities(picture[:, :, : case.window, : case.window])
    facts = {"compile_s": 0.0, "window": _summary(first)}
    return Ready(step, lambda out: out[0].permute(1, 2, 0).numpy(), sides.resident, facts)


BUILD: dict[str, Callable[..., Ready]] = {
    FIRST: partial(theirs, channels_last=False),
    LAST: partial(theirs, channels_last=True),
    OURS: ours,
}


def start(side: str, case: dict[str, Any], weights: str, first: str) -> Ready:
    """Builds, compiles and warms up; writes the first probabilities (H, W, 1) to the file `first`."""
    ready = BUILD[side](Case(**case), Path(weights))
    np.save(first, ready.fetch(ready.step()))
    return ready


def _summary(window: Any) -> list[float]:
    """Some probabilities of the first window, to be compared over the sides."""
    return [float(x) for x in np.asarray(window).ravel()[::997]]


if __name__ == "__main__":
    sides.main(start)
