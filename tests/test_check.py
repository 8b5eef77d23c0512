"""kljax.check: what it lets pass, what it refuses, and what it says to call instead."""

import jax.numpy as jnp
import numpy as np
import pytest

import kljax


@pytest.mark.parametrize(
    "p",
    [
        [0.2, 0.8],
        [[3, 0, 1], [10, 2, 0]],  # counts
        np.full((2, 3, 4), 0.25),
        np.array([0.5, 0.25, 0.25], np.float16),
        jnp.array([[0.5, 0.5], [1.0, 0.0]], jnp.bfloat16),
        [True, False],
    ],
)
def test_weights_pass_whatever_they_sum_to(p):
    assert kljax.check(p) is None


@pytest.mark.parametrize(
    "p",
    [
        [0.3, -2.0, 5.0],
        [[-np.inf, 0.0], [1.0, 2.0]],
        [0.0, 1.0],  # two outcomes: logits as good as any
        np.zeros((3, 5), np.float32),
        [[0.2, 0.3, 0.5], [2.0, 1.0, 0.0]],  # one row alone does not condemn the batch
    ],
)
def test_logits_pass(p):
    assert kljax.check(p, column=kljax.logits) is None


@pytest.mark.parametrize(
    ("p", "column", "place", "text"),
    [
        ([[0.5, 0.5], [0.5, np.nan]], "probs", "p[1, 1] is nan", "expected a number"),
        ([0.5, np.inf], "probs", "p[1] is inf", "finite"),
        ([[0.5, 0.5], [0.1, -0.7]], "probs", "p[1, 1] is -0.7", "like logits? use kljax.logits"),
        ([[-0.1, -3.0]], "probs", "p[0, 0] is -0.1", "log-probabilities, which are logits? use kljax.logits"),
        ([0.5, 0.5, -1e-9], "probs", "p[2] is -1e-09", "rounding"),
        ([[1.0, 0.0], [0.0, 0.0]], "probs", "p[1] has no mass", "every outcome is 0"),
        ([[0.0, np.inf]], "logits", "p[0, 1] is inf", "below +inf"),
        ([[0.0, np.nan]], "logits", "p[0, 1] is nan", "expected a number"),
        ([[0.0, 1.0], [-np.inf, -np.inf]], "logits", "p[1] has no mass", "every outcome is -inf"),
        ([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]], "logits", "p[0] looks like probabilities", "use kljax.probs"),
        (np.ones((2, 2, 3)) * [1, 1, -1], "probs", "p[0, 0, 2] is -1", "use kljax.logits"),
    ],
)
def test_faults_name_the_place_the_value_and_the_remedy(p, column, place, text):
    with pytest.raises(ValueError) as caught:
        kljax.check(p, column=getattr(kljax, column))
    assert str(caught.value).startswith(f"kljax.check: {place}")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.5, "shape ()"),
        ([], "shape (0,)"),
        (np.zeros((2, 0)), "shape (2, 0)"),
        ([1 + 2j], "real"),
        (["a"], "real"),
    ],
)
def test_what_is_no_batch_of_distributions(p, text):
    with pytest.raises(ValueError, match="kljax.check") as caught:
        kljax.check(p)
    assert text in str(caught.value)


def test_only_the_two_columns():
    with pytest.raises(ValueError, match="expected kljax.probs or kljax.logits"):
        kljax.check([0.5, 0.5], column=np)
