"""The words of a command enter; the settings of a run leave."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from flaxunet.cli import parse as terminal
from train.config.settings import Augmentation, Config, Data, Devices, Network, Optimization, Run


@dataclass(frozen=True)
class _Groups:
    """The same settings as the help shows them: a frame for each group."""

    network: Network
    data: Data
    augmentation: Augmentation
    optimization: Optimization
    run: Run
    devices: Devices


def parse(arguments: Sequence[str], default: Config | None = None) -> Config:
    """What the words after `python -m train` make of the default settings.

    Raises: SystemExit as `flaxunet.cli.parse.parse`.
    """
    values = asdict(default or Config())
    kinds: dict[str, Any] = {field.name: field.type for field in fields(_Groups)}
    groups = terminal.parse(
        _Groups,
        prog="python -m train",
        arguments=arguments,
        description=Config.__doc__,
        default=_Groups(
            **{
                name: kind(**{one.name: values[one.name] for one in fields(kind)})
                for name, kind in kinds.items()
            }
        ),
    )
    return Config(**{name: value for group in asdict(groups).values() for name, value in group.items()})
