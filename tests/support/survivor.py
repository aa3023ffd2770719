"""Runs `python -m train` on a tiny network in a process that starts fast, to be killed, stopped or starved.

A server process imports everything once and forks a child for each run, so that a run begins within a second.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SETTINGS = "--arch=unet --encoder=resnet18 --batch-size=4 --size=16 --devices=2 --workers=1"
CACHE = Path(__file__).parents[2] / ".pytest_cache" / "jax"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["tests.support.survivor", "train.loop", "train.__main__", "orbax.checkpoint"]
)


class Survivor:
    """A training process.

    Args:
      arguments: of `python -m train`, besides SETTINGS.
      folder: where its output and its trace, one JSON line per step, are appended to.
      prepare: run in the process before training; a function of a module, for it is pickled.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None):
        folder.mkdir(exist_ok=True)
        self.trace, self._output = folder / "trace.jsonl", folder / "output.txt"
        self._output.write_text("")
        # Where a run is resumed, the settings are its own.
        arguments = [*([] if "--resume" in arguments else SETTINGS.split()), *arguments]
        self.process = _context.Process(target=_child, args=(arguments, self.trace, self._output, prepare))
        self.began = time.monotonic()
        self.process.start()

    def wait(self, seconds: float = 300) -> int:
        """Waits for the end of the process; returns the exit code."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running: {self.output()}"
        return self.process.exitcode

    def kill_after(self, seconds: float) -> None:
        """Sends SIGKILL so many seconds after the start."""
        self.process.join(max(self.began + seconds - time.monotonic(), 0))
        self.process.kill()
        self.process.join()

    def output(self) -> str:
        """The standard output and errors so far."""
        return self._output.read_text()

    def steps(self) -> list[dict[str, Any]]:
        """The trace so far, without the torn line that a killed process may leave."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]


def _child(arguments: Sequence[str], trace: Path, output: Path, prepare: Callable[[], None] | None) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles in a fraction of the time
    import jax

    from train import loop, setup
    from train.__main__ import main

    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    setup._build = tiny_network
    run = loop.run

    def listener(step: int, out: dict[str, Any]) -> None:
        line = {"step": step, "loss": float(out["loss"]).hex(), "index": out["index"].tolist()}
        with trace.open("a") as file:
            file.write(json.dumps(line) + "\n")

    loop.run = lambda config, console, **options: run(config, console, listener, **options)
    if prepare is not None:
        prepare()
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def tiny_network(config: Any, spec: Any) -> Any:
    """Builds a UNet of two levels in place of the network of the config."""
    from flax import nnx

    from flaxunet.models.decoders.unet import UNetDecoder
    from flaxunet.models.layers import ConvNorm, max_pool
    from flaxunet.models.segmenter import Segmenter

    class Encoder(nnx.Module):
        channels, strides = (8, 96), (1, 2)

        def __init__(self, rngs: nnx.Rngs):
            self.first = ConvNorm(spec.in_channels, 8, rngs=rngs)
            self.second = ConvNorm(8, 96, rngs=rngs)

        def __call__(self, image: Any) -> tuple[Any, ...]:
            fine = self.first(image)
            return fine, self.second(max_pool(fine, 2, 2))

    rngs = nnx.Rngs(config.optimization.seed)
    encoder = Encoder(rngs)
    decoder = UNetDecoder(encoder.channels, encoder.strides, rngs=rngs)
    model = Segmenter(encoder, decoder, spec.classes, dropout=0.2, mean=spec.mean, std=spec.std, rngs=rngs)
    model.spec = spec
    return model
