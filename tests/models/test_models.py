"""The networks: counts, shapes, modes, supervision, pruning, guidance, freezing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxunet
from flaxunet.models import layers
from flaxunet.models.encoders import ENCODERS
from flaxunet.models.guidance import SUPPRESSED, suppress_absent
from flaxunet.models.layers import BatchNorm, max_pool
from tests.support.networks import network

ARCHS = ["unet", "unetplusplus", "unet3plus"]
# Trainable parameters with three input channels and one class, counted on the torch models.
COUNTS = {
    "plain": (31_385_345, 36_622_849, 26_965_249),
    "resnet18": (14_328_209, 15_970_449, 17_709_441),
    "resnet34": (24_436_369, 26_078_609, 27_817_601),
    "resnet50": (32_521_105, 48_985_745, 34_796_417),
    "resnet101": (51_513_233, 67_977_873, 53_788_545),
    "resnet152": (67_156_881, 83_621_521, 69_432_193),
    "resnext50_32x4d": (31_992_977, 48_457_617, 34_268_289),
    "resnext101_32x8d": (95_755_409, 112_220_049, 98_030_721),
    "wide_resnet50_2": (75_847_313, 92_311_953, 78_122_625),
    "wide_resnet101_2": (133_850_769, 150_315_409, 136_126_081),
}
encoders = pytest.mark.parametrize("encoder", ["shallow", pytest.param("resnet18", marks=pytest.mark.long)])
SLOW = {name for name in COUNTS if "101" in name or "152" in name}  # seconds of tracing each
OTHERS = [("resnet18", "group"), ("plain", "batch"), ("resnet50", "batch"), ("resnet50", "group")]


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def image(height=33, width=47, channels=3, batch=2):
    return jax.random.normal(jax.random.key(1), (batch, height, width, channels))


@nnx.jit
def predict(model, image):
    return model(image)


@nnx.jit
def outputs(model, image):
    return model.outputs(image)


def work(model):
    graph, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x)).lower(state, image()).cost_analysis()["flops"]


@pytest.mark.parametrize("name", ENCODERS)
def test_an_entry_says_the_pyramid_that_its_encoder_has(name):
    entry = ENCODERS[name]
    encoder = nnx.eval_shape(lambda: entry.build(3, norm="batch", dtype=None, rngs=nnx.Rngs(0)))
    assert (entry.channels, entry.strides) == (encoder.channels, encoder.strides)


def test_every_encoder_is_counted():
    assert COUNTS.keys() == ENCODERS.keys()


@pytest.mark.parametrize(
    "encoder",
    [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in COUNTS],
)
@pytest.mark.parametrize("index", range(3), ids=ARCHS)
def test_parameter_counts(encoder, index):
    model = nnx.eval_shape(lambda: flaxunet.create(ARCHS[index], encoder=encoder, rngs=nnx.Rngs(0)))
    assert count(model) == COUNTS[encoder][index]


@pytest.mark.parametrize(
    ("encoder", "norm"),
    [
        ("resnet18", "batch"),
        ("plain", "group"),
        *(pytest.param(*rest, marks=pytest.mark.long) for rest in OTHERS),
    ],
)
@pytest.mark.parametrize("arch", ARCHS)
def test_any_size_gives_logits_of_that_size(arch, encoder, norm):
    model = nnx.eval_shape(
        lambda: flaxunet.create(arch, encoder=encoder, in_channels=1, classes=4, norm=norm, rngs=nnx.Rngs(0))
    )
    for height, width in [(1, 1), (1, 40), (31, 33), (224, 160)]:
        x = jax.ShapeDtypeStruct((2, height, width, 1), jnp.float32)
        out = jax.eval_shape(lambda model, x: model(x), model, x)
        assert (out.shape, out.dtype) == ((2, height, width, 4), jnp.float32)


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("unet", "shallow"), *(pytest.param(arch, "resnet18", marks=pytest.mark.long) for arch in ARCHS)],
)
def test_tiny_images_train_with_finite_numbers(arch, encoder):
    model = network(arch, encoder, classes=2, deep_supervision=True)
    model.train()

    @nnx.jit
    def loss_and_gradients(model, x):
        return nnx.value_and_grad(lambda m: sum(jnp.square(o).mean() for o in m.outputs(x).logits))(model)

    loss, gradients = loss_and_gradients(model, image(1, 1, batch=1))
    assert jnp.isfinite(loss)
    for leaf in jax.tree.leaves((nnx.state(gradients, nnx.Param), nnx.state(model, nnx.BatchStat))):
        assert jnp.isfinite(leaf).all()


@encoders
@pytest.mark.parametrize("arch", ARCHS)
def test_bfloat16_computes_in_bfloat16_and_stays_near_float32(arch, encoder):
    wide, narrow = network(arch, encoder), network(arch, encoder, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(narrow))} <= {
        jnp.dtype("float32"),
        jnp.dtype("uint32"),
    }
    maps = jax.eval_shape(lambda m, x: m.encoder(x), narrow, image())
    assert {x.dtype for x in maps} == {jnp.dtype("bfloat16")}
    one, other = predict(wide, image()), predict(narrow, image())
    assert other.dtype == jnp.float32
    # bfloat16 keeps 8 bits: 2^-8 per rounding, over some 20 layers with ReLU between them.
    assert jnp.abs(one - other).max() < 0.05 * jnp.abs(one).max()


@pytest.mark.parametrize(
    ("arch", "encoder", "heads"),
    [
        ("unet", "resnet18", 5),
        ("unet", "plain", 4),
        ("unetplusplus", "resnet18", 4),
        ("unet3plus", "resnet18", 5),
    ],
)
def test_deep_supervision_has_a_full_size_head_per_level(arch, encoder, heads):
    model = nnx.eval_shape(
        lambda: flaxunet.create(arch, encoder=encoder, classes=3, deep_supervision=True, rngs=nnx.Rngs(0))
    )
    out = jax.eval_shape(lambda m, x: m.outputs(x), model, image())
    assert [x.shape for x in out.logits] == [(2, 33, 47, 3)] * heads
    assert out.presence is None


@pytest.mark.long
def test_unetplusplus_predicts_the_mean_of_its_heads():
    model = network("unetplusplus", deep_supervision=True)
    every = outputs(model, image()).logits
    np.testing.assert_allclose(predict(model, image()), sum(every) / 4, atol=1e-6)


@pytest.mark.parametrize(
    "level", [1, 2, pytest.param(3, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.long)]
)
def test_pruned_unetplusplus_equals_its_head_and_is_smaller(level):
    model = network("unetplusplus", deep_supervision=True)
    whole = count(model)
    pruned = model.prune(level)
    assert count(model) == whole  # a copy
    assert count(pruned) < whole
    np.testing.assert_allclose(predict(pruned, image()), outputs(model, image()).logits[4 - level], atol=1e-6)
    assert work(pruned) < work(model)


def test_pruning_says_what_it_accepts():
    with pytest.raises(ValueError, match="UNet\\+\\+ with deep supervision"):
        network("unet").prune(1)
    with pytest.raises(ValueError, match="expected 1 to 4"):
        network("unetplusplus", deep_supervision=True).prune(5)


def test_guidance_removes_absent_classes():
    logits = jnp.array([[[[0.0, 3.0, 2.0]]], [[[0.0, 3.0, 2.0]]]])
    out = suppress_absent(logits, jnp.array([[-1.0, 1.0], [1.0, 1.0]]))
    assert out.argmax(-1).ravel().tolist() == [2, 1]
    assert suppress_absent(logits, -jnp.ones((2, 2))).argmax(-1).max() == 0
    assert suppress_absent(jnp.full((1, 2, 2, 1), 5.0), jnp.array([[-0.1]])).max() == -SUPPRESSED


@pytest.mark.parametrize(("classes", "foreground"), [(4, 3), pytest.param(1, 1, marks=pytest.mark.long)])
@encoders
def test_guidance_is_trained_and_used(classes, foreground, encoder):
    model = network("unet3plus", encoder, classes=classes, guidance=True)
    out = outputs(model, image())
    assert out.presence.shape == (2, foreground)
    np.testing.assert_allclose(
        predict(model, image()), suppress_absent(out.logits[0], out.presence), atol=1e-6
    )
    gradient = nnx.jit(nnx.grad(lambda m, x: m.outputs(x).presence.sum()))(model, image())
    assert jnp.abs(gradient.guidance.conv.kernel[...]).max() > 0
    first = gradient.encoder.stem if encoder == "resnet18" else gradient.encoder.stages[0][0]
    assert jnp.abs(first.conv.kernel[...]).max() > 0


@encoders
def test_a_frozen_encoder_stays_as_it_is(encoder):
    model = network("unet", encoder)
    model.freeze_encoder()
    model = nnx.view(model, use_running_average=False)  # as model.train(), which must not thaw it either
    model.train()
    before = jax.tree.map(jnp.copy, nnx.state(model.encoder))
    decoder = jax.tree.map(jnp.copy, nnx.state(model.decoder, nnx.BatchStat))

    @nnx.jit
    def gradients(model, x):
        return nnx.grad(lambda m: jnp.square(m(x)).mean(), argnums=nnx.DiffState(0, nnx.Param))(model)

    grads = gradients(model, image())
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(grads["encoder"]))
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads["decoder"]))
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model.encoder))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), decoder, nnx.state(model.decoder, nnx.BatchStat))
    assert all(jax.tree.leaves(moved))
    assert {path[0] for path, _ in nnx.to_flat_state(nnx.state(model, model.trainable()))} == {
        "decoder",
        "heads",
    }


@encoders
def test_dropout_acts_in_training_only(encoder):
    model = network("unet", encoder, dropout=0.5)
    assert jnp.array_equal(predict(model, image()), predict(model, image()))
    model.train()
    model.encoder.eval()
    model.decoder.eval()
    assert not jnp.array_equal(predict(model, image()), predict(model, image()))


def test_batch_norm_remembers_the_unbiased_variance():
    norm, x = BatchNorm(3, rngs=nnx.Rngs(0)), 1000 + image(4, 5)
    norm(x)
    flat = np.asarray(x, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(norm.mean[...], 0.1 * flat.mean(0), rtol=1e-6)
    # A one-pass variance of values around 1000 would have no correct digit left.
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-4)


@pytest.mark.long
def test_initial_kernels_are_those_of_jax():
    shape = (3, 3, 5, 7)
    known = nnx.initializers.variance_scaling
    for ours, theirs in (
        (layers.kaiming_uniform, known(2.0, "fan_in", "uniform")),
        (layers.kaiming_normal_fan_out, known(2.0, "fan_out", "normal")),
        (layers.xavier_uniform, known(1.0, "fan_avg", "uniform")),
    ):
        # The same draws; only their scaling may be rounded otherwise.
        drawn = ours(jax.random.key(1), shape), theirs(jax.random.key(1), shape)
        np.testing.assert_allclose(*drawn, rtol=5e-7)


def test_ceil_mode_pooling_ignores_what_lies_outside():
    x = -1 - jnp.arange(5.0).reshape(1, 5, 1, 1) + jnp.zeros((1, 5, 2, 1))
    assert max_pool(x, 2, 2, ceil_mode=True)[0, :, 0, 0].tolist() == [-1, -3, -5]
    assert max_pool(x, 2, 2)[0, :, 0, 0].tolist() == [-1, -3]


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("unet4", {}, "unknown arch 'unet4'; expected one of unet, unetplusplus, unet3plus"),
        ("unet", {"encoder": "vgg"}, "unknown encoder 'vgg'; expected one of resnet18, .*plain"),
        ("unet", {"norm": "layer"}, "unknown norm 'layer'"),
        ("unet", {"upsample": "cubic"}, "unknown upsample 'cubic'"),
        ("unet", {"classes": 0}, "classes=0"),
        ("unet", {"mean": (0.5,)}, "expected 3 numbers"),
        ("unet", {"std": (0.5, 0.0, 1.0)}, "expected 3 numbers"),
    ],
)
def test_create_says_what_it_accepts(arch, options, message):
    with pytest.raises(ValueError, match=message):
        flaxunet.create(arch, rngs=nnx.Rngs(0), **options)


def test_a_wrong_image_is_named():
    model = nnx.eval_shape(lambda: flaxunet.create("unet", encoder="resnet18", rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"\(2, 33, 47, 1\); expected \(B, H, W, 3\)"):
        jax.eval_shape(lambda m, x: m(x), model, image(channels=1))


def test_normalisation_belongs_to_the_model():
    model = nnx.eval_shape(lambda: flaxunet.create("unet", encoder="resnet18", rngs=nnx.Rngs(0)))
    assert model.mean == (0.485, 0.456, 0.406)
    gray = nnx.eval_shape(
        lambda: flaxunet.create("unet", encoder="resnet18", in_channels=1, rngs=nnx.Rngs(0))
    )
    x = jnp.full((1, 2, 2, 1), 0.5)
    np.testing.assert_allclose(gray.normalize(x), (x - gray.mean[0]) / gray.std[0], rtol=1e-6)
