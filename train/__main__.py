"""`python -m train`: parses, runs, and turns what a user got wrong into one line and exit code 2."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.config.settings import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code, as `--help` tells them: 0 done, 1 failed, 2 cannot be used, 130 interrupted."""
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return _fail("interrupted", 130, alone=True)
    except Exception as error:
        from train.devices import processes as distributed

        distributed.abandon_with(error)
        raise


def _by_name(config: "Config") -> "Config":
    """With the default data where they are called by their name."""
    from flaxunet.data.layouts import brain

    named = config.data.folder is not None and brain.recognize(Path(config.data.folder))
    return config.replace(data=None) if named else config


def _main(arguments: list[str]) -> int:
    from rich.console import Console

    from train.config import checks
    from train.config.arguments import parse
    from train.config.settings import ConfigError
    from train.devices import processes as distributed

    config = _by_name(parse(arguments))
    together = distributed.Together()
    try:
        checks.check(config)
        distributed.start(config.devices)
        with together:
            if config.run.resume:
                stored = checks.read(Path(config.run.resume))
                config = _by_name(parse(arguments, stored))
                if config.data.folder is not None:
                    config = config.replace(data=str(Path(config.data.folder).resolve()))
                checks.check(config)
                checks.check_resumed(config, stored)
        from train.data.dataset import DataError  # after the checks: what follows takes seconds to import
        from train.loop import TrainingError, run
        from train.storage.checkpoint import SaveError
    except ConfigError as error:
        return _fail(error, 2)
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
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2, alone=together.alone)
    return 0


def _fail(error: object, code: int, *, alone: bool = False) -> int:
    """Says why, unless another process does; ends at once where others do not know of it."""
    from train.devices import processes as distributed

    if not isinstance(error, distributed.PeerError):
        print(f"error: {error}", file=sys.stderr)
    if alone:
        distributed.abandon(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
