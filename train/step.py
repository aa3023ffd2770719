"""The training and the evaluation step, pure: a state and a batch in, a state and metrics out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from flaxunet import losses, metrics
from flaxunet.segmenter import Outputs, Segmenter
from train.augment import augment

State = dict[str, Any]
"""params (trainable), rest (statistics, random streams, frozen parameters), optimizer, step: trees of arrays.

With an average of the weights, also "ema": params and rest once more, averaged over the steps.
Plain dicts on purpose: they cross the boundary of jit in C++, modules in Python.
"""
Batch = dict[str, Array]
"""image (B, H, W, C) float32 in [0, 1], label (B, H, W) int32, index (B,) int32 (-1: filler)."""


def make_optimizer(
    learning_rate: float, weight_decay: float, clip: float, steps: int
) -> optax.GradientTransformation:
    """AdamW with warm-up over 5 % of the steps, cosine decay to 0, and clipping by global norm.

    Only kernels decay: shrinking a norm's scale or a bias regularises nothing.
    """
    warmup = max(steps // 20, 1)
    schedule = optax.warmup_cosine_decay_schedule(
        learning_rate / warmup, learning_rate, warmup, max(steps, warmup + 1)
    )
    kernels = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(clip), optax.adamw(schedule, weight_decay=weight_decay, mask=kernels)
    )


@dataclass(frozen=True)
class Program:
    """All that the steps close over; none of it changes during a run.

    Attributes:
      build: makes the segmenter, with random weights.
      optimizer: of the trainable parameters.
      loss: (logits, labels) to a scalar.
      strength: of the augmentation.
      seed: of the augmentation.
      ema: decay of the running average of weights and statistics that is evaluated; 0: none.
    """

    build: Callable[[], Segmenter]
    optimizer: optax.GradientTransformation
    loss: Callable[[Array, Array], Array]
    strength: str
    seed: int
    ema: float = 0.0

    def init(self) -> State:
        """The state before the first step, with random weights."""
        return self.begin(*self._split(self.build())[1:])

    def begin(self, params: Any, rest: Any) -> State:
        """The state before the first step, with these weights."""
        state = {
            "params": params,
            "rest": rest,
            "optimizer": self.optimizer.init(params),
            "step": jnp.zeros((), jnp.int32),
        }
        if self.ema:  # a copy, because a step donates both
            state["ema"] = jax.tree.map(jnp.copy, {"params": params, "rest": rest})
        return state

    def graph(self, *, training: bool) -> nnx.GraphDef[Segmenter]:
        """The segmenter without its arrays."""
        model = nnx.eval_shape(self.build)
        model.train() if training else model.eval()
        return self._split(model)[0]

    def model(self, state: State) -> Segmenter:
        """The segmenter with the state's arrays, averaged ones if there are any, in evaluation mode."""
        return self._merge(self.graph(training=False), state)

    @staticmethod
    def _merge(graph: nnx.GraphDef[Segmenter], state: State) -> Segmenter:
        chosen = state.get("ema", state)
        return nnx.merge(graph, chosen["params"], chosen["rest"])

    @staticmethod
    def _split(model: Segmenter) -> tuple[Any, Any, Any]:
        graph, params, rest = nnx.split(model, model.trainable(), ...)
        return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def objective(self, out: Outputs, label: Array) -> Array:
        """What training makes small: the loss of every head, weighted, and that of the presence logits."""
        loss = losses.deep_supervision(self.loss, out.logits, label)
        return loss if out.presence is None else loss + losses.presence(out.presence, label)

    def train_step(self) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
        """The function (state, batch) -> (state, {loss, grad_norm}); steps and keys count in the state."""
        graph = self.graph(training=True)

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
            key = jax.random.fold_in(jax.random.key(self.seed), state["step"])
            image, label = augment(key, batch["image"], batch["label"], self.strength)

            def loss_of(params: Any) -> tuple[Array, Any]:
                model: Segmenter = nnx.merge(graph, params, state["rest"])
                loss = self.objective(model.outputs(model.normalize(image)), label)
                return loss, self._split(model)[2]

            (loss, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
            updates, optimizer = self.optimizer.update(grads, state["optimizer"], state["params"])
            params = optax.apply_updates(state["params"], updates)
            new = {"params": params, "rest": rest, "optimizer": optimizer, "step": state["step"] + 1}
            if self.ema:
                new["ema"] = self._average(state["ema"], {"params": params, "rest": rest}, state["step"])
            return new, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

        return step

    def _average(self, average: Any, new: Any, step: Array) -> Any:
        """The running average after `step` earlier ones; in short runs, over their last tenth."""
        weight = jnp.maximum(1 - self.ema, 10 / (step + 10))

        def moved(old: Array, new: Array) -> Array:
            # Written so that what does not move stays exactly as it is. Random streams are no numbers.
            return old + weight * (new - old) if jnp.issubdtype(new.dtype, jnp.floating) else new

        return jax.tree.map(moved, average, new)

    def eval_step(self) -> Callable[[State, Batch], dict[str, Array]]:
        """The function (state, batch) -> sums over the batch's images, and the prediction.

        loss: the objective of each image by itself, summed; images: their number; confusion: (C, C) int32;
        prediction: (B, H, W) int32. Filler images (index -1) count for nothing.
        """
        graph = self.graph(training=False)

        def step(state: State, batch: Batch) -> dict[str, Array]:
            model = self._merge(graph, state)
            out = model.outputs(model.normalize(batch["image"]))

            def loss_of(out: Outputs, label: Array) -> Array:
                return self.objective(jax.tree.map(lambda x: x[None], out), label[None])

            each = jax.vmap(loss_of)(out, batch["label"])
            real = batch["index"] >= 0
            logits = model.combine(out)
            prediction = metrics.predict(logits)
            return {
                "loss": jnp.where(real, each, 0.0).sum(),
                "images": real.sum(),
                "confusion": metrics.confusion_matrix(batch["label"], prediction, logits.shape[-1]),
                "prediction": prediction,
            }

        return step
