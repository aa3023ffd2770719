"""Prepares the samples of a data set once, and keeps them in memory, on disk or just in their files.

A cache folder holds a shard for each data set and preparation. A shard's name is a digest of the names, sizes
and times of all its files and of the settings, so it is never out of date: when anything changes, the name is
another one, and the old shard is evicted first when there is no room. One process at a time writes in a cache
folder; a shard is written under another name and renamed when it is complete, and readers keep what they have
mapped even if it is evicted meanwhile.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import flaxunet
from flaxunet.files import cache_folder
from flaxunet.lookahead import read_ahead
from train.config.settings import ConfigError, Data
from train.data import shard
from train.data.samples import Arrays, Files, Prepared

PREFIX = "flaxunet-"  # of shards' names: nothing else in the folder is ever removed


def budget() -> float:
    """Returns the bytes of memory that samples may take: half of the machine's, or of the container's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such group, or no limit in it
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory / 2


def keep(
    pairs: list[Any], prepare: Callable[[Any], Prepared], *, settings: Data, preparation: Mapping[str, Any]
) -> tuple[list[Prepared], bool]:
    """Prepares every pair once, and keeps the results.

    Args:
      pairs: records of `flaxunet.data`, whose `files` are all paths that their pixels come from. Those
        without files are kept in memory.
      prepare: reads and prepares a pair.
      settings: where they are kept. `cache` is "memory": as float32 and int32; "disk": packed, in a shard;
        "none": in their files, which are read anew each time; "auto": memory if they take less than `budget`
        there, otherwise disk. `cache_dir` is the folder of the shards; None: flaxunet/data in the user's
        cache. `cache_limit` is that of all shards in the folder, in GB. `workers` threads read.
      preparation: all that the prepared pixels depend on besides the files.
    Returns: the prepared pairs in order, including those with problems; and whether their pixels are not in
      memory, but have to be read.
    Raises: ConfigError if the disk or the limit is too small, or the folder cannot be used.
    """
    workers = settings.workers
    if settings.cache == "memory" or not (pairs and all(pair.files for pair in pairs)):
        return list(_prepare_in_order(prepare, pairs, workers)), False
    if settings.cache == "none":
        return list(_prepare_in_order(partial(_in_files, prepare), pairs, workers)), True
    folder = cache_folder("data") if settings.cache_dir is None else Path(settings.cache_dir)
    place = folder / f"{PREFIX}{_key(pairs, preparation)}"
    if (cached := _open(place, pairs)) is not None:
        return cached, True
    ready: deque[Prepared] = deque()
    if settings.cache == "auto":
        rest, size, most = _prepare_in_order(prepare, pairs, workers), 0, budget()
        for one in rest:
            ready.append(one)
            size += 0 if one.problems else sum(array.nbytes for array in one.source.read())
            if size > most:
                rest.close()
                break
        else:
            return list(ready), False
    after = pairs[len(ready) :]

    def stream() -> Iterator[Prepared]:
        while ready:
            yield _packed(ready.popleft())
        yield from _prepare_in_order(lambda pair: _packed(prepare(pair)), after, workers)

    return _build(place, pairs, stream, 1e9 * settings.cache_limit), True


def _in_files(prepare: Callable[[Any], Prepared], pair: Any) -> Prepared:
    one = prepare(pair)
    return one if one.problems else replace(one, source=Files(partial(prepare, pair)))


def _packed(one: Prepared) -> Prepared:
    return one if one.problems else replace(one, source=Arrays(*one.source.read()).packed())


def _prepare_in_order(
    prepare: Callable[[Any], Prepared], pairs: Iterable[Any], workers: int
) -> Generator[Prepared, None, None]:
    """Prepares pairs in threads, in order and never far ahead of the consumer."""
    with contextlib.closing(read_ahead(prepare, pairs, workers, 2 * workers)) as ahead:
        for _, future in ahead:
            yield future.result()


def _key(pairs: list[Any], preparation: Mapping[str, Any]) -> str:
    """A digest of everything that the prepared pixels depend on, which order and splits do not change."""
    stamps = sorted(
        [shard.identity(one), *(part for path in one.files for part in stamp(path))] for one in pairs
    )
    content = [shard.FORMAT, flaxunet.__version__, sorted(preparation.items()), stamps]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def stamp(path: Path) -> tuple[str, ...]:
    """Returns the path, size and time of change of a file, as texts."""
    try:
        status = path.stat()
    except OSError:
        return str(path.absolute()), "missing"
    return str(path.absolute()), str(status.st_size), str(status.st_mtime_ns)


def _open(place: Path, pairs: list[Any]) -> list[Prepared] | None:
    """Reads a shard and marks it as used."""
    samples = shard.read(place, pairs)
    if samples is not None:
        with contextlib.suppress(OSError):  # another user's, which may be read but not marked
            os.utime(place / "index.json")  # the time of its last use
    return samples


def _build(
    place: Path, pairs: list[Any], stream: Callable[[], Iterator[Prepared]], limit: float
) -> list[Prepared]:
    """Writes a shard, unless another process has done so meanwhile or a pair has problems, and reads it."""
    folder, draft = place.parent, place.with_name(f".{place.name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # which the kernel releases however this process ends
            if (cached := _open(place, pairs)) is not None:
                return cached
            for left in folder.glob(f".{PREFIX}*"):  # by a process that was killed: the lock is ours
                shutil.rmtree(left, ignore_errors=True)
            draft.mkdir()
            try:
                if unusable := _write(draft, stream(), limit):
                    return unusable
                shutil.rmtree(place, ignore_errors=True)  # a damaged one
                draft.rename(place)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            if (cached := _open(place, pairs)) is None:
                raise OSError(f"{place.name} cannot be read back")
            return cached
    except OSError as error:
        why = f"{folder}: {error.strerror or error}"
        raise ConfigError(f"--cache-dir: {why}; expected another folder, or --cache none") from None


def _write(draft: Path, stream: Iterator[Prepared], limit: float) -> list[Prepared]:
    """Writes a shard, evicting the least recently used ones; returns the pairs with problems."""
    used = {path.parent: path.stat().st_mtime for path in draft.parent.glob(f"{PREFIX}*/index.json")}
    others = deque(sorted(used, key=used.__getitem__))
    kept = sum(map(_size, others))
    with_problems: list[Prepared] = []
    with contextlib.closing(shard.Writer(draft)) as writer:
        for one in stream:
            if one.problems:
                with_problems.append(one)
                continue
            writer.add(one)
            while others and kept + writer.bytes > limit:
                kept -= _size(others[0])
                _evict(others.popleft())
            if writer.bytes > limit:
                what = f"--cache-limit is {limit / 1e9:g} GB, and the data takes more"
                raise ConfigError(f"{what}; expected more, or --cache none")
        writer.finish()
    return with_problems


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.iterdir())


def _evict(place: Path) -> None:
    """Removes a shard at once; processes that have it mapped keep it until they end."""
    shutil.rmtree(place.rename(place.with_name(f".{place.name}")), ignore_errors=True)
