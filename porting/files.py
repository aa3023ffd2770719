"""Reads and writes torch weight files: .pth, .pt, .safetensors, or torchvision's names."""

import hashlib
import json
import re
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch.torch_version import TorchVersion

from flaxunet.files import whole_file
from flaxunet.models.encoders import ENCODERS

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

SUFFIXES = (".pth", ".pt", ".safetensors")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "weights")  # of a checkpoint, where tensors are
# Before it, a crafted file could write outside its tensors even with weights_only (CVE-2026-24747).
OLDEST_TORCH = "2.10"
MAX_HEADER = 2**24  # bytes of JSON in a .safetensors file, enough for a hundred thousand tensors
MAX_DEPTH = 4  # dictionaries in a pickle may hold themselves
MAX_NAMES = 4  # tied weights are stored once and named two or three times

_EXPECTED = (
    "a .pth, .pt or .safetensors file of float32, float16 or bfloat16 tensors, "
    "or torchvision's name of ResNet weights, such as ResNet34_Weights.IMAGENET1K_V1"
)


class FileError(ValueError):
    """A weight file that cannot be used; its message is one line that names the file."""


@dataclass(frozen=True)
class Source:
    """Weights that `read` found; `mean` and `std` are those of images in [0, 1] for torchvision's weights."""

    name: str  # the file's name without folders, or torchvision's name of the weights
    sha256: str  # of the file's bytes, hexadecimal
    tensors: dict[str, np.ndarray]  # torch's keys to finite float32 arrays in torch's layout
    notes: tuple[str, ...]  # what was recognised and done, one short line each
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def read(source: str | Path) -> Source:
    """Read the weights that torch, a training script around it, or safetensors wrote; no code in them is run.

    The state dict in a checkpoint is found under its usual names, half precision is widened,
    `num_batches_tracked` is dropped; prefixes stay, for `porting.locate`.

    Args:
      source: a .pth, .pt or .safetensors file, or torchvision's name of a ResNet's weights: their file is
        looked for in torch.hub's folder, and downloaded into it if absent.
    Returns: the arrays, and what is known of their origin.
    Raises: FileError if the file is missing, damaged, holds code or objects, no tensors, or tensors that are
      not finite, sparse, of another type, or larger than what is stored of them.
    """
    path, weights = Path(source), None
    try:
        if path.suffix.lower() not in SUFFIXES and re.fullmatch(r"\w+_Weights(\.\w*)?", str(source)):
            weights = _weights(str(source))
            path = _local(weights)
        if path.is_dir():
            raise ValueError("a folder")
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"suffix '{path.suffix}'")
        if path.stat().st_size == 0:  # so are pipes, which would be waited for, and devices
            raise ValueError("an empty file")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            if weights and not sha256.startswith(_hash_in_name(path)):
                raise ValueError(f"{path} has another SHA-256 ({sha256}) than its name says; delete it")
            load = _load_safetensors if path.suffix.lower() == ".safetensors" else _load_torch
            tensors, notes = _named_tensors(load(file, size))
        _check(tensors, size)
        arrays = {key: tensor.float().contiguous().numpy() for key, tensor in tensors.items()}
    except FileError:
        raise
    except Exception as error:  # a crafted file can make any line raise anything
        raise FileError(_line(f"{source}: {_reason(error)}; expected {_EXPECTED}")) from error
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    notes += [f"widened {count} tensors from {name}" for name, count in types.items() if name != "float32"]
    preset = weights.transforms() if weights else None
    mean, std = (tuple(preset.mean), tuple(preset.std)) if preset else (None, None)
    return Source(str(weights or path.name), sha256, arrays, tuple(notes), mean, std)


def write(tensors: Mapping[str, np.ndarray], path: Path) -> str:
    """Write arrays as a file for torch; a file already there is replaced in one step or left as it was.

    Args:
      tensors: torch's keys to arrays in torch's layout; their types are kept.
      path: ends in .pth or .pt for torch.load, in .safetensors for safetensors.
    Returns: the file's SHA-256, hexadecimal.
    Raises: FileError if the path has another suffix or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(_line(f"{path}: suffix '{path.suffix}'; expected {', '.join(SUFFIXES)}"))
    # Copies, because torch warns of arrays that it may not write to and safetensors refuses shared memory.
    content = OrderedDict((key, torch.from_numpy(np.array(x, order="C"))) for key, x in tensors.items())
    try:
        with whole_file(path, sync=True) as part, part.open("w+b") as file:
            if path.suffix.lower() == ".safetensors":
                file.write(safetensors.torch.save(content))
            else:
                torch.save(content, file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError) as error:  # torch makes the latter of the former
        reason = f"cannot be written ({_reason(error)}); expected a file in a folder that exists"
        raise FileError(_line(f"{path}: {reason} and may be written to")) from error
    return sha256


def _weights(name: str) -> "WeightsEnum":
    # Imported here, because files need no torchvision, and one that does not fit its torch fails to import.
    from torchvision import models

    families = [models.get_model_weights(name) for name, entry in ENCODERS.items() if entry.torch]
    known = {f"{family.__name__}.{key}": family[key] for family in families for key in family.__members__}
    if name not in known:
        names = ", ".join(map(str, dict.fromkeys(known.values())))
        raise ValueError(f"unknown weights; expected one of {names}")
    return known[name]


def _local(weights: "WeightsEnum") -> Path:
    """The weights' file in torch.hub's folder, downloaded if it is not there."""
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), _hash_in_name(path), sys.stderr.isatty())
        except Exception as error:  # networks, disks and servers fail in many ways
            failure = f"{weights}: the download failed ({_reason(error)})"
            raise FileError(_line(f"{failure}; fetch {weights.url} and put it at {path}")) from error
    return path


def _hash_in_name(path: Path) -> str:
    """The first digits of the SHA-256 that torchvision puts into a file's name."""
    return path.stem.rpartition("-")[2]


