"""Runs the commands of `python -m porting` and prints their results."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import segmentation_models_pytorch as smp
from rich.console import Console

from flaxunet import export
from flaxunet.models.decoders import DECODERS
from flaxunet.models.spec import Spec
from flaxunet.report.console import number_table, pairs
from flaxunet.weights import store
from porting import convert, files, identify, peers
from porting import verify as proof
from porting.arguments import Deploy, ToFlax, TorchWeights, ToTorch, Verify
from porting.files import Source
from porting.locate import locate

SAME_KEYS = ("torchvision", "timm")
SIZES = [(64, 96), (75, 53)]  # heights and widths that are compared; smp takes multiples of 32 only


def to_flax(options: ToFlax) -> int:
    """Torch's weights to a folder."""
    if os.path.lexists(options.out):
        raise ValueError(f"{options.out} exists; expected a new folder")
    source = _read(options)
    found, dialect = _identified(source, options.dialect)
    for what, name in (("arch", options.arch), ("encoder", options.encoder)):
        if name not in (None, value := getattr(found, what)):
            looks = f"{source.name} looks like {found}"
            raise ValueError(f"{looks}; --{what} is {name}, expected --{what} {value}")
    spec = _with_options(found, source, options)
    model = store.abstract(spec)
    with _naming(source.name):
        convert.load(model, source.tensors, dialect)
    about = {"name": source.name, "sha256": source.sha256, "dialect": dialect, "torch": version("torch")}
    store.save(model, options.out, spec=spec, source=about)
    origin = "torchvision's" if source.mean else "ImageNet's; --mean, --std say others"
    _print(
        ("network", str(spec)),
        ("source", f"{source.name}, {len(source.tensors)} arrays, {dialect}'s layout"),
        *(("", note) for note in source.notes),
        ("dropped", ", ".join(convert.dropped(source.tensors, dialect))),
        ("images", f"{_images(spec)}: {'as given' if options.mean or options.std else origin}"),
        ("wrote", str(options.out)),
    )
    return 0


def to_torch(options: ToTorch) -> int:
    """A folder to a torch weight file."""
    stored = store.read(options.folder)
    spec = stored.spec
    export.check_out(options.out, *_arrays(options.folder))
    usual = next(iter(DECODERS[spec.arch].torch_keys)) if spec.segments else "torchvision"
    dialect = options.dialect or usual
    with _naming(options.folder):
        tensors = convert.export(store.restore(stored), dialect)
    files.write(tensors, options.out)
    _print(
        ("network", str(spec)),
        ("wrote", f"{options.out}, {len(tensors)} arrays, {dialect}'s layout"),
        ("in torch", _in_torch(spec, dialect)),
        ("images", _images(spec)),
    )
    return 0


def deploy(options: Deploy) -> int:
    """A folder to a file that torch alone runs."""
    from porting import deploy as form

    export.export(options.folder, options.out, form)
    return 0


def verify(options: Verify) -> int:
    """Compares a folder with a torch weight file, stage by stage."""
    out, tolerance = options.out or options.folder / "parity.json", options.tolerance
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"--tolerance is {tolerance}; expected numbers >= 0")
    stored = store.read(options.folder)
    spec = stored.spec
    export.check_out(out, *_arrays(options.folder), Path(options.source))
    source = _read(options)
    found, dialect = _identified(source, options.dialect)
    untold = {name: getattr(found, name) for name in ("upsample", "dropout", "mean", "std")}
    if dataclasses.replace(spec, **untold) != found:
        raise ValueError(f"{source.name} is {found}; {options.folder} is {spec}")
    with _naming(source.name):  # lists all that does not fit
        convert.load(store.abstract(spec), source.tensors, dialect)
    dropped = convert.dropped(source.tensors, dialect)
    tensors = {key: array for key, array in source.tensors.items() if key not in dropped}
    model, network = store.restore(stored), peers.fill(peers.build(spec, dialect), tensors)
    stages = []
    for image in proof.images(found.in_channels, SIZES[:1] if dialect == "smp" else SIZES):
        stages += proof.compare(proof.stages(model, image), peers.stages(network, image, dialect))
    _print_stages(stages, tolerance)
    about = {
        "folder": str(options.folder),
        "network": str(spec),
        "source": {"name": source.name, "sha256": source.sha256, "dialect": dialect},
        "sha256": stored.content["weights"]["sha256"],
        "versions": {name: version(name) for name in ("flaxunet", "jax", "flax", "torch")},
    }
    try:
        passed = proof.write(out, stages, tolerance, about)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror}") from None
    how = f"{spec.upsample} upsampling on both sides; " if dialect == "smp" else ""
    verdict = "the same" if passed else "DIFFERENT"
    print(f"{verdict}: {how}errors up to {tolerance:g} of the peak allowed; written to {out}")
    return 0 if passed else 1


