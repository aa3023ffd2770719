"""Writes ONNX: from images (B, C, H, W) of any size to probabilities (B, K, H, W)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from flaxunet.export import graph
from flaxunet.export.check import Run
from flaxunet.models.guidance import SUPPRESSED
from flaxunet.models.operations import Bias, Operations
from flaxunet.ops.resize import Method
from flaxunet.prediction.predictor import Predictor

OPSET, IR = 18, 8  # of 2022: later runtimes read it, and it has all that is needed
INPUT, OUTPUT = "image", "probabilities"
LAYOUT = "(B, C, H, W)"
AXES = {"H": 2, "W": 3}
RESIZE: dict[Method, dict[str, str]] = {
    "nearest": {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
}


def write(predictor: Predictor, about: Mapping[str, str]) -> bytes:
    """The file of a predictor of one network; `about` goes into its metadata."""
    (model,) = predictor.models
    result = graph.predict(model, INPUT, ops := _Nodes(), predictor.intensity)
    return finish(ops, result, predictor.channels, model.heads[0].kernel.shape[-1], about)


def finish(ops: "_Nodes", result: str, channels: int, classes: int, about: Mapping[str, str]) -> bytes:
    """The file of all operations that led from `INPUT`, of some channels, to a result of some classes."""
    ops.add_node("Identity", [result], OUTPUT)
    sides = ["batch", None, "height", "width"]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [side or count for side in sides])
        for name, count in ((INPUT, channels), (OUTPUT, classes))
    ]
    body = helper.make_graph(ops.nodes, "flaxunet", infos[:1], infos[1:], ops.constants)
    producer = {"producer_name": "flaxunet", "producer_version": about["version"]}
    opsets = [helper.make_opsetid("", OPSET)]
    written: ModelProto = helper.make_model(body, opset_imports=opsets, ir_version=IR, **producer)
    helper.set_model_props(written, dict(about))
    checker.check_model(written)
    return written.SerializeToString()


def read(content: bytes) -> Run:
    """What the content of a file computes, by ONNX Runtime on a CPU."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        results = session.run([OUTPUT], {INPUT: np.ascontiguousarray(images.transpose(0, 3, 1, 2))})
        return np.asarray(results[0]).transpose(0, 2, 3, 1)

    return run