def _load_torch(file: BufferedReader, size: int) -> Any:
    """Whatever torch.load returns without running code; time and memory it does not limit."""
    if TorchVersion(torch.__version__) < OLDEST_TORCH:
        raise ValueError(f"torch {torch.__version__} cannot read it safely, {OLDEST_TORCH} and newer can")
    try:
        if file.read(4) == b"PK\3\4":  # else torch's format before 1.6
            with zipfile.ZipFile(file) as archive:  # torch checks neither sizes nor sums
                unpacked = sum(record.file_size for record in archive.infolist())
                if unpacked > size:
                    raise ValueError(f"{size} bytes unpack to {unpacked}")
                if record := archive.testzip():
                    raise ValueError(f"the checksum of {record} is wrong")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch doubts is checked after loading
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = error.__context__ or error  # torch wraps its reason in advice to load without weights_only
        if code := re.search(r"GLOBAL (\S{1,100})", str(reason)):
            raise ValueError(f"holds code or objects, not only tensors ({code[1]})") from error
        raise ValueError(f"damaged, or not written by torch.save ({reason!r:.120})") from error


def _load_safetensors(file: BufferedReader, size: int) -> dict[str, torch.Tensor]:
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_HEADER):
        raise ValueError(f"damaged, or no safetensors file (a header of {length} bytes in {size})")
    try:
        # Of two entries with one name the library keeps one and says nothing.
        json.loads(file.read(length), object_pairs_hook=_unique)
        file.seek(0)
        return safetensors.torch.load(file.read())
    except Exception as error:
        raise ValueError(f"damaged, or no safetensors file ({error!r:.120})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if repeated := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the header repeats {_listed(repeated)}")
    return dict(pairs)


def _named_tensors(content: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of a checkpoint by name, and notes on what was left out."""
    entries, notes = _state_dict(content)
    tensors = {key: value.detach() for key, value in entries.items() if isinstance(value, torch.Tensor)}
    if others := [key for key in entries if key not in tensors]:
        notes.append(_line(f"ignored what is no tensor: {_listed(others)}"))
    if strange := [key for key in tensors if not isinstance(key, str) or not key.isprintable()]:
        raise ValueError(f"keys that are not printable text: {_listed(strange)}")
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
    if not tensors:
        raise ValueError("no tensors with names, neither at the top nor in " + ", ".join(ENTRIES))
    return tensors, notes


def _state_dict(content: Any, depth: int = 0) -> tuple[dict[Any, Any], list[str]]:
    """The dictionary of tensors in a checkpoint, {} if there is none, and how it was found."""
    if not isinstance(content, dict) or depth > MAX_DEPTH:
        return {}, []
    for entry in ENTRIES:
        inner, notes = _state_dict(content.get(entry), depth + 1)
        if inner:
            return inner, [_line(f"took the entry '{entry}' of {_listed(content)}"), *notes]
    return (content if any(isinstance(value, torch.Tensor) for value in content.values()) else {}), []


def _check(tensors: dict[str, torch.Tensor], size: int) -> None:
    """Refuse what is not plain finite floats, before anything is copied."""
    _refuse(tensors, _misfit)
    announced = sum(tensor.nbytes for tensor in tensors.values())
    if announced > MAX_NAMES * size:
        raise ValueError(f"{len(tensors)} tensors of {announced} bytes in a file of {size}")
    _refuse(tensors, lambda tensor: "" if tensor.isfinite().all() else "NaN or infinite numbers")


def _refuse(tensors: dict[str, torch.Tensor], problem_of: Callable[[torch.Tensor], str]) -> None:
    problems = {key: problem for key, tensor in tensors.items() if (problem := problem_of(tensor))}
    if problems:
        first = next(iter(problems.values()))
        keys = [key for key, problem in problems.items() if problem == first]
        raise ValueError(f"{first} in {_listed(keys)} ({len(keys)} of {len(tensors)} tensors)")


def _misfit(tensor: torch.Tensor) -> str:
    if tensor.layout != torch.strided:
        return f"the sparse layout {tensor.layout}"
    if tensor.dtype not in FLOATS:
        return f"{tensor.dtype} numbers"
    if tensor.device.type != "cpu":
        return f"no numbers (device {tensor.device})"
    return "" if tensor.nbytes <= tensor.untyped_storage().nbytes() else "more numbers than are stored"


def _listed(names: Iterable[Any], shown: int = 5) -> str:
    """The first few, each cut to a readable length, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(str(name)[:80] for name in names[:shown]) + more


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _line(text: str) -> str:
    """Without line breaks and terminal codes, which a file's keys may carry."""
    return "".join(character if character.isprintable() else " " for character in text)
