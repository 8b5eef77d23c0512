"""Rows written out over a pair: the commonest divergences, several times faster than `_points` makes them of f and r.

Each says the same as its row in `rows.py`, and the tests hold it to that: a term for every outcome, >= 0, and the
slopes of D(p, q) and of D(q, p) in their first argument. The arguments of a row come last, as in its functions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from kljax import _num, _skew
from kljax._pair import Pair, Slope


class Direct(NamedTuple):
    """A row over a whole pair."""

    term: Callable[..., Array]
    slope: Callable[..., Slope]
    mirrored: Callable[..., Slope]
    several: tuple[Callable[[Pair], Array], ...] = ()  # what to sum instead of the term, of a symmetric row
    joined: Callable[..., Array] | None = None  # and the divergence from the sums
    once: bool = False  # whether sums of the slope have to be of the very same numbers, as it magnifies their rounding

    def swap(self) -> "Direct":
        """The row of D(q, p)."""
        return self._replace(term=_Swapped(self.term), slope=self.mirrored, mirrored=self.slope)


class _Swapped(NamedTuple):
    term: Callable[..., Array]

    def __call__(self, pair: Pair, *args) -> Array:
        return self.term(pair.swap(), *args)


def shown(x: Array) -> Array:
    """A slope that the range of floats can say."""
    most = float(jnp.finfo(x.dtype).max) / 4
    return jnp.where(jnp.isfinite(x), x, jnp.where(x > 0, most, -most))


def _far(pair: Pair) -> Array:
    """Where the slopes that have a limit are seen from it."""
    return pair.p > 2.5 * pair.q


def present(p: Array) -> Array:
    return jnp.maximum(p, _num.tiny(p))


def _kl_term(pair: Pair) -> Array:  # p (d - 1 + e^-d)
    near = jnp.abs(pair.d) < 1
    s = jnp.where(near, pair.d, 0)
    far = pair.p * jnp.where(near | jnp.isinf(pair.d), 0, pair.d) - pair.delta
    return jnp.where(near, pair.p * s * s * _num.exp_remainder_near(-s), jnp.where(pair.d == jnp.inf, jnp.inf, far))


def _kl_slope(pair: Pair) -> Slope:  # log(p/q)
    return Slope(pair.p * pair.tame, pair.tame)


def _kl_mirrored(pair: Pair) -> Slope:  # 1 - q/p
    return Slope(pair.delta, shown(_num.quotient(pair.delta, present(pair.p))), balanced=True)


def _jeffreys_term(pair: Pair) -> Array:
    absent = jnp.isinf(pair.d)
    return jnp.where(absent, jnp.inf, pair.delta * jnp.where(absent, 0, pair.d))


def _jeffreys_slope(pair: Pair) -> Slope:
    return Slope(pair.p * pair.tame + pair.delta, shown(pair.tame + _num.quotient(pair.delta, present(pair.p))))


def _tv_term(pair: Pair) -> Array:
    return _num.magnitude(pair.delta) / 2


def _tv_slope(pair: Pair) -> Slope:
    plain = jnp.where(pair.delta < 0, jnp.full_like(pair.p, -0.5), 0)
    return Slope(pair.p * plain, plain, pair.delta > 0, 0.5)


# The excess of either where it is larger, and the mass of p there
_TV_SUMS = (
    lambda pair: jnp.where(pair.delta > 0, pair.delta, 0),
    lambda pair: jnp.where(pair.delta > 0, 0, -pair.delta),
    lambda pair: jnp.where(pair.delta > 0, pair.p, 0),
)


def _tv_joined(upper: Array, lower: Array, share: Array) -> Array:
    """U p(q >= p) + L p(p > q): a relative error common to all of p cancels, which U and L have in first order."""
    return upper * jnp.maximum(1 - share, 0) + lower * share


def _hellinger_term(pair: Pair) -> Array:
    return jnp.square(_num.divide(pair.delta, _num.sqrt(pair.p) + _num.sqrt(pair.q))) / 2


def _hellinger_slope(pair: Pair) -> Slope:  # (1 - sqrt(q/p)) / 2, far -sqrt(q/p) / 2
    far, p = _far(pair), _num.sqrt(pair.p)
    q = _num.sqrt(pair.q)
    rise = jnp.where(far, -q, _num.divide(pair.delta, p + q)) / 2
    return Slope(p * rise, rise / jnp.maximum(p, _num.tiny(p) ** 0.5), far, 0.5)


def _le_cam_term(pair: Pair) -> Array:
    return pair.delta * _num.divide(pair.delta, pair.p + pair.q)


def _le_cam_slope(pair: Pair) -> Slope:  # r (2 - r), r = (p - q) / (p + q); far -(1 - r)^2
    far, m = _far(pair), pair.p + pair.q
    r = _num.divide(pair.delta, m)
    plain = jnp.where(far, -4 * jnp.square(_num.divide(pair.q, m)), r * (2 - r))
    return Slope(pair.p * plain, plain, far, 1.0)


def _chi2_term(pair: Pair) -> Array:  # where q underflows the exponential still knows p / q
    some = pair.q > 0
    rising = jnp.exp(jnp.where(some, 0, pair.log_hi + jnp.where(jnp.isinf(pair.d), 0, pair.d)))
    none = jnp.where(pair.d == jnp.inf, jnp.inf, jnp.where(pair.d > 0, rising, 0))
    return jnp.where(some, pair.delta * (pair.delta / jnp.where(some, pair.q, 1)), none)


def _chi2_slope(pair: Pair) -> Slope:  # 2 (p/q - 1)
    some = pair.q > 0
    near = 2 * pair.delta / jnp.where(some, pair.q, 1)
    d = jnp.where(some, 0, jnp.minimum(pair.tame, _num.log_limit(pair.d) - pair.log_hi))
    plain = jnp.where(some, near, 2 * jnp.exp(d))
    # of a log_hi of -1e9 the limit comes back with an error of 100
    weighted = jnp.where(some, pair.p * near, 2 * jnp.exp(jnp.minimum(d + pair.log_hi, _num.log_limit(d))))
    return Slope(weighted, shown(plain), wild=pair.d == jnp.inf)


def _chi2_mirrored(pair: Pair) -> Slope:  # 1 - (q/p)^2
    some, cap = pair.p > 0, _num.log_limit(pair.d)
    p = jnp.where(some, pair.p, 1)
    far = -jnp.exp(jnp.where(some, 0, jnp.minimum(pair.log_hi - pair.tame, cap)))
    weighted = jnp.where(some, pair.delta * (1 + pair.q / p), far)
    plain = jnp.where(some, (pair.delta / p) * (1 + pair.q / p), -jnp.inf)
    return Slope(weighted, shown(plain), wild=pair.d == -jnp.inf)


def _js_parts(pair: Pair, w: Array, v: Array) -> tuple[Array, Array, Array]:
    """The mixture m = w p + v q, v = 1 - w, and p - q times the third, a power of two.

    Without it w p of masses of 1e-37, or of any at a weight of 1e-37, is flushed to zero.
    """
    lift = jnp.where(w * pair.p + v * pair.q < _num.tiny(pair.p) * 2**60, 2.0**60, 1)
    return w * (pair.p * lift) + v * (pair.q * lift), pair.delta * lift, lift


def _js_sides(pair: Pair, w: Array, v: Array) -> tuple[Array, Array, Array]:
    """KL of p to m and of q to m, each over the third, m."""
    m, delta, lift = _js_parts(pair, w, v)
    # each its own quotient: a compiler keeps one that is used twice in memory
    over_p, over_q = v * _num.divide(delta, m), w * _num.divide(-delta, m)
    by_p, by_q = _num.divide(pair.p * lift, m), _num.divide(pair.q * lift, m)
    return _num.xlogx_rest(over_p, by_p), _num.xlogx_rest(over_q, by_q), m / lift


def _steady(pair: Pair, w: Array, v: Array) -> tuple[Pair, Array, Array]:
    """The same with constants for the weights and the lesser mass where they would make 1/m^2, at weights of 1e-20."""
    far = jnp.abs(pair.delta) > (_num.slope_limit(pair.p) / 4) ** 2 * (w * pair.p + v * pair.q)
    p = jnp.where(far & (pair.delta < 0), lax.stop_gradient(pair.p), pair.p)
    q = jnp.where(far & (pair.delta > 0), lax.stop_gradient(pair.q), pair.q)
    w, v = (jnp.where(far, lax.stop_gradient(x), x) for x in (w, v))
    return pair._replace(p=p, q=q), w, v


def _lone(pair: Pair, w: Array, v: Array) -> Array:
    """(p - q)^2 / m of an outcome that one side lacks and whose m is 0, as its weight is or has made it."""
    w = jnp.maximum(jnp.where(pair.delta > 0, w, v), _num.tiny(pair.p))
    return lax.stop_gradient(jnp.minimum(jnp.abs(pair.delta) / w, _num.slope_limit(pair.p)))


def _js_rate(pair: Pair, w: Array, v: Array) -> Array:
    """The slope of `_js_term` in w, KL(p, m) - KL(q, m), whose own slope in w is -(p - q)^2 / m."""
    m, delta, _ = _js_parts(pair, w, v)
    bend = _skew.turning(w, -jnp.where(m > 0, pair.delta * _num.divide(delta, m), _lone(pair, w, v)))
    w, v = lax.stop_gradient((w, v))
    to_p, to_q, m = _js_sides(*_steady(pair, w, v))
    most = _num.slope_limit(m)
    one, other = (jnp.minimum(_kl_term(each), most) for each in (pair, pair.swap()))
    return jnp.where(w == 0, one, jnp.where(v == 0, -other, m * (to_p - to_q))) + bend


def _js_term(pair: Pair, w: Array, v: Array) -> Array:
    rise = _skew.turning(w, _js_rate(pair, w, v))
    w, v = lax.stop_gradient((w, v))
    to_p, to_q, m = _js_sides(pair, w, v)
    some = (w > 2.0**5 * _num.tiny(m)) & (w < 1)  # log(1/w) / w is to be a number
    value = jnp.where(some, m * (w * to_p + v * to_q), 0)
    return jnp.where((w >= 0) & (w <= 1), value + rise, jnp.nan)


def _js_slope(pair: Pair, w: Array, v: Array) -> Slope:  # w log(p/m), far -w log(1 + v q / (w p))
    inside, one, other = (w > 0) & (v > 0), _kl_slope(pair), _kl_mirrored(pair)
    ends = [jnp.where(w == 0, *each) for each in zip(one[:2], other[:2], strict=True)]
    ends = [_skew.at_an_end(w, jnp.where(inside, 0, end)) for end in ends]
    w, v = jnp.where(inside, w, 0.5), jnp.where(inside, v, 0.5)
    far = _far(pair)
    m, delta, lift = _js_parts(pair, w, v)
    over, under = jnp.where(far, pair.q * (v / w), present(pair.p) * lift), jnp.where(far, pair.p, m)
    share = _num.divide(over, under)
    x = jnp.where(far, share, v * _num.divide(delta, m))
    log = _num.log1p_by(x, jnp.where(far, 1 + share, share))
    plain = jnp.where(inside, w, 0) * jnp.where(far, -log, log)
    low = w < 0.5  # where v has lost what w is
    reach = -w * jnp.where(low, jnp.log(w), _num.log1p(jnp.where(low, 0, -v)))
    # the ends are zeros with slopes, which a sum leaves out of a program that has no use for those
    return Slope(pair.p * plain + ends[0], plain + ends[1], far, jnp.where(inside, reach, 0))


def _scaled_js_views(pair: Pair, w: Array, v: Array) -> tuple[Array, ...]:
    """p/m - 1 and q/m - 1, then p/m and q/m; m itself."""
    m, delta, lift = _js_parts(pair, w, v)
    over_p, over_q = v * _num.divide(delta, m), w * _num.divide(-delta, m)
    return over_p, over_q, _num.divide(pair.p * lift, m), _num.divide(pair.q * lift, m), m


def _scaled_js_rate(pair: Pair, w: Array, v: Array) -> Array:
    """The slope of `_scaled_js_term` in w, (p - q)^2 / m times the difference of two numbers of different sign."""
    pair, w, v = _steady(pair, w, v)
    over_p, over_q, by_p, by_q, m = _scaled_js_views(pair, w, v)
    rate = pair.delta * (over_p - over_q) * (_skew.bend(over_p, by_p) - _skew.bend(over_q, by_q))
    return jnp.where(m > 0, rate, -jnp.sign(pair.delta) * _lone(pair, w, v))


def _scaled_js_term(pair: Pair, w: Array, v: Array) -> Array:
    """(p - q) (h(v r) - h(-w r)), r = (p - q) / m, h = `xlogx_mean`: nothing is divided by w; KL at the ends."""
    rise = _skew.turning(w, _scaled_js_rate(pair, w, v))
    w, v = lax.stop_gradient((w, v))
    over_p, over_q, by_p, by_q, _ = _scaled_js_views(pair, w, v)
    value = pair.delta * (_num.xlogx_mean(over_p, by_p) - _num.xlogx_mean(over_q, by_q))
    value = jnp.where(w == 0, _kl_term(pair), jnp.where(w == 1, _kl_term(pair.swap()), value))
    return jnp.where((w >= 0) & (w <= 1), value + rise, jnp.nan)


def _scaled_js_slope(pair: Pair, w: Array, v: Array) -> Slope:  # log(p/m) / v
    m, delta, lift = _js_parts(pair, w, v)
    r = _num.divide(delta, m)
    r = jnp.where(m > 0, r, _num.quotient(pair.delta, present(pair.p)))  # w = 1 and no mass of p
    y = v * r
    near = (y > -0.5) & (y < 1)
    share = _num.quotient(present(pair.p) * lift, jnp.where(m > 0, m, 1))
    apart = jnp.where(m > 0, jnp.log(share), pair.tame) / jnp.where(near, 1, v)
    # what stands for an infinite slope has none itself: at a weight of 1e-20 that would be out of range
    limit = (pair.p == 0) & (jnp.abs(apart) > _num.slope_limit(apart))
    apart = jnp.where(limit, lax.stop_gradient(apart), apart)
    plain = jnp.where(near, r * _num.log1p_ratio(jnp.where(near, y, 0)), apart)
    some = jnp.where(w > 0, w, 1)
    rest = _num.divide(pair.q, pair.p) / some
    tail = rest * _num.log1p_ratio(v * rest)
    low = some < 0.5  # where v has lost what w is
    reach = jnp.where(low, -jnp.log(some) / jnp.where(low, v, 1), _num.log1p_ratio(jnp.where(low, 0, -v)))
    reach = jnp.where(w > 0, reach, 0)
    far = _far(pair) & (tail < reach / 2)
    plain = shown(jnp.where(far, -tail, plain))
    wild = ((w == 0) & (pair.d == jnp.inf)) | ((v == 0) & (pair.d == -jnp.inf))
    return Slope(jnp.where(pair.p > 0, pair.p, _num.tiny(pair.p)) * plain, plain, far, reach, wild)


def _excess(pair: Pair, gamma: Array) -> Array:
    """p - gamma q, from the difference, of which near gamma = 1 nothing is lost."""
    return pair.delta - (gamma - 1) * pair.q


def _hockey_term(pair: Pair, gamma: Array) -> Array:
    return jnp.where(gamma >= 1, jnp.maximum(_excess(pair, gamma), 0), jnp.nan)


def _hockey_slope(pair: Pair, gamma: Array) -> Slope:
    none = jnp.zeros_like(pair.p)
    return Slope(none, none, _excess(pair, gamma) > 0, 1.0)


def _hockey_mirrored(pair: Pair, gamma: Array) -> Slope:
    plain = jnp.where(_excess(pair.swap(), gamma) > 0, -gamma, 0) + jnp.zeros_like(pair.p)
    return Slope(pair.p * plain, plain)


kl = Direct(_kl_term, _kl_slope, _kl_mirrored)
jeffreys = Direct(_jeffreys_term, _jeffreys_slope, _jeffreys_slope)
tv = Direct(_tv_term, _tv_slope, _tv_slope, _TV_SUMS, _tv_joined)
hellinger_sq = Direct(_hellinger_term, _hellinger_slope, _hellinger_slope)
le_cam = Direct(_le_cam_term, _le_cam_slope, _le_cam_slope)
chi2 = Direct(_chi2_term, _chi2_slope, _chi2_mirrored)
js = Direct(_skew.of(_js_term), _skew.of(_js_slope), _skew.flipped(_js_slope))
scaled_js = Direct(_skew.of(_scaled_js_term), _skew.of(_scaled_js_slope), _skew.flipped(_scaled_js_slope))
hockey_stick = Direct(_hockey_term, _hockey_slope, _hockey_mirrored)
