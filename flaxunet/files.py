"""Writes files and folders whole or not at all, names the cache, shortens exceptions to one line."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]


def cache_folder(name: str) -> Path:
    """The folder of one kind of files in the user's cache, which `XDG_CACHE_HOME` moves; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flaxunet" / name


def temporary_sibling(path: StrPath, kind: str = "part") -> Path:
    """The hidden name beside a path under which this process writes what will take its place."""
    target = Path(path)
    return target.with_name(f".{target.name}.{os.getpid()}.{kind}")


@contextlib.contextmanager
def whole_file(path: StrPath, *, sync: bool = False) -> Iterator[Path]:
    """Writes a file whole or not at all.

    Args:
      path: of the file; an older one is replaced in one step.
      sync: wait until the content is on the disk before the file takes its name.
    Yields: the path of a temporary file beside it, to be written; after an exception, an older file is as it
      was and the temporary one is gone.
    Raises: OSError if the file cannot take its place.
    """
    part = temporary_sibling(path)
    try:
        yield part
        if sync:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone, if all went well
            part.unlink()


def write_whole(path: StrPath, data: bytes) -> None:
    """Writes bytes as `whole_file` does; raises OSError if that is impossible."""
    with whole_file(path) as part:
        part.write_bytes(data)


def write_json(path: StrPath, content: Any) -> None:
    """Writes indented JSON as `whole_file` does; raises OSError as `write_whole`."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


@contextlib.contextmanager
def whole_folder(path: StrPath, *, replace: bool = False) -> Iterator[Path]:
    """Makes a folder whole or not at all; its parents too.

    Args:
      path: of the folder.
      replace: take the place of an older folder, which is there until the new one is whole.
    Yields: the path of a temporary folder beside it, to be filled; after an exception, an older folder is as
      it was and the temporary one is gone.
    Raises: FileExistsError if something has that name and must not be replaced; OSError.
    """
    target = Path(path).absolute()
    part, old = temporary_sibling(target), temporary_sibling(target, "old")
    try:
        if not replace:
            _refuse_existing(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)  # of a process of the same number that was killed
        part.mkdir()
        yield part
        if not replace:
            _refuse_existing(target)  # rename would replace an empty folder
        elif target.exists():
            target.rename(old)
        part.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(part, ignore_errors=True)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "exists; expected a new folder", str(path))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception, then its cause, and so on to the first."""
    current: BaseException | None = error
    # One that was raised again while its own consequence was handled closes a circle.
    visited: set[int] = set()
    while current is not None and id(current) not in visited:
        visited.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, of at most 200 characters; its type, if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
