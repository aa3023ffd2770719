"""SIGTERM and Ctrl-C become a wish that the loop reads between steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether the run shall end after this step."""

    requested: bool = False


@contextlib.contextmanager
def on_signal() -> Iterator[Stop]:
    """Notes SIGTERM and Ctrl-C while it is open; a second Ctrl-C interrupts.

    Schedulers repeat SIGTERM, so a second one must not break the save that the first one asked for.
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
