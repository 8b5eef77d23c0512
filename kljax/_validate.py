"""`kljax.check`. Cells never ask what their values are: under jit none is known."""

from types import ModuleType
from typing import Any

import numpy as np

from kljax import _tables, probs


def check(p: Any, *, column: ModuleType = probs) -> None:
    """Raise ValueError if p is no batch of distributions, and say where and what to call instead.

    p: shape [..., K], or what the cells of a Gaussian column take. column: `kljax.probs` (weights: finite, >= 0, some
    mass in each row; any sum), `kljax.logits` (log-weights: no NaN, no +inf, not all -inf; refused too when every row
    is non-negative and sums to 1, as probabilities do), `kljax.normal`, `kljax.mvn` or `kljax.lowrank` (all finite,
    standard deviations and variances > 0, factors lower triangular with a diagonal > 0). Eager: under jit the values
    are not known. Returns None.

    >>> import kljax
    >>> kljax.check([[0.2, 0.8], [3.0, 1.0]])
    >>> kljax.check([[0.2, 0.8], [-1.2, 0.3]])
    Traceback (most recent call last):
    ...
    ValueError: kljax.check: p[1, 0] is -1.2: expected >= 0; like logits? use kljax.logits (--as logits)
    >>> kljax.check(kljax.normal.Normal([0.0, 1.0], [1.0, 0.0]), column=kljax.normal)
    Traceback (most recent call last):
    ...
    ValueError: kljax.check: p.scale[1] is 0: expected a standard deviation > 0
    """
    form, items = _tables.items("kljax.check", column, p=p)
    fault = form.fault([item.array.reshape(-1, *item.event) for item in items], None)
    if fault is None:
        return
    item = items[fault.part]
    where = [int(i) for i in np.unravel_index(fault.row, item.lead)] if item.lead else []
    where += fault.place
    place = f"{item.name}{where}" if where else item.name
    raise ValueError(f"kljax.check: {place} {fault.text}")
