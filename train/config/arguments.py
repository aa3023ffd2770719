"""Parses the command line of `python -m train`."""

from collections.abc import Sequence

from flaxunet.cli import parse as terminal
from train.config.settings import Config


def parse(arguments: Sequence[str], default: Config | None = None) -> Config:
    """Parses the words after `python -m train` into settings; the help has a frame for each group of them.

    Args:
      arguments: the words.
      default: what settings are that the words do not mention.
    Raises: SystemExit as `flaxunet.cli.parse.parse`.
    """
    return terminal.parse(
        Config,
        prog="python -m train",
        arguments=arguments,
        default=default or Config(),
    )
