"""Runs `python -m train` with SGD and a network of two levels: `python -m tests.support.peer`.

SGD, because AdamW's first steps divide a gradient by its own size, rounding and all: see
docs/explanation/decisions/training.md.
"""

import sys

import optax

from flaxunet.models import segmenter
from flaxunet.models.encoders.plain import PlainEncoder
from train import setup
from train.__main__ import main

if __name__ == "__main__":
    segmenter.build_encoder = lambda spec, **options: PlainEncoder(spec.in_channels, (16, 32), **options)
    setup.make_optimizer = lambda *_: optax.sgd(1e-2)
    sys.exit(main())
