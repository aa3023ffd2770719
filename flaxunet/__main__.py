"""Runs `python -m flaxunet COMMAND`; a mistake becomes one line on stderr."""

import io
import sys
from collections.abc import Sequence

from flaxunet.cli.app import App
from flaxunet.cli.convert import Convert
from flaxunet.cli.evaluate import Evaluate
from flaxunet.cli.export import Export
from flaxunet.cli.inspect import Inspect
from flaxunet.cli.parse import choose
from flaxunet.cli.predict import Predict
from flaxunet.cli.pull import Pull
from flaxunet.cli.push import Push

COMMANDS = {
    "inspect": Inspect,
    "convert": Convert,
    "predict": Predict,
    "evaluate": Evaluate,
    "export": Export,
    "push": Push,
    "pull": Pull,
    "app": App,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 done with failures, 2 something cannot be used, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: names of files may not be UTF-8
    options = choose(
        COMMANDS,
        prog="python -m flaxunet",
        arguments=sys.argv[1:] if arguments is None else arguments,
        description="Inspect and convert data; predict, evaluate, export, share and try networks.",
    )
    try:
        return options.run()
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except ValueError as error:  # errors of data, networks and flags are all ValueErrors
        return _fail(error, 2)
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
