"""`python -m train`: trains a network; what a user got wrong becomes one line on stderr and exit code 2."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.config.settings import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and returns the exit code.

    Args:
      arguments: the words after `python -m train`; those of this process if left out.
    Returns: 0 if training is done, or stopped by a signal with the last step saved; 1 if training or a save
      failed; 2 if something cannot be used; 130 after a second Ctrl-C.
    """
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return _fail("interrupted", 130, alone=True)
    except Exception as error:
        from train.devices import processes as distributed

        distributed.abandon_with(error)
        raise


def _main(arguments: list[str]) -> int:
    """Checks the settings, then trains; every error that a user can do something about becomes one line."""
    from train.config import checks
    from train.config.arguments import parse
    from train.config.settings import ConfigError
    from train.devices import processes as distributed

    config = _with_default_data(parse(arguments))
    together = distributed.Together()
    try:
        checks.check(config)
        distributed.start(config.devices)
        with together:
            if config.run.resume:
                config = _resumed(arguments, Path(config.run.resume))
    except ConfigError as error:
        return _fail(error, 2)

    from rich.console import Console

    from train.data.dataset import DataError  # only now: what follows takes seconds to import
    from train.loop import TrainingError, run
    from train.storage.checkpoint import SaveError

    try:
        with together:
            run(config, Console(highlight=False, quiet=not distributed.first()), ready=together)
    except (ConfigError, DataError) as error:
        return _fail(error, 2)
    except TrainingError as error:  # the same in every process
        return _fail(error, 1) if distributed.first() else 1
    except SaveError as error:
        if (cause := distributed.device_error(error)) is not None:  # a save needs all processes
            distributed.abandon_with(cause)
        return _fail(error, 1, alone=together.alone)
    except OSError as error:  # a file or folder that vanished, is full or may not be read or written
        return _fail(error, 2, alone=together.alone)
    return 0


def _with_default_data(config: "Config") -> "Config":
    """Replaces the name of the default data, --data brain, by None."""
    from flaxunet.data.layouts import brain

    named = config.data.folder is not None and brain.recognize(Path(config.data.folder))
    return config.replace(data=None) if named else config


def _resumed(arguments: list[str], run: Path) -> "Config":
    """Reads the settings of a run and overrides them by the command line, where that is allowed."""
    from train.config import checks
    from train.config.arguments import parse

    stored = checks.read(run)
    config = _with_default_data(parse(arguments, stored))
    if config.data.folder is not None:
        config = config.replace(data=str(Path(config.data.folder).resolve()))
    checks.check(config)
    checks.check_resumed(config, stored)
    return config


def _fail(error: object, code: int, *, alone: bool = False) -> int:
    """Prints an error, unless another process does; with `alone`, ends this process at once."""
    from flaxunet.cli.run import fail
    from train.devices import processes as distributed

    if not isinstance(error, distributed.PeerError):
        fail(error, code)
    if alone:
        distributed.abandon(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
