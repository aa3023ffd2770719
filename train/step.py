"""Defines the training step and the evaluation step: pure functions of a state and a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from flaxunet import losses, metrics
from flaxunet.models.segmenter import Outputs, Segmenter
from train.augment import geometry, mixing
from train.config.settings import Augmentation

State = dict[str, Any]
"""Trees of arrays: params (trainable), rest (statistics, random streams, frozen parameters), optimizer, step
(the number of batches so far) and skipped (the number of those whose loss or gradient was not finite).

With an average of the weights, also "ema": params and rest once more, averaged over the steps.
Plain dicts on purpose: they cross the boundary of jit in C++, modules in Python.
"""
Labels = tuple[tuple[Array, ...], Array | None]
"""Label maps of one batch of images, and the share of each in the loss; None for a single label map."""
Batch = dict[str, Array]
"""image (B, H, W, C) float32, label (B, H, W) int32, index (B,) int32 (-1: a blank image)."""

TrainStep = Callable[[State, Batch], tuple[State, dict[str, Array]]]
EvalStep = Callable[[State, Batch], dict[str, Array]]


@dataclass(frozen=True)
class Program:
    """Network, optimizer, loss and augmentation: all that the steps close over and that no step changes.

    Attributes:
      build: makes the segmenter, with random weights.
      optimizer: of the trainable parameters.
      loss: maps logits (B, H, W, K) and labels (B, H, W) to a scalar.
      seed, augmentation: of the random changes of training images.
      ema: decay of the running average of weights and statistics that is evaluated; 0: no average.
      skip_nonfinite: the number of steps, in total, whose loss or gradient may be NaN or infinite.
      accumulate: the number of parts of a batch that are computed one after the other, and averaged.
      frozen_steps, class_weights: steps at first that freeze the encoder, and weights in the loss, on record.
    """

    build: Callable[[], Segmenter]
    optimizer: optax.GradientTransformation
    loss: Callable[[Array, Array], Array]
    seed: int
    augmentation: Augmentation = Augmentation(augment="none")  # noqa: RUF009, frozen
    ema: float = 0.0
    skip_nonfinite: int = 0
    accumulate: int = 1
    frozen_steps: int = 0
    class_weights: tuple[float, ...] | None = None

    def init(self) -> State:
        """Returns the state before the first step, with random weights."""
        return self.init_with(*self._split(self.build())[1:])

    def init_with(self, params: Any, rest: Any) -> State:
        """Returns the state before the first step, with these weights."""
        state = {
            "params": params,
            "rest": rest,
            "optimizer": self.optimizer.init(params),
            "step": jnp.zeros((), jnp.int32),
            "skipped": jnp.zeros((), jnp.int32),
        }
        if self.ema:  # a copy, because a step donates both
            state["ema"] = jax.tree.map(jnp.copy, {"params": params, "rest": rest})
        return state

    @cached_property
    def _structure(self) -> tuple[dict[bool, nnx.GraphDef[Segmenter]], Any, Any]:
        """The segmenter without its arrays, in training and not, and their shapes; takes a second."""
        model, graphs = nnx.eval_shape(self.build), {}
        model.train()
        graphs[True], *_ = self._split(model)
        model.eval()
        graphs[False], params, rest = self._split(model)
        return graphs, params, rest

    @property
    def abstract(self) -> Segmenter:
        """A segmenter in evaluation mode with shapes in place of its arrays."""
        graphs, params, rest = self._structure
        return nnx.merge(graphs[False], params, rest)

    def model(self, state: State) -> Segmenter:
        """Returns the segmenter with the state's arrays, averaged if there is an average, for evaluation."""
        chosen = state.get("ema", state)
        return nnx.merge(self._structure[0][False], chosen["params"], chosen["rest"])

    @staticmethod
    def _split(model: Segmenter) -> tuple[Any, Any, Any]:
        graph, params, rest = nnx.split(model, model.trainable(), ...)
        return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def augment(self, key: Array, image: Array, label: Array) -> tuple[Array, Labels]:
        """Changes a batch (B, H, W, C) float32 and (B, H, W) int32 at random by a step's key.

        Returns: images; (label, partners' label) and their shares if images are blended, else (label,), None.
        """
        change = self.augmentation
        image, label = geometry.augment(key, image, label, change.augment, stain=change.stain)
        # Keys of their own: image i folds i into the step's key, which never reaches these numbers.
        if change.cutmix:
            image, label = mixing.cutmix(jax.random.fold_in(key, 2**32 - 1), image, label, change.cutmix)
        if not change.mixup:
            return image, ((label,), None)
        image, labels, shares = mixing.mixup(jax.random.fold_in(key, 2**32 - 2), image, label, change.mixup)
        return image, (labels, shares)

    def objective(self, out: Outputs, label: Array) -> Array:
        """Adds up what training minimises: weighted losses of the heads, and that of the presence logits."""
        loss = losses.deep_supervision(self.loss, out.logits, label)
        return loss if out.presence is None else loss + losses.presence(out.presence, label)

    def train_step(self, *, freeze_encoder: bool = False) -> TrainStep:
        """Makes the function (state, batch) -> (state, {loss, grad_norm, index, skipped}).

        Random keys follow from the state's step. In the results, index is the batch's, skipped the state's.

        A step whose loss or gradient is not finite leaves the state as it was: the first `skip_nonfinite` of
        them count as steps, the next one stops the state for good, however often it is called.

        Args:
          freeze_encoder: leaves the encoder's part of the state as it is, and normalises with its running
            statistics; meant for the first `frozen_steps` steps of the program.
        """
        gradient = jax.value_and_grad(self._loss_of(freeze_encoder), has_aux=True)
        optimizer = optax.with_extra_args_support(self.optimizer)

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
            key = jax.random.fold_in(jax.random.key(self.seed), state["step"])
            image, (labels, shares) = self.augment(key, batch["image"], batch["label"])
            loss, rest, grads = self._accumulated(partial(gradient, shares=shares), state, image, labels)
            updates, moments = optimizer.update(grads, state["optimizer"], state["params"], value=loss)
            params = optax.apply_updates(state["params"], updates)
            new = {"params": params, "rest": rest, "optimizer": moments}
            new = _with_encoder_of(state, new) if freeze_encoder else new
            if self.ema:
                current = {"params": new["params"], "rest": new["rest"]}
                new["ema"] = self._average(state["ema"], current, state["step"])
            norm = optax.tree.norm(grads)
            state = self._guarded(state, new, jnp.isfinite(loss) & jnp.isfinite(norm))
            out = {"loss": loss, "grad_norm": norm, "index": batch["index"], "skipped": state["skipped"]}
            return state, out

        return step

    def _loss_of(self, freeze_encoder: bool) -> Callable[..., tuple[Array, Any]]:
        """Makes the function (params, rest, image, labels, shares of the labels) -> (loss, rest after it)."""
        graph = self._structure[0][True]

        def loss_of(
            params: Any, rest: Any, image: Array, labels: tuple[Array, ...], shares: Array | None
        ) -> tuple[Array, Any]:
            model: Segmenter = nnx.merge(graph, params, rest)
            others = nnx.Not(model.trainable())
            if freeze_encoder:
                model.freeze_encoder()
            out = model.outputs(model.normalize(image))
            each = [self.objective(out, label) for label in labels]
            loss = each[0] if shares is None else jnp.stack(each) @ shares
            return loss, nnx.to_pure_dict(nnx.state(model, others))

        return loss_of

    def _accumulated(
        self, gradient: Callable[..., Any], state: State, image: Array, labels: tuple[Array, ...]
    ) -> tuple[Array, Any, Any]:
        """Averages over the parts of a batch; returns loss, rest after the last part, and gradients."""
        params, count = state["params"], self.accumulate
        if count == 1:
            (loss, rest), grads = gradient(params, state["rest"], image, labels)
            return loss, rest, grads

        def add_part(sums: tuple[Array, Any, Any], part: tuple[Array, tuple[Array, ...]]) -> tuple[Any, None]:
            total, rest, before = sums
            (loss, rest), grads = gradient(params, rest, *part)
            return (total + loss, rest, jax.tree.map(jnp.add, before, grads)), None

        zeros = jnp.zeros((), jnp.float32), state["rest"], jax.tree.map(jnp.zeros_like, params)
        # Every count-th row, so that each device takes its part from the rows it has.
        parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), (image, labels))
        (total, rest, sums), _ = jax.lax.scan(add_part, zeros, parts)
        return total / count, rest, jax.tree.map(lambda leaf: leaf / count, sums)

    def _guarded(self, state: State, new: State, finite: Array) -> State:
        """Returns the new state, or the old one after a step that was not finite; decided on the device."""
        stopped = state["skipped"] > self.skip_nonfinite
        skipped = state["skipped"] + (~finite & ~stopped)
        goes_on = skipped <= self.skip_nonfinite
        old = {name: state[name] for name in new}
        kept = jax.tree.map(lambda after, before: jnp.where(finite & goes_on, after, before), new, old)
        return {**kept, "step": state["step"] + goes_on, "skipped": skipped}

    def _average(self, average: Any, new: Any, step: Array) -> Any:
        """Updates the running average after `step` earlier steps; in short runs, over their last tenth."""
        weight = jnp.maximum(1 - self.ema, 10 / (step + 10))

        def mean(old: Array, new: Array) -> Array:
            # Written so that what does not change stays exactly as it is. Random streams cannot be averaged.
            return old + weight * (new - old) if jnp.issubdtype(new.dtype, jnp.floating) else new

        return jax.tree.map(mean, average, new)

    def eval_step(self) -> EvalStep:
        """Makes the function (state, batch) -> results of the batch's images.

        Results: loss, the sum of the objectives of single images; images, their number; confusion, one matrix
        (C, C) int32 for each image; prediction (B, H, W) int32. The sums leave out blank images (index -1).
        """

        def step(state: State, batch: Batch) -> dict[str, Array]:
            model = self.model(state)
            out = model.outputs(model.normalize(batch["image"]))

            def loss_of(out: Outputs, label: Array) -> Array:
                return self.objective(jax.tree.map(lambda x: x[None], out), label[None])

            each = jax.vmap(loss_of)(out, batch["label"])
            real = batch["index"] >= 0
            logits = model.combine(out)
            prediction: Any = metrics.predict(logits)
            confusion: Any = jax.vmap(partial(metrics.confusion_matrix, classes=logits.shape[-1]))
            return {
                "loss": jnp.where(real, each, 0.0).sum(),
                "images": real.sum(),
                "confusion": confusion(batch["label"], prediction),
                "prediction": prediction,
            }

        return step


def _with_encoder_of(before: State, after: State) -> State:
    """Returns the state after a step with the encoder of that before it: weights, statistics and moments."""

    def chosen(path: tuple[Any, ...], old: Array, new: Array) -> Array:
        return old if any(getattr(entry, "key", None) == "encoder" for entry in path) else new

    return jax.tree_util.tree_map_with_path(chosen, {name: before[name] for name in after}, after)
