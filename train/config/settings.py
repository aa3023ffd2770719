"""Declares the settings of a run, in groups. Each field is a flag of `python -m train`, with its help.

The command line and stored settings know no groups: `Config.to_flat` and `Config.from_flat` convert.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from typing import Annotated, Any

from flaxunet import labels as targets
from flaxunet.cli.parse import Argument
from flaxunet.data import LAYOUTS
from flaxunet.io.planes import AXES
from flaxunet.losses import LOSSES
from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from flaxunet.models.layers import NORMS
from flaxunet.ops.resize import METHODS
from flaxunet.preprocessing import INTENSITIES, canonical
from train.augment.ranges import RANGES

CHOICES: dict[str, tuple[str, ...]] = {
    "arch": tuple(DECODERS),
    "encoder": tuple(ENCODERS),
    "target": targets.TARGETS,
    "axis": tuple(AXES),
    "fit": ("crop", "resize"),
    "intensity": INTENSITIES,
    "cache": ("auto", "memory", "disk", "none"),
    "upsample": METHODS,
    "norm": NORMS,
    "augment": tuple(RANGES),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "poly", "plateau", "constant"),
    "dtype": ("float32", "bfloat16"),
}


class ConfigError(ValueError):
    """A setting that cannot be used; its message is one line that names the value and what was expected."""


def _choice(name: str) -> Any:
    return Argument("|".join(CHOICES[name]))  # checked by `checks.check`, as those of config.json are


def _numbers(words: list[str]) -> tuple[float, ...] | str:
    with contextlib.suppress(ValueError):  # `checks.check` refuses words other than balanced
        return tuple(map(float, words))
    return " ".join(words)


CLASS_WEIGHTS = Argument("FLOAT|balanced", convert=_numbers)


@dataclass(frozen=True)
class Network:
    """the network, and the weights that it starts with"""

    arch: Annotated[str, _choice("arch")] = "unet3plus"
    """decoder"""
    encoder: Annotated[str, _choice("encoder")] = "resnet18"
    """encoder"""
    encoder_weights: Annotated[str | None, Argument("DIR|NAME")] = None
    """start with this encoder: a folder made by python -m porting to-flax, a finished run, or torchvision's
    name, such as ResNet34_Weights.IMAGENET1K_V1 (needs the porting extra once); random if left out"""
    weights: Annotated[str | None, Argument("DIR")] = None
    """start with this whole network; heads that do not fit, as for another number of classes, stay random"""
    upsample: Annotated[str, _choice("upsample")] = "nearest"
    """upsampling inside UNet and UNet++; UNet 3+ is bilinear"""
    norm: Annotated[str, _choice("norm")] = "batch"
    """normalisation; group does not depend on the batch size"""
    dropout: float = 0.0
    """dropout rate of the channels before each head"""
    deep_supervision: bool = False
    """a loss on every level of the decoder"""
    guidance: bool = False
    """also learn which classes an image contains, and remove absent ones from the prediction"""
    dtype: Annotated[str, _choice("dtype")] = "float32"
    """dtype of the computation; weights stay float32"""
    remat: bool = False
    """recompute feature maps for the gradients instead of keeping them: less memory, more time"""


@dataclass(frozen=True)
class Data:
    """the images and masks"""

    folder: Annotated[str | None, Argument("DIR", name="data")] = None
    """folder with images/ and masks/ whose files have the same stems, or with train/, val/ and test/ that
    contain these, or in any other layout of docs/reference/layouts.md; python -m flaxunet inspect DIR says
    how it is read"""
    layout: Annotated[str | None, Argument("|".join(LAYOUTS))] = None
    """layout of --data; detected if left out"""
    group: Annotated[str | None, Argument("COLUMN|REGEX")] = None
    """what must not be in two splits, such as a patient: a column of the CSV, or a regular expression whose
    first group matches it in the name of an image file"""
    axis: Annotated[str, _choice("axis")] = "axial"
    """axis along which volumes are cut into slices"""
    target: Annotated[str, _choice("target")] = "classes"
    """what the network learns: the classes of the masks; or, from instance ids, all above 0 as foreground,
    the boundary of each object (its outer 2 pixels), or 3class: background, inside and boundary"""
    classes: Annotated[int | None, Argument("K")] = None
    """number of classes: 1 is foreground against background, 2 or more include the background; those of the
    masks if left out"""
    ignore_label: Annotated[int | None, Argument("INT")] = None
    """mask value of pixels that losses and metrics ignore"""
    fold: Annotated[str | None, Argument("I/K")] = None
    """validate on part I of K of the data that is not for testing, and train on the other parts"""
    intensity: Annotated[str, _choice("intensity")] = "dtype"
    """normalisation of each image: dtype divides integers by their dtype's maximum; percentile maps each
    channel's 0.5th and 99.5th percentile to 0 and 1; zscore makes each channel's mean 0 and deviation 1"""
    size: int = 96
    """side of the training images, in pixels"""
    fit: Annotated[str, _choice("fit")] = "crop"
    """crop training images at full resolution, or resize every image so that its longer side is --size"""
    foreground: float = 0.0
    """probability that a crop is centred on a random pixel of a random foreground class of its image"""
    cache: Annotated[str, _choice("cache")] = "auto"
    """where decoded images are kept: in memory; on disk, packed, for this and later runs; or nowhere (none),
    so that files are read for every crop; auto is memory, or disk for data that needs more than half of it"""
    cache_dir: Annotated[str | None, Argument("DIR")] = None
    """folder of the images on disk; flaxunet/data in the user's cache if left out"""
    cache_limit: float = 20.0
    """size of that folder in GB; the least recently used data sets are removed first"""
    workers: int = 2
    """threads that prepare batches"""

    @property
    def fold_numbers(self) -> tuple[int, int]:
        """The numbers (I, K) of --fold I/K; (1, 1) without it."""
        number, _, count = (self.fold or "1/1").partition("/")
        return int(number), int(count)

    def __post_init__(self):
        object.__setattr__(self, "intensity", canonical(self.intensity))


