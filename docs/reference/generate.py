"""Writes cli.md and api.md beside this file, from the code: `python docs/reference/generate.py`.

tests/docs/test_reference.py fails while they differ from what the code says.
"""

import argparse
import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from flaxunet.cli.parse import parser_of

HERE = Path(__file__).parent
MODULES = (
    *("flaxunet", "flaxunet.labels", "flaxunet.preprocessing"),
    *("flaxunet.io.images", "flaxunet.io.volumes", "flaxunet.io.planes"),
    *("flaxunet.models.segmenter", "flaxunet.models.spec"),
    *("flaxunet.losses", "flaxunet.metrics", "flaxunet.metrics.statistics"),
    *("flaxunet.prediction.predictor", "flaxunet.prediction.tiling", "flaxunet.prediction.slides"),
    *("flaxunet.prediction.postprocess", "flaxunet.report.overlay", "flaxunet.data", "flaxunet.export"),
)
"""What users import, in the order of the page."""
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Source|Sources):\s*(.*)$")
GENERATED = "<!-- Written by docs/reference/generate.py; do not edit. -->\n"


def cli() -> str:
    """The page of all commands and flags."""
    from flaxunet.__main__ import COMMANDS
    from porting.arguments import COMMANDS as PORTING
    from train.config.settings import Config
    from train.cross_validation import Runs

    parsers = {
        "python -m train": (Config.__doc__, parser_of(Config, prog="", default=Config())),
        "python -m train.cross_validation": (Runs.__doc__, parser_of(Runs, prog="")),
    }
    for program, commands in (("flaxunet", COMMANDS), ("porting", PORTING)):
        for name, kind in commands.items():
            parsers[f"python -m {program} {name}"] = kind.__doc__, parser_of(kind, prog="")
    parts = [
        "# Command line",
        "Every command answers `--help`. Mistakes are one line on stderr and exit code 2.",
    ]
    parts += [command(name, inspect.cleandoc(text or ""), parser) for name, (text, parser) in parsers.items()]
    return GENERATED + "\n\n".join(parts) + "\n"


def command(name: str, description: str, parser: argparse.ArgumentParser) -> str:
    """A heading, the description, and a table of flags for each group of them."""
    parts, rows = [f"## `{name}`", description], []
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if not isinstance(one, argparse._HelpAction)]
        if not group.description:  # what is given by its place, and flags without a group
            rows += map(flag, actions)
            continue
        parts.append(f"**{str(group.title).removesuffix(' options').capitalize()}**: {group.description}")
        parts.append(table(("flag", "meaning"), list(map(flag, actions))))
    return "\n\n".join([*parts, *([table(("argument", "meaning"), rows)] if rows else [])])


def unwrapped(text: str) -> str:
    """A paragraph on one line."""
    return " ".join(text.split())


def flag(action: argparse.Action) -> tuple[str, str]:
    """A flag, or what is given by its place, with its help."""
    metavar = action.metavar or ("|".join(action.choices) if action.choices else str(action.dest).upper())
    takes_value = action.nargs != 0
    words = list(action.option_strings[:1])
    if isinstance(action, argparse.BooleanOptionalAction):
        words = [" / ".join(action.option_strings)]
    shown = " ".join([*words, *([str(metavar)] if takes_value else [])])
    needed = "required: " if action.required and words else ""
    return f"`{shown}`", needed + unwrapped((action.help or "").replace("%%", "%"))


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars inside of cells are escaped."""
    lines = [
        header,
        tuple("---" for _ in header),
        *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def api() -> str:
    """The page of public functions and classes, by module."""
    parts = ["# Python API", "Images are float32 (H, W, C), labels int32 (H, W); batches have B in front."]
    for name in MODULES:
        module = importlib.import_module(name)
        about = prose(inspect.getdoc(module) or "")
        parts.append("\n\n".join([f"## `{name}`", about, *(entry(module, one) for one in public(module))]))
    return GENERATED + "\n\n".join(part for part in parts if part) + "\n"


def public(module: Any) -> list[str]:
    """Names in `__all__`, else the functions and classes that a module defines, in its order."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    body = ast.parse(inspect.getsource(module)).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


def entry(module: Any, name: str) -> str:
    """The signature and the docstring of one name."""
    thing = getattr(module, name)
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return f"### `{name}`"
    if thing.__module__ in MODULES and thing.__module__ != module.__name__:
        return f"### `{name}`\n\nSee [`{thing.__module__}`](#{thing.__module__.replace('.', '')})."
    source = importlib.import_module(thing.__module__)
    nodes = {node.name: node for node in ast.parse(inspect.getsource(source)).body if hasattr(node, "name")}
    node = nodes[thing.__name__]
    parts = [f"### `{name}`", f"```python\n{signature(node)}\n```", prose(ast.get_docstring(node) or "")]
    if isinstance(node, ast.ClassDef):
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                parts.append(f"#### `{name}.{method.name}`")
                parts.append(f"```python\n{signature(method)}\n```")
                parts.append(prose(ast.get_docstring(method) or ""))
    return "\n\n".join(parts)


def signature(node: ast.AST) -> str:
    """`name(arguments) -> result`, as the source has it."""
    if isinstance(node, ast.ClassDef):
        inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        if inits:
            return shortened(
                node.name, ast.unparse(inits[0].args).removeprefix("self, ").removeprefix("self")
            )
        fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
        return shortened(node.name, ", ".join(fields))
    assert isinstance(node, ast.FunctionDef)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    return shortened(node.name, arguments) + result


def shortened(name: str, arguments: str) -> str:
    """On one line if it fits, else a line for each argument."""
    line = f"{name}({arguments})"
    if len(line) <= 100:
        return line
    parts, depth, begin = [], 0, 0
    for place, sign in enumerate(arguments):
        depth += (sign in "[({") - (sign in "])}")
        if sign == "," and depth == 0:
            parts.append(arguments[begin:place].strip())
            begin = place + 1
    parts.append(arguments[begin:].strip())
    return name + "(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def prose(docstring: str) -> str:
    """A docstring as Markdown: sections as lists and bold words."""
    lines, section = [], None
    for line in docstring.split("\n"):
        match = SECTION.match(line)
        if match:
            section = match[1]
            lines += ["", f"**{section}:** {match[2]}".rstrip()]
            if not match[2]:
                lines.append("")
        elif not line.strip():
            section = None
            lines.append("")
        elif section in ("Args", "Attributes") and re.match(r"^ {2}\S", line):
            words, colon, rest = line.strip().partition(":")
            lines.append(f"- `{words}`:{rest}" if colon else f"  {line.strip()}")
        else:
            lines.append(line if section not in ("Args", "Attributes") else f"  {line.strip()}")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def pages() -> dict[str, str]:
    """The content of each page by its name."""
    return {"cli.md": cli(), "api.md": api()}


if __name__ == "__main__":
    for page, text in pages().items():
        (HERE / page).write_text(text)
