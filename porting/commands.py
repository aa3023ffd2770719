"""Runs the commands of `python -m porting` and prints their results."""

import dataclasses
import math
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flaxunet import export
from flaxunet.models.decoders import DECODERS
from flaxunet.models.spec import Spec
from flaxunet.prediction.predictor import Predictor
from flaxunet.report.console import pairs
from flaxunet.weights import store
from porting import convert, files, identify, peers
from porting import verify as proof
from porting.arguments import Deploy, ToFlax, TorchWeights, ToTorch, Verify
from porting.files import Source
from porting.locate import locate

SAME_KEYS = ("torchvision", "timm")
SIZES = {"smp": [(64, 96)]}
"""Heights and widths that are compared; smp takes multiples of 32 only, the others anything."""
ANY_SIZE = [(64, 96), (75, 53)]


class CommandError(ValueError):
    """Arguments that do not go together, or with the files; its message is one line."""


def to_flax(options: ToFlax) -> int:
    """Torch's weights to a folder."""
    if os.path.lexists(options.out):
        raise CommandError(f"{options.out} exists; expected a new folder")
    source = _read(options)
    spec, dialect = _identified(source, options.dialect)
    _check_asked(source, spec, arch=options.arch, encoder=options.encoder)
    spec = _with_options(spec, source, options)
    model = store.abstract(spec)
    _fill(source, model, dialect)
    about = {"name": source.name, "sha256": source.sha256, "dialect": dialect, "torch": version("torch")}
    store.save(model, options.out, spec=spec, source=about)
    dropped = convert.dropped(source.tensors, dialect)
    rows = (
        ("network", str(spec)),
        ("source", f"{source.name}, {len(source.tensors)} arrays, {dialect}'s layout"),
        *(("", note) for note in source.notes),
        *((("dropped", ", ".join(dropped)),) if dropped else ()),
        ("images", _normalisation(spec, source, options)),
        ("wrote", str(options.out)),
    )
    Console(highlight=False).print(pairs(rows))
    return 0


def to_torch(options: ToTorch) -> int:
    """A folder to a torch weight file."""
    stored = store.read(options.folder)
    spec = stored.spec
    export.check_out(options.out, *_arrays(options.folder))
    dialect = options.dialect or (
        next(iter(DECODERS[spec.arch].torch_keys)) if spec.segments else "torchvision"
    )
    model = store.restore(stored)
    try:
        tensors = convert.export(model, dialect)
    except ValueError as error:
        raise CommandError(f"{options.folder}: {error}") from None
    files.write(tensors, options.out)
    rows = (
        ("network", str(stored.spec)),
        ("wrote", f"{options.out}, {len(tensors)} arrays, {dialect}'s layout"),
        ("in torch", _in_torch(spec, dialect)),
        ("images", _images(spec)),
    )
    Console(highlight=False).print(pairs(rows))
    return 0


def deploy(options: Deploy) -> int:
    """A folder to a file that torch alone runs."""
    from porting import deploy as form

    export.check_out(options.out, options.folder)
    loaded = Predictor.load([options.folder])
    console = Console(highlight=False)
    with console.status(f"writing {escape(options.out.name)} and comparing it with the network"):
        difference = export.save(loaded, options.out, form)
    export.report(console, loaded, options.out, difference, form.LAYOUT)
    return 0


def verify(options: Verify) -> int:
    """Compares a folder with a torch weight file, stage by stage."""
    out = options.out or options.folder / "parity.json"
    tolerance = options.tolerance
    if not 0 <= tolerance < math.inf:
        raise CommandError(f"--tolerance is {tolerance}; expected numbers >= 0")
    stored = store.read(options.folder)
    export.check_out(out, *_arrays(options.folder), Path(options.source))
    source = _read(options)
    found, dialect = _identified(source, options.dialect)
    told = dataclasses.replace(  # what no weight file tells
        stored.spec, upsample=found.upsample, dropout=found.dropout, mean=found.mean, std=found.std
    )
    if told != found:
        raise CommandError(f"{source.name} is {found}; {options.folder} is {stored.spec}")
    dropped = convert.dropped(source.tensors, dialect)
    tensors = {key: array for key, array in source.tensors.items() if key not in dropped}
    model = store.restore(stored)
    _fill(source, store.abstract(stored.spec), dialect)  # lists all that does not fit
    network = peers.fill(peers.build(stored.spec, dialect), tensors)
    stages = []
    for image in proof.images(found.in_channels, SIZES.get(dialect, ANY_SIZE)):
        stages += proof.compare(proof.stages(model, image), peers.stages(network, image, dialect))
    _print_stages(stages, tolerance)
    about = {
        "folder": str(options.folder),
        "network": str(stored.spec),
        "source": {"name": source.name, "sha256": source.sha256, "dialect": dialect},
        "sha256": stored.content["weights"]["sha256"],
        "versions": {name: version(name) for name in ("flaxunet", "jax", "flax", "torch")},
    }
    try:
        proof.write(out, stages, tolerance, about)
    except OSError as error:
        raise CommandError(f"{out} cannot be written: {error.strerror}") from None
    passed = all(stage.within(tolerance) for stage in stages)
    verdict = "the same" if passed else "DIFFERENT"
    how = f"{stored.spec.upsample} upsampling on both sides; " if dialect == "smp" else ""
    print(f"{verdict}: {how}errors up to {tolerance:g} of the peak allowed; written to {out}")
    return 0 if passed else 1


