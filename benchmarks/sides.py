"""`python -m benchmarks.sides NAME`: one side of `benchmarks.speed`, alone in its process.

JSON lines go in on stdin, each is answered by one on stdout: first a question about the machine or a case to
make ready, then "step" as often as wanted. A side imports its own library only, works only while it is asked
to, and ends when its stdin does, whatever it is doing.
"""

import json
import os
import queue
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np

EAGER, COMPILED, OURS = "torch eager", "torch compile", "ours"
SIDES = (EAGER, COMPILED, OURS)
DIALECTS = {"unet": "smp", "unetplusplus": "smp", "unet3plus": "flaxunet"}
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-2
WARMUP = 2


@dataclass(frozen=True)
class Case:
    """What is measured: a network, its batch (square images, side in pixels), and what is done with it."""

    arch: str
    encoder: str
    size: int
    batch: int
    mode: str
    dtype: str
    remat: bool = False


@dataclass(frozen=True)
class Ready:
    """A side that has built a case.

    Attributes:
      step: does one step, waits for it, and returns the logits or the loss, still on the device.
      fetch: brings that here, in our layout.
      peak: bytes of memory at the highest so far.
      facts: to be told with the first result; "compile_s" is the time compiled ahead of the first step.
    """

    step: Callable[[], Any]
    fetch: Callable[[Any], np.ndarray]
    peak: Callable[[], int]
    facts: dict[str, Any]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Random images (B, H, W, 3) float32 and masks (B, H, W, 1) of zeros and ones, the same on all sides."""
    random, shape = np.random.default_rng(0), (case.batch, case.size, case.size)
    mask = random.integers(0, 2, (*shape, 1)).astype(np.float32)
    return random.standard_normal((*shape, 3), np.float32), mask


def resident() -> int:
    """Bytes of this process at the highest so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def our_machine(dtype: str) -> dict[str, Any]:
    """The backend and what it can do at best: FLOP/s of a chain of square matrix products."""
    import jax
    import jax.numpy as jnp

    device, settings = jax.devices()[0], cast(Any, jax.config)
    size, chain = (2048 if device.platform == "cpu" else 8192), 4
    matrix = jnp.full((size, size), 1 / size, dtype)
    product = jax.jit(lambda x: reduce(lambda out, _: out @ x, range(chain), x))
    product(matrix).block_until_ready()
    seconds = min(_timed(lambda: product(matrix).block_until_ready())[0] for _ in range(5))
    return {
        "device": device.platform,
        "device_name": device.device_kind,
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "optax")},
        "precision": f"jax's default_matmul_precision: {settings.jax_default_matmul_precision}",
        "matmul_size": size,
        "matmul_flops": chain * 2 * size**3 / seconds,
    }


def their_machine(dtype: str) -> dict[str, Any]:
    """Torch's device, versions and precision."""
    import torch

    gpu = torch.cuda.is_available()
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return {
        "device": "gpu" if gpu else "cpu",
        "device_name": torch.cuda.get_device_name() if gpu else "cpu",
        "versions": {name: version(name) for name in ("torch", "segmentation-models-pytorch")},
        "precision": f"torch's allow_tf32: matmul {matmul}, cudnn {cudnn}",
    }