class _Nodes(Operations[str]):
    """Operations that write themselves down; what passes between them are names of tensors."""

    def __init__(self):
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._known: dict[tuple[Any, ...], str] = {}

    def add_node(self, kind: str, inputs: Sequence[str], name: str | None = None, **attributes: Any) -> str:
        """Writes one node down; returns the name of its (first) result."""
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _constant(self, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values, f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def _small(self, *numbers: float, like: type = np.int64) -> str:
        """A constant vector, each written once."""
        return self._once((like, *numbers), lambda: self._constant(np.array(numbers, like)))

    def _once(self, key: tuple[Any, ...], write: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = write()
        return self._known[key]

    def _number(self, value: float) -> str:
        return self._small(value, like=np.float32)

    def _scalar(self, value: float) -> str:
        return self._constant(np.array(value, np.float32))

    def _side(self, x: str, start: int, end: int) -> str:
        """Sizes of some axes of x, each asked for once."""
        return self._once(("side", x, start, end), lambda: self.add_node("Shape", [x], start=start, end=end))

    def _reduce(self, kind: str, x: str, *axes: int) -> str:
        return self.add_node(f"Reduce{kind}", [x, self._small(*axes)], keepdims=1)

    def _mean(self, x: str) -> str:
        """Of each channel; rows first, because one sum of all pixels would lose digits in float32."""
        return self._reduce("Mean", self._reduce("Mean", x, 3), 2)

    def intensity(self, image: str, name: str) -> str:
        """Statistics are those of image - minimum: then a small range on a large offset keeps its digits."""
        if name == "dtype":
            return image
        x = self.add_node("Sub", [image, self._reduce("Min", image, 2, 3)])
        zero, one, top = self._number(0), self._number(1), self._reduce("Max", x, 2, 3)
        if name == "zscore":
            moved = self.add_node("Sub", [x, self._mean(x)])
            deviation = self.add_node("Sqrt", [self._mean(self.add_node("Mul", [moved, moved]))])
            constant = self.add_node("Equal", [top, zero])
            scaled = self.add_node("Div", [moved, self.add_node("Where", [constant, one, deviation])])
            return self.add_node("Where", [constant, zero, scaled])
        low, high = self._percentile(x, 0), self._percentile(x, 1)
        same = self.add_node("Equal", [low, high])
        low = self.add_node("Where", [same, zero, low])
        span = self.add_node("Sub", [self.add_node("Where", [same, top, high]), low])
        span = self.add_node("Where", [self.add_node("Equal", [span, zero]), one, span])
        scaled = self.add_node("Div", [self.add_node("Sub", [x, low]), span])
        return self.add_node("Clip", [scaled, self._scalar(0), self._scalar(1)])

    def _percentile(self, x: str, largest: int) -> str:
        """The 0.5th percentile of each channel (B, C, 1, 1), or, from the other end, the 99.5th."""
        flat = self.add_node("Reshape", [x, self._small(0, 0, -1)])
        one, parts = self._small(1), self._small(200)
        last = self.add_node("Sub", [self._side(flat, 2, 3), one])
        near = self.add_node("Div", [last, parts])
        rest = self.add_node("Sub", [last, self.add_node("Mul", [near, parts])])
        far = self.add_node("Min", [self.add_node("Add", [near, one]), last])
        ends, count = f"ends_{len(self.nodes)}", self.add_node("Add", [far, one])
        self.nodes.append(helper.make_node("TopK", [flat, count], [ends, f"{ends}_at"], largest=largest))
        a, b = (self.add_node("Gather", [ends, position], axis=2) for position in (near, far))
        share = self.add_node("Div", [self.add_node("Cast", [rest], to=TensorProto.FLOAT), self._number(200)])
        step = self.add_node("Mul", [self.add_node("Sub", [b, a]), share])
        return self.add_node("Unsqueeze", [self.add_node("Add", [a, step]), self._small(3)])

    def affine(self, x: str, scale: np.ndarray, bias: np.ndarray) -> str:
        scale, bias = (np.asarray(each, np.float32).reshape(-1, 1, 1) for each in (scale, bias))
        if (scale != 1).any():
            x = self.add_node("Mul", [x, self._constant(scale)])
        return self.add_node("Add", [x, self._constant(bias)]) if bias.any() else x

    def conv(self, x: str, kernel: np.ndarray, bias: Bias, stride: int = 1, groups: int = 1) -> str:
        side = kernel.shape[0]
        arrays = [kernel.transpose(3, 2, 0, 1), *([] if bias is None else [bias])]
        inputs = [x, *(self._constant(np.ascontiguousarray(array)) for array in arrays)]
        window = {"kernel_shape": [side, side], "strides": [stride, stride], "pads": [side // 2] * 4}
        return self.add_node("Conv", inputs, group=groups, **window)

    def group_norm(self, x: str, groups: int, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> str:
        joined = self.add_node("Reshape", [x, self._small(0, groups, -1)])
        ones, zeros = (self._constant(np.full(groups, value, np.float32)) for value in (1, 0))
        even = self.add_node("InstanceNormalization", [joined, ones, zeros], epsilon=epsilon)
        return self.affine(self.add_node("Reshape", [even, self._side(x, 0, 4)]), scale, bias)

    def relu(self, x: str) -> str:
        return self.add_node("Relu", [x])

    def add(self, a: str, b: str) -> str:
        return self.add_node("Add", [a, b])

    def concat(self, maps: Sequence[str]) -> str:
        return self.add_node("Concat", maps, axis=1)

    def stem_pool(self, x: str) -> str:
        return self.add_node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def pool(self, x: str, ratio: int, like: str | None = None) -> str:
        return self.add_node("MaxPool", [x], kernel_shape=[ratio, ratio], strides=[ratio, ratio], ceil_mode=1)

    def resize(self, x: str, like: str, method: Method, axes: str = "HW") -> str:
        parts = [self._side(like if name in axes else x, AXES[name], AXES[name] + 1) for name in "HW"]
        sizes = self.add_node("Concat", [self._side(x, 0, 2), *parts], axis=0)
        return self.add_node("Resize", [x, "", "", sizes], **RESIZE[method])

    def shift_sum(self, x: str, axis: str) -> str:
        names = [f"part_{len(self.nodes)}_{part}" for part in range(3)]
        self.nodes.append(helper.make_node("Split", [x], names, axis=1, num_outputs=3))
        moved = []
        for name, before in zip(names, (2, 1, 0), strict=True):
            pads = [0] * 8
            pads[AXES[axis]], pads[AXES[axis] + 4] = before, 2 - before
            moved.append(self.add_node("Pad", [name, self._small(*pads)]))
        total = self.add(self.add(moved[0], moved[1]), moved[2])
        return self.add_node("Slice", [total, self._small(1), self._small(-1), self._small(AXES[axis])])

    def global_max(self, x: str) -> str:
        return self._reduce("Max", x, 2, 3)

    def suppress(self, logits: str, presence: str, classes: int) -> str:
        absent = self.add_node("Less", [presence, self._number(0)])
        if classes == 1:
            low = self.add_node("Min", [logits, self._number(-SUPPRESSED)])
            return self.add_node("Where", [absent, low, logits])
        lowest = self.add_node("ReduceMin", [logits, self._small(1)], keepdims=1)
        low = self.add_node("Sub", [lowest, self._number(SUPPRESSED)])
        one = self._small(1)
        background = self.add_node("Slice", [logits, self._small(0), one, one])
        foreground = self.add_node("Slice", [logits, one, self._small(2**31), one])
        return self.concat([background, self.add_node("Where", [absent, low, foreground])])

    def probabilities(self, logits: str, classes: int) -> str:
        if classes == 1:
            return self.add_node("Sigmoid", [logits])
        return self.add_node("Softmax", [logits], axis=1)
