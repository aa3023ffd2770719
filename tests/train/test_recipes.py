"""Recipes of the step: batches in parts, an encoder held for a while; and what may be said of them."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.tiny import make_batch, make_program
from train import setup
from train.config import arguments, checks
from train.config.settings import Config, ConfigError, Devices
from train.devices import mesh as sharding
from train.storage.log import evaluations_without_gain


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
def test_a_held_encoder_does_not_move_and_then_does(optimizer):
    program = make_program(freeze_encoder=3, optimizer=optimizer, weight_decay=0.5)
    start = jax.device_get(program.init())
    held, free = (jax.jit(program.train_step(freeze_encoder=freeze)) for freeze in (True, False))
    state = program.init()
    for number in range(3):
        state, _ = held(state, make_batch(number))
    for part in ("params", "rest"):
        for tree, before in ((state, start), (state["ema"], start["ema"])):
            jax.tree.map(np.testing.assert_array_equal, tree[part]["encoder"], before[part]["encoder"])
    assert np.abs(kernel(state, "decoder") - kernel(start, "decoder")).max() > 1e-4

    # Its first step is that of an optimizer that has not begun, at the schedule's place.
    fresh = {**program.init(), **{name: state[name] for name in ("params", "rest", "ema", "step")}}
    released, expected = (jax.device_get(free(one, make_batch(3))[0]) for one in (state, fresh))
    assert jax.tree.structure(released) == jax.tree.structure(start)
    moved, wanted = (kernel(one, "encoder") - kernel(start, "encoder") for one in (released, expected))
    assert np.abs(moved).max() > 1e-5
    late = np.cos(np.pi * 2 / 79) / 2 + 0.5  # of cosine decay, which went on
    np.testing.assert_allclose(moved, late * wanted, rtol=2e-2, atol=2e-6)
    mean = released["rest"]["encoder"]["first"]["norm"]["mean"]
    assert np.abs(mean - start["rest"]["encoder"]["first"]["norm"]["mean"]).max() > 1e-3
    assert held._cache_size() == free._cache_size() == 1


def kernel(state, part):
    return state["params"][part]["first" if part == "encoder" else "block"]["conv"]["kernel"]


def test_a_held_encoder_trains_the_rest_as_a_frozen_one_does():
    held, frozen = (
        after(make_program(freeze_encoder=value), [make_batch(0), make_batch(1)], freeze_encoder=value == 9)
        for value in (9, True)
    )
    np.testing.assert_allclose(held[1]["loss"], frozen[1]["loss"], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        held[0]["params"]["decoder"],
        frozen[0]["params"]["decoder"],
    )


def test_patience_counts_evaluations_since_the_first_that_was_so_good():
    def waited(*scores):
        rows = [{"step": step, "val_dice": score} for step, score in enumerate(scores)]
        return evaluations_without_gain([*rows, {"step": 9, "test_dice": 1.0}])

    assert waited() == waited(0.1) == waited(0.1, 0.2) == 0
    assert waited(0.5, 0.5, 0.4) == 2
    assert waited(0.5, None, 0.6, None) == 1
    assert waited(None, None) == 1


def test_balanced_weights_give_every_class_the_same_part():
    label = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 3, -1]])
    dataset = SimpleNamespace(
        train=[{"label": label}, {"label": label}], class_names=("a", "b", "c", "d"), classes=4, channels=1
    )
    config = Config.from_flat(arch="unet", class_weights="balanced")
    weights = setup.make_program(config, dataset, setup.make_spec(config, dataset)).class_weights
    np.testing.assert_allclose(weights, [9 / 18, 9 / 6, 0, 9 / 3])
    counts = np.array([6, 2, 0, 1])
    assert np.dot(weights, counts) == pytest.approx(counts.sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "--accumulate is 0"),
        ({"accumulate": 3}, "--accumulate is 3"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"warmup": 1.0}, "--warmup is 1.0"),
        ({"encoder_lr": 0.0}, "--encoder-lr is 0.0"),
        ({"freeze_encoder": 0}, "--freeze-encoder is 0"),
        ({"patience": 0}, "--patience is 0"),
        ({"class_weights": "even"}, "--class-weights is 'even'"),
        ({"foreground": 1.5}, "--foreground is 1.5"),
        ({"foreground": 0.5, "fit": "resize"}, "--foreground is 0.5"),
        ({"fold": "6/5", "data": "x"}, "--fold is '6/5'"),
        ({"fold": "1/1", "data": "x"}, "--fold is '1/1'"),
        ({"fold": "1", "data": "x"}, "--fold is '1'"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(options, message):
    with pytest.raises(ConfigError) as refusal:
        checks.check(Config.from_flat(**options))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_parts_divide_over_the_devices():
    assert sharding.make_mesh(Devices(), 16, 4).size == 4
    with pytest.raises(ConfigError, match="are multiples of the 8 devices times --accumulate 4"):
        sharding.make_mesh(Devices(8), 16, 4)


def test_flags_with_and_without_numbers_come_back_from_config_json(tmp_path):
    for words, expected in (
        ([], (False, None)),
        (["--freeze-encoder", "--class-weights", "balanced"], (True, "balanced")),
        (["--freeze-encoder", "20", "--class-weights", "1", "2.5", "--steps", "9"], (20, (1.0, 2.5))),
    ):
        config = arguments.parse(words)
        assert repr((config.optimization.freeze_encoder, config.optimization.class_weights)) == repr(expected)
        (tmp_path / "config.json").write_text(json.dumps({"config": config.to_flat()}))
        stored = checks.read(tmp_path)
        checks.check_resumed(arguments.parse([], stored), config)


@pytest.mark.parametrize(
    ("stored", "now", "message"),
    [
        ({"freeze_encoder": True}, {"freeze_encoder": 1}, "--freeze-encoder is 1, was True"),
        ({"accumulate": 2}, {"accumulate": 1}, "--accumulate is 1, was 2"),
        (
            {"schedule": "plateau"},
            {"schedule": "plateau", "eval_every": 7},
            "--eval-every is 7, was 20, under a plateau",
        ),
        ({"patience": 2}, {"patience": 5, "eval_every": 7}, None),
    ],
)
def test_a_resumed_run_keeps_its_recipe(stored, now, message):
    if message is None:
        checks.check_resumed(Config.from_flat(**now), Config.from_flat(**stored))
        return
    with pytest.raises(ConfigError) as refusal:
        checks.check_resumed(Config.from_flat(**now), Config.from_flat(**stored))
    assert message in str(refusal.value)