COMMANDS = {ToFlax: to_flax, ToTorch: to_torch, Deploy: deploy, Verify: verify}


def _arrays(folder: Path) -> tuple[Path, Path]:
    return folder / store.CONFIG, folder / store.WEIGHTS


@contextlib.contextmanager
def _naming(name: object) -> Iterator[None]:
    """Begins the message of a ValueError with the name of a file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read(options: TorchWeights) -> Source:
    """The network in a weight file, out of whatever wraps it."""
    source = files.read(options.source)
    with _naming(source.name):
        tensors, notes = locate(source.tensors, options.prefix)
    return dataclasses.replace(source, tensors=tensors, notes=(*source.notes, *notes))


def _identified(source: Source, dialect: str | None) -> identify.Found:
    with _naming(source.name):
        found = identify.identify(source.tensors)
    if dialect in SAME_KEYS and found.dialect in SAME_KEYS:
        return identify.Found(found.spec, dialect)
    if dialect not in (None, found.dialect):
        raise ValueError(f"{source.name} is in {found.dialect}'s layout, not {dialect}'s")
    return found


def _with_options(spec: Spec, source: Source, options: ToFlax) -> Spec:
    if options.upsample and spec.arch not in ("unet", "unetplusplus"):
        raise ValueError(f"--upsample is for unet and unetplusplus; {source.name} is {spec}")
    for name in ("mean", "std"):
        values = getattr(options, name)
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"--{name} is {values}; expected numbers from 0 to 1, of images in [0, 1]")
    mean, std = options.mean or source.mean or (), options.std or source.std or ()
    try:
        return dataclasses.replace(spec, upsample=options.upsample or spec.upsample, mean=mean, std=std)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


def _images(spec: Spec) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    percentile = "in [0, 1] from their 0.5th to their 99.5th percentile"
    unit = {"dtype": "in [0, 1]", "percentile": percentile, "zscore": "as z-scores"}[spec.intensity]
    return f"{unit}, minus {mean}, over {std}"


def _in_torch(spec: Spec, dialect: str) -> str:
    numbers = f"in_channels={spec.in_channels}, classes={spec.classes}"
    if dialect == "smp":
        numbers += ', decoder_interpolation="bilinear"' if spec.upsample == "bilinear" else ""
        name = f"segmentation_models_pytorch.{DECODERS[spec.arch].smp}"
        call = f'{name}("{spec.encoder}", encoder_weights=None, {numbers})'
        known = spec.encoder in smp.encoders.encoders
        return call if known else f"{call}, after porting.peers.register_encoder(smp, {spec.encoder!r})"
    if dialect == "flaxunet":
        extras = [name for name in ("deep_supervision", "guidance") if getattr(spec, name)]
        options = "".join(f", {name}=True" for name in extras)
        return f'porting.torch_unet3plus.UNet3Plus("{spec.encoder}", {numbers}{options})'
    if dialect == "zju":
        return f"porting.torch_zju.ZJUNet({numbers}), or the authors' network"
    return f"torchvision.models.{spec.encoder}(), strict=False: there is no fc"


def _print(*rows: tuple[str, str]) -> None:
    """Prints names and values, where there is a value."""
    Console(highlight=False).print(pairs(row for row in rows if row[1]))


def _print_stages(stages: list[proof.Stage], tolerance: float) -> None:
    table = number_table("stage", "shape", "max abs error", "error / peak", gap=2)
    table.add_column("verdict")
    for stage in stages:
        shape = " x ".join(map(str, stage.shape))
        verdict = "same" if stage.within(tolerance) else "DIFFERENT"
        table.add_row(stage.name, shape, f"{stage.error:.1e}", f"{stage.relative:.1e}", verdict)
    Console(highlight=False).print(table)
