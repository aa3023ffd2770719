"""Progress is shown on a terminal, with the throughput after the first image."""

import io

import pytest
from rich.console import Console

from flaxunet.report.console import Throughput, progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(terminal, monkeypatch):
    clock = iter((0.0, 9.0, 11.0))
    monkeypatch.setattr("flaxunet.report.console.time.perf_counter", lambda: next(clock))
    file, throughput = io.StringIO(), Throughput()
    assert (str(throughput), throughput.first) == ("", None)
    with progress(Console(file=file, force_terminal=terminal, width=100), 5, throughput) as advance:
        throughput.update(1, 1_000_000)
        advance(1)
        assert (str(throughput), throughput.first) == ("", 9.0)  # the first one waits for the compiler
        throughput.update(5, 4_000_000)
        advance(5)
    assert str(throughput) == "2.0 images/s, 1.50 megapixels/s"
    assert ("2.0 images/s, 1.50 megapixels/s" in file.getvalue()) is terminal
    assert bool(file.getvalue()) is terminal
