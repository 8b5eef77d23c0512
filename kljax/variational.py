"""Lower bounds of divergences from a critic: what a network that sees samples of p and of q says of D(p, q).

A critic here returns t, its idea of log p/q at a sample, for every row; a network's output needs no activation. With
t = log p/q a bound is its divergence, any other t gives less. The bounds come from the rows' own slopes:

    D(p, q) >= E_p f'(e^t) - E_q [e^t f'(e^t) - f(e^t)] = E_p f'(e^t) + E_q r'(e^-t)

r being the f of D(q, p), so no conjugate is typed in, and nothing is formed that a large |t| would overflow before the
bound itself does. Arguments hold the critic's values at samples; means over the last axis estimate both expectations.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _check, _num, _ratio, rows
from kljax._cells import replaced
from kljax._points import mirror
from kljax.rows import Row

__all__ = ["donsker_varadhan", "f_gan", "nwj"]


@jax.jit
def f_gan(row: Row, t_p: ArrayLike, t_q: ArrayLike) -> Array:
    """Variational bound of any row, mean of f'(e^t_p) minus mean of (u f'(u) - f(u)) at u = e^t_q, in [-inf, inf].

    row: a row of `kljax.rows`, your own included. t_p, t_q: the critic, an estimate of log p/q, at samples of p and q.
    Shapes: t_p `[..., n]`, t_q `[..., m] -> [...]`, in nats; leading axes equal, or one the tail of the other's.
    Its expectation is at most D(p, q), and D(p, q) at t = log p/q; a mean over samples varies about that without bias,
    and at t = 0 it is exactly 0. Gradients are those of the formula; of tv and hockey_stick they are 0, as f' is a step
    function: no critic learns from these two.
    A row of `rows.from_convex` is as good as differences of its f at e^|t| are: in float32 good to |t| of about 5.
    Degenerate input: t may be infinite; a value beyond the range of floats is an infinity (-inf where both means are),
    and its slope is finfo.max^(1/4). For kl in float32 that begins at t_q = 89. A nan spoils its own row alone.
    Errors: AssertionError at trace time where shapes do not match.
    Source: Nguyen, Wainwright and Jordan (2010); Nowozin, Cseke and Tomioka, f-GAN (2016).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.75, 0.25])
    >>> t = jnp.log(p / q)
    >>> bound = kljax.variational.f_gan(kljax.rows.js(), t, t[jnp.array([0, 0, 0, 1])])
    >>> print(f"{bound:.5f} {kljax.probs.js(p, q):.5f}")
    0.03382 0.03382
    """
    t_p, t_q = _critic("f_gan", t_p, t_q)
    return _bound(replaced("kljax.variational.f_gan", row, t_p), t_p, t_q)


@jax.jit
def nwj(t_p: ArrayLike, t_q: ArrayLike) -> Array:
    """Nguyen-Wainwright-Jordan bound of KL(p, q), mean of t_p minus mean of (e^t_q - 1), in [-inf, inf].

    This is f_gan with `rows.kl`: unbiased, at most `donsker_varadhan` of the same samples, and of large variance where
    KL(p, q) is: that of e^t_q. A critic with values v = t + 1 gives the usual mean of v_p minus mean of e^(v_q - 1).
    Shapes: t_p `[..., n]`, t_q `[..., m] -> [...]`, in nats; leading axes equal, or one the tail of the other's.
    Degenerate input: as in `f_gan`. Errors: AssertionError at trace time where shapes do not match.
    Source: Nguyen, Wainwright and Jordan, Estimating divergence functionals by convex risk minimization (2010).

    >>> import jax.numpy as jnp, kljax
    >>> t = jnp.log(jnp.array([0.5 / 0.75, 0.5 / 0.25]))
    >>> print(f"{kljax.variational.nwj(t, t[jnp.array([0, 0, 0, 1])]):.5f}")
    0.14384
    """
    return _bound(rows.kl, *_critic("nwj", t_p, t_q))


@jax.jit
def donsker_varadhan(t_p: ArrayLike, t_q: ArrayLike) -> Array:
    """Donsker-Varadhan bound of KL(p, q), mean of t_p minus log mean e^t_q, in [-inf, inf]; t + c gives the same.

    Biased from samples: the log of a mean over m samples of q is too small by Var_q(e^t) / (2 m (E_q e^t)^2) on
    average, so the value is too large by it and may exceed KL(p, q). The gradient is biased alike: averaged over many
    minibatches it does not vanish at the optimum of the bound. More steps do not help, a larger m does, or `nwj`.
    Shapes: t_p `[..., n]`, t_q `[..., m] -> [...]`, in nats; leading axes equal, or one the tail of the other's.
    Degenerate input: any finite t gives a finite value; +inf where all of t_q is -inf. A nan spoils its own row alone.
    Errors: AssertionError at trace time where shapes do not match.
    Source: Donsker and Varadhan (1975); Belghazi et al., Mutual information neural estimation (2018).

    >>> import jax.numpy as jnp, kljax
    >>> t = jnp.log(jnp.array([0.5 / 0.75, 0.5 / 0.25]))
    >>> print(f"{kljax.variational.donsker_varadhan(t + 9, t[jnp.array([0, 0, 0, 1])] + 9):.5f}")
    0.14384
    """
    t_p, t_q = _critic("donsker_varadhan", t_p, t_q)
    top = lax.stop_gradient(jnp.max(t_q, -1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    return jnp.mean(t_p - top, -1) - _log_mean_exp(t_q - top)


def _critic(name: str, t_p: ArrayLike, t_q: ArrayLike) -> tuple[Array, Array]:
    t_p, t_q = _check.wide(t_p, t_q)
    return _check.batch(f"kljax.variational.{name}", "t_p", t_p, "t_q", t_q)


def _bound(row: Row, t_p: Array, t_q: Array) -> Array:
    gained, paid = jnp.mean(_ratio.slope(row, t_p), -1), jnp.mean(_ratio.slope(mirror(row), -t_q), -1)
    return jnp.where(paid == -jnp.inf, paid, gained + paid)


def _log_mean_exp(t: Array) -> Array:
    """log mean e^t of t <= 0: by log1p while t is near 0, where the mean of e^t alone has lost its digits."""
    rest = jnp.mean(_num.expm1(t), -1)
    near = rest > -0.5
    return jnp.where(near, _num.log1p(jnp.where(near, rest, 0)), _num.log_total(t) - math.log(t.shape[-1]))