COMMANDS: dict[type, Callable[[Any], int]] = {
    ToFlax: to_flax,
    ToTorch: to_torch,
    Deploy: deploy,
    Verify: verify,
}


def run(options: ToFlax | ToTorch | Deploy | Verify) -> int:
    """Runs a command; returns its exit code."""
    return COMMANDS[type(options)](options)


def _arrays(folder: Path) -> tuple[Path, Path]:
    return folder / store.CONFIG, folder / store.WEIGHTS


def _read(options: TorchWeights) -> Source:
    """The network in a weight file, out of whatever wraps it."""
    source = files.read(options.source)
    try:
        tensors, notes = locate(source.tensors, options.prefix)
    except ValueError as error:
        raise CommandError(f"{source.name}: {error}") from None
    return dataclasses.replace(source, tensors=tensors, notes=(*source.notes, *notes))


def _fill(source: Source, model: Any, dialect: str) -> None:
    try:
        convert.load(model, source.tensors, dialect)
    except ValueError as error:
        raise CommandError(f"{source.name}: {error}") from None


def _identified(source: Source, dialect: str | None) -> identify.Found:
    try:
        found = identify.identify(source.tensors)
    except ValueError as error:
        raise CommandError(f"{source.name}: {error}") from None
    if dialect in SAME_KEYS and found.dialect in SAME_KEYS:
        return identify.Found(found.spec, dialect)
    if dialect not in (None, found.dialect):
        raise CommandError(f"{source.name} is in {found.dialect}'s layout, not {dialect}'s")
    return found


def _check_asked(source: Source, spec: Spec, **asked: str | None) -> None:
    for what, name in asked.items():
        if name not in (None, getattr(spec, what)):
            raise CommandError(
                f"{source.name} looks like {spec}; --{what} is {name}, "
                f"expected --{what} {getattr(spec, what)}"
            )


def _with_options(spec: Spec, source: Source, options: ToFlax) -> Spec:
    if options.upsample and spec.arch not in ("unet", "unetplusplus"):
        raise CommandError(f"--upsample is for unet and unetplusplus; {source.name} is {spec}")
    for name in ("mean", "std"):
        values = getattr(options, name) or ()
        if not all(0 <= value <= 1 for value in values):
            raise CommandError(f"--{name} is {values}; expected numbers from 0 to 1, of images in [0, 1]")
    given = {name: tuple(getattr(options, name) or getattr(source, name) or ()) for name in ("mean", "std")}
    try:
        return dataclasses.replace(spec, upsample=options.upsample or spec.upsample, **given)
    except ValueError as error:
        raise CommandError(f"--{error}") from None


def _images(spec: Spec) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    unit = {
        "dtype": "in [0, 1]",
        "percentile": "in [0, 1] from their 0.5th to their 99.5th percentile",
        "zscore": "as z-scores",
    }[spec.intensity]
    return f"{unit}, minus {mean}, over {std}"


def _normalisation(spec: Spec, source: Source, options: ToFlax) -> str:
    if options.mean or options.std:
        return f"{_images(spec)}: as given"
    return f"{_images(spec)}: " + ("torchvision's" if source.mean else "ImageNet's; --mean, --std say others")


def _in_torch(spec: Spec, dialect: str) -> str:
    numbers = f"in_channels={spec.in_channels}, classes={spec.classes}"
    if dialect == "smp":
        name = DECODERS[spec.arch].smp
        bilinear = ', decoder_interpolation="bilinear"' if spec.upsample == "bilinear" else ""
        call = (
            f'segmentation_models_pytorch.{name}("{spec.encoder}", encoder_weights=None, {numbers}{bilinear})'
        )
        known = spec.encoder in smp.encoders.encoders
        return call if known else f"{call}, after porting.peers.register_encoder(smp, {spec.encoder!r})"
    if dialect == "flaxunet":
        options = "".join(
            f", {name}=True" for name in ("deep_supervision", "guidance") if getattr(spec, name)
        )
        return f'porting.torch_unet3plus.UNet3Plus("{spec.encoder}", {numbers}{options})'
    if dialect == "zju":
        return f"porting.torch_zju.ZJUNet({numbers}), or the authors' network"
    return f"torchvision.models.{spec.encoder}(), strict=False: there is no fc"


def _print_stages(stages: list[proof.Stage], tolerance: float) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage")
    for column in ("shape", "max abs error", "error / peak"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for stage in stages:
        shape = " x ".join(map(str, stage.shape))
        verdict = "same" if stage.within(tolerance) else "DIFFERENT"
        table.add_row(stage.name, shape, f"{stage.error:.1e}", f"{stage.relative:.1e}", verdict)
    Console(highlight=False).print(table)
