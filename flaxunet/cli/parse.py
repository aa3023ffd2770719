"""A command's words enter; what they say leaves, or one line about what cannot be read and exit code 2."""

import dataclasses
import inspect
import io
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_type_hints

import docstring_parser
import tyro

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_RULE = re.compile(r"^[─-]{3,}$", re.MULTILINE)


def parse(
    kind: Callable[..., T], *, prog: str, arguments: Sequence[str], told: str | None = None, **options: Any
) -> T:
    """What `tyro.cli` makes of a command's words.

    Args:
      kind: a dataclass; see tyro.
      prog: the command as the user types it.
      arguments: the words after it.
      told: what the help begins with, instead of the docstring of `kind`.
      options: passed on to `tyro.cli`, such as `default`.
    Raises: SystemExit with code 2 after one line on stderr, where tyro prints a page in a frame; with code 0
      after `--help`.
    """
    told, flowing = inspect.cleandoc(told or kind.__doc__ or ""), _flowing(kind)
    if "default" in options:
        options["default"] = _as(flowing, options["default"])
    with _in_one_line(prog):
        found = tyro.cli(flowing, prog=prog, args=list(arguments), description=told, **options)
    return _as(kind, found) if flowing is not kind else found


def choose(kinds: Mapping[str, Callable[..., Any]], *, prog: str, arguments: Sequence[str], told: str) -> Any:
    """The same for a command of several subcommands, by name, that together are `told`.

    Its own help has a line for each; that of a subcommand has the rest.
    """
    if arguments and arguments[0] in kinds:
        name, *words = arguments
        return parse(kinds[name], prog=f"{prog} {name}", arguments=words)
    lines = {name: (kind.__doc__ or "").strip().split("\n")[0] for name, kind in kinds.items()}
    commands: Any = Union[  # noqa: UP007, of a list
        tuple(
            Annotated[kind, tyro.conf.subcommand(name, description=lines[name])]
            for name, kind in kinds.items()
        )
    ]
    return parse(commands, prog=prog, arguments=arguments, told=told)


def _flowing(kind: Any) -> Any:
    """A dataclass of the same fields, those of its bases last, whose help is wrapped to the terminal's width:
    tyro keeps the line breaks of docstrings."""
    if not hasattr(kind, "__dataclass_fields__"):
        return kind
    hints, known, fields = get_type_hints(kind, include_extras=True), kind.__dataclass_fields__, []
    for base in kind.__mro__[:-1]:
        texts = {one.arg_name: one.description for one in docstring_parser.parse_from_object(base).params}
        for name in base.__annotations__:
            text, hint = " ".join((texts.get(name) or "").split()), hints[name]
            hint = Annotated[hint, tyro.conf.arg(help=text)] if text else _flowing(hint)
            one = known[name]
            default: Any = dataclasses.field(default=one.default, default_factory=one.default_factory)
            fields.append((name, hint, default))
    about = {"__doc__": kind.__doc__}
    return dataclasses.make_dataclass(kind.__name__, fields, kw_only=True, namespace=about)


def _as(kind: Any, value: Any) -> Any:
    """What `_flowing` made of a dataclass as one of it, and the other way."""
    if not dataclasses.is_dataclass(value):
        return value
    return kind(**{one.name: _as(one.type, getattr(value, one.name)) for one in dataclasses.fields(kind)})


class Pace:
    """How fast pictures go through, from the first on: until then networks are compiled.

    Attributes:
      first: seconds until the first picture was through, or None.
    """

    def __init__(self):
        self._begin = time.perf_counter()
        self.first: float | None = None
        self._done, self._before, self._seconds = (0, 0), (0, 0), 0.0

    def update(self, pictures: int, pixels: int) -> None:
        """Takes how many pictures are through, and their pixels."""
        if (pictures, pixels) == self._done:
            return
        self._seconds, self._done = time.perf_counter() - self._begin, (pictures, pixels)
        if self.first is None:
            self.first, self._before = self._seconds, self._done

    def __str__(self) -> str:
        """Images and megapixels a second; empty before the second picture."""
        if self._done == self._before:
            return ""
        seconds = max(self._seconds - (self.first or 0), 1e-9)
        pictures, pixels = (now - before for now, before in zip(self._done, self._before, strict=True))
        images = f"{pictures / seconds:.1f} images/s, " if pictures else ""  # parts of a large one, so far
        return f"{images}{pixels / seconds / 1e6:.2f} megapixels/s"


@contextmanager
def progress(console: "Console", total: int, pace: Pace) -> Iterator[Callable[[int], None]]:
    """A bar with images and megapixels a second; nothing where there is no terminal.

    Yields: to be told how many of the total are through, after each update of the pace.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, pace="compiling")
        yield lambda through: bar.update(task, completed=through, pace=str(pace) or "compiling")


@contextmanager
def _in_one_line(prog: str) -> Iterator[None]:
    page = io.StringIO()
    try:
        with redirect_stderr(page):
            yield
    except SystemExit as stopped:
        if stopped.code:
            print(f"error: {_line(page.getvalue())}; see {prog} --help", file=sys.stderr)
        raise


def _line(page: str) -> str:
    """What tyro's page says, in one line: the part below its title, and the options that it proposes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", page)
    lines = [line.strip("│ ") for line in text.splitlines()]
    # A frame has its title in the upper edge; a terminal without such characters gets one above a rule.
    lines = [line for line in lines if not line.startswith("╰")][1 if lines[0].startswith("╭") else 2 :]
    first, *parts = _RULE.split("\n".join(lines))
    said = " ".join(first.split()).removeprefix("Error parsing ").rstrip(".")
    proposed = "".join(part for part in parts if "Perhaps you meant" in part)
    names = dict.fromkeys(re.findall(r"^--[\w-]+", proposed, re.MULTILINE))
    return f"{said}; perhaps {' or '.join(names)}" if names else said
