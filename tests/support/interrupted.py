"""`python -m tests.support.interrupted IN OUT BAND`: predicts a file, and kills itself after a band."""

import os
import signal
import sys
from itertools import count

import numpy as np

from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.slides import predict_file
from flaxunet.prediction.tiling import Tiling


class Stub(Predictor):
    """Sums from the left, in place of a network: cheap, and other windows give other numbers."""

    @property
    def outputs(self):
        return 1

    def windows(self, x):
        return np.cumsum(x[..., :1], 2) / np.arange(1, x.shape[2] + 1, dtype=np.float32).reshape(1, 1, -1, 1)


def stub(window=64, intensity="dtype", channels=1):
    return Stub((), ("background", "cell"), channels, intensity, tiling=Tiling(window, 0.5, batch=1))


def random_pixels(*shape, dtype="u1", seed=0):
    """Integers below 200."""
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def kill_after(bands):
    counter = count(1)

    def progress(done, rows):
        if next(counter) == bands:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


if __name__ == "__main__":
    predict_file(stub(), sys.argv[1], probabilities=sys.argv[2], progress=kill_after(int(sys.argv[3])))
