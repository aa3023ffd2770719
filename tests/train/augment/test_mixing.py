"""Mixed batches: pasted pixels bring their labels, blended images have the blended loss of both."""

import jax
import numpy as np
import pytest

from flaxunet import losses
from flaxunet.labels import IGNORE
from tests.support.tiny import make_batch, make_program
from train.augment.mixing import cutmix, mixup

KEY = jax.random.key(0)
CUTMIX, MIXUP = (jax.jit(function, static_argnums=3) for function in (cutmix, mixup))


def marked(rows, side=24):
    """Images whose pixels say which image they are of, with the same number as label."""
    label = np.broadcast_to(np.arange(rows, dtype=np.int32)[:, None, None], (rows, side, side))
    return label[..., None].astype(np.float32), label


def test_cutmix_pastes_one_rectangle_of_the_next_image_with_its_labels():
    image, label = marked(64)
    mixed, labels = (np.asarray(a) for a in CUTMIX(KEY, image, label, 0.5))
    np.testing.assert_array_equal(mixed[..., 0], labels)
    pasted = labels != label
    np.testing.assert_array_equal(
        labels[pasted], np.broadcast_to((np.arange(64) + 1)[:, None, None] % 64, labels.shape)[pasted]
    )
    heights, widths = pasted.any(axis=2).sum(axis=1), pasted.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(pasted.sum((1, 2)), heights * widths)
    share = pasted.any(axis=(1, 2)).mean()
    assert 0.25 < share < 0.7  # half of them, of which tiny rectangles may miss every pixel; deviation 0.06


def test_cutmix_depends_on_key_place_and_the_two_images_alone():
    image, label = marked(64)
    whole, part = CUTMIX(KEY, image, label, 0.5), CUTMIX(KEY, image[:5], label[:5], 0.5)
    np.testing.assert_array_equal(whole[1][:4], part[1][:4])
    assert not np.array_equal(whole[1], CUTMIX(jax.random.key(1), image, label, 0.5)[1])


def test_cutmix_brings_ignored_pixels_along():
    image, label = marked(64)
    label = np.where(label % 2 == 1, IGNORE, 7)
    labels = np.asarray(CUTMIX(KEY, image, label, 0.5)[1])
    assert all(set(np.unique(half)) == {7, IGNORE} for half in (labels[::2], labels[1::2]))


def test_mixup_blends_neighbours_by_shares_that_add_up():
    image, label = marked(4)
    seen = []
    for key in jax.random.split(KEY, 32):
        mixed, labels, shares = MIXUP(key, image, label, 0.4)
        share = float(shares[0])
        np.testing.assert_allclose(np.asarray(mixed)[1, 0, 0, 0], share * 1 + (1 - share) * 2, atol=1e-6)
        np.testing.assert_array_equal(labels[1], np.roll(label, -1, axis=0))
        assert float(shares.sum()) == pytest.approx(1)
        seen.append(share)
    assert min(seen) < 0.1
    assert max(seen) > 0.9
    assert 0.3 < np.mean(seen) < 0.7


def test_the_blended_loss_is_that_of_blended_labels_for_cross_entropy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    a, b = (rng.integers(0, 3, (2, 6, 6)).astype(np.int32) for _ in range(2))
    share, loss = 0.3, jax.jit(losses.cross_entropy)
    ours = share * loss(logits, a) + (1 - share) * loss(logits, b)
    soft = share * np.eye(3)[a] + (1 - share) * np.eye(3)[b]
    expected = -(soft * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1).mean()
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_loss_of_a_blended_batch_is_the_shared_loss_of_both_labels():
    program = make_program("group")
    loss_of, state = program._loss_of(False), program.init()
    batch, other = make_batch(0), make_batch(1)["label"]
    shares = np.array([0.3, 0.7], np.float32)

    @jax.jit
    def found(params, rest):
        labels = batch["label"], other
        each = [loss_of(params, rest, batch["image"], (label,), None)[0] for label in labels]
        return loss_of(params, rest, batch["image"], labels, shares)[0], each

    blended, each = found(state["params"], state["rest"])
    assert abs(each[0] - each[1]) > 1e-3
    np.testing.assert_allclose(blended, np.dot(shares, each), rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_takes_both_mixes(accumulate):
    program = make_program(mixup=0.4, cutmix=0.5, accumulate=accumulate)
    state = jax.eval_shape(program.init)
    after, out = jax.eval_shape(program.train_step(), state, make_batch())
    assert out["loss"].shape == ()
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )


def test_a_step_is_given_both_labels_only_if_asked():
    program = make_program("group", mixup=0.4, augment="none")
    batch, key = make_batch(), jax.random.key(3)
    image, (labels, shares) = program.augment(key, batch["image"], batch["label"])
    assert len(labels) == 2
    assert shares.shape == (2,)
    assert not np.array_equal(image, batch["image"])
    image, (labels, shares) = make_program("group", augment="none").augment(
        key, batch["image"], batch["label"]
    )
    np.testing.assert_array_equal(image, batch["image"])
    assert (len(labels), shares) == (1, None)
