"""UNet, UNet++ and UNet 3+ on pretrained ResNet encoders, for biomedical image segmentation, in JAX/Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flaxunet.io.images import read_image as read_image
    from flaxunet.io.images import write_mask as write_mask
    from flaxunet.models.fold import fold as fold
    from flaxunet.models.segmenter import Segmenter as Segmenter
    from flaxunet.prediction.predictor import Predictor as Predictor
    from flaxunet.prediction.predictor import predict as predict
    from flaxunet.prediction.tiling import Tiling as Tiling
    from flaxunet.weights.create import create as create
    from flaxunet.weights.store import load as load
    from flaxunet.weights.store import save as save

__version__ = "0.1.0"

# Imported when first asked for (PEP 562): reading an image with flaxunet.io loads neither flax nor optax.
_HOMES = {
    "Predictor": "flaxunet.prediction.predictor",
    "Segmenter": "flaxunet.models.segmenter",
    "Tiling": "flaxunet.prediction.tiling",
    "create": "flaxunet.weights.create",
    "fold": "flaxunet.models.fold",
    "load": "flaxunet.weights.store",
    "predict": "flaxunet.prediction.predictor",
    "read_image": "flaxunet.io.images",
    "save": "flaxunet.weights.store",
    "write_mask": "flaxunet.io.images",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """The public names, from the modules that define them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'flaxunet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
