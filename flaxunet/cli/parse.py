"""Builds a command line from a dataclass with argparse: fields are flags, their docstrings the help."""

import argparse
import ast
import dataclasses
import difflib
import inspect
import shutil
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

LONGEST = 60  # characters of the choices of a flag that its help shows in place of the value


@dataclass(frozen=True)
class Argument:
    """What the type of a field does not say about its flag: `field: Annotated[str, Argument("DIR")]`."""

    metavar: str | None = None  # stands for the value in the help; the type, or the choices, if left out
    _: dataclasses.KW_ONLY
    name: str | None = None  # of the flag, if it is not that of the field
    positional: bool = False  # the value is given by its place, not after --name
    choices: Sequence[str] = ()  # the only values; empty allows any
    repeated: bool = False  # the flag of a tuple is given several times, with one value each
    convert: Callable[[list[str]], Any] | None = None
    """makes the value of all words that follow the flag; its ValueError says what was expected"""


def parse(kind: Callable[..., T], *, prog: str, arguments: Sequence[str], default: T | None = None) -> T:
    """Parses a command line; a mistake becomes one line on stderr and exit code 2.

    Args:
      kind: a dataclass with fields of type str, int, float or Path, one of these or None (for the word None),
        a tuple of these, bool (--x and --no-x), bool | int (--x and --x INT), or another dataclass, whose
        fields are a group in the help.
      prog: the command as the user types it.
      arguments: the words after it; --batch_size is the same as --batch-size.
      default: the values of flags that are not given; the defaults of the fields if left out.
    Raises: SystemExit with code 2 after a mistake, and with code 0 after --help.
    """
    parser = parser_of(kind, prog=prog, default=default)
    values, unknown = parser.parse_known_intermixed_args([_hyphenated(word) for word in arguments])
    if unknown:
        near = [match for word in unknown for match in difflib.get_close_matches(word, parser.flags, 1)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return _build(kind, vars(values), default)


def parser_of(kind: Callable[..., Any], *, prog: str, default: Any = None) -> "Parser":
    """Builds the parser of a command, whose help begins with the docstring of `kind`; as for `parse`."""
    raw, width = argparse.RawDescriptionHelpFormatter, shutil.get_terminal_size().columns - 2
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    text = "\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs)
    parser = Parser(prog=prog, description=text, formatter_class=raw, allow_abbrev=False)
    actions = [*_add(parser, kind, default)]
    parser.flags = [flag for action in actions for flag in action.option_strings]
    places = [action for action in actions if not action.option_strings]
    places += [action for action in actions if action.option_strings and action.required]
    words = [str(word) for action in places for word in (*action.option_strings, action.metavar)]
    parser.usage = " ".join([prog, *words, "[options]"])
    return parser


def choose(
    kinds: Mapping[str, Callable[..., Any]], *, prog: str, arguments: Sequence[str], description: str
) -> Any:
    """Parses a command line whose first word names one of several commands, each a dataclass as of `parse`.

    The help lists the commands with the first lines of their docstrings; `prog COMMAND --help` has the rest.
    """
    if arguments and arguments[0] in kinds:
        name, *words = arguments
        return parse(kinds[name], prog=f"{prog} {name}", arguments=words)
    parser = Parser(prog=prog, usage=f"{prog} COMMAND [options]", description=description)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, kind in kinds.items():
        commands.add_parser(name, help=inspect.cleandoc(kind.__doc__ or "").split("\n")[0])
    return parser.parse_args(arguments)


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line."""

    flags: Sequence[str] = ()  # all of them, for suggestions

    def error(self, message: str) -> NoReturn:
        """Prints the mistake and exits with code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


class _Convert(argparse.Action):
    """Converts the words of a flag together."""

    def __init__(self, *names: Any, convert: Callable[[list[str]], Any], **options: Any):
        super().__init__(*names, **options)
        self._convert = convert

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, self._convert(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None


def _add(parser: Any, kind: Any, default: Any) -> Iterator[argparse.Action]:
    """Adds the fields of a dataclass to a parser, or to a group of it."""
    fields, hints = {field.name: field for field in dataclasses.fields(kind)}, _types(kind)
    for name, text in _docstrings(kind).items():
        hint, argument = hints[name]
        value = fields[name].default if default is None else getattr(default, name)
        if dataclasses.is_dataclass(hint):
            group = parser.add_argument_group(f"{name} options", hint.__doc__)
            yield from _add(group, hint, getattr(default, name, None))
            continue
        metavar = argument.metavar or "|".join(argument.choices)
        if len(metavar) > LONGEST:
            text += f"; one of {', '.join(metavar.split('|'))}"
            argument = dataclasses.replace(argument, metavar="NAME")
        if isinstance(value, str | int | float) and value is not False:
            text = f"{text} (default: {value})"
        flag, required = argument.name or name, value is dataclasses.MISSING
        options: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if not argument.positional:
            options |= {"dest": flag, "required": required}
            flag = f"--{flag.replace('_', '-')}"
        yield parser.add_argument(flag, **options, **_nature(hint, argument, required))


def _nature(kind: Any, argument: Argument, required: bool) -> dict[str, Any]:
    """The arguments of `add_argument` that say what values a flag takes."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind == bool | int:
        return {"nargs": "?", "const": True, "type": int, "metavar": "INT"}
    if argument.convert is not None:
        return {"action": _Convert, "convert": argument.convert, "nargs": "*", "metavar": argument.metavar}
    nature: dict[str, Any] = {"choices": argument.choices or None}
    optional = isinstance(kind, types.UnionType)
    if optional:
        kind, _ = get_args(kind)
    if get_origin(kind) is tuple:
        kind, _ = get_args(kind)
        nature |= {"action": "append"} if argument.repeated else {"nargs": "+" if required else "*"}
    metavar = argument.metavar or "|".join(argument.choices) or kind.__name__.upper()
    return nature | {"type": _or_none(kind) if optional else kind, "metavar": metavar}


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(word: str) -> Any:
        return None if word == "None" else kind(word)

    convert.__name__ = kind.__name__  # argparse says "invalid int value"
    return convert


def _types(kind: Any) -> dict[str, tuple[Any, Argument]]:
    """The type of each field, and the Argument beside it."""
    return {
        name: get_args(hint) if get_origin(hint) is Annotated else (hint, Argument())
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }


def _docstrings(kind: Any) -> dict[str, str]:
    """The names of the fields with the strings below them; a class's own fields before those of its bases."""
    texts: dict[str, str] = {}
    bases: list[Any] = [base for base in kind.__mro__ if dataclasses.is_dataclass(base)]
    for base in bases:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for node, after in zip(definition.body, [*definition.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
                texts.setdefault(node.target.id, " ".join(text.split()))
    return texts


def _build(kind: Any, values: Mapping[str, Any], default: Any) -> Any:
    content: dict[str, Any] = {}
    for name, (hint, argument) in _types(kind).items():
        flag = argument.name or name
        if dataclasses.is_dataclass(hint):
            content[name] = _build(hint, values, getattr(default, name, None))
        elif flag in values:
            content[name] = tuple(values[flag]) if isinstance(values[flag], list) else values[flag]
        elif default is not None:
            content[name] = getattr(default, name)
    return kind(**content)


def _hyphenated(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word
