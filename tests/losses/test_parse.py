"""Sums of losses by name: what they compute, and what cannot be parsed."""

import re

import pytest

from flaxunet import losses
from flaxunet.losses import LOSSES, parse_loss
from tests.support.losses import random_labels, random_logits, value_of
from train.config import arguments


def test_summands_are_added_and_weighted():
    logits, labels = random_logits(3), random_labels(3)
    dice, entropy = (value_of(loss, logits, labels) for loss in (losses.dice, losses.cross_entropy))
    for spec, expected in {
        "dice": dice,
        "dice+ce": dice + entropy,
        " 0.5*dice + ce ": 0.5 * dice + entropy,
    }.items():
        assert value_of(parse_loss(spec), logits, labels) == pytest.approx(expected, rel=1e-6)


def test_class_weights_go_to_the_terms_that_take_them():
    logits, labels, weights = random_logits(3), random_labels(3), (0.1, 1, 4)
    expected = losses.dice(logits, labels) + losses.cross_entropy(logits, labels, class_weights=weights)
    parsed = value_of(parse_loss("dice+ce", class_weights=weights), logits, labels)
    assert parsed == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(ValueError, match="class weights with loss 'dice'"):
        parse_loss("dice", class_weights=weights)


@pytest.mark.parametrize("spec", ["bce", "dice+", "", "dice ce", "2*", "Dice"])
def test_unknown_names_are_answered_with_the_known_ones(spec):
    with pytest.raises(ValueError, match=", ".join(LOSSES)):
        parse_loss(spec)


def test_the_help_of_training_lists_every_loss(capsys):
    with pytest.raises(SystemExit):
        arguments.parse(["--help"])
    assert set(LOSSES) <= set(re.findall(r"\w+", capsys.readouterr().out))


@pytest.mark.parametrize("spec", ["x*dice", "*dice", "0*dice", "-1*dice", "nan*dice", "inf*ce", "2*2*ce"])
def test_factors_that_are_no_positive_number_are_refused(spec):
    with pytest.raises(ValueError, match="expected a number > 0"):
        parse_loss(spec)
