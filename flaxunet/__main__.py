"""Runs `python -m flaxunet COMMAND`; a mistake becomes one line on stderr."""

import sys
from collections.abc import Sequence

from flaxunet.cli.app import App
from flaxunet.cli.convert import Convert
from flaxunet.cli.evaluate import Evaluate
from flaxunet.cli.export import Export
from flaxunet.cli.inspect import Inspect
from flaxunet.cli.predict import Predict
from flaxunet.cli.pull import Pull
from flaxunet.cli.push import Push
from flaxunet.cli.run import run

KINDS = (Inspect, Convert, Predict, Evaluate, Export, Push, Pull, App)
COMMANDS = {kind.__name__.lower(): kind for kind in KINDS}
ABOUT = "Inspect and convert data; predict, evaluate, export, share and try networks."


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 done with failures, 2 something cannot be used, 130 interrupted."""
    return run(COMMANDS, arguments, prog="python -m flaxunet", description=ABOUT)


if __name__ == "__main__":
    sys.exit(main())
