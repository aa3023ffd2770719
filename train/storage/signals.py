"""Turns SIGTERM and Ctrl-C into a request that the training loop reads between steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether the run is to end after the current step."""

    requested: bool = False


@contextlib.contextmanager
def on_signal() -> Iterator[Stop]:
    """Requests a stop at SIGTERM and Ctrl-C; a second Ctrl-C raises KeyboardInterrupt.

    Schedulers repeat SIGTERM, so a second one must not interrupt the save that follows the first.
    """
    stop = Stop()

    def request(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only
        return
    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
