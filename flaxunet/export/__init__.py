"""Exports networks to one file that other programs run on images of any size, and checks it.

To add a format, write a module with the names of `save.Format` and add a line to `FORMATS`.
"""

from collections.abc import Callable

from flaxunet.export.check import ExportError
from flaxunet.export.save import Format, about, check_out, export, save

__all__ = ["FORMATS", "ExportError", "Format", "about", "check_out", "export", "save"]


def _stablehlo() -> Format:
    from flaxunet.export import stablehlo

    return stablehlo


def _onnx() -> Format:
    from flaxunet.export import onnx

    return onnx


FORMATS: dict[str, Callable[[], Format]] = {"stablehlo": _stablehlo, "onnx": _onnx}
"""Name of `python -m flaxunet export --format` -> import of its module, whose packages may not be installed.

"torch" is `python -m porting deploy`: only porting imports torch.
"""
