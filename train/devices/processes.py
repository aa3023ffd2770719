"""Makes several processes train as one: they join, agree, and end together.

Each process runs the same program on its own devices, in the same order. Process 0 does what only one may do.
With a single process, all of this does nothing.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
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
LONGEST = 1000  # bytes of a message between processes
GONE = (
    "another process of this run has ended or cannot be reached; its own last lines say why, "
    "and --resume goes on from the last checkpoint"
)


class PeerError(ConfigError):
    """Raised when another process cannot start; that process prints why, so this one prints nothing."""


def start(devices: Devices) -> None:
    """Joins the processes of a run, if the settings ask for it; to be called before a device is used.

    From then on the process ends when another one dies: at once if a message to it fails, else after
    `devices.peer_timeout` seconds without a heartbeat.

    Raises: ConfigError without a cluster, if a process does not join in time, or if --num-processes is wrong.
    """
    if not (devices.distributed or devices.coordinator):
        return
    # Its handler would swallow SIGTERM, which `Agreement` passes on to the other processes.
    jax.config.update("jax_enable_preemption_service", False)
    flag, expected = "--distributed", "SLURM, Open MPI, Kubernetes or a TPU pod, or else --coordinator"
    if devices.coordinator:
        flag = f"--coordinator is {devices.coordinator}"
        expected = "an address of process 0 that all processes can reach"
    try:
        jax.distributed.initialize(
            devices.coordinator,
            devices.num_processes if devices.coordinator else None,
            devices.process_id,
            cluster_detection_method="deactivate" if devices.coordinator else None,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=devices.peer_timeout,
            shutdown_timeout_seconds=LEAVE_SECONDS,
        )
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        raise ConfigError(f"{flag}: {first_line(error)}; expected {expected}") from None
    # Where the runtime would abort because another process is silent, end with a line and code 1.
    ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)
    count = jax.process_count()
    if devices.num_processes not in (None, count):
        raise ConfigError(f"--num-processes is {devices.num_processes}; expected {count}, as were started")


def first() -> bool:
    """Whether this is process 0, which writes files and prints."""
    return jax.process_index() == 0


class Together:
    """Makes an error of one process an error of all, so that none waits for one that has failed.

    Use as a context manager, and call it once in every process, before the first computation they share.
    Leaving it with an error before the call raises that error in its process, and PeerError in the others.

    Attributes:
      alone: whether it was left with an error after the call, of which the others do not know.
    """

    def __init__(self) -> None:
        self._reported, self.alone = False, False

    def __call__(self) -> None:
        """Waits until all processes have called it. Raises: PeerError if one has failed."""
        self._report("")

    def __enter__(self) -> "Together":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.alone = self._reported and error is not None
        if not self._reported and isinstance(error, Exception):
            self._report(str(error) or type(error).__name__)

    def _report(self, problem: str) -> None:
        self._reported = True
        failed = [process for process, text in enumerate(exchange(problem)) if text]
        if failed and failed[0] != jax.process_index():
            raise PeerError(f"process {failed[0]} cannot start") from None


def exchange(text: str) -> list[str]:
    """Gathers a text of every process, in their order; of each the first LONGEST bytes."""
    if jax.process_count() == 1:
        return [text]
    words = np.frombuffer(text.encode()[:LONGEST].ljust(LONGEST, b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(words)
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def from_first(call: Callable[[], str | None]) -> str:
    """Calls a function in process 0 only and returns its result in all; its error is PeerError elsewhere."""
    with Together() as together:
        result = (call() if first() else None) or ""
        together()
    return exchange(result)[0]


class Agreement:
    """Makes all processes stop at the same step when one of them is asked to stop.

    A request travels as a computation of its own behind the step just taken, so that nothing waits for it,
    and arrives one step later. A single process knows its own at once.

    Args:
      mesh: the devices.
    Attributes:
      reached: whether all have agreed to stop.
    """

    def __init__(self, mesh: Mesh):
        self._mesh, self._sent, self.reached = mesh, None, False
        self._any = jax.jit(lambda requests: requests.any(), out_shardings=sharding.replicated(mesh))

    def __call__(self, request: bool) -> bool:
        """Sends whether this process is to stop; returns whether all are. All must call it equally often."""
        if jax.process_count() > 1:
            previous, requests = self._sent, np.full(len(self._mesh.local_devices), request)
            self._sent = self._any(sharding.put(self._mesh, {"stop": requests})["stop"])
            request = previous is not None and bool(jax.device_get(previous))
        self.reached = request
        return request


def gather(tree: Any) -> Any:
    """Makes the arrays of a tree whole in every process: on the host, if they were split over processes."""

    def whole(leaf: jax.Array) -> Any:
        here = leaf.is_fully_addressable or leaf.is_fully_replicated
        return leaf if here else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)


def device_error(error: BaseException) -> BaseException | None:
    """Finds the JaxRuntimeError, which a lost process causes in the others, among the causes of an error."""
    return next((one for one in causes(error) if isinstance(one, jax.errors.JaxRuntimeError)), None)


def abandon(code: int) -> None:
    """Ends one of several processes at once; at a normal exit it would wait for others that wait for it."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def abandon_with(error: BaseException) -> None:
    """Ends likewise, and prints why: in one line if the error is that of a device or of the network."""
    if not jax.distributed.is_initialized():
        return
    if device_error(error) is error:
        print(f"error: {GONE} ({first_line(error)})", file=sys.stderr)
    else:
        traceback.print_exception(error)
    abandon(1)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> NoReturn:
    os.write(2, f"error: {GONE}\n".encode())
    os._exit(1)
