"""Checkpoints: every bit comes back, on any devices, or the step is named; the latest and the best stay."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config.settings import ConfigError, Devices
from train.devices import mesh as sharding
from train.storage import digest
from train.storage.checkpoint import Checkpoints, abstract

pytestmark = pytest.mark.survival


def tree(seed=0):
    """Leaves as training has them; the largest is one that `sharding.state` splits."""
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "params": {
            "kernel": jax.random.normal(keys[0], (3, 3, 64, 64)),
            "bias": jax.random.normal(keys[1], (3,)),
        },
        "rest": {"key": keys[2], "half": jnp.ones((5, 2), jnp.bfloat16), "flag": jnp.array([True, False])},
        "step": jnp.int32(seed),
    }


def mesh_of(devices, fsdp):
    return sharding.make_mesh(Devices(devices, fsdp), devices)


def on(mesh, state):
    return jax.device_put(state, sharding.state(mesh, state))


def template(mesh, state):
    return abstract(state, sharding.state(mesh, state))


ONE = mesh_of(1, 1)


def bits(state):
    """The leaves' bytes, by path."""
    data = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return {path: np.asarray(data(leaf)).tobytes() for path, leaf in digest.leaves(state).items()}


def saved(folder, scores, *, keep=10, state=tree):
    """Checkpoints of steps 1, 2, ... with these scores."""
    with Checkpoints(folder, write=True, keep=keep, config={"arch": "unet"}) as checkpoints:
        for step, score in enumerate(scores, 1):
            checkpoints.save(step, on(ONE, state(step)), score)
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("three"), (0.3, 0.5, 0.4))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.uint8, np.float16])
def test_every_flipped_bit_changes_the_digest(dtype):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (7, 5, 3, np.dtype(dtype).itemsize), np.uint8)
    original = digest.of({"x": jnp.asarray(whole.view(dtype)[..., 0])})
    for place in rng.choice(whole.size * 8, 60, replace=False):
        flipped = whole.copy()
        flipped.reshape(-1)[place // 8] ^= 1 << (place % 8)
        assert digest.of({"x": jnp.asarray(flipped.view(dtype)[..., 0])}) != original


def test_exchanged_elements_change_the_digest():
    x = jnp.arange(48.0).reshape(6, 8)
    for other in (x[::-1], x[:, ::-1], x.at[0, 0].set(x[0, 1]).at[0, 1].set(x[0, 0])):
        assert digest.of({"x": other}) != digest.of({"x": x})


@pytest.mark.parametrize("layout", [(8, 1), (8, 8), (4, 2), (4, 4)])
def test_the_digest_does_not_depend_on_the_devices(layout):
    assert digest.of(on(mesh_of(*layout), tree())) == digest.of(on(ONE, tree()))


def test_a_state_comes_back_on_any_mesh(tmp_path):
    state, step = on(mesh_of(8, 8), tree(7)), 1
    for layout in ((8, 8), (4, 2), (1, 1)):  # each saves what it was given, the next one restores that
        with Checkpoints(tmp_path, write=True, keep=10) as checkpoints:
            checkpoints.save(step, state, None)
        following = mesh_of(*{(8, 8): (4, 2), (4, 2): (1, 1), (1, 1): (8, 4)}[layout])
        with Checkpoints(tmp_path, write=True, keep=10) as checkpoints:
            state = checkpoints.restore(step, template(following, tree()))
        assert bits(state) == bits(tree(7))
        assert state["params"]["kernel"].sharding.mesh.shape == following.shape
        step += 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state["params"].update(bias=jnp.zeros(4)),
            "params.bias is float32[3]; expected float32[4]",
        ),
        (
            lambda state: state["params"].update(bias=jnp.zeros(3, jnp.bfloat16)),
            "params.bias is float32[3]; expected bfloat16[3]",
        ),
        (
            lambda state: state["params"].update(other=jnp.zeros(2)),
            "params.other is nothing; expected float32[2]",
        ),
        (lambda state: state["rest"].pop("half"), "rest.half is bfloat16[5, 2]; expected nothing"),
    ],
    ids=["classes", "dtype", "missing", "left over"],
)
def test_another_network_is_refused_by_leaf(three, change, message):
    other = tree()
    change(other)
    with (
        Checkpoints(three, write=False) as checkpoints,
        pytest.raises(ConfigError, match="checkpoints/3 is of another network") as refused,
    ):
        checkpoints.restore(3, template(ONE, other))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_flipped_bit_is_named_wherever_it_is(three, tmp_path):
    rng, named, harmless = np.random.default_rng(1), 0, []
    want = bits(tree(3))
    for file in sorted(path for path in (three / "checkpoints" / "3").rglob("*") if path.is_file()):
        content = file.read_bytes()
        for _ in range(4 if len(content) < 10_000 else 12):
            broken = bytearray(content)
            place = int(rng.integers(len(content)))
            broken[place] ^= 1 << int(rng.integers(8))
            copied = tmp_path / "copy"
            shutil.copytree(three, copied)
            (copied / file.relative_to(three)).write_bytes(bytes(broken))
            with Checkpoints(copied, write=True, keep=10) as checkpoints:
                line = None
                try:
                    state = checkpoints.restore(3, template(ONE, tree()))
                except ConfigError as error:
                    line = str(error)
                if line is None:
                    assert bits(state) == want, file
                    assert checkpoints.best() == 2
                    harmless.append(file.name)
                else:
                    assert "checkpoints/3 " in line
                    assert "also kept: 1, 2 (--resume-step)" in line
                    assert "\n" not in line
                    if named % 8 == 0:
                        assert bits(checkpoints.restore(2, template(ONE, tree()))) == bits(tree(2))
                        checkpoints.save(4, on(ONE, tree(4)), None)
                    named += 1
            shutil.rmtree(copied)
    assert named > len(harmless)


