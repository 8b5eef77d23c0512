"""The logarithm of float32 numbers by its parts, in a third of the time of the compiler's own on a CPU."""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

# (log(1 + f) - f) / f^2 on [sqrt 1/2 - 1, sqrt 2 - 1], of which float64 has no need; by bench/fit_coefficients.py
_REST = (
    (-0.4999999764977098, 0.33333330028354796, -0.25000781239812697, 0.20001234461093456, -0.16626645629127462,
     0.14204855952571013, -0.1312755565128765, 0.1272267278801096, -0.07673641501674025),
)  # fmt: skip
_LOG_2 = (0.693359375, math.log(2) - 0.693359375)  # the product of an exponent and the first is exact in float32


def by_halves(table: tuple[tuple[float, ...], ...], x: Array) -> Array:
    """One of two polynomials, for float32 and for float64, by pairs of powers: products do not wait for each other."""
    coefficients: list = list(table[1 if x.dtype == jnp.float64 else 0])
    while len(coefficients) > 1:
        pairs = zip(coefficients[::2], [*coefficients[1::2], None], strict=False)
        coefficients = [a if b is None else a + b * x for a, b in pairs]
        x = x * x
    return coefficients[0]


@jax.custom_jvp
def normal(x: Array) -> Array:
    """log x of a positive normal number, finite or nan."""
    if x.dtype == jnp.float64:
        return jnp.log(x)
    return joined(*split(x)) + (x - x)  # the bits of a nan are a number like any other


@normal.defjvp
def _(primals, tangents):
    return normal(*primals), tangents[0] / primals[0]


def split(x: Array) -> tuple[Array, Array, Array]:
    """k, f and log(1 + f) - f for x = 2^k (1 + f) in float32, 1 + f in [sqrt 1/2, sqrt 2)."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    k = lax.shift_right_arithmetic(bits - 0x3F3504F3, jnp.int32(23))
    f = lax.bitcast_convert_type(bits - lax.shift_left(k, jnp.int32(23)), jnp.float32) - 1
    return k.astype(jnp.float32), f, f * f * by_halves(_REST, f)


def joined(k: Array, f: Array, rest: Array) -> Array:
    """log x."""
    return k * _LOG_2[0] + (f + (rest + k * _LOG_2[1]))
