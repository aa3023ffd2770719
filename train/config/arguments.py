"""Parses the command line of `python -m train`."""

from collections.abc import Sequence

from flaxunet.cli import parse as terminal
from train.config.settings import Config


def parse(arguments: Sequence[str], default: Config | None = None) -> Config:
    """Parses the words after `python -m train`; exits as `flaxunet.cli.parse.parse`.

    Args:
      arguments: the words.
      default: the settings of flags that are not given.
    """
    return terminal.parse(Config, prog="python -m train", arguments=arguments, default=default or Config())
