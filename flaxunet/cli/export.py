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
        import subprocess
        import sys

        from flaxunet.export import FORMATS, export

        if self.format == "torch":  # in a process of its own, because this package never imports torch
            command = [sys.executable, "-m", "porting", "deploy", self.model, "--out", self.out]
            return subprocess.run(command, check=False).returncode
        if self.format not in FORMATS:
            raise ValueError(f"--format is {self.format!r}; expected {', '.join(FORMATS)} or torch")
        try:
            form = FORMATS[self.format]()
        except ImportError as error:
            raise ValueError(f'{error.name} is not installed: pip install "flaxunet[onnx]"') from None
        export(self.model, Path(self.out), form)
        return 0
