"""`python -m porting to-flax | to-torch | deploy | verify`: parses, converts, makes mistakes one line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """One that answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the networks differ, 2 something cannot be used, 130 interrupted."""
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)  # what takes seconds to import comes after a glance at them
    try:
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
        return commands.COMMANDS[options.command](options)
    except (commands.CommandError, ExportError, FileError, StoreError) as error:
        return _fail(error, 2)
    except OSError as error:  # a name that is too long, a disk that is full, ...
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)


def _parser() -> argparse.ArgumentParser:
    from flaxunet.models.decoders import DECODERS
    from flaxunet.models.encoders import ENCODERS

    archs = (*(name for name, entry in ENCODERS.items() if entry.fits), *DECODERS)
    parser = _Parser(
        prog="python -m porting", description="Weights between torch and Flax, both ways, with proof."
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="to-flax | to-torch | deploy | verify"
    )

    command = commands.add_parser(
        "to-flax",
        help="torch's weights to a folder that flaxunet.load and python -m train read",
        description="Converts a torch weight file to a folder of model.safetensors and config.json.",
    )
    _add_source(command)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to be made")
    command.add_argument("--arch", choices=archs, metavar="NAME", help=f"what it must be: {', '.join(archs)}")
    command.add_argument(
        "--encoder", choices=tuple(ENCODERS), metavar="NAME", help="what its encoder must be"
    )
    _add_dialect(command)
    command.add_argument(
        "--upsample",
        choices=("nearest", "bilinear"),
        help="smp's decoder_interpolation, which no weight file tells; nearest if left out",
    )
    for name in ("mean", "std"):
        command.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="X",
            help=f"{name} of the images it was trained on, in [0, 1], per channel; ImageNet's if left out",
        )

    command = commands.add_parser(
        "to-torch",
        help="a folder to a torch weight file",
        description="Converts a folder of model.safetensors and config.json to a torch weight file.",
    )
    _add_folder(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help=".pth, .pt or .safetensors")
    _add_dialect(command)

    command = commands.add_parser(
        "deploy",
        help="a segmenter to one file that torch alone runs; also python -m flaxunet export --format torch",
        description="Writes a segmenter, from images of any size to probabilities, for torch.export.load.",
    )
    _add_folder(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="usually .pt2; replaced")

    command = commands.add_parser(
        "verify",
        help="run both networks on the same images and compare every stage",
        description="Runs both networks on the same images; exit code 1 if a stage differs.",
    )
    _add_folder(command)
    _add_source(command)
    _add_dialect(command)
    command.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest error, relative to the peak (1e-5)",
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the comparison (DIR/parity.json)")
    return parser


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source",
        metavar="SOURCE",
        help=".pth, .pt or .safetensors file, or torchvision's name, e.g. ResNet34_Weights.IMAGENET1K_V1",
    )
    command.add_argument(
        "--prefix",
        metavar="PREFIX",
        help="where the network lies in the state dict, e.g. encoder_q.; found if left out",
    )


def _add_dialect(command: argparse.ArgumentParser) -> None:
    from porting.keymap import DIALECTS

    command.add_argument(
        "--dialect",
        choices=tuple(DIALECTS),
        metavar="NAME",
        help=f"layout of the torch file: {', '.join(DIALECTS)}; if left out, found or usual",
    )


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="DIR", help="made by to-flax, flaxunet.save or a run")


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
