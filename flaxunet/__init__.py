"""UNet, UNet++ and UNet 3+ on pretrained ResNet encoders, for biomedical image segmentation, in JAX/Flax."""

from flaxunet.models.fold import fold
from flaxunet.models.segmenter import Segmenter
from flaxunet.prediction.predictor import predict
from flaxunet.weights.create import create
from flaxunet.weights.store import load, save

__all__ = ["Segmenter", "create", "fold", "load", "predict", "save"]
__version__ = "0.1.0"
