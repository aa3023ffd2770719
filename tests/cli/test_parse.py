"""Whatever a command cannot read is answered with one line and exit code 2."""

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from flaxunet.cli.parse import Pace, parse, progress


@dataclass(frozen=True)
class Options:
    """A command."""

    size: int = 96
    """side in pixels, told in a sentence that is long enough to be wrapped wherever the page is narrow"""
    rates: tuple[float, ...] = ()


def test_words_become_options():
    assert parse(Options, prog="command", arguments=["--size", "3", "--rates", "1", "2"]) == Options(
        3, (1, 2)
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--size x", "--size: invalid literal for int() with base 10: 'x'"),
        ("--size", "Missing value for argument '--size'. Expected 1 values"),
        ("--sise 3", "Unrecognized options: --sise, 3; perhaps --size"),
        ("more", "Unrecognized options: more"),
    ],
)
@pytest.mark.parametrize("columns", ["40", "120"])
def test_a_mistake_is_one_line(words, line, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stopped:
        parse(Options, prog="command", arguments=words.split())
    assert stopped.value.code == 2
    out, told = capsys.readouterr()
    assert (out, told) == ("", f"error: {line}; see command --help\n")


def test_help_is_a_page_and_no_mistake(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(Options, prog="command", arguments=["--help"])
    assert not stopped.value.code
    out, told = capsys.readouterr()
    assert "side in pixels" in out
    assert not told


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_seen_on_a_terminal_only(terminal, monkeypatch):
    clock = iter((0.0, 9.0, 11.0))
    monkeypatch.setattr("flaxunet.cli.parse.time.perf_counter", lambda: next(clock))
    file, pace = io.StringIO(), Pace()
    assert (str(pace), pace.first) == ("", None)
    with progress(Console(file=file, force_terminal=terminal, width=100), 5, pace) as through:
        pace.update(1, 1_000_000)
        through(1)
        assert (str(pace), pace.first) == ("", 9.0)  # the first one waits for the compiler
        pace.update(5, 4_000_000)
        through(5)
    assert str(pace) == "2.0 images/s, 1.50 megapixels/s"
    assert ("2.0 images/s, 1.50 megapixels/s" in file.getvalue()) is terminal
    assert bool(file.getvalue()) is terminal
