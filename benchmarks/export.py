"""`python -m benchmarks.export`: how fast exported files predict, next to the network that wrote them.

A network with random weights is written in every format and read back; then all of them predict the same
images in turns, in one process, so that what slows the machine down slows all of them. Times are medians of
whole predictions, from an array of the host to probabilities there.
"""

import argparse
import io
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.options import Parser, positive
from benchmarks.sides import cores
from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from train.devices import machine

OURS = "flaxunet"
PAUSE = 0.05  # seconds in which the threads of the one before stop waiting for more work
TOLERANCE = 1e-3  # random weights give logits around 30, and of these 1e-5 is up to 1.5e-4 of a probability
PACKAGES = ("jax", "onnxruntime", "torch")

Predict = Callable[[np.ndarray], np.ndarray]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked; SystemExit with code 2 and one line on stderr if they cannot be used."""
    parser = Parser(prog="python -m benchmarks.export", description=__doc__)
    several: dict[str, Any] = {"nargs": "+", "metavar": "X"}
    parser.add_argument("--arch", choices=tuple(DECODERS), default=list(DECODERS), **several)
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="resnet34", metavar="X")
    parser.add_argument("--size", type=positive, default=256, metavar="N", help="side of the images, pixels")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at a time")
    parser.add_argument("--repeats", type=positive, default=15, metavar="N", help="timed predictions of each")
    return parser.parse_args(arguments)


def sides(arch: str, encoder: str) -> dict[str, tuple[float | None, Predict]]:
    """By name, the size of the file in MB and what predicts: images and probabilities channels last."""
    import jax
    import onnxruntime
    import torch
    from flax import nnx

    import flaxunet
    from flaxunet import export
    from flaxunet.export import onnx, stablehlo
    from flaxunet.prediction.predictor import Predictor
    from porting import deploy

    model = flaxunet.create(arch, encoder=encoder, classes=3, rngs=nnx.Rngs(0))
    model.eval()
    whole = Predictor((flaxunet.fold(model),), ("background", "a", "b"), 3, "dtype")
    files = {
        kind.__name__.rpartition(".")[2]: kind.write(whole, export.about(whole, kind.LAYOUT))
        for kind in (stablehlo, onnx, deploy)
    }
    network = jax.jit(jax.export.deserialize(bytearray(files["stablehlo"])).call)
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    module = torch.export.load(io.BytesIO(files["deploy"])).module()

    def by_torch(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2)
            return module(x).permute(0, 2, 3, 1).numpy()

    def by_onnx(images: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return np.asarray(session.run(None, {onnx.INPUT: x})[0]).transpose(0, 2, 3, 1)

    structure, state = nnx.split(whole.models[0])

    @jax.jit
    def predict(state: nnx.State, images: jax.Array) -> jax.Array:
        model = nnx.merge(structure, state)
        return jax.nn.softmax(model(model.normalize(images)))

    sizes = {name: len(content) / 1e6 for name, content in files.items()}
    return {
        OURS: (None, lambda images: np.asarray(predict(state, images))),
        "stablehlo": (sizes["stablehlo"], lambda images: np.asarray(network(images))),
        "onnx": (sizes["onnx"], by_onnx),
        "torch": (sizes["deploy"], by_torch),
    }


def measure(predicts: dict[str, Predict], images: np.ndarray, repeats: int) -> dict[str, list[float]]:
    """Seconds of each prediction; ValueError if the first ones differ."""
    first = {name: predict(images) for name, predict in predicts.items()}
    for name, result in first.items():
        difference = float(np.abs(result - first[OURS]).max())
        if not difference <= TOLERANCE:
            raise ValueError(f"{name} differs by {difference:.1e}; expected at most {TOLERANCE:.0e}")
    seconds: dict[str, list[float]] = {name: [] for name in predicts}
    for _ in range(repeats):
        for name, predict in predicts.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            predict(images)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a file differs, 2 something cannot be used."""
    options = parse(arguments)
    load = os.getloadavg()[0]
    images = np.random.default_rng(0).random((options.batch, options.size, options.size, 3), np.float32)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("network", "", "MB", "ms", "quartiles", "time over ours"):
        table.add_column(column, justify="left" if column in ("network", "") else "right")
    screen = Console(stderr=True, highlight=False)
    for arch in options.arch:
        with screen.status(f"{arch}: writing and measuring", refresh_per_second=2):
            found = sides(arch, options.encoder)
            try:
                seconds = measure(
                    {name: predict for name, (_, predict) in found.items()}, images, options.repeats
                )
            except ValueError as error:
                print(f"error: {arch}: {error}", file=sys.stderr)
                return 1
        ours = float(np.median(seconds[OURS]))
        for index, (name, each) in enumerate(seconds.items()):
            low, median, high = np.percentile(each, (25, 50, 75)).tolist()
            size = found[name][0]
            table.add_row(
                f"{arch} {options.encoder}" if index == 0 else "",
                name,
                "" if size is None else f"{size:.0f}",
                f"{1e3 * median:.0f}",
                f"{1e3 * low:.0f} - {1e3 * high:.0f}",
                f"{median / ours:.2f}",
            )
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    console = Console(highlight=False)
    console.print(
        f"{machine.processor()}, {cores()} cores, load {load:.1f} before the start; Python "
        f"{platform.python_version()}, {versions}; {options.repeats} predictions of {options.batch} x "
        f"{options.size} x {options.size}, float32",
        soft_wrap=True,
    )
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
