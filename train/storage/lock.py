"""A run's folder enters; while it is held, no other process trains in it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from train.config.settings import ConfigError


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds a run's folder. The kernel lets go when the process ends, however it ends, so no lock is stale.

    Raises: ConfigError that names the process which holds it; OSError if the folder cannot be written.
    """
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(
                f"{folder} is in use by {holder}; accepted is another run, or to wait"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
