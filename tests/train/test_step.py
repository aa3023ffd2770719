"""The training step: running average, batches in parts, frozen encoder, steps that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxunet import metrics
from tests.support.tiny import make_batch, make_program
from train.config.settings import Devices
from train.devices import mesh as sharding


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


def after(program, batches, *, freeze_encoder=False):
    """The state after some steps, the last step's numbers, and how often it compiled."""
    state, step, out = program.init(), jax.jit(program.train_step(freeze_encoder=freeze_encoder)), {}
    for batch in batches:
        state, out = step(state, batch)
    return jax.device_get(state), out, step._cache_size()


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    whole, parts = (
        after(make_program("group", accumulate=count, optimizer="sgd"), [make_batch(0)]) for count in (1, 4)
    )
    for name in ("loss", "grad_norm"):
        assert np.isfinite(whole[1][name])
        np.testing.assert_allclose(whole[1][name], parts[1][name], rtol=2e-6)
    # The first moment is the gradient, of the augmented batch: its keys must not depend on the parts.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        *(state["optimizer"] for state, *_ in (whole, parts)),
    )
    changed = after(make_program("group", accumulate=4, optimizer="sgd"), [make_batch(1)])
    assert abs(float(changed[1]["grad_norm"] / parts[1]["grad_norm"]) - 1) > 1e-3


@pytest.mark.long
def test_batch_norm_sees_each_part_by_itself():
    state, _, compiled = after(make_program(accumulate=2, augment="none"), [make_batch(0)])
    model = make_program().build()
    image = jnp.asarray(make_batch(0)["image"])
    for part in (image[0::2], image[1::2]):
        model.encoder(model.normalize(part))
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            state["rest"]["encoder"]["first"]["norm"][name],
            getattr(model.encoder.first.norm, name)[...],
            rtol=1e-5,
        )
    assert compiled == 1


@pytest.mark.long
def test_parts_take_every_device_s_own_rows_in_less_memory():
    mesh = sharding.make_mesh(Devices(2), 64, 4)
    sizes, texts = [], []
    for count in (1, 4):
        program = make_program(accumulate=count, augment="none", ema=0.0)
        shapes = jax.eval_shape(program.init)
        shardings = sharding.state(mesh, shapes)
        state = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            shardings,
        )
        batch = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding.batch(mesh))
            for name, array in make_batch(rows=64, size=32).items()
        }
        step = jax.jit(program.train_step(), out_shardings=(shardings, sharding.replicated(mesh)))
        compiled = step.lower(state, batch).compile()
        texts.append(compiled.as_text())
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert "all-reduce" in texts[1]
    for moved in ("all-to-all", "collective-permute"):
        assert moved not in texts[1]
    assert sizes[1] < 0.6 * sizes[0]  # a quarter of the maps; the images are whole


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("sgd", marks=pytest.mark.long)])
def test_a_frozen_encoder_does_not_move_and_then_does(optimizer):
    program = make_program(freeze_encoder=3, optimizer=optimizer, weight_decay=0.5)
    start = jax.device_get(program.init())
    frozen, free = (jax.jit(program.train_step(freeze_encoder=freeze)) for freeze in (True, False))
    state = program.init()
    for number in range(3):
        state, _ = frozen(state, make_batch(number))
    for part in ("params", "rest"):
        for tree, before in ((state, start), (state["ema"], start["ema"])):
            jax.tree.map(np.testing.assert_array_equal, tree[part]["encoder"], before[part]["encoder"])
    assert np.abs(kernel(state, "decoder") - kernel(start, "decoder")).max() > 1e-4

    # The encoder's first step is that of a new optimizer, with the schedule's rate of this step.
    fresh = {**program.init(), **{name: state[name] for name in ("params", "rest", "ema", "step")}}
    released, expected = (jax.device_get(free(one, make_batch(3))[0]) for one in (state, fresh))
    assert jax.tree.structure(released) == jax.tree.structure(start)
    update, first_update = (kernel(one, "encoder") - kernel(start, "encoder") for one in (released, expected))
    assert np.abs(update).max() > 1e-5
    late = np.cos(np.pi * 2 / 79) / 2 + 0.5  # of the cosine decay, which went on
    np.testing.assert_allclose(update, late * first_update, rtol=2e-2, atol=2e-6)
    mean = released["rest"]["encoder"]["first"]["norm"]["mean"]
    assert np.abs(mean - start["rest"]["encoder"]["first"]["norm"]["mean"]).max() > 1e-3
    assert frozen._cache_size() == free._cache_size() == 1


def kernel(state, part):
    return state["params"][part]["first" if part == "encoder" else "block"]["conv"]["kernel"]


def test_an_encoder_frozen_for_a_while_trains_the_rest_as_one_frozen_for_good_does():
    for_a_while, for_good = (
        after(make_program(freeze_encoder=value), [make_batch(0), make_batch(1)], freeze_encoder=value == 9)
        for value in (9, True)
    )
    np.testing.assert_allclose(for_a_while[1]["loss"], for_good[1]["loss"], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        for_a_while[0]["params"]["decoder"],
        for_good[0]["params"]["decoder"],
    )
