"""UNet, UNet++ and UNet 3+ on pretrained ResNet encoders, for biomedical image segmentation, in JAX/Flax."""

from flaxunet.factory import create
from flaxunet.fold import fold
from flaxunet.predictor import predict
from flaxunet.segmenter import Segmenter
from flaxunet.store import load, save

__all__ = ["Segmenter", "create", "fold", "load", "predict", "save"]
__version__ = "0.1.0"
