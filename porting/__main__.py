"""Runs `python -m porting to-flax | to-torch | deploy | verify`; a mistake becomes one line on stderr."""

import sys
from collections.abc import Sequence

from flaxunet.cli.parse import choose
from porting.arguments import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the networks differ, 2 something cannot be used, 130 interrupted."""
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _main(arguments: Sequence[str]) -> int:
    options = choose(
        COMMANDS,
        prog="python -m porting",
        arguments=arguments,
        description="Convert weights between torch and Flax, both ways, and prove that they are the same.",
    )
    try:  # after the arguments: these take seconds to import
        import segmentation_models_pytorch  # noqa: F401
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        return _fail(f'{error.name} is not installed: pip install "flaxunet[porting]"', 2)
    from flaxunet.export import ExportError
    from flaxunet.weights.store import StoreError
    from porting import commands
    from porting.files import FileError

    try:
        return commands.run(options)
    except (commands.CommandError, ExportError, FileError, StoreError) as error:
        return _fail(error, 2)
    except OSError as error:  # a name that is too long, a disk that is full, ...
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
