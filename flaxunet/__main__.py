"""`python -m flaxunet COMMAND`: parses, runs, and turns what a user got wrong into one line."""

import io
import sys
from collections.abc import Sequence

from flaxunet.commands.app import App
from flaxunet.commands.convert import Convert
from flaxunet.commands.evaluate import Evaluate
from flaxunet.commands.export import Export
from flaxunet.commands.inspect import Inspect
from flaxunet.commands.predict import Predict
from flaxunet.commands.pull import Pull
from flaxunet.commands.push import Push
from flaxunet.terminal import choose

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
    """Returns the exit code: 0 done, 1 done but something is not fit, 2 cannot be used, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names of files may be no UTF-8
    options = choose(
        COMMANDS,
        prog="python -m flaxunet",
        arguments=given,
        told="From data to predictions, scores and deployment.",
    )
    try:
        return options.run()
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except ValueError as error:  # DataError, and what is not known
        return _fail(error, 2)
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
