"""Bytes become a file, whole or not at all; and where files lie that can be made again."""

import contextlib
import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Where one kind of files is kept in the user's cache, which `XDG_CACHE_HOME` moves; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flaxunet" / name


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
