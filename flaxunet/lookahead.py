"""Keeps work ahead of its consumer: files are read and devices compute while earlier results are used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def lookahead(started: Iterable[Item], count: int) -> Iterator[Item]:
    """Yields items in order, each after `count` more were taken from their iterable.

    Where taking an item starts its work (a batch given to a device, a file given to a thread), that many are
    under way while the consumer uses the one before them.

    Args:
      started: items, each of which starts something when it is taken.
      count: items ahead of the one that is yielded; with 0, none is.
    """
    waiting: deque[Item] = deque()
    for item in started:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], threads: int, count: int | None = None
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Reads items in threads, in order and a bounded number ahead of the consumer.

    Args:
      read: called with each item, in any thread.
      items: taken one by one, in the consumer's thread.
      threads: that read at the same time, at least one.
      count: items that are read, or waiting to be, ahead of the one that is yielded; None means `threads`.
    Yields: each item with its future, whose `result` raises what reading that item raised. Closing the
      generator drops what was not begun, and waits for the rest.
    """
    threads = max(threads, 1)
    pool = ThreadPoolExecutor(threads)
    try:
        started = ((item, pool.submit(read, item)) for item in items)
        yield from lookahead(started, threads if count is None else count)
    finally:
        pool.shutdown(cancel_futures=True)
