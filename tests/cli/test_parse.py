"""Dataclasses become command lines, and mistakes one line on stderr with exit code 2."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from flaxunet.cli.parse import Argument, choose, parse


def _all(words):
    if words == ["all"]:
        return "all"
    raise ValueError(f"{' '.join(words)!r}; expected all")


@dataclass(frozen=True)
class Group:
    """about the group"""

    depth: Annotated[int, Argument(name="levels")] = 5
    """how deep"""


@dataclass(frozen=True, kw_only=True)
class Base:
    """Flags of several commands."""

    batch: int | None = None
    """images at once"""


@dataclass(frozen=True)
class Options(Base):
    """A command.

    A second paragraph, which says what exit codes mean, in a sentence of more than eighty characters.
    """

    model: Annotated[str, Argument("MODEL", positional=True)]
    """a folder"""
    images: Annotated[tuple[Path, ...], Argument("IMAGE", positional=True)]
    """files"""
    patch_size: int = 96
    """side in pixels, in a sentence that is long enough to be wrapped wherever the terminal is narrow: 50%"""
    rates: tuple[float, ...] = ()
    """numbers"""
    kind: Annotated[str, Argument(choices=("soft", "hard"))] = "soft"
    """one of two"""
    also: Annotated[tuple[str, ...], Argument("MODEL", repeated=True)] = ()
    """more of them"""
    which: Annotated[str | None, Argument("all", convert=_all)] = None
    """several words"""
    freeze: bool | int = False
    """always, or so many steps"""
    resume: bool = False
    """go on"""
    group: Group = field(default_factory=Group)


def options(words, **more):
    return parse(Options, prog="command", arguments=words.split(), **more)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("m a", {}),
        ("m a --patch-size 3 b", {"patch_size": 3, "images": (Path("a"), Path("b"))}),
        ("m --patch-size=3 a", {"patch_size": 3}),
        ("m a --patch_size 3", {"patch_size": 3}),
        ("m a --rates 1 2e-3", {"rates": (1.0, 0.002)}),
        ("m a --kind hard", {"kind": "hard"}),
        ("m a --also a --also b", {"also": ("a", "b")}),
        ("m a --which all", {"which": "all"}),
        ("m a --freeze", {"freeze": True}),
        ("m a --freeze 4", {"freeze": 4}),
        ("m a --resume", {"resume": True}),
        ("m a --resume --no-resume", {}),
        ("m a --batch 2", {"batch": 2}),
        ("m a --batch None", {}),
        ("m a --levels 4", {"group": Group(4)}),
    ],
)
def test_words_become_fields(words, values):
    assert options(words) == Options("m", **{"images": (Path("a"),)} | values)


def test_what_is_not_given_is_of_the_default():
    default = Options("x", (), patch_size=3, batch=2, group=Group(1))
    assert options("m a --batch None", default=default) == Options(
        "m", (Path("a"),), patch_size=3, group=Group(1)
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("m a --patch-size x", ("--patch-size", "'x'", "int")),
        ("m a --batch x", ("--batch", "'x'", "int")),
        ("m a --patch-size", ("--patch-size", "expected one argument")),
        ("m a --kind x", ("--kind", "'x'", "soft", "hard")),
        ("m a --which x", ("--which", "'x'; expected all")),
        ("m a --pach-size 3", ("--pach-size", "did you mean --patch-size?")),
        ("m a --patch-siz 3", ("--patch-siz 3", "did you mean --patch-size?")),  # no abbreviations
        ("", ("MODEL, IMAGE",)),
        ("m", ("IMAGE",)),
    ],
)
@pytest.mark.parametrize("columns", ["40", "120"])
def test_a_mistake_is_one_line(words, named, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stopped:
        options(words)
    assert stopped.value.code == 2
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert line.startswith("error: ")
    assert line.endswith("; see command --help\n")
    for part in named:
        assert part in line


@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_every_flag_in_its_group(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stopped:
        options("--help")
    assert not stopped.value.code
    out, err = capsys.readouterr()
    assert not err
    assert max(map(len, out.splitlines())) <= columns
    text = " ".join(out.split())
    assert text.startswith("usage: command MODEL IMAGE [options] A command. A second paragraph")
    assert "group options: about the group --levels INT how deep (default: 5)" in text
    assert "the terminal is narrow: 50% (default: 96)" in text
    assert text.index("--resume") < text.index("--batch")  # a command's own flags come first


def test_one_of_several_commands(capsys):
    def chosen(*words):
        return choose(
            {"one": Options, "two": Group}, prog="command", arguments=words, description="Commands."
        )

    assert chosen("two", "--levels", "3") == Group(3)
    for words, code, part in (
        (("--help",), 0, "A command."),
        ((), 2, "COMMAND"),
        (("three",), 2, "'three'"),
        (("two", "--depth", "3"), 2, "see command two --help"),
    ):
        with pytest.raises(SystemExit) as stopped:
            chosen(*words)
        assert stopped.value.code == code
        assert part in "".join(capsys.readouterr())
