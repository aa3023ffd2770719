"""Work stays a bounded number ahead of its consumer, in order, and ends with it."""

import threading
import time

import pytest

from flaxunet.lookahead import lookahead, read_ahead


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_items_come_in_order_after_as_many_as_asked_were_started(count):
    started = []
    items = lookahead((started.append(n) or n for n in range(10)), count)
    for n, item in enumerate(items):
        assert item == n
        assert len(started) == min(n + count + 1, 10)
    assert started == list(range(10))


def test_files_are_read_in_order_by_threads_that_stay_near():
    began = []

    def read(n):
        began.append(n)
        time.sleep(0.002 * (n % 3))  # later ones may be done first
        return n * n

    for n, (item, result) in enumerate(read_ahead(read, range(30), 3, 5)):
        assert (item, result.result()) == (n, n * n)
        assert max(began) <= n + 5
    assert sorted(began) == list(range(30))


def test_an_error_is_raised_at_its_item_and_the_others_are_read():
    def read(n):
        if n == 2:
            raise OSError("torn")
        return n

    results = []
    for item, result in read_ahead(read, range(5), 2):
        if item == 2:
            with pytest.raises(OSError, match="torn"):
                result.result()
        else:
            results.append(result.result())
    assert results == [0, 1, 3, 4]


def test_a_consumer_that_stops_ends_the_threads_and_what_has_not_begun():
    before, began, gate = threading.active_count(), [], threading.Event()

    def read(n):
        began.append(n)
        gate.wait(5)

    items = read_ahead(read, range(100), 1, 10)
    threading.Timer(0.05, gate.set).start()
    next(items)
    items.close()
    assert len(began) < 5  # of eleven that were given to the thread
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
