"""Batches of one fixed shape for the tests of laws and transformations, so that each cell compiles once.

A row of a batch is one way for p to look and one way for q to relate to it. The parameters that
hypothesis draws change the numbers, never the shape.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import kljax
from tests import corpus, matrix
from tests.columns import COLUMNS

OUTCOMES = 12
SHAPES = ("flat", "steep", "zeros", "one_hot", "tiny")  # how the masses of p look
RELATIONS = ("apart", "near", "ulp", "equal", "lacking", "lacked", "disjoint")  # what q is to p
KINDS = [(shape, relation) for shape in SHAPES for relation in RELATIONS]
ROWS = len(KINDS)
EPS = float(np.finfo(np.float32).eps)
SMALL = 1e5 * float(np.finfo(np.float32).tiny)  # below it any value as small is right: DESIGN 7


class Draw(NamedTuple):
    """What hypothesis chooses: a seed, the logarithm of the span of masses, how near q is, how many outcomes live."""

    seed: int
    span: int
    nearness: int
    live: int


draws = st.builds(Draw, st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(1, 7), st.integers(2, OUTCOMES))


def _shape(rng, kind, draw):
    logs = rng.uniform(-draw.span, 0, OUTCOMES) if kind == "steep" else rng.normal(size=OUTCOMES)
    if kind == "tiny":
        logs[rng.integers(OUTCOMES)] += 60
    live = np.arange(OUTCOMES) < draw.live
    if kind == "zeros":
        live &= rng.random(OUTCOMES) < 0.6
        live[0] = True
    if kind == "one_hot":
        live = np.arange(OUTCOMES) == rng.integers(draw.live)
    return np.where(live, logs, -np.inf)


def _relate(rng, kind, a, draw):
    """The logarithms of q, or None where q is p but for its last digits."""
    live = np.arange(OUTCOMES) < draw.live
    noise = rng.normal(size=OUTCOMES)
    if kind == "near":
        return a + 10.0**-draw.nearness * noise
    if kind == "lacking":  # q lacks an outcome that p has, unless it is the only one
        gone = np.flatnonzero(a > -np.inf)[0]
        return np.where((np.arange(OUTCOMES) == gone) & (draw.live > 1), -np.inf, np.where(live, noise, -np.inf))
    if kind == "lacked":  # q has all outcomes
        return np.where(live, noise, -np.inf)
    if kind == "disjoint":
        other = np.where(a > -np.inf, -np.inf, np.where(live, noise, -np.inf))
        return other if np.isfinite(other).any() else np.where(a > -np.inf, noise, -np.inf)
    return np.where(a > -np.inf, 3 * noise, -np.inf)


def batch(column: str, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """p and q `[ROWS, OUTCOMES]` in float32, every row with mass on both sides."""
    rng = np.random.default_rng(draw.seed)
    p, q = np.empty((2, ROWS, OUTCOMES), np.float32)
    for i, (shape, relation) in enumerate(KINDS):
        a = _shape(rng, shape, draw)
        p[i] = a if column == "logits" else np.exp(a)
        if relation in ("equal", "ulp"):
            q[i] = p[i]
            steps = rng.integers(-1, 2, OUTCOMES) * (relation == "ulp")
            with np.errstate(invalid="ignore"):
                moved = np.nextafter(p[i], np.where(steps > 0, np.inf, 0).astype(np.float32))
            q[i] = np.where((steps == 0) | ~(np.isfinite(p[i]) & (p[i] != 0)), p[i], moved)
        else:
            b = _relate(rng, relation, a, draw)
            q[i] = b if column == "logits" else np.exp(b)
    if column == "logits":  # logits have no scale of their own
        p += np.float32(rng.integers(-3, 4) * 100)
        q += np.float32(rng.integers(-3, 4) * 100)
    return p, q


def counts(column: str, seed: int, total: int = 2**12, spread: float = 1.0, number: int = 2) -> list[np.ndarray]:
    """`number` batches of tables of counts with one total, exact in float32 with their sums and small multiples.

    On logits, their logarithms.
    """
    rng = np.random.default_rng(seed)
    tables = [
        np.stack([rng.multinomial(total - OUTCOMES, rng.dirichlet(np.full(OUTCOMES, spread))) + 1 for _ in range(ROWS)])
        for _ in range(number)
    ]
    return [given(column, t) for t in tables]


def given(column: str, weights) -> np.ndarray:
    """Weights as inputs of a column."""
    with np.errstate(divide="ignore"):
        return np.asarray(weights if column == "probs" else np.log(np.asarray(weights, np.float64)), np.float32)


def padded(column: str, x: np.ndarray) -> np.ndarray:
    """Fewer outcomes than OUTCOMES, filled up with outcomes that do not exist."""
    short = OUTCOMES - x.shape[-1]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)], constant_values=COLUMNS[column].empty).astype(np.float32)


def call(column: str, name: str, p, q, **options) -> np.ndarray:
    """A cell's values as doubles; options are traced."""
    traced = {k: jnp.asarray(v, jnp.float32) for k, v in options.items()}
    return np.asarray(corpus.cell(column, name)(p, q, **traced), np.float64)


def values(column: str, p, q, names=matrix.PAIRS) -> dict[str, np.ndarray]:
    """Every cell by its first option."""
    return {name: call(column, name, p, q, **matrix.options(name)[0]) for name in names}


@functools.cache
def slopes(column: str, name: str):
    """Value and both gradients of a cell, one program for every batch and option."""
    function = corpus.cell(column, name)

    def total(p, q, options):
        value = function(p, q, **options)
        return jnp.sum(value), value

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


def rows(names) -> dict[str, kljax.rows.Row]:
    """The rows behind f-divergences, with the options that are theirs first in matrix.OPTIONS."""
    found = {}
    for name in names:
        row = getattr(kljax.rows, name)
        traced = {k: jnp.asarray(v, jnp.float32) for k, v in matrix.options(name)[0].items()}
        found[name] = row(**traced) if callable(row) else row
    return found
