"""What is wrong with the values of a distribution, and what to call instead. Cells never ask: under jit no
value is known; `kljax.check`, `kljax.compare` and the command line do.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from kljax import logits, probs

_SIMPLEX = 1e-3  # a row of logits that is >= 0 and sums to 1 within this looks like probabilities
_ROUNDING = 1e-4  # a negative probability above minus this share of the row's largest looks like rounding


class Fault(NamedTuple):
    """The first value of a table that no distribution can have."""

    row: int
    outcome: int | None  # None: the row as a whole
    text: str


def check(p: ArrayLike, *, column: ModuleType = probs) -> None:
    """Raise ValueError if p is no batch of distributions, and say where and what to call instead.

    p: shape [..., K]. column: `kljax.probs` (weights: finite, >= 0, some mass in each row; any sum) or
    `kljax.logits` (log-weights: no NaN, no +inf, not all -inf; refused too when every row is non-negative and
    sums to 1, as probabilities do). Eager: under jit the values are not known. Returns None.

    >>> import kljax
    >>> kljax.check([[0.2, 0.8], [3.0, 1.0]])
    >>> kljax.check([[0.2, 0.8], [-1.2, 0.3]])
    Traceback (most recent call last):
    ...
    ValueError: kljax.check: p[1, 0] is -1.2: expected >= 0; like logits? use kljax.logits (--as logits)
    """
    values = np.asarray(p)
    if values.ndim == 0 or values.size == 0:
        raise ValueError(f"kljax.check: p has shape {values.shape}: expected [..., K] with K >= 1 outcomes")
    if values.dtype.kind in "cOSUM":
        raise ValueError(f"kljax.check: p holds {values.dtype}: expected real numbers")
    fault = find_fault(values.reshape(-1, values.shape[-1]), column)
    if fault is None:
        return
    where = [int(i) for i in np.unravel_index(fault.row, values.shape[:-1])] if values.ndim > 1 else []
    where += [] if fault.outcome is None else [fault.outcome]
    place = f"p{where}" if where else "p"
    raise ValueError(f"kljax.check: {place} {fault.text}")


def find_fault(table: np.ndarray, column: ModuleType, where: np.ndarray | None = None) -> Fault | None:
    """The first fault of a table [N, K], or None; outcomes with where=False do not count."""
    if column not in (probs, logits):
        raise ValueError(f"kljax.check: column {column.__name__}: expected kljax.probs or kljax.logits")
    nothing = 0.0 if column is probs else -np.inf
    values = table.astype(np.float64 if table.dtype.itemsize > 4 else np.float32)
    values = values if where is None else np.where(where, values, nothing)
    with np.errstate(invalid="ignore"):
        wrong = ~(values >= 0) if column is probs else np.isnan(values)
        wrong |= values == np.inf
        massless = ~(values > nothing).any(-1)
    rows = np.flatnonzero(wrong.any(-1) | massless)
    if rows.size:
        row = int(rows[0])
        bad = np.flatnonzero(wrong[row])
        if not bad.size:
            return Fault(row, None, f"has no mass: every outcome is {nothing:g}")
        value = float(values[row, bad[0]])
        return Fault(row, int(bad[0]), f"is {value:g}: {_expected(value, values[row], column)}")
    if column is logits and where is None and _looks_normalised(values):
        return Fault(0, None, _NORMALISED)
    return None


_NORMALISED = (
    "looks like probabilities, as every row does (>= 0, sum 1): use kljax.probs (--as probs); "
    "if these are logits, subtract 1 from all: logits do not see a constant"
)


def _looks_normalised(values: np.ndarray) -> bool:
    """Whether every row is >= 0 and sums to 1; with two outcomes logits may well be (0, 1)."""
    return bool(values.shape[-1] > 2 and (values >= 0).all() and (abs(values.sum(-1) - 1) < _SIMPLEX).all())


def _expected(value: float, row: np.ndarray, column: ModuleType) -> str:
    if np.isnan(value):
        return "expected a number"
    if column is logits:
        return "logits are below +inf; -inf stands for no mass"
    if value > 0:
        return "weights are finite"
    finite = row[np.isfinite(row)]
    if value > -_ROUNDING * max(finite.max(), 0):
        return "expected >= 0; if this is rounding, clip it at 0 first"
    kind = "log-probabilities, which are logits" if finite.max() <= 0 else "logits"
    return f"expected >= 0; like {kind}? use kljax.logits (--as logits)"
