"""Writes files for torch.export.load: from images (B, C, H, W) of any size to probabilities (B, K, H, W)."""

import io
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.fx.experimental._config
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from flaxunet.export import graph
from flaxunet.export.check import Run
from flaxunet.models.operations import Operations
from flaxunet.ops.resize import Method
from flaxunet.prediction.predictor import Predictor
from porting.torch_unet3plus import suppress_absent

LAYOUT = "(B, C, H, W)"
ABOUT = "about.json"
AXES = {"H": 2, "W": 3}


def write(predictor: Predictor, about: Mapping[str, str]) -> bytes:
    """Makes the file of a predictor of one network; `about` goes into it as `ABOUT`, JSON."""
    image = torch.rand(2, predictor.channels, 75, 54)
    sides = {0: "batch", 2: "height", 3: "width"}
    # Otherwise torch's tracer takes a side of 1 for another case, and refuses images of a few pixels.
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # pyright: ignore[reportAttributeAccessIssue]
        shapes = ({axis: torch.export.Dim(name, min=1) for axis, name in sides.items()},)
        program = torch.export.export(Network(predictor), (image,), dynamic_shapes=shapes)
    for node in program.graph.nodes:  # paths of this machine
        node.meta.pop("stack_trace", None)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={ABOUT: json.dumps(dict(about))})
    return file.getvalue()


def read(content: bytes) -> Run:
    """Loads the content of a file: a function from images to probabilities, both channels last."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)

    return run


class Network(nn.Module):
    """The prediction of a predictor of one network: images (B, C, H, W) to probabilities (B, K, H, W)."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        (self._model,), self._intensity = predictor.models, predictor.intensity
        self._count = 0  # of arrays; each walk asks for them in the same order, and the first one keeps them
        with torch.inference_mode():
            self._walk(torch.zeros(1, predictor.channels, 8, 8), self._keep)

    def forward(self, image: Tensor) -> Tensor:
        """Predicts."""
        names = iter(range(self._count))
        return self._walk(image, lambda _: self.get_buffer(f"array_{next(names)}"))

    def _keep(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.array(array, np.float32, order="C"))
        self.register_buffer(f"array_{self._count}", tensor)
        self._count += 1
        return tensor

    def _walk(self, image: Tensor, tensor: Callable[[np.ndarray], Tensor]) -> Tensor:
        return graph.predict(self._model, image, _Maps(tensor), self._intensity)


class _Maps(Operations[Tensor]):
    """Operations on tensors (B, C, H, W); `tensor` makes one of an array of the network."""

    def __init__(self, tensor: Callable[[np.ndarray], Tensor]):
        self._tensor = tensor

    def intensity(self, image: Tensor, name: str) -> Tensor:
        """Statistics are those of image - minimum: then a small range on a large offset keeps its digits."""
        if name == "dtype":
            return image
        x = image - image.amin((2, 3), keepdim=True)
        top = x.amax((2, 3), keepdim=True)
        constant = top == 0
        if name == "zscore":
            moved = x - x.mean((2, 3), keepdim=True)
            deviation = (moved * moved).mean((2, 3), keepdim=True).sqrt()
            return torch.where(constant, 0.0, moved / torch.where(constant, 1.0, deviation))
        ordered = x.flatten(2).sort(-1).values
        last = ordered.shape[2] - 1
        near, share = last // 200, (last % 200) / 200
        far = torch.sym_min(near + 1, last)
        at = [ordered.index_select(2, torch.full((1,), i)) for i in (near, far, last - near, last - far)]
        low, high = ((a + (b - a) * share)[..., None] for a, b in (at[:2], at[2:]))
        same = low == high
        low, high = torch.where(same, 0.0, low), torch.where(same, top, high)
        span = high - low
        return ((x - low) / torch.where(span == 0, 1.0, span)).clamp(0, 1)

    def affine(self, x: Tensor, scale: np.ndarray, bias: np.ndarray) -> Tensor:
        a, b = (self._tensor(np.reshape(each, (1, -1, 1, 1))) for each in (scale, bias))
        return x * a + b

    def conv(
        self, x: Tensor, kernel: np.ndarray, bias: np.ndarray | None, stride: int = 1, groups: int = 1
    ) -> Tensor:
        side, _, cin, cout = kernel.shape
        # A map of one channel makes the tracer ask whether it has one pixel, and the file refuse it then.
        if cin == 1 and groups == 1:
            x, kernel = torch.cat([x, x], 1), np.concatenate([kernel, np.zeros_like(kernel)], 2)
        if cout == 1:
            kernel, bias = np.repeat(kernel, 2, -1), None if bias is None else np.repeat(bias, 2)
        weight = self._tensor(kernel.transpose(3, 2, 0, 1))
        added = None if bias is None else self._tensor(bias)
        out = F.conv2d(x, weight, added, stride, side // 2, groups=groups)
        return out[:, :1] if cout == 1 else out

    def group_norm(
        self, x: Tensor, groups: int, scale: np.ndarray, bias: np.ndarray, epsilon: float
    ) -> Tensor:
        return F.group_norm(x, groups, self._tensor(scale), self._tensor(bias), epsilon)

    def relu(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def concat(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(maps), 1)

    def stem_pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, padding=1)

    def pool(self, x: Tensor, ratio: int, like: Tensor | None = None) -> Tensor:
        height, width = x.shape[2:]
        windows = (height - 1) // ratio + 1, (width - 1) // ratio + 1
        down, across = windows if like is None else like.shape[2:]
        # Padded by hand, so that the tracer sees that there are as many windows as `like` has pixels.
        pads = (0, ratio * across - width, 0, ratio * down - height)
        return F.max_pool2d(F.pad(x, pads, value=-torch.inf), ratio)

    def resize(self, x: Tensor, like: Tensor, method: Method, axes: str = "HW") -> Tensor:
        size = [(like if name in axes else x).shape[AXES[name]] for name in "HW"]
        return F.interpolate(x, size=size, mode=method, align_corners=None if method == "nearest" else False)

    def shift_sum(self, x: Tensor, axis: str) -> Tensor:
        first, middle, last = x.chunk(3, 1)
        sides = () if axis == "W" else (0, 0)
        total = F.pad(first, (*sides, 2, 0)) + F.pad(middle, (*sides, 1, 1)) + F.pad(last, (*sides, 0, 2))
        return total.narrow(AXES[axis], 1, x.shape[AXES[axis]])

    def global_max(self, x: Tensor) -> Tensor:
        return x.amax((2, 3), keepdim=True)

    def suppress(self, logits: Tensor, presence: Tensor, classes: int) -> Tensor:
        return suppress_absent(logits, presence[:, :, 0, 0])

    def probabilities(self, logits: Tensor, classes: int) -> Tensor:
        return logits.sigmoid() if classes == 1 else logits.softmax(1)
