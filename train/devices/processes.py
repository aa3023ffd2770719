"""Several processes train as one: how they find each other, agree, and end together.

Each runs the same program on its own devices, in the same order. What only one may do, process 0 does.
A process that is alone needs nothing of this.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from flaxunet.files import causes, first_line
from train.config.settings import ConfigError, Devices
from train.devices import mesh as sharding

JOIN_SECONDS = 300  # for a cluster to start all processes
LEAVE_SECONDS = 120  # for the others to end as well, once one has
LONGEST = 1000  # bytes of what processes tell each other
GONE = (
    "another process of this run has ended or cannot be reached; its own last lines say why, "
    "and --resume goes on from the last checkpoint"
)


class PeerError(ConfigError):
    """Another process cannot begin; it says why, so this one says nothing."""


def start(devices: Devices) -> None:
    """Joins the processes of a run, if the settings speak of any. To be called before anything uses a device.

    From here on the process ends when another one dies: at once if a message to it fails, otherwise after
    `devices.peer_timeout` seconds without a sign of life.

    Raises: ConfigError if there are none to join, if they do not come, or if they are not as many as asked.
    """
    if not (devices.distributed or devices.coordinator):
        return
    # Its handler would swallow SIGTERM; `Agreement` carries what ours has heard.
    jax.config.update("jax_enable_preemption_service", False)
    given: dict[str, Any] = {}
    if devices.coordinator:
        given = {
            "coordinator_address": devices.coordinator,
            "num_processes": devices.num_processes,
            "process_id": devices.process_id,
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=devices.peer_timeout,
            shutdown_timeout_seconds=LEAVE_SECONDS,
        )
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        asked = f"--coordinator is {devices.coordinator}" if devices.coordinator else "--distributed"
        accepted = (
            "accepted is the address of process 0, which every process can reach"
            if devices.coordinator
            else "accepted under SLURM, Open MPI, Kubernetes or on a TPU pod; elsewhere use --coordinator"
        )
        raise ConfigError(f"{asked}: {first_line(error)}; {accepted}") from None
    _end_with_a_line()
    if devices.num_processes not in (None, jax.process_count()):
        raise ConfigError(f"--num-processes is {devices.num_processes}; {jax.process_count()} were started")


def first() -> bool:
    """Whether this is process 0, which writes files and speaks."""
    return jax.process_index() == 0


class Together:
    """Until it is called, an error of one process is an error of all: none waits for one that never comes.

    Use as a context manager, and call it once in every process, before the first computation they share.
    Leaving it with an error before that raises the error where it is from, and PeerError elsewhere.

    Attributes:
      alone: whether it was left with an error after that, of which the others do not know.
    """

    def __init__(self) -> None:
        self._told, self.alone = False, False

    def __call__(self) -> None:
        """Waits until all have come so far. Raises: PeerError if one cannot go on."""
        self._tell("")

    def __enter__(self) -> "Together":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.alone = self._told and error is not None
        if not self._told and isinstance(error, Exception):
            self._tell(str(error) or type(error).__name__)

    def _tell(self, problem: str) -> None:
        self._told = True
        failed = [process for process, text in enumerate(exchange(problem)) if text]
        if failed and failed[0] != jax.process_index():
            raise PeerError(f"process {failed[0]} cannot begin") from None


def exchange(text: str) -> list[str]:
    """What every process says, in their order; of each the first LONGEST bytes."""
    if jax.process_count() == 1:
        return [text]
    words = np.frombuffer(text.encode()[:LONGEST].ljust(LONGEST, b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(words)
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def from_first(call: Callable[[], str]) -> str:
    """What a call returns in process 0, which alone makes it; its error is PeerError elsewhere."""
    together, said = Together(), ""
    with together:
        if first():
            said = call()
        together()
    return exchange(said)[0]


class Agreement:
    """Turns wishes to stop into one that all processes have at the same step.

    A wish travels as a computation of its own behind the step just taken, so that nothing waits for it: it
    is heard one step later. Alone, a process hears itself at once.

    Args:
      mesh: the devices.
    """

    def __init__(self, mesh: Mesh):
        self._mesh, self._sent, self.reached = mesh, None, False
        self._any = jax.jit(lambda wishes: wishes.any(), out_shardings=sharding.replicated(mesh))

    def __call__(self, wish: bool) -> bool:
        """Says what this process wants, and what all have agreed on. To be called equally often in each."""
        if jax.process_count() == 1:
            self.reached = wish
        else:
            heard = self._sent
            wishes = np.full(len(self._mesh.local_devices), wish)
            self._sent = self._any(sharding.put(self._mesh, {"wish": wishes})["wish"])
            self.reached = heard is not None and bool(jax.device_get(heard))
        return self.reached


def gather(tree: Any) -> Any:
    """The tree with whole arrays in every process, on the host where they were split over processes."""
    return jax.tree.map(
        lambda leaf: (
            leaf
            if leaf.is_fully_addressable or leaf.is_fully_replicated
            else multihost_utils.process_allgather(leaf, tiled=True)
        ),
        tree,
    )


def lost(error: BaseException) -> BaseException | None:
    """What among the causes of an error a computation raises when a process that takes part in it is gone."""
    return next((one for one in causes(error) if isinstance(one, jax.errors.JaxRuntimeError)), None)


def abandon(code: int) -> None:
    """Ends one of several processes at once; leaving in order it would wait for others, which wait for it."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def abandon_with(error: BaseException) -> None:
    """The same, and says why: in a line if the error is that of a device or of the network between them."""
    if not jax.distributed.is_initialized():
        return
    if lost(error) is error:
        print(f"error: {GONE} ({first_line(error)})", file=sys.stderr)
    else:
        traceback.print_exception(error)
    abandon(1)


def _end_with_a_line() -> None:
    """Where the runtime would abort because another process is silent, a line and code 1 come instead."""
    ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> NoReturn:
    os.write(2, f"error: {GONE}\n".encode())
    os._exit(1)
