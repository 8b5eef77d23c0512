"""The table of f-divergences: a row is a divergence, given by functions of one number.

Every divergence here is D(p, q) = sum over outcomes of q f(p/q) with f convex and f(1) = f'(1) = 0, so that each
outcome adds something >= 0. A row never sees p and q. For each outcome a column forms the ratio of the smaller mass
to the larger, u in [0, 1], and hands it over in two views, t = log u <= 0 and x = u - 1, each with all its digits:

    where p <= q   the outcome adds  q f(t, x)      f is the divergence's own f at u = p/q
    where p >  q   the outcome adds  p r(t, x)      r is the f of D(q, p), at u = q/p

and df, dr are the derivatives f'(u), r'(u) in closed form. All four take `*args` last. Nothing overflows or cancels,
because u <= 1, and t = -inf (no mass on one side) must give the limit. To add a row, write its four functions and one
line in the table below; `from_convex` makes the four from a plain convex function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _convex, _direct, _direct_power, _num, _skew

Term = Callable[..., Array]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["args"],
    meta_fields=["f", "r", "df", "dr", "tails", "growth", "direct"],
)
@dataclass(frozen=True)
class Row:
    """An f-divergence as functions of one ratio u = e^t in [0, 1], x = u - 1; a pytree whose leaves are `args`.

    f, r: the f of D(p, q) and of D(q, p), normalised so that f(1) = f'(1) = 0. df, dr: f'(u), r'(u).
    args: parameters such as an order, passed last to every function; they may be traced.
    tails: optional (of f, of r), f'(inf) - f'(1/u): keeps the digits of gradients between almost disjoint pairs.
    growth: optional args -> (k_f, k_r): as u -> 0, f and u f'(u) go like u^-k (k > 0: f grows without bound; k < 0:
        only u f' does, and vanishes). The column then works with logarithms where u^-k leaves the range of floats.
    direct: optional, the same row written out over a pair (`_direct.py`), which is faster.
    """

    f: Term
    r: Term
    df: Term
    dr: Term
    args: tuple[Any, ...] = ()
    tails: tuple[Term, Term] | None = None
    growth: Callable[..., tuple[Any, Any]] | None = None
    direct: _direct.Direct | None = None


def _t_exp_t(t: Array, x: Array) -> Array:
    """t e^t, 0 at t = -inf where the product would be nan."""
    return jnp.where(x > -1, t, 0) * (1 + x)


def _kl_f(t, x):  # u log u - u + 1
    near = jnp.where(t > -1, t, 0)
    return jnp.where(t > -1, (1 + x) * near * near * _num.exp_remainder(-near), _t_exp_t(t, x) - x)


def _kl_r(t, x):  # u - 1 - log u
    near = jnp.where(t > -1, t, 0)
    return jnp.where(t > -1, near * near * _num.exp_remainder(near), x - t)


def _kl_df(t, x):  # log u
    return t


def _kl_dr(t, x):  # 1 - 1/u
    return -_num.expm1(-t)


def _exp_tail(t, x):
    return jnp.exp(t)


def _no_tail(t, x):
    return jnp.full_like(t, jnp.inf)


def _jeffreys(t, x):  # (u - 1) log u
    return x * t


def _jeffreys_d(t, x):  # log u + 1 - 1/u
    return t - _num.expm1(-t)


def _tv(t, x):  # |u - 1| / 2
    return -x / 2


def _tv_d(t, x):
    return jnp.where(x < 0, -0.5, 0) + jnp.zeros_like(t)


def _tv_tail(t, x):
    return jnp.zeros_like(t)


def _hellinger(t, x):  # (sqrt u - 1)^2 / 2
    root = jnp.sqrt(_num.ratio(t, x))
    return jnp.square(x / (1 + root)) / 2


def _hellinger_d(t, x):  # (1 - 1/sqrt u) / 2
    return -_num.expm1(-t / 2) / 2


def _hellinger_tail(t, x):
    return jnp.exp(t / 2) / 2


def _hellinger_growth():
    return -0.5, -0.5


def _chi2_f(t, x):  # (u - 1)^2
    return x * x


def _chi2_r(t, x):  # (u - 1)^2 / u
    return x * x * jnp.exp(-t)


def _chi2_df(t, x):
    return 2 * x


def _chi2_dr(t, x):  # 1 - 1/u^2
    return -_num.expm1(-2 * t)


def _chi2_tail(t, x):  # of r; f'(u) is unbounded
    return jnp.exp(2 * t)


def _chi2_growth():
    return -2.0, 1.0


def _le_cam(t, x):  # (u - 1)^2 / (u + 1)
    return x * x / (2 + x)


def _le_cam_d(t, x):  # 1 - 4/(u + 1)^2
    return x * (4 + x) / jnp.square(2 + x)


def _le_cam_tail(t, x):
    u = jnp.exp(t)
    return 4 * jnp.square(u / (1 + u))


def _hockey_f(t, x, gamma):  # max(u - gamma, 0), gamma >= 1
    return jnp.where(gamma >= 1, jnp.zeros_like(t), jnp.nan)


def _hockey_r(t, x, gamma):  # max(1 - gamma u, 0)
    return jnp.where(gamma >= 1, jnp.maximum(1 - gamma * _num.ratio(t, x), 0), jnp.nan)


def _hockey_dr(t, x, gamma):
    return jnp.where(gamma * _num.ratio(t, x) < 1, -gamma, 0) + jnp.zeros_like(t)


def _hockey_tail_f(t, x, gamma):
    return jnp.where(gamma * _num.ratio(t, x) < 1, 0, 1) + jnp.zeros_like(t)


def _hockey_tail_r(t, x, gamma):
    return jnp.zeros_like(t + gamma)


def _power_plain(t, x, b):  # u - 1 - (e^(b t) - 1)/b, b <= 1/2
    near = t > -1
    s = jnp.where(near, t, 0)
    far = x - _num.expm1_over(jnp.where(near, -1, t), b)
    return jnp.where(near, s * s * (_num.exp_remainder(s) - b * _num.exp_remainder(b * s)), far)


def _power_swapped(t, x, b):  # u times the above at -t
    near = t > -1
    s = jnp.where(near, t, 0)
    z = jnp.where(near, -1, jnp.maximum(t, -_FAR))
    y = -b * z
    small = jnp.abs(y) < 1
    ys = jnp.where(small, y, 0)
    rest = (_num.exp_product(1 - b, z) - jnp.exp(z) * (1 + y)) / jnp.where(small, 1, b)
    rest = jnp.where(small, jnp.exp(z) * b * z * z * _num.exp_remainder(ys), rest)
    far = -x + z * (1 + x) - rest
    return jnp.where(near, (1 + x) * s * s * (_num.exp_remainder(-s) - b * _num.exp_remainder(-b * s)), far)


_FAR = 1e18  # stands for -t at t = -inf: its square does not overflow


def _alpha_f(t, x, a):  # (u^a - 1 - a (u - 1)) / (a (a - 1)), with no division by a or by a - 1
    b = jnp.minimum(a, 1 - a)
    return jnp.where(a < 0.5, _power_plain(t, x, b), _power_swapped(t, x, b)) / (1 - b)


def _alpha_r(t, x, a):
    return _alpha_f(t, x, 1 - a)


def _alpha_df(t, x, a):  # (u^(a - 1) - 1) / (a - 1)
    return _num.expm1_over(t, a - 1)


def _alpha_dr(t, x, a):
    return _num.expm1_over(t, -a)


def _alpha_tail_f(t, x, a):
    finite = t > -jnp.inf
    power = jnp.where(finite, jnp.exp((1 - a) * jnp.where(finite, t, 0)), 0)
    return jnp.where(a < 1, power / jnp.where(a < 1, 1 - a, 1), jnp.inf)


def _alpha_tail_r(t, x, a):
    return _alpha_tail_f(t, x, 1 - a)


def _alpha_growth(a):
    return -a, a - 1


def _tsallis_f(t, x, a):  # a times 1/a at t = -inf, at a = 0 too; nan for a < 0
    return jnp.where(a >= 0, jnp.where(t > -jnp.inf, a * _alpha_f(t, x, a), 1), jnp.nan)


def _tsallis_r(t, x, a):
    return jnp.where(a >= 0, a * _alpha_r(t, x, a), jnp.nan)


def _tsallis_df(t, x, a):
    return jnp.where(a > 0, a * _alpha_df(t, x, a), 0)  # at a = 0 the slope itself may be infinite


def _tsallis_dr(t, x, a):
    return jnp.where(a > 0, a * _alpha_dr(t, x, a), 0)


def _tsallis_tail_f(t, x, a):
    return a * _alpha_tail_f(t, x, a)


def _tsallis_tail_r(t, x, a):  # a times the tail of alpha's r, which divides by a
    return jnp.where(t > -jnp.inf, jnp.exp(a * jnp.where(t > -jnp.inf, t, 0)), 0)


_skew_f, _skew_r = _skew.of(_skew.value), _skew.flipped(_skew.value)
_skew_df, _skew_dr = _skew.of(_skew.slope), _skew.flipped(_skew.slope)
_skew_tails = (_skew.of(_skew.tail), _skew.flipped(_skew.tail))
_js_f, _js_r, _js_df, _js_dr = (_skew.weighted(f) for f in (_skew_f, _skew_r, _skew_df, _skew_dr))
_js_tails = (_skew.weighted(_skew_tails[0]), _skew.weighted(_skew_tails[1]))

# The table. Without a parameter a row is a value, with one it is a constructor.
kl = Row(_kl_f, _kl_r, _kl_df, _kl_dr, tails=(_no_tail, _exp_tail), direct=_direct.kl)
reverse_kl = Row(_kl_r, _kl_f, _kl_dr, _kl_df, tails=(_exp_tail, _no_tail), direct=_direct.kl.swap())
jeffreys = Row(_jeffreys, _jeffreys, _jeffreys_d, _jeffreys_d, direct=_direct.jeffreys)
tv = Row(_tv, _tv, _tv_d, _tv_d, tails=(_tv_tail, _tv_tail), direct=_direct.tv)
hellinger_sq = Row(
    _hellinger,
    _hellinger,
    _hellinger_d,
    _hellinger_d,
    tails=(_hellinger_tail, _hellinger_tail),
    growth=_hellinger_growth,
    direct=_direct.hellinger_sq,
)
chi2 = Row(_chi2_f, _chi2_r, _chi2_df, _chi2_dr, tails=(_no_tail, _chi2_tail), growth=_chi2_growth, direct=_direct.chi2)
le_cam = Row(_le_cam, _le_cam, _le_cam_d, _le_cam_d, tails=(_le_cam_tail, _le_cam_tail), direct=_direct.le_cam)


def js(weight: Any = 0.5) -> Row:
    """Jensen-Shannon, w KL(p, m) + (1 - w) KL(q, m), m = w p + (1 - w) q; `weight` w in [0, 1] is that of p."""
    return Row(_js_f, _js_r, _js_df, _js_dr, (weight,), _js_tails, direct=_direct.js)


def scaled_js(weight: Any) -> Row:
    """Jensen-Shannon over w (1 - w): KL(p, q) at weight 0 and KL(q, p) at weight 1, without a jump."""
    return Row(_skew_f, _skew_r, _skew_df, _skew_dr, (weight,), _skew_tails, direct=_direct.scaled_js)


def hockey_stick(gamma: Any) -> Row:
    """Sum of max(p - gamma q, 0), gamma >= 1: the delta of (log gamma, delta) differential privacy."""
    tails = (_hockey_tail_f, _hockey_tail_r)
    return Row(_hockey_f, _hockey_r, _hockey_f, _hockey_dr, (gamma,), tails, direct=_direct.hockey_stick)


def alpha(order: Any) -> Row:
    """(sum p^a q^(1-a) - 1) / (a (a - 1)): reverse KL at order 0, KL at 1, 4 hellinger_sq at 1/2, chi2/2 at 2."""
    tails = (_alpha_tail_f, _alpha_tail_r)
    return Row(_alpha_f, _alpha_r, _alpha_df, _alpha_dr, (order,), tails, _alpha_growth, _direct_power.alpha)


def tsallis(order: Any) -> Row:
    """(sum p^a q^(1-a) - 1) / (a - 1), a >= 0: a times alpha, and at order 0 the mass of q where p has none."""
    tails = (_tsallis_tail_f, _tsallis_tail_r)
    functions = _tsallis_f, _tsallis_r, _tsallis_df, _tsallis_dr
    return Row(*functions, (order,), tails, _alpha_growth, _direct_power.tsallis)


def from_convex(f: Callable[[Array], Array], *, at_zero: float, slope_at_infinity: float) -> Row:
    """Make a row from a convex f of u = p/q, evaluated stably near u = 1: D(p, q) = sum q f(p/q) - f(1), in [0, inf].

    `f` is elementwise and twice differentiable for u > 0; `at_zero` is its limit f(0), `slope_at_infinity` the limit of
    f(u)/u, either may be inf. Near u = 1 the term is an integral of f'' (Gauss-Legendre, 12 nodes), which does not
    cancel. Make the row once and keep it: every call makes a new row, and a new row compiles anew.

    >>> import jax.numpy as jnp, kljax
    >>> row = kljax.rows.from_convex(lambda u: u * jnp.log(u), at_zero=0.0, slope_at_infinity=jnp.inf)
    >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.9, 0.1])
    >>> print(f"{kljax.probs.f_divergence(p, q, row=row):.4f} {kljax.probs.kl(p, q):.4f}")
    0.5108 0.5108
    """
    return Row(*_convex.terms(f, at_zero, slope_at_infinity))
