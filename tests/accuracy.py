"""The one measure of error in the tests: units of eps of a dtype, against true values that have more digits.

No test has a tolerance of its own. True values are mpmath numbers or decimal strings; `Exact` keeps each as two floats,
the nearest double and what is left, so that a float64 result can be judged to a fraction of its last digit.
"""

from typing import NamedTuple

import mpmath as mp
import numpy as np

VALUE = 8  # eps, times max(1, kappa / 8): the targets of DESIGN 7
GRADIENT = 64  # eps in norm
SMALLEST = 1e5  # a value is measured where it exceeds this many smallest normal numbers
SHORTEST = 1e-20  # a gradient is measured where its norm exceeds this
AGREE = 16  # eps: two ways to one value, each within VALUE

digits = mp.workdps(60)


class Exact(NamedTuple):
    """True values as the nearest doubles and the rest."""

    high: np.ndarray
    low: np.ndarray


def number(x) -> mp.mpf:
    """A decimal string, a C99 hexadecimal float or any number, exactly or to 60 digits."""
    if isinstance(x, str) and "0x" in x:
        return mp.mpf(float.fromhex(x))
    with mp.workdps(max(60, mp.mp.dps)):
        return mp.mpf(x if isinstance(x, str | mp.mpf | int) else float(x))


def exact(values) -> Exact:
    """Nested lists of numbers or decimal strings."""
    with digits:
        flat = [number(x) for x in np.asarray(values, object).ravel()]
        high = [float(x) for x in flat]
        low = [float(x - h) if np.isfinite(h) else 0.0 for x, h in zip(flat, high, strict=True)]
    shape = np.asarray(values, object).shape
    return Exact(np.array(high).reshape(shape), np.array(low).reshape(shape))


def _difference(got: np.ndarray, true: Exact) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs((np.asarray(got, np.float64) - true.high) - true.low)


def value_errors(got, true: Exact, dtype, *, absolute: bool = False, signed: bool = False) -> np.ndarray:
    """Relative errors in eps (absolute ones if asked), inf for a nan, a wrong inf or 0, a negative if not `signed`.

    Beyond the largest number the true answer is inf; below SMALLEST normal numbers any answer as small is right.
    """
    got, info = np.asarray(got, np.float64), np.finfo(dtype)
    small, large = SMALLEST * float(info.tiny), float(info.max)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = _difference(got, true) / (1.0 if absolute else np.abs(true.high)) / float(info.eps)
    error = np.where(np.isposinf(got) & (np.abs(true.high) >= large * (1 - 4 * float(info.eps))), 0, error)
    error = np.where((np.abs(true.high) < small) & (np.abs(got) < 2 * small), 0, error)
    error = np.where((true.high == 0) & (true.low == 0) & (got != 0), np.inf, error)
    return np.where(np.isnan(error) | np.isnan(got) | ((got < 0) & (not signed)), np.inf, error)


def norm_errors(got, true: Exact, dtype) -> np.ndarray:
    """Errors in norm over the last axis, in eps; 0 where the true norm is at most SHORTEST, inf for any nan.

    The norm is the largest size times a 2-norm of what is left, so that nothing overflows or underflows.
    """
    got, scale = np.asarray(got, np.float64), np.max(np.abs(true.high), -1, keepdims=True)
    unit = np.where(scale > 0, scale, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = np.linalg.norm(_difference(got, true) / unit, axis=-1)
        right = np.linalg.norm(true.high / unit, axis=-1)
        error = wrong / np.where(right > 0, right, 1) / float(np.finfo(dtype).eps)
        long = scale[..., 0] * right > SHORTEST
    error = np.where(long, error, 0)
    return np.where(np.isfinite(got).all(-1), error, np.inf)


def close(got, true, dtype=np.float32, eps: float = AGREE, *, norm: bool = False) -> None:
    """Assert that every value (every vector in norm) is within `eps` of the true one."""
    true = true if isinstance(true, Exact) else exact(np.asarray(true, object))
    errors = (norm_errors if norm else value_errors)(got, true, dtype)
    assert np.all(errors <= eps), f"{np.max(errors):.3g} eps, {eps} allowed: got {got}, true {true.high}"


def target(kappa: np.ndarray) -> np.ndarray:
    """What DESIGN 7 allows a value whose relative condition number in its stored inputs is kappa."""
    return VALUE * np.maximum(1, np.asarray(kappa) / 8)
