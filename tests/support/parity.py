"""Torch networks, ours with their numbers, and the comparison of both."""

import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
smp = pytest.importorskip("segmentation_models_pytorch")

import flaxunet  # noqa: E402
from flaxunet.models.encoders import ENCODERS  # noqa: E402
from porting import convert  # noqa: E402
from porting.peers import randomize, register_encoder  # noqa: E402
from porting.torch_unet3plus import UNet3Plus  # noqa: E402

# float32 rounding through up to 160 layers, relative to the largest value of the tensor.
TOLERANCE = 1e-5
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def rarely(*case):
    return pytest.param(*case, marks=pytest.mark.long)


def image(height, width, channels=3, batch=1, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, height, width, channels)).astype(np.float32)


def to_torch(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def to_numpy(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def numbers(module):
    return {key: value.numpy() for key, value in module.state_dict().items()}


def assert_close(ours, theirs, tolerance=TOLERANCE, peak=None):
    ours, theirs = np.asarray(ours), to_numpy(theirs)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / (np.abs(theirs).max() if peak is None else peak)
    assert error <= tolerance, f"error {error:.1e} of the peak"


def assert_all_close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


def abstract(build):
    """A model without numbers: filling it costs no random initialisation."""
    return nnx.eval_shape(build)


def encoder(name):
    return lambda: ENCODERS[name].build(3, norm="batch", dtype=None, rngs=nnx.Rngs(0))


def filled(build, reference, dialect):
    model = convert.load(abstract(build), numbers(reference), dialect)
    model.eval()
    return model


def create(arch, encoder, **options):
    return lambda: flaxunet.create(arch, encoder=encoder, rngs=nnx.Rngs(0), **options)


def reference(arch, name, classes=1, in_channels=3, **options):
    torch.manual_seed(0)
    if arch == "unet3plus":
        return randomize(UNet3Plus(name, in_channels, classes, **options)), "flaxunet"
    build = {"unet": smp.Unet, "unetplusplus": smp.UnetPlusPlus}[arch]
    register_encoder(smp, name)
    model = build(name, encoder_weights=None, in_channels=in_channels, classes=classes, **options)
    return randomize(model), "smp"


def load_strictly(module, state):
    module.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=True)