@dataclass(frozen=True)
class Augmentation:
    """random changes of training images"""

    augment: Annotated[str, _choice("augment")] = "light"
    """strength of augmentation"""
    stain: float = 0.0
    """for colour images of histology: also change the absorption of each dye, by up to this fraction; 0.05 is
    little, 0.2 is much"""
    cutmix: float = 0.0
    """probability that a rectangle of another image of the batch is pasted into an image, with its labels"""
    mixup: float = 0.0
    """alpha of the Beta distribution by which each image is blended with another of its batch; 0: none"""


@dataclass(frozen=True)
class Optimization:
    """optimizer, loss and schedule"""

    steps: int = 80
    """optimizer steps; if a resumed run has another number, the learning rate follows the new schedule"""
    batch_size: int = 4
    """images per step, over all devices"""
    accumulate: int = 1
    """compute each batch in this many parts, one after the other: the same gradient in less memory; batch
    norm then uses the statistics of a part, so group norm suits it better"""
    loss: Annotated[str, Argument("|".join(LOSSES))] = "dice+ce"
    """one of these, or a sum of several, with optional weights: 0.5*dice+ce"""
    class_weights: Annotated[tuple[float, ...] | str | None, CLASS_WEIGHTS] = None
    """of ce, focal and unet3plus; one per class, background first, or balanced: n / (K n_c) for class c with
    n_c of the n training pixels of K classes, and 0 for a class that never occurs"""
    optimizer: Annotated[str, _choice("optimizer")] = "adamw"
    """sgd has Nesterov momentum 0.9"""
    learning_rate: float = 1e-3
    """peak learning rate, after the warm-up"""
    schedule: Annotated[str, _choice("schedule")] = "cosine"
    """learning rate after the warm-up: cosine and poly (power 0.9) fall to 0, constant stays, plateau halves
    it after 3 times --eval-every steps without a lower mean training loss"""
    warmup: float = 0.05
    """fraction of the steps over which the learning rate rises to its peak"""
    encoder_lr: float = 1.0
    """factor on the learning rate of the encoder"""
    freeze_encoder: bool | int = False
    """freeze the encoder's weights and batch statistics: always, or for the first INT steps, after which the
    training step is compiled once more"""
    weight_decay: float = 1e-4
    """weight decay, of convolution kernels only"""
    clip: float = 1.0
    """largest norm of the gradient, to which longer ones are clipped"""
    ema: float = 0.999
    """decay of the running average of weights and statistics that is evaluated and stored; 0: no average"""
    seed: int = 0
    """seed of initial weights, splits, order and augmentation"""

    @property
    def frozen_steps(self) -> int:
        """The number of first steps that freeze the encoder and are followed by others that do not."""
        return 0 if isinstance(self.freeze_encoder, bool) else self.freeze_encoder


