"""`python -m benchmarks.speed`: how fast our networks predict and train, next to torch's.

Every combination of the networks, sizes, batches and modes named is measured with the same random weights on
all sides: ours, torch, and torch.compile. Each has a process of its own and works while the others wait; they
take turns step by step, so that what slows the machine down slows all of them. A benchmark of networks whose
first results differ stops. Speed-ups are of medians: the time of the faster torch over ours.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.status import Status

from benchmarks.options import Parser, positive
from benchmarks.sides import COMPILED, EAGER, OURS, SIDES, Case, cores
from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from train.devices import machine

MODES, DTYPES, PEERS = ("predict", "train"), ("float32", "bfloat16"), ("torch", "eager", "none")
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}
TF32_TOLERANCE = 1e-2  # both libraries round what they multiply to 10 bits, on a GPU and in float32
PAUSE = 0.05  # seconds in which the threads of the side before stop waiting for more work
LAST_LINES = 8


class SideError(Exception):
    """A side said that it cannot, or died."""


class Child:
    """A side in a process of its own, ended on leaving the `with`.

    Args:
      side: a name in `benchmarks.sides.SIDES`.
      folder: for what the side says on stderr, and for compilers' caches: empty, so that they are cold.
      program: that knows the side.
    """

    def __init__(self, side: str, folder: Path, program: str = "benchmarks.sides"):
        self.side, self.errors = side, folder / f"{side}.stderr"
        cold = {"JAX_ENABLE_COMPILATION_CACHE": "false", "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
        # Without preallocation the sides find room on one GPU.
        environment = os.environ | cold | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        with self.errors.open("w") as errors:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                [sys.executable, "-m", program, side],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,  # an interrupt goes to the parent, which ends the whole group
            )

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """The answer; SideError if there is none, or it is that something failed."""
        assert self.process.stdin is not None  # both are pipes
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"what": what, **details}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideError(f"{self.side} died {self._status()}; the last it said:\n{self._last_lines()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.side}: {answer['error']}")
        return answer

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with the workers of torch's compiler
        self.process.wait()

    def _status(self) -> str:
        code = self.process.wait()  # it closed its stdout
        return f"of {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    def _last_lines(self) -> str:
        lines = self.errors.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  nothing"


def look_around(options: argparse.Namespace, sides: Sequence[str], folder: Path) -> dict[str, Any]:
    """The machine and the libraries: everything in the results but the cases."""
    answers = {}
    for side in sides:
        if side != COMPILED:
            with Child(side, folder) as child:
                answers[side] = child.ask("machine", dtype=options.dtype)
    cpu = machine.processor()
    mine = answers[OURS]
    device = mine["device"] if len({answer["device"] for answer in answers.values()}) == 1 else "cpu"
    versions = {name: number for answer in answers.values() for name, number in answer["versions"].items()}
    settings = {name: getattr(options, name) for name in ("dtype", "peer", "repeats", "remat")}
    return {
        "hardware": {
            "cpu": cpu,
            "cores": cores(),
            "load": os.getloadavg()[0],
            "device": device,
            "gpu": mine["device_name"] if device == "gpu" else None,
        },
        "versions": {"python": platform.python_version(), **versions},
        "settings": settings | {"precision": [answer["precision"] for answer in answers.values()]},
        "matmul": {"size": mine["matmul_size"], "flops_per_s": mine["matmul_flops"]},
        "cases": [],
    }


def measure(
    case: Case,
    sides: Sequence[str],
    device: str,
    repeats: int,
    weights: str | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The times of all sides, and what follows from them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        children: dict[str, Child] = {}
        found: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}
        for side in sides:
            say(f"{side} compiles")
            child = stack.enter_context(Child(side, folder))
            request = {"case": asdict(case), "device": device, "weights": weights}
            try:
                found[side] = child.ask("start", **request, first=str(folder / f"{side}.npy"))
            except SideError as error:
                if side != COMPILED:  # without a compiler for C++, say, eager torch is what there is
                    raise
                failed[side] = str(error)
                continue
            children[side] = child
        difference = agree(case, device, {side: np.load(folder / f"{side}.npy") for side in children})
        answers: dict[str, list[dict[str, Any]]] = {side: [] for side in children}
        for repeat in range(repeats):
            say(f"step {repeat + 1} of {repeats}")
            for side, child in children.items():
                time.sleep(PAUSE)
                answers[side].append(child.ask("step"))
    for side, each in answers.items():
        seconds = [answer["seconds"] for answer in each]
        low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
        found[side] |= {
            "median_s": median,
            "quartiles_s": [low, high],
            "images_per_s": case.batch / median,
            "peak_bytes": each[-1]["peak_bytes"],
            "seconds": seconds,
        }
    peers = [facts["median_s"] for side, facts in found.items() if side != OURS]
    ratio = found[OURS]["median_s"] / min(peers) if peers else None
    return asdict(case) | {"difference": difference, "ratio": ratio, "sides": found, "failed": failed}


def agree(case: Case, device: str, results: dict[str, np.ndarray]) -> float:
    """The largest difference of ours from the others, over their peak; SideError if it is too large."""
    tolerance = TOLERANCES[case.dtype]
    if device != "cpu" and case.dtype == "float32":
        tolerance = TF32_TOLERANCE
    worst = 0.0
    for side, theirs in results.items():
        # Of losses the first: the later ones depend on gradients whose signs rounding decides.
        a, b = (x[:1] if case.mode == "train" else x for x in (results[OURS], theirs))
        difference = float(np.abs(a - b).max() / np.abs(b).max())
        if not difference <= tolerance:
            what = "loss" if case.mode == "train" else "logits"
            raise SideError(
                f"{case.arch} {case.encoder}, size {case.size}, batch {case.batch}: the first {what} of ours "
                f"and {side} differ by {difference:.1e} of the peak; expected at most {tolerance:.0e}"
            )
        worst = max(worst, difference)
    return worst


def _say(status: Status, name: str, what: str) -> None:
    status.update(f"{name}: {what}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked; SystemExit with code 2 and one line on stderr if they cannot be used."""
    encoders = tuple(name for name, entry in ENCODERS.items() if entry.torch)
    parser = Parser(prog="python -m benchmarks.speed", description=__doc__)
    several: dict[str, Any] = {"nargs": "+", "metavar": "X"}
    parser.add_argument("--arch", choices=tuple(DECODERS), default=list(DECODERS), **several)
    parser.add_argument("--encoder", choices=encoders, default=["resnet34"], **several)
    parser.add_argument("--size", type=positive, default=[256], help="side of the images, pixels", **several)
    parser.add_argument("--batch", type=positive, default=[2], help="images per step", **several)
    parser.add_argument("--mode", choices=MODES, default=list(MODES), **several)
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="bfloat16 is autocast in torch")
    parser.add_argument(
        "--peer",
        choices=PEERS,
        default="torch",
        help="what ours is compared to; eager: without torch.compile",
    )
    parser.add_argument("--repeats", type=positive, default=15, metavar="N", help="timed steps per side")
    parser.add_argument("--remat", action="store_true", help="ours recomputes maps instead of keeping them")
    parser.add_argument("--markdown", action="store_true", help="print GitHub's tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all settings and times")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="images per second over size or batch")
    options = parser.parse_args(arguments)
    for name in ("arch", "encoder", "size", "batch", "mode"):
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    for path in filter(None, (options.json, options.plot)):
        if not path.parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}")
    if options.plot and max(len(options.size), len(options.batch)) < 2:
        parser.error("--plot draws over several sizes or several batches, and one of each is given")
    if options.peer != "none":
        for name in ("torch", "torchvision", "segmentation_models_pytorch"):
            if importlib.util.find_spec(name) is None:
                parser.error(f'{name} is not installed: pip install "flaxunet[porting]", or --peer none')
        odd = [size for size in options.size if size % 32]
        if odd and options.arch != ["unet3plus"]:
            parser.error(f"--size {odd[0]}: torch's networks accept multiples of 32")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a side failed, 2 something cannot be used, 130 interrupted."""
    options = parse(arguments)
    from benchmarks import plots  # matplotlib comes after a glance at the options

    sides = {"torch": SIDES, "eager": (EAGER, OURS), "none": (OURS,)}[options.peer]
    screen = Console(stderr=True, highlight=False)
    results: dict[str, Any] = {"cases": []}
    code = 0
    # A quick spinner would take its share of the cores.
    with (
        tempfile.TemporaryDirectory() as folder,
        screen.status("looking around", refresh_per_second=2) as status,
    ):
        try:
            results = look_around(options, sides, Path(folder))
            product = (options.mode, options.arch, options.encoder, options.size, options.batch)
            for mode, arch, encoder, size, batch in itertools.product(*product):
                case = Case(arch, encoder, size, batch, mode, options.dtype, options.remat)
                name = f"{arch} {encoder} {mode}, size {size}, batch {batch}"
                weights = str(Path(folder) / f"{arch}-{encoder}.safetensors") if len(sides) > 1 else None
                device, say = results["hardware"]["device"], partial(_say, status, name)
                results["cases"].append(measure(case, sides, device, options.repeats, weights, say))
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
        except KeyboardInterrupt:
            print("error: interrupted", file=sys.stderr)
            code = 130
        except (SideError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    if results["cases"]:
        plots.show(results, markdown=options.markdown)
        if options.plot and not code:
            plots.draw(results, options.plot)
    return code


if __name__ == "__main__":
    sys.exit(main())
