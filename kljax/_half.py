"""Jensen-Shannon at weight 1/2 by one logarithm an outcome: what the tiles of all pairs spend their time on.

With m = p + q and u = (p - q) / m an outcome adds m g(u) / 2, g(u) = ((1 + u) log(1 + u) + (1 - u) log(1 - u)) / 2,
which is even. Near u = 0 it is u^2 times a polynomial of u^2; far from it, with a = 1 - |u| = 2 min(p, q) / m, it is
a log(a) / 2 and a polynomial of a. The polynomials are fitted by bench/fit_coefficients.py.

Between pairs that are not near it is also a difference of terms of p, of q and of their mixture, each row's own formed
once, the mixture's half the work of the above.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from kljax import _log, _num
from kljax._pair import Pair

# g(u) / u^2 as a polynomial of u^2 on [0, 1/4], lowest power first, for float32 and for float64
_NEAR = (
    (0.4999999987784779, 0.0833336841853274, 0.03331718787578091, 0.018124828390819823, 0.009156762979472948,
     0.013751430143268017),
    (0.5, 0.08333333333332957, 0.03333333333417433, 0.01785714278358462, 0.011111114442826787,
     0.0075756681259546875, 0.005496039225737219, 0.004149163545572993, 0.003403390495890675,
     0.0019227255431347884, 0.004608809769443027, -0.003369780364448289, 0.007184402783872926),
)  # fmt: skip
# (2 - a) log(2 - a) / 2 as a polynomial of a on [0, 1/2]
_FAR = (
    (0.6931471809246047, -0.8465736616128001, 0.1250022596794731, 0.020806757335509785, 0.005354943821114481,
     0.001158786246213466, 0.0010351913411010163),
    (0.6931471805599453, -0.846573590279972, 0.1249999999999174, 0.02083333333754027, 0.005208333221828568,
     0.0015625017646252373, 0.0005208153134101941, 0.00018613617032392014, 6.916138361867652e-05,
     2.9101228943104178e-05, 6.307058278887777e-06, 1.1437978579604308e-05, -4.854045163358781e-06,
     4.098216657140998e-06),
)  # fmt: skip
_LOSS = 1.5  # of the terms of a row, in eps of their spread


class Apart(NamedTuple):
    """Rows beside a reference r: what a pair of them needs where it is not near."""

    share: Array  # p / 2 r
    own: Array  # r h(p / r) / 2, h(y) = y log y - y + 1
    spread: Array  # `[n, 1]`, to which what rounding does to a sum over outcomes is in proportion


def _without(given: Array, y: Array, reference: Array) -> Array:
    """What is given less r h(y) in float32: no digit is lost near y = 1."""
    k, f, rest = _log.split(y)
    near, far = f * f + (1 + f) * rest, y * _log.joined(k, f, rest) - (y - 1)
    return jnp.where(k == 0, given - reference * near, given - reference * far)  # last, as below


def beside(p: Array, reference: Array) -> Apart:
    """Rows of masses `[n, K]` beside a reference `[1, K]`, which has mass where any of them has."""
    some = reference > 0
    share = jnp.where(some, p / jnp.where(some, reference, 1) / 2, 0)
    own = -_without(jnp.zeros_like(p), 2 * share, reference) / 2
    size = own + jnp.abs(own + reference * (share - 0.5))  # a sum y is rounded, and h(y) moves by y log y times that
    return Apart(share, own, jnp.sqrt(_num.total(size * size)))


def apart(x: Apart, y: Apart, reference: Array) -> tuple[Array, Array]:
    """JS of all pairs `[n, m]`, and what rounding may have cost: of a near pair it leaves no digit."""
    own, mixture = x.own[:, None] + y.own[None], x.share[:, None] + y.share[None]
    value = jnp.sum(_without(own, mixture, reference[None]), -1)
    return value, _LOSS * float(jnp.finfo(value.dtype).eps) * (x.spread + y.spread.T)


def term(pair: Pair) -> Array:
    """What each outcome adds to JS(p, q), >= 0."""
    m = jnp.maximum(pair.p + pair.q, _num.tiny(pair.p))  # 0/0 where neither has mass
    one = 1 / m  # the compiler keeps the results of a second division in memory
    u, a = pair.delta * one, 2 * jnp.minimum(pair.p, pair.q) * one
    square = u * u
    near = 0.5 * m * (square * _log.by_halves(_NEAR, square))
    far = 0.5 * m * (0.5 * a * _log.normal(jnp.maximum(a, _num.tiny(a))) + _log.by_halves(_FAR, a))
    return jnp.where(square < 0.25, near, far)  # last, as the reduction takes a product in and then stores two arrays
