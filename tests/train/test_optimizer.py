"""Optimizers and schedules: the default is what it was, and each other does what its name says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.config.settings import Optimization
from train.optimizer import FACTOR, MOMENTUM, PATIENCE, make_optimizer, schedule

PARAMS = {
    "encoder": {"conv": {"kernel": jnp.full((3, 3, 2, 4), 0.5), "bias": jnp.ones(4)}},
    "heads": {"kernel": jnp.full((1, 1, 4, 2), -0.3), "bias": jnp.zeros(2)},
}


def gradients(count, size=1.0):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield jax.tree.map(lambda leaf: jnp.asarray(size * rng.normal(size=leaf.shape), jnp.float32), PARAMS)


def trained(optimizer, given, value=None, params=PARAMS):
    """The parameters after each update."""
    optimizer = optax.with_extra_args_support(optimizer)
    state = optimizer.init(params)
    update = jax.jit(lambda grads, state, params: optimizer.update(grads, state, params, value=value))
    history = []
    for grads in given:
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def test_the_default_updates_are_adamw_with_warm_up_and_cosine_bit_for_bit():
    rate = optax.warmup_cosine_decay_schedule(1e-3 / 4, 1e-3, 4, 80)
    kernels = jax.tree.map(lambda leaf: leaf.ndim > 1, PARAMS)
    expected = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-4, mask=kernels))
    for ours, theirs in zip(
        trained(make_optimizer(Optimization(), 20), gradients(8)),
        trained(expected, gradients(8)),
        strict=True,
    ):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    shapes = [jax.eval_shape(one.init, PARAMS) for one in (make_optimizer(Optimization(), 20), expected)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])  # checkpoints stay readable


@pytest.mark.parametrize("steps", [1, 19, 20, 80, 140, 99_980])
def test_the_default_warm_up_is_a_twentieth_of_the_steps(steps):
    rate, warmup = schedule(Optimization(steps=steps)), max(steps // 20, 1)
    np.testing.assert_allclose([rate(0), rate(warmup)], [1e-3 / warmup, 1e-3], rtol=1e-3)


def test_schedules_rise_and_fall_as_they_say():
    steps = np.arange(101)
    rates = {
        name: np.array([schedule(Optimization(schedule=name, steps=100, warmup=0.1))(step) for step in steps])
        for name in ("cosine", "poly", "constant", "plateau")
    }
    for rate in rates.values():
        np.testing.assert_allclose(rate[:11], 1e-3 * (0.1 + 0.09 * steps[:11]), rtol=1e-5)
    falling = (steps[10:] - 10) / 90
    np.testing.assert_allclose(rates["cosine"][10:], 5e-4 * (1 + np.cos(np.pi * falling)), atol=1e-9)
    np.testing.assert_allclose(rates["poly"][10:], 1e-3 * (1 - falling) ** 0.9, atol=1e-9)
    for name in ("constant", "plateau"):
        np.testing.assert_allclose(rates[name][10:], 1e-3, rtol=1e-6)
    assert schedule(Optimization(warmup=0.0))(0) == pytest.approx(1e-3)


def test_sgd_is_nesterovs_and_decays_kernels_only():
    config = Optimization(
        optimizer="sgd", schedule="constant", warmup=0.0, weight_decay=0.1, learning_rate=0.01
    )
    given = list(gradients(3, size=1e-3))  # too small to be clipped
    *_, found = trained(make_optimizer(config, 5), given)

    def by_hand(value, grads, decay):
        velocity = np.zeros_like(value)
        for grad in grads:
            grad = grad + decay * value
            velocity = MOMENTUM * velocity + grad
            value = value - 0.01 * (grad + MOMENTUM * velocity)
        return value

    for kind, decay in (("kernel", 0.1), ("bias", 0.0)):
        grads = [np.asarray(one["heads"][kind]) for one in given]
        expected = by_hand(np.asarray(PARAMS["heads"][kind]), grads, decay)
        np.testing.assert_allclose(found["heads"][kind], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_encoders_rate_is_a_factor_on_its_updates(optimizer):
    whole, tenth = (
        trained(
            make_optimizer(
                Optimization(optimizer=optimizer, warmup=0.0, learning_rate=0.1, encoder_lr=factor), 20
            ),
            gradients(1),
        )[-1]
        for factor in (1.0, 0.1)
    )
    jax.tree.map(np.testing.assert_array_equal, whole["heads"], tenth["heads"])
    moved = [jax.tree.map(jnp.subtract, after["encoder"], PARAMS["encoder"]) for after in (whole, tenth)]
    # Differences of numbers near 1 have few digits left.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(0.1 * a, b, atol=2e-7), *moved)
    assert np.abs(moved[0]["conv"]["bias"]).min() > 1e-4


def test_a_plateau_halves_the_rate_after_windows_without_a_lower_mean_loss():
    config = Optimization(schedule="plateau", warmup=0.0, optimizer="sgd", weight_decay=0.0)
    optimizer = optax.with_extra_args_support(make_optimizer(config, 5))
    rng = np.random.default_rng(0)
    state, scales = optimizer.init(PARAMS), []
    update = jax.jit(lambda value, state: optimizer.update(PARAMS, state, PARAMS, value=value)[1])
    means = [3.0, 2.0, 1.0, 1.0, 1.5, 1.0, 1.0, 0.5]
    for mean in means:
        noise = rng.normal(size=5)
        for value in mean + noise - noise.mean():  # single losses go up and down, only the mean counts
            state = update(jnp.float32(value), state)
        scales.append(float(optax.tree.get(state, "scale")))
    first = 3 + PATIENCE - 1  # the third window is the best one before the plateau
    assert scales == [1.0] * first + [FACTOR] * (len(means) - first)
