"""Bytes become a file, whole or not at all."""

import contextlib
import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes beside the file's place, then moves there; an older file is replaced.

    Raises: OSError if that cannot be done, and then an older file is as it was.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):  # gone, if all went well
            part.unlink()
