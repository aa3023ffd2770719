"""A predictor that a test can follow, facts about it, and an image."""

import numpy as np
from PIL import Image

from flaxunet.app.session import Style
from flaxunet.hub.facts import Facts
from flaxunet.labels import PALETTE
from flaxunet.models.spec import Spec
from flaxunet.prediction.predictor import Predictor

CLASSES = ("background", "cell", "<b>vessel</b>")


STYLE = Style(PALETTE[:2], (True, True), 0.5, 0.5)


class Thirds:
    """A predictor whose three classes are the thirds of [0, 1], or whose one probability is the pixel."""

    intensity, axis, colors = "dtype", None, PALETTE
    labels = staticmethod(Predictor.labels)

    def __init__(self, outputs=3):
        self.outputs = outputs

    def __call__(self, image):
        if image.shape[-1] != 1:
            raise ValueError(f"{image.shape[-1]} channels; expected 1")
        return image if self.outputs == 1 else np.eye(3, dtype=np.float32)[(image[..., 0] * 2.99).astype(int)]


def facts(classes=CLASSES, scores=None, data=None):
    spec = Spec("unet3plus", "resnet34", in_channels=1, classes=1 if len(classes) == 2 else len(classes))
    source = {"data": data, "images": {"train": 1_200}} if data else {}
    return Facts(
        "run <i>", spec, classes, 5, "0" * 64, versions={}, source=source, scores=scores, picture=None
    )


def write_gray(path, height=4, width=9):
    pixels = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels
