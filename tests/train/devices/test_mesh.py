"""One device or eight, whole or split parameters: the same training."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from tests.support.networks import fill, shallow
from train import setup
from train.config.settings import Config, ConfigError, Devices
from train.devices import mesh as sharding

STEPS = 10
DATASET = SimpleNamespace(channels=1, classes=3, class_names=("background", "a", "b"))


def batches(size):
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        label = np.kron(rng.integers(0, 3, (8, 4, 4)), np.ones((1, size // 4, size // 4))).astype(np.int32)
        noise = rng.normal(0, 0.1, (8, size, size, 1))
        image = np.clip(label[..., None] / 3 + noise, 0, 1).astype(np.float32)
        yield {"image": image, "label": label, "index": np.arange(8, dtype=np.int32)}


def start(program):
    """The state before the first step, with numbers drawn on the host."""
    model = fill(nnx.eval_shape(program.build))
    return program.init_with(*program._split(model)[1:])


def curve(program, mesh, size):
    """Losses and gradient norms of STEPS steps, the number of compilations, and the last state."""
    state = start(program)
    shardings = sharding.state(mesh, state)
    state = jax.device_put(state, shardings)
    step = jax.jit(
        program.train_step(), donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh))
    )
    losses = []
    for batch in batches(size):
        state, out = step(state, sharding.put(mesh, batch))
        losses.append([float(out["loss"]), float(out["grad_norm"])])
    return np.array(losses), step._cache_size(), state


@pytest.mark.parametrize(
    "arch", ["unet", *(pytest.param(arch, marks=pytest.mark.long) for arch in ("unetplusplus", "unet3plus"))]
)
def test_eight_devices_train_as_one_does_without_recompiling(arch):
    with shallow():
        compare(arch, 32, [(8, 1)])


@pytest.mark.long
@pytest.mark.parametrize("arch", ["unet", "unetplusplus", "unet3plus"])
def test_split_parameters_train_as_whole_ones_do_without_recompiling(arch):
    compare(arch, 64, [(8, 1), (8, 4)])


def compare(arch, size, meshes):
    """Ten steps on one device, and on each of (devices, fsdp)."""
    config = Config.from_flat(arch=arch, encoder="resnet18", steps=STEPS, batch_size=8, size=size)
    # Sums over the batch are taken in another order, and training amplifies the last bit: AdamW's first steps
    # divide a gradient by its own size, rounding and all. Small plain steps keep float32 comparable.
    program = setup.make_program(config, DATASET, setup.make_spec(config, DATASET.channels, DATASET.classes))
    program = dataclasses.replace(program, optimizer=optax.sgd(1e-4))
    one, compiled, _ = curve(program, sharding.make_mesh(Devices(1), 8), size)
    assert compiled == 1
    assert np.ptp(one[:, 0]) > 1e-2  # otherwise agreeing would say nothing
    for devices, fsdp in meshes:
        several, compiled, state = curve(program, sharding.make_mesh(Devices(devices, fsdp), 8), size)
        np.testing.assert_allclose(several[:, 0], one[:, 0], rtol=1e-5)
        np.testing.assert_allclose(several[:, 1], one[:, 1], rtol=1e-3)
        assert compiled == 1
        split = [leaf for leaf in jax.tree.leaves(state["params"]) if "fsdp" in leaf.sharding.spec]
        assert bool(split) == (fsdp > 1)
        assert all(leaf.addressable_shards[0].data.size == leaf.size // fsdp for leaf in split)


def test_parameters_are_split_along_their_longest_axis_that_divides():
    mesh = sharding.make_mesh(Devices(8, 4), 8)
    shapes = {"kernel": (3, 3, 320, 64), "odd": (3, 3, 321, 63), "last": (3, 3, 64, 320), "scale": (320,)}
    abstract = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = {name: found.spec for name, found in sharding.state(mesh, abstract).items()}
    assert specs == {
        "kernel": PartitionSpec(None, None, "fsdp"),
        "odd": PartitionSpec(),
        "last": PartitionSpec(None, None, None, "fsdp"),
        "scale": PartitionSpec(),
    }


@pytest.mark.parametrize(("batch_size", "fsdp", "devices"), [(4, 1, 4), (24, 1, 8), (6, 2, 6), (7, 1, 7)])
def test_as_many_devices_as_divide_the_batch(batch_size, fsdp, devices):
    assert sharding.make_mesh(Devices(None, fsdp), batch_size).size == devices


@pytest.mark.parametrize(
    ("devices", "fsdp", "batch_size", "message"),
    [
        (3, 1, 8, "--batch-size is 8; expected a multiple of the 3 devices"),
        (9, 1, 9, "--devices is 9; expected at most 8"),
        (8, 3, 8, "--fsdp is 3; expected a divisor of the 8 devices"),
    ],
)
def test_a_mesh_that_cannot_be_is_named(devices, fsdp, batch_size, message):
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(Devices(devices, fsdp), batch_size)


def test_parts_divide_over_the_devices():
    assert sharding.make_mesh(Devices(), 16, 4).size == 4
    with pytest.raises(ConfigError, match=r"16.*8 devices times --accumulate 4"):
        sharding.make_mesh(Devices(8), 16, 4)
