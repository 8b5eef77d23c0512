"""The first value in a table of distributions that no distribution can have, and what to call instead."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from kljax import logits, probs

_SIMPLEX = 1e-3  # a row of logits that is >= 0 and sums to 1 within this looks like probabilities
_ROUNDING = 1e-4  # a negative probability above minus this share of the row's largest looks like rounding


class Fault(NamedTuple):
    """Where it is, () standing for the row as a whole, and what it is; `part` counts the arrays of a distribution."""

    row: int
    place: tuple[int, ...]
    text: str
    part: int = 0


def discrete(parts: Sequence[np.ndarray], where: np.ndarray | None, *, column: ModuleType) -> Fault | None:
    """Of weights or log-weights [N, K], the one part; outcomes with where=False do not count."""
    (table,) = parts
    nothing = 0.0 if column is probs else -np.inf
    values = _floats(table)
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
            return Fault(row, (), f"has no mass: every outcome is {nothing:g}")
        value = float(values[row, bad[0]])
        return Fault(row, (int(bad[0]),), f"is {value:g}: {_expected(value, values[row], column)}")
    if column is logits and where is None and _looks_normalised(values):
        return Fault(0, (), _NORMALISED)
    return None


_NORMALISED = (
    "looks like probabilities, as every row does (>= 0, sum 1): use kljax.probs (--as probs); "
    "if these are logits, subtract 1 from all: logits do not see a constant"
)


def _floats(table: np.ndarray) -> np.ndarray:
    return table.astype(np.float64 if table.dtype.itemsize > 4 else np.float32)


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


class Rule(NamedTuple):
    """What the finite values of one array [N, *event] must be beyond finite."""

    wrong: Callable[[np.ndarray], np.ndarray]  # where they are not that
    expected: Callable[[float, np.ndarray, tuple[int, ...]], str]  # of the first such value, its row and its place


def continuous(
    parts: Sequence[np.ndarray], where: np.ndarray | None, *, rules: tuple[Rule | None, ...]
) -> Fault | None:
    """Of parameters, part by part [N, *event]: what is not finite, and what breaks the rule of its part.

    There is no outcome for a mask to delete: `where` is None.
    """
    for number, (part, rule) in enumerate(zip(parts, rules, strict=True)):
        values = _floats(part)
        wrong = ~np.isfinite(values)
        if rule is not None:
            with np.errstate(invalid="ignore"):
                wrong |= rule.wrong(values)
        if wrong.any():
            row, *place = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
            value = float(values[(row, *place)])
            text = "expected a number" if np.isnan(value) else "expected a finite number"
            if np.isfinite(value) and rule is not None:
                text = rule.expected(value, values[row], tuple(place))
            return Fault(row, tuple(place), f"is {value:g}: {text}", number)
    return None


def _not_positive(values: np.ndarray) -> np.ndarray:
    return ~(values >= np.finfo(values.dtype).tiny)


def _positive(what: str, negative: str) -> Rule:
    """Numbers > 0; subnormal ones are zeros to the compiler."""

    def expected(value, row, place):
        if value > 0:
            return f"expected {what} of at least {np.finfo(row.dtype).tiny:.3g}, the smallest normal number"
        return f"expected {what} > 0" + (negative if value < 0 else "")

    return Rule(_not_positive, expected)


def _not_a_factor(values: np.ndarray) -> np.ndarray:
    diagonal = np.eye(values.shape[-1], dtype=bool)
    return np.where(diagonal, _not_positive(values), np.triu(values, 1) != 0)


def _expected_of_a_factor(value: float, row: np.ndarray, place: tuple[int, ...]) -> str:
    if np.triu(row, 1).any() and np.array_equal(row, row.T):
        return "expected a lower triangular factor; like a covariance? use kljax.mvn.from_covariance"
    return "expected a diagonal > 0" if place[0] == place[1] else "expected 0 above the diagonal"


SCALE = _positive("a standard deviation", "; like its logarithm? use LogScaleNormal (an array log_scale)")
VARIANCE = _positive("a variance", "")
FACTOR = Rule(_not_a_factor, _expected_of_a_factor)
