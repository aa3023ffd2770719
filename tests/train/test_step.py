"""The training step: the running average of weights and statistics, which is what gets evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxunet import metrics
from tests.support.tiny import make_batch, make_program


@pytest.fixture(scope="module")
def trained():
    """Programs with and without an average (of decay 0.75), and their states after each of five steps."""
    states = {}
    for ema in (0.0, 0.75):
        program = make_program(ema=ema, augment="none")
        step, state, history = jax.jit(program.train_step()), jax.jit(program.init)(), []
        for seed in range(5):
            state, _ = step(state, make_batch(seed))
            history.append(jax.device_get(state))
        states[ema] = program, history
    return states


def test_the_average_is_that_of_the_weights_and_statistics(trained):
    _, history = trained[0.75]
    expected = {name: history[0][name] for name in ("params", "rest")}
    for number, state in enumerate(history[1:], 1):
        weight = max(1 - 0.75, 10 / (number + 10))
        expected = jax.tree.map(
            lambda old, new, weight=weight: (
                (1 - weight) * old + weight * new if np.issubdtype(new.dtype, np.floating) else new
            ),
            expected,
            {name: state[name] for name in expected},
        )
    for found, wanted in zip(jax.tree.leaves(history[-1]["ema"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_average_changes_nothing_in_training(trained):
    for name in ("params", "rest", "optimizer"):
        with_it, without = (trained[ema][1][-1][name] for ema in (0.75, 0.0))
        jax.tree.map(
            # Two programs, which may round differently.
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            with_it,
            without,
        )


def test_the_average_is_what_is_evaluated_and_kept(trained):
    program, history = trained[0.75]
    state, batch = history[-1], make_batch(9)
    image = jnp.asarray(batch["image"])
    averaged = program.model({**state["ema"]})
    prediction = jax.jit(program.eval_step())(state, batch)["prediction"]
    logits = averaged(averaged.normalize(image))
    np.testing.assert_array_equal(prediction, metrics.predict(logits))
    np.testing.assert_array_equal(program.model(state)(averaged.normalize(image)), logits)
    last = program.model({name: state[name] for name in ("params", "rest")})
    assert np.abs(last(averaged.normalize(image)) - logits).max() > 1e-3


def test_a_frozen_encoder_stays_bit_for_bit_in_the_average():
    program = make_program(ema=0.9, freeze_encoder=True, augment="none")
    first = jax.device_get(jax.jit(program.init)())
    state, _ = jax.jit(program.train_step())(first, make_batch())
    for part in (state["rest"], state["ema"]["rest"]):
        jax.tree.map(np.testing.assert_array_equal, part["encoder"], first["rest"]["encoder"])


def test_a_step_that_is_not_finite_changes_nothing_but_the_position():
    program = make_program(skip_nonfinite=1, augment="none")
    step, bad = jax.jit(program.train_step()), make_batch(1)
    bad["image"][3, 5, 5] = np.nan
    before, _ = step(program.init(), make_batch(0))
    skipped, out = step(before, bad)
    assert np.isnan(out["loss"])
    assert out["skipped"] == skipped["skipped"] == 1
    assert skipped["step"] == before["step"] + 1
    for name in ("params", "rest", "optimizer", "ema"):
        jax.tree.map(np.testing.assert_array_equal, skipped[name], before[name])
    after, _ = step(skipped, make_batch(2))
    assert after["step"] == 3
    assert optax.tree.norm(optax.tree.sub(after["params"], before["params"])) > 1e-4
    # One more than is allowed: the state stands still, whatever comes after it.
    stopped, out = step(after, bad)
    assert out["skipped"] == 2
    for batch in (make_batch(3), bad):
        again, _ = step(stopped, batch)
        jax.tree.map(np.testing.assert_array_equal, {**again, "skipped": 2}, {**after, "skipped": 2})
