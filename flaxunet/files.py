"""Writes files whole or not at all, names the cache, and turns an exception into one line."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
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


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes a folder whole or not at all: yields one beside it to fill, which then takes its name.

    Raises: FileExistsError if there is something of that name, before or after; OSError.
    """
    target = Path(path).absolute()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _refuse_existing(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        yield part
        _refuse_existing(target)  # rename would replace an empty folder
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "exists; expected a new folder", str(path))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what caused it, and so on to the first.

    One that is raised again while its own consequence is handled closes a circle, which is gone round once.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def first_line(error: BaseException) -> str:
    """The first line of its message, at most 200 characters; its kind, if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
