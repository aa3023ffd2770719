"""Locks the folder of a run, so that no two processes train in it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from train.config.settings import ConfigError


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Locks a folder. The kernel releases the lock however the process ends, so that none is ever stale.

    Raises: ConfigError that names the process which has locked it; OSError if the folder cannot be written.
    """
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(f"{folder} is in use by {holder}; expected a run that has ended") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
