"""`python -m flaxunet export`: writes a network as one file that runs elsewhere, and checks it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class Export:
    """Write a network as one file for other programs: from images of any size to probabilities.

    stablehlo runs with jax and flatbuffers, onnx with ONNX Runtime and others, torch with torch. A file takes
    its name after it was run on images of several sizes and compared with the network; an older FILE is then
    replaced. Exit codes: 0 done; 2 something cannot be used, or the file was not the network and was removed.
    """

    model: Annotated[str, Argument("MODEL", positional=True)]
    """a run's folder, or one that flaxunet.save made"""
    format: Annotated[str, Argument("stablehlo|onnx|torch")]
    """format of the file"""
    out: Annotated[str, Argument("FILE")]
    """the file to be made, in a folder that exists"""

    def run(self) -> int:
        """Writes the file; returns 0 when it is there."""
        from flaxunet.export import FORMATS, check_out, report, save

        if self.format == "torch":
            return _export_by_porting(self.model, self.out)
        if self.format not in FORMATS:
            raise ValueError(f"--format is {self.format!r}; expected {', '.join(FORMATS)} or torch")
        try:
            form = FORMATS[self.format]()
        except ImportError as error:
            raise ValueError(f'{error.name} is not installed: pip install "flaxunet[onnx]"') from None
        from rich.console import Console
        from rich.markup import escape

        from flaxunet.prediction.predictor import Predictor

        out = Path(self.out)
        check_out(out, Path(self.model))
        loaded = Predictor.load([self.model])
        console = Console(highlight=False)
        with console.status(f"writing {escape(out.name)} and comparing it with the network"):
            difference = save(loaded, out, form)
        report(console, loaded, out, difference, form.LAYOUT)
        return 0


def _export_by_porting(model: str, out: str) -> int:
    """Runs porting in a process of its own, because this package never imports torch."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "porting", "deploy", model, "--out", out]
    return subprocess.run(command, check=False).returncode
