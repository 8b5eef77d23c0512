"""What `kljax.compare` adds up from block to block: same top outcomes, mass on one side, contributions to kl."""

from functools import partial
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kljax import _check, probs
from kljax._report import Support
from kljax._tables import Form


class Block(NamedTuple):
    """The parts of both sides, [rows, *event], or [*event] for one that belongs to every row, and the mask."""

    p: tuple[np.ndarray, ...]
    q: tuple[np.ndarray, ...]
    where: np.ndarray | None


def tempered(x: Array, temperature: Array | None) -> Array:
    return x if temperature is None else _check.wide(x)[0] / temperature


def _same_top(p: np.ndarray, q: np.ndarray, where: np.ndarray | None) -> int:
    """In how many rows p and q have the same arg max. NumPy's is several times faster than XLA's on a CPU."""
    tops = []
    for x in (p, q):
        tops.append((x if where is None else np.where(where, x, x.dtype.type(-np.inf))).argmax(-1))
    return int(np.count_nonzero(tops[0] == tops[1]))


@partial(jax.jit, static_argnames="column")
def _one_sided(p, q, where, *, column: ModuleType) -> tuple[Array, Array, Array]:
    """Mass of p where q has none and the reverse: which rows [2, B], which outcomes [2, K], how much [2, B]."""
    # users may forbid implicit rank promotion, so the one shape is said aloud
    shape = np.broadcast_shapes(p.shape, q.shape)
    p, q = (jnp.broadcast_to(x, shape) for x in (p, q))
    where = where if where is None else jnp.broadcast_to(where, shape)
    nothing = 0.0 if column is probs else -jnp.inf
    in_p, in_q = p > nothing, q > nothing
    sides, shares = [], []
    for x, side in ((p, in_p & ~in_q), (q, in_q & ~in_p)):
        side = side if where is None else side & where
        x = _check.wide(x)[0]
        mass = x if column is probs else jax.nn.softmax(x, -1, where=where)
        sides.append(side)
        shares.append(jnp.sum(mass, -1, where=side) / jnp.sum(mass, -1, where=where))
    side = jnp.stack(sides)
    return side.any(-1), side.any(-2), jnp.stack(shares)


@partial(jax.jit, static_argnames="form")
def _contributions(p, q, where, live, temperature, *, form: Form) -> tuple[Array, Array]:
    """What each outcome adds to kl, summed over the rows before `live` with a finite kl, and their number."""
    p, q = (form.build([tempered(x, temperature) for x in side]) for side in (p, q))
    assert form.contributions is not None
    each = form.contributions(p, q, where)
    keep = jnp.isfinite(jnp.sum(each, -1)) & (jnp.arange(each.shape[0]) < live)
    return jnp.sum(jnp.where(keep[:, None], each, 0), 0), jnp.sum(keep)


class Tally:
    """What is added up from block to block."""

    def __init__(self, form: Form, outcomes: int, temperature: float | None, top: int):
        self.form, self.temperature = form, temperature
        self.same = 0
        self.finite = 0
        self.total = np.zeros(outcomes) if top and form.contributions else None
        self.violated = np.zeros((2, outcomes), bool)
        self.rows = np.zeros(2, int)
        self.mass = np.zeros(2)

    def add(self, block: Block, padded: Block, live: int) -> None:
        """A block of `live` rows, and the same padded with copies of its last row."""
        if self.form.masses:
            self._masses(block, padded, live)
        if self.total is not None:
            total, finite = _contributions(*padded, live, self.temperature, form=self.form)
            self.total += np.asarray(total)
            self.finite += int(finite)

    def _masses(self, block: Block, padded: Block, live: int) -> None:
        (p,), (q,), where = block
        self.same += _same_top(p, q, where)
        nothing = 0.0 if self.form.column is probs else -np.inf
        if not min(p.min(), q.min()) > nothing:
            (p,), (q,), where = padded
            rows, outcomes, mass = (np.asarray(x) for x in _one_sided(p, q, where, column=self.form.column))
            self.rows += rows[:, :live].sum(1)
            self.violated |= outcomes
            self.mass = np.maximum(self.mass, mass.max(1))

    def mean(self) -> np.ndarray | None:
        """What each outcome or coordinate adds to kl, on average over the rows where it is finite."""
        return None if self.total is None else self.total / max(self.finite, 1)

    def support(self, side: int) -> Support | None:
        """Mass of p where q has none (side 0), or the reverse; None for densities."""
        if not self.form.masses:
            return None
        outcomes = int(np.count_nonzero(self.violated[side]))
        return Support(int(self.rows[side]), outcomes, float(self.mass[side]))
