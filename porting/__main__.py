"""Runs `python -m porting to-flax | to-torch | deploy | verify`; a mistake becomes one line on stderr."""

import sys
from collections.abc import Sequence
from typing import Any

from flaxunet.cli.run import run
from porting.arguments import COMMANDS

ABOUT = "Convert weights between torch and Flax, both ways, and prove that they are the same."


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the networks differ, 2 something cannot be used, 130 interrupted."""
    return run(COMMANDS, arguments, prog="python -m porting", description=ABOUT, call=_call)


def _call(options: Any) -> int:
    try:  # after the arguments: these take seconds to import
        import segmentation_models_pytorch  # noqa: F401
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ValueError(f'{error.name} is not installed: pip install "flaxunet[porting]"') from None
    from porting.commands import COMMANDS as CALLS

    return CALLS[type(options)](options)


if __name__ == "__main__":
    sys.exit(main())