@dataclass(frozen=True)
class Run:
    """output, evaluations and checkpoints"""

    out: Annotated[str, Argument("DIR")] = "runs"
    """folder of all runs"""
    name: Annotated[str | None, Argument("NAME")] = None
    """name of the run's folder; ARCH-ENCODER, numbered, if left out"""
    resume: Annotated[str | None, Argument("RUN")] = None
    """continue this run (a folder) with its settings; only --steps, --devices, --fsdp, --workers, --cache,
    --cache-dir, --cache-limit, --eval-every, --patience, --keep, --skip-nonfinite, --wandb may differ"""
    resume_step: Annotated[int | None, Argument("INT")] = None
    """continue from this kept step instead of the latest; later ones are moved to RUN/set-aside"""
    eval_every: int = 20
    """steps between evaluations, each of which saves a checkpoint"""
    patience: Annotated[int | None, Argument("INT")] = None
    """end training, and test, after so many evaluations without a better validation Dice"""
    keep: int = 2
    """number of latest checkpoints that are kept, in addition to the best one"""
    skip_nonfinite: int = 0
    """number of steps, in total, whose loss or gradient may be NaN or infinite; they are skipped"""
    wandb: Annotated[str | None, Argument("PROJECT")] = None
    """also log to this project of Weights & Biases (needs pip install wandb)"""
    dry_run: bool = False
    """show the network, the batches and their memory, draw the first batch to OUT/dry-run.png, and end"""


@dataclass(frozen=True)
class Devices:
    """devices and processes"""

    count: Annotated[int | None, Argument("INT", name="devices")] = None
    """number of devices; as many as divide the batch if left out"""
    fsdp: int = 1
    """devices over which parameters and optimizer state are split; the batch is split over all devices"""
    distributed: bool = False
    """join processes that SLURM, Open MPI, Kubernetes or a TPU pod started: see docs/how-to/clusters.md"""
    coordinator: Annotated[str | None, Argument("HOST:PORT")] = None
    """join processes started by hand: where process 0 is, and a free port there"""
    num_processes: Annotated[int | None, Argument("INT")] = None
    """processes that train together; with --distributed, another number is refused"""
    process_id: Annotated[int | None, Argument("INT")] = None
    """which of them this one is, from 0; with --coordinator"""
    peer_timeout: int = 30
    """seconds without a sign of life after which another process counts as dead, and the run ends"""


@dataclass(frozen=True)
class Config:
    """Train UNet, UNet++ or UNet 3+ for segmentation.

    Without --data it trains on brain tissue of the ICBM 152 average MRI, which comes with the installation.

    Exit codes: 0 done, or stopped by SIGTERM or Ctrl-C with the last step saved; 1 training or a save
    failed; 2 something given cannot be used, and nothing was changed; 130 interrupted by a second Ctrl-C.
    """

    network: Network = Network()
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    optimization: Optimization = Optimization()
    run: Run = Run()
    devices: Devices = Devices()

    @classmethod
    def from_flat(cls, **values: Any) -> "Config":
        """Builds a config from settings by the names of their flags; the others have their defaults.

        Raises: TypeError for a name that is no setting.
        """
        groups = {}
        for group in fields(cls):
            kind: Any = group.type
            own = {one.name: values.pop(name) for name, one in _flags(kind) if name in values}
            groups[group.name] = kind(**own)
        if values:
            raise TypeError(f"unknown settings: {', '.join(values)}")
        return cls(**groups)

    def to_flat(self) -> dict[str, Any]:
        """Returns every setting by the name of its flag."""
        groups = [getattr(self, group.name) for group in fields(self)]
        return {name: getattr(group, one.name) for group in groups for name, one in _flags(type(group))}

    def replace(self, **values: Any) -> "Config":
        """Returns a config in which some settings, by the names of their flags, have other values."""
        return Config.from_flat(**{**self.to_flat(), **values})


def _flags(group: Any) -> Iterator[tuple[str, Field[Any]]]:
    """The fields of a group with the names of their flags."""
    for one in fields(group):
        names = (extra.name for extra in getattr(one.type, "__metadata__", ()))
        yield next(filter(None, names), one.name), one


ASKED_ONCE = (  # what a run does not remember
    *("resume", "resume_step", "dry_run"),
    *("distributed", "coordinator", "num_processes", "process_id", "peer_timeout"),
)
