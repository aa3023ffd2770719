"""`python -m benchmarks.imports`: how long `import flaxunet` takes beyond `import jax, flax.nnx`.

Each import runs in a fresh process, in turns; prints the medians of wall-clock time, in seconds. The names of
the package are loaded when they are first asked for, so the whole public API is timed as well.
"""

import argparse
import statistics
import subprocess
import sys

from benchmarks.options import Parser, positive

API = "[getattr(flaxunet, name) for name in flaxunet.__all__]"
CODE = {
    "import jax, flax.nnx": "import jax, flax.nnx",
    "import flaxunet": "import jax, flax.nnx, flaxunet",
    "all public names": f"import jax, flax.nnx, flaxunet; {API}",
    "flaxunet.io alone": "import flaxunet.io",
}
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def seconds(code: str) -> float:
    """How long the code takes in a fresh process."""
    command = [sys.executable, "-c", TIMED.format(code)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the table."""
    parser = Parser(
        prog="python -m benchmarks.imports",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--repeats", type=positive, default=7, help="processes for each import (%(default)s)")
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {name: [] for name in CODE}
    for _ in range(repeats):
        for name, code in CODE.items():
            times[name].append(seconds(code))
    base = statistics.median(times["import jax, flax.nnx"])
    print("| import | seconds | beyond jax and flax.nnx |\n|---|---|---|")
    for name, several in times.items():
        print(f"| {name} | {statistics.median(several):.2f} | {statistics.median(several) - base:+.2f} |")


if __name__ == "__main__":
    main()
