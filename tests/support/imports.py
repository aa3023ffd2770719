"""Which file of the project imports what."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("flaxunet", "porting", "train")


def imported(file):
    """Top-level names and dotted modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(prefix):
    """Files outside tests and benchmarks that import a package."""
    return {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if any(name == prefix or name.startswith(prefix + ".") for name in imported(file))
    }
