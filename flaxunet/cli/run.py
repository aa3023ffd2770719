"""Runs a command to its exit code; a mistake becomes one line on stderr."""

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import Any

from flaxunet.cli.parse import choose


def run(
    kinds: Mapping[str, Callable[..., Any]],
    arguments: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    call: Callable[[Any], int] = methodcaller("run"),
) -> int:
    """Parses a command line as `choose` does, and runs the command that it names.

    Args:
      kinds, prog, description: as of `choose`.
      arguments: the words after `prog`; those of this process if None.
      call: runs the options of a command; by default their own method.
    Returns: the command's exit code; 2 after an error that a user can do something about; 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: names of files may not be UTF-8
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return call(choose(kinds, prog=prog, arguments=words, description=description))
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except (ValueError, OSError) as error:  # errors of data, networks and flags are all ValueErrors
        return fail(error, 2)


def fail(error: object, code: int) -> int:
    """Prints an error as one line, with the file's name if it is the system's, and returns the exit code."""
    if isinstance(error, OSError):
        error = f"{error.filename or 'a file'}: {error.strerror or error}"
    print(f"error: {error}", file=sys.stderr)
    return code