def test_what_is_not_whole_is_not_offered(three, tmp_path):
    copied = shutil.copytree(three, tmp_path / "copy") / "checkpoints"
    (copied / "3").rename(copied / "3.orbax-checkpoint-tmp")
    with Checkpoints(copied.parent, write=False) as checkpoints:
        assert checkpoints.steps() == [1, 2]
    with Checkpoints(copied.parent, write=True) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        checkpoints.save(3, on(ONE, tree(3)), None)
    assert sorted(path.name for path in copied.iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("scores", "keep", "kept", "best"),
    [
        ((0.5, float("nan"), float("nan"), float("nan")), 1, [1, 4], 1),
        ((0.5, float("inf"), None, 0.2), 1, [1, 4], 1),
        ((0.1, 0.9, 0.3, 0.2, 0.1), 2, [2, 4, 5], 2),
        ((0.1, 0.4, 0.4), 1, [3], 3),
    ],
)
def test_the_latest_and_the_best_stay(scores, keep, kept, best, tmp_path):
    saved(tmp_path, scores, keep=keep, state=lambda step: {"step": jnp.int32(step)})
    with Checkpoints(tmp_path, write=True, keep=keep) as checkpoints:
        assert checkpoints.steps() == kept
        assert checkpoints.best() == best
        checkpoints.save(9, on(ONE, {"step": jnp.int32(9)}), float("nan"))
        assert checkpoints.best() == best  # the scores of an earlier process count
    assert best in (int(path.name) for path in (tmp_path / "checkpoints").iterdir())


def test_order_is_that_of_the_steps_whatever_the_clock_says(tmp_path):
    state = lambda step: {"step": jnp.int32(step)}  # noqa: E731
    saved(tmp_path, (0.3, 0.2, 0.1), state=state)
    for step, age in ((1, -9e6), (2, 0), (3, 9e6)):  # the oldest step is the newest file, from the future
        folder = tmp_path / "checkpoints" / str(step)
        description = json.loads((folder / "_CHECKPOINT_METADATA").read_text())
        description["commit_timestamp_nsecs"] -= int(age * 1e9)
        (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(description))
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (path.stat().st_atime - age,) * 2)
    with Checkpoints(tmp_path, write=True, keep=2) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
        assert checkpoints.best() == 1
        checkpoints.save(4, on(ONE, state(4)), 0.0)
        checkpoints.save(5, on(ONE, state(5)), 0.0)
    with Checkpoints(tmp_path, write=False) as checkpoints:
        assert checkpoints.steps() == [1, 4, 5]


def test_later_steps_are_set_aside_not_lost(three, tmp_path):
    copied = shutil.copytree(three, tmp_path / "copy")
    for _ in range(2):
        with Checkpoints(copied, write=True, keep=10) as checkpoints:
            checkpoints.set_aside_after(1)
            assert checkpoints.steps() == [1]
            checkpoints.save(2, on(ONE, tree(2)), 0.1)
    assert sorted(path.name for path in (copied / "set-aside").iterdir()) == ["2", "2~", "3"]