def ours(case: Case, device: str, weights: Path | None) -> Ready:
    """Our network, compiled; its numbers are those of the file, or random without one."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from safetensors.numpy import load_file

    from flaxunet.models.fold import fold
    from flaxunet.models.segmenter import build
    from flaxunet.models.spec import Spec
    from porting import convert

    jax.config.update("jax_default_device", jax.devices(device)[0])
    spec = Spec(*cast(Any, (case.arch, case.encoder)))  # which checks the names
    dtype = jnp.dtype(case.dtype)
    if weights is None:
        model = build(spec, dtype=dtype, rngs=nnx.Rngs(0))
    else:
        empty = nnx.eval_shape(lambda: build(spec, dtype=dtype, rngs=nnx.Rngs(0)))
        model = convert.load(empty, load_file(weights), DIALECTS[case.arch])
    model.rematerialize(case.remat)
    image, mask = jax.device_put(data(case))
    if case.mode == "predict":
        graph, arrays = nnx.split(fold(model))
        inputs: tuple[Any, ...] = (nnx.to_pure_dict(arrays), image)
        whole = 0.0
        lowered = jax.jit(lambda arrays, image: nnx.merge(graph, arrays)(image)).lower(*inputs)
    else:
        state, train = _our_training(model)
        inputs = (state, image, mask)
        lowered = jax.jit(train, donate_argnums=0).lower(*inputs)
        whole = _count_without_loops(train, inputs)
    seconds, program = _timed(lowered.compile)

    def step() -> Any:
        nonlocal inputs
        out = jax.block_until_ready(program(*inputs))
        if case.mode == "predict":
            return out
        inputs = (out[0], *inputs[1:])
        return out[1]

    def peak() -> int:
        statistics = jax.devices(device)[0].memory_stats()
        return statistics["peak_bytes_in_use"] if statistics else resident()

    # A compiled program may count nothing for the convolutions that it leaves to a library.
    flops = max(whole, *((stage.cost_analysis() or {}).get("flops", 0.0) for stage in (lowered, program)))
    memory = program.memory_analysis()
    facts = {"compile_s": seconds, "flops": flops, "temporary_bytes": memory.temp_size_in_bytes}
    return Ready(step, np.asarray, peak, facts)


def _count_without_loops(train: Callable[..., Any], inputs: tuple[Any, ...]) -> float:
    """FLOPs of a step; XLA counts the body of a loop once, so kernel gradients are taken in one go here."""
    import jax

    from flaxunet.ops import conv as convolve

    jax.clear_caches()  # which hold what was traced with loops
    with mock.patch.object(convolve, "ROWS_HOLD", 2**62):
        counted = (jax.jit(lambda *given: train(*given)).lower(*inputs).cost_analysis() or {}).get(
            "flops", 0.0
        )
    jax.clear_caches()
    return counted


def _our_training(model: Any) -> tuple[Any, Callable[..., Any]]:
    """The state, and the step (state, image, mask) -> (state, loss), in the manner of `train.step`."""
    import jax
    import optax
    from flax import nnx

    def split(model: Any) -> tuple[Any, Any, Any]:
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def step(state: Any, image: Any, mask: Any) -> Any:
        params, rest, moments = state

        def loss_of(params: Any) -> Any:
            model = nnx.merge(graph, params, rest)
            loss = optax.sigmoid_binary_cross_entropy(model.outputs(image).logits[0], mask).mean()
            return loss, split(model)[2]

        (loss, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), rest, moments), loss

    model.train()
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    graph, params, rest = split(model)
    return (params, rest, optimizer.init(params)), step


def theirs(case: Case, device: str, weights: Path | None, *, compiled: bool) -> Ready:
    """Torch's network, in channels_last; its numbers are those of the file, drawn and written if missing."""
    import torch
    from safetensors.torch import load_file, save_file

    from flaxunet.models.spec import Spec
    from porting import peers

    torch.set_num_threads(cores())
    torch.manual_seed(0)
    assert weights is not None  # only ours does without
    network: Any = peers.build(Spec(*cast(Any, (case.arch, case.encoder))), DIALECTS[case.arch])
    if not weights.exists():
        save_file(peers.randomize(network).state_dict(), weights)
    network.load_state_dict(load_file(weights))
    where = "cuda" if device == "gpu" else "cpu"
    network = network.to(where, memory_format=torch.channels_last).train(case.mode == "train")
    image, mask = (
        torch.from_numpy(array).permute(0, 3, 1, 2).to(where, memory_format=torch.channels_last)
        for array in data(case)
    )
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    run = torch.compile(network) if compiled else network
    narrow = torch.autocast(where, torch.bfloat16, enabled=case.dtype == "bfloat16")

    def predict() -> Any:
        with torch.inference_mode(), narrow:
            return run(image)

    def train() -> Any:
        optimizer.zero_grad()
        with narrow:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(run(image), mask)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def step() -> Any:
        out = predict() if case.mode == "predict" else train()
        if device == "gpu":
            torch.cuda.synchronize()
        return out

    def fetch(out: Any) -> np.ndarray:
        array = out.float().cpu().numpy()
        return array.transpose(0, 2, 3, 1) if array.ndim else array

    return Ready(step, fetch, torch.cuda.max_memory_allocated if device == "gpu" else resident, {})


MACHINE = {EAGER: their_machine, COMPILED: their_machine, OURS: our_machine}
BUILD = {EAGER: partial(theirs, compiled=False), COMPILED: partial(theirs, compiled=True), OURS: ours}


def start(side: str, case: dict[str, Any], device: str, weights: str | None, first: str) -> Ready:
    """Builds, compiles and warms up; writes the first results to the file `first`.

    Those are the logits of one prediction, or the losses of the first training steps.
    """
    ready = BUILD[side](Case(**case), device, weights and Path(weights))
    seconds, out = _timed(ready.step)
    ready.facts["compile_s"] = ready.facts.get("compile_s", 0.0) + seconds
    results = [ready.fetch(out), *(ready.fetch(ready.step()) for _ in range(WARMUP))]
    np.save(first, results[0] if case["mode"] == "predict" else np.stack(results))
    return ready


def main(start: Callable[..., Ready] = start) -> None:
    """Answers until stdin ends; `start` makes a case ready."""
    side, answers = sys.argv[1], os.fdopen(os.dup(1), "w")
    # What libraries print must not come between the answers.
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(0)  # also out of a compilation of minutes

    threading.Thread(target=listen, daemon=True).start()
    ready: Any = None
    while True:
        request = json.loads(requests.get())
        what = request.pop("what")
        try:
            if what == "machine":
                answer = MACHINE[side](**request)
            elif what == "start":
                ready = start(side, **request)
                answer = ready.facts
            else:
                answer = {"seconds": _timed(ready.step)[0], "peak_bytes": ready.peak()}
        except Exception as error:
            traceback.print_exc()
            message = " ".join(str(error).partition("\n\n")[0].split())
            answer = {"error": f"{type(error).__name__}: {message[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = call()
    return time.perf_counter() - start, out


if __name__ == "__main__":
    main()
