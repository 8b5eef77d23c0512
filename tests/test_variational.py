"""kljax.variational: slopes of rows against closed forms to |t| = 200, tightness, golden critics, the bias of DV."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kljax
from kljax import rows
from kljax.variational import donsker_varadhan, f_gan, nwj
from tests import accuracy, columns, corpus, matrix


class Convex(NamedTuple):
    """A row and its f, f', f'' as functions of u, to any number of digits."""

    row: rows.Row
    f: object
    df: object
    ddf: object


def _alpha(row, a, scale=1):
    a = mp.mpf(a)
    return Convex(
        row,
        lambda u: scale * (u**a - 1 - a * (u - 1)) / (a * (a - 1)),
        lambda u: scale * (u ** (a - 1) - 1) / (a - 1),
        lambda u: scale * u ** (a - 2),
    )


def _js(row, w, scale=1):
    w = mp.mpf(w)

    def m(u):
        return w * u + 1 - w

    return Convex(
        row,
        lambda u: scale * (w * u * mp.log(u / m(u)) - (1 - w) * mp.log(m(u))),
        lambda u: scale * w * mp.log(u / m(u)),
        lambda u: scale * w * (1 - w) / (u * m(u)),
    )


ROWS = {
    "kl": Convex(rows.kl, lambda u: u * mp.log(u) - u + 1, mp.log, lambda u: 1 / u),
    "reverse_kl": Convex(rows.reverse_kl, lambda u: u - 1 - mp.log(u), lambda u: 1 - 1 / u, lambda u: u**-2),
    "jeffreys": Convex(
        rows.jeffreys, lambda u: (u - 1) * mp.log(u), lambda u: mp.log(u) + 1 - 1 / u, lambda u: 1 / u + u**-2
    ),
    "hellinger_sq": Convex(
        rows.hellinger_sq,
        lambda u: (mp.sqrt(u) - 1) ** 2 / 2,
        lambda u: (1 - 1 / mp.sqrt(u)) / 2,
        lambda u: u ** mp.mpf(-1.5) / 4,
    ),
    "chi2": Convex(rows.chi2, lambda u: (u - 1) ** 2, lambda u: 2 * (u - 1), lambda u: mp.mpf(2)),
    "le_cam": Convex(
        rows.le_cam, lambda u: (u - 1) ** 2 / (u + 1), lambda u: 1 - 4 / (u + 1) ** 2, lambda u: 8 / (u + 1) ** 3
    ),
    "js": _js(rows.js(), 0.5),
    "js@0.25": _js(rows.js(0.25), 0.25),
    "scaled_js@0.25": _js(rows.scaled_js(0.25), 0.25, mp.mpf(16) / 3),
    "alpha@0.25": _alpha(rows.alpha(0.25), 0.25),
    "alpha@1.001": _alpha(rows.alpha(1 + 2.0**-10), 1 + 2.0**-10),
    "alpha@1.5": _alpha(rows.alpha(1.5), 1.5),
    "alpha@20": _alpha(rows.alpha(20.0), 20),
    "alpha@-1.5": _alpha(rows.alpha(-1.5), -1.5),
    "tsallis@3": _alpha(rows.tsallis(3.0), 3, 3),
}
STEPS = {"tv": rows.tv, "hockey_stick": rows.hockey_stick(1.5)}
OWN = {"own": rows.from_convex(lambda u: (u - 1) ** 2 / (u + 1), at_zero=1.0, slope_at_infinity=1.0)}
EVERY = {**{name: r.row for name, r in ROWS.items()}, **STEPS, **OWN, "scaled_js@0": rows.scaled_js(0.0)}
SIZES = [1e-7, 1e-3, 0.03, 0.3, 0.7, 1, 2, 5, 15, 40, 70, 87, 89, 120, 200]
T = np.array([sign * size for size in SIZES for sign in (1, -1)])
OUTCOMES, DRAWS = 4, 4096
PAIRS = {  # how often each outcome is drawn, from p and from q
    "apart": ([1536, 1280, 768, 512], [1024] * OUTCOMES),
    "near": ([1025, 1023, 1024, 1024], [1024] * OUTCOMES),
    "lacking": ([2048, 2048, 0, 0], [0, 1024, 3072, 0]),
}


@jax.jit
def _both(row, t):
    """f'(e^t) and minus its conjugate, with their derivatives: a bound whose other critic is 0."""
    zero = jnp.zeros_like(t)
    gained = jax.jvp(lambda t: f_gan(row, t, zero), (t,), (jnp.ones_like(t),))
    return *gained, *jax.jvp(lambda t: f_gan(row, zero, t), (t,), (jnp.ones_like(t),))


def _off(got, true, dtype, infinite):
    """The largest error in eps, a cap or an infinity standing for what is beyond the range of floats."""
    info, errors = np.finfo(dtype), []
    for g, t, out in zip(np.asarray(got, np.float64), true, infinite, strict=True):
        if out:
            capped = abs(g / float(info.max) ** 0.25 - 1) < float(info.eps)
            errors.append(0 if np.isinf(g) or capped else np.inf)
        elif abs(t) < accuracy.SMALLEST * float(info.tiny):
            errors.append(0 if abs(g) < 10 * accuracy.SMALLEST * float(info.tiny) else np.inf)
        else:
            errors.append(float(abs(mp.mpf(float(g)) - t) / abs(t)) / float(info.eps))
    return np.max(errors)


QUICK = (
    "kl",
    "reverse_kl",
    "hellinger_sq",
    "chi2",
    "js",
    "alpha@1.5",
    "tv",
    "own",
)  # the others take minutes to compile
FIRST = ("kl", "chi2", "js", "own")


def _when(name, dtype):
    if name not in QUICK or (dtype == "float64" and name != "kl"):
        return [pytest.mark.slow]
    return [pytest.mark.repeat] * (name not in FIRST)


HERE = [pytest.param(name, dtype, marks=_when(name, dtype)) for name in ROWS for dtype in ("float32", "float64")]
EACH = matrix.tiers(EVERY, ("kl", "js"), QUICK)


@pytest.mark.parametrize(("name", "dtype"), HERE, indirect=["dtype"])
def test_slopes_to_two_hundred(name, dtype):
    """The value and slope of either half of a bound, in eps: 8 are allowed, as to every cell."""
    _, f, df, ddf = ROWS[name]
    t = T.astype(dtype)
    with mp.workdps(400):
        u = [mp.exp(mp.mpf(float(x))) for x in t]
        gained, paid = [df(v) for v in u], [-(v * df(v) - f(v)) for v in u]
        slopes = [v * ddf(v) for v in u], [-v * v * ddf(v) for v in u]
        largest = float(np.finfo(dtype).max)
        got = _both(ROWS[name].row, jnp.asarray(t)[:, None])
        for true, slope, value, rate in zip((gained, paid), slopes, got[::2], got[1::2], strict=True):
            out = [abs(x) > largest for x in true]
            assert _off(value, true, dtype, out) <= accuracy.VALUE
            sign = 1 if true is gained else -1
            out = [o or abs(s) > largest for o, s in zip(out, slope, strict=True)]
            assert _off(sign * rate, [sign * s for s in slope], dtype, out) <= accuracy.VALUE


@jax.jit
def _bounds(row, t, x, y, noise):
    """The bound of critics over outcomes drawn as x and y: of t, its slopes together and on p's side, of t + noise."""

    def of(t, u):
        return f_gan(row, t[x], u[y])

    value, slopes = jax.value_and_grad(partial(f_gan, row), (0, 1))(t[x], t[y])
    return value, *slopes, jax.vmap(lambda e: of(t + e, t + e))(noise), of(jnp.zeros_like(t), jnp.zeros_like(t))


@pytest.mark.parametrize("name", EACH)
@pytest.mark.lenient  # a user's f has numbers of its own
def test_a_bound_is_tight_at_the_log_ratio(name):
    """Its terms are of the size of t and of both signs, near equality its value of the size of t^2."""
    row, eps = EVERY[name], float(np.finfo(np.float32).eps)
    noise = jax.random.normal(jax.random.key(0), (40, OUTCOMES)) * jnp.logspace(-2, 1, 40)[:, None]
    for kind, counts in PAIRS.items():
        p, q = (jnp.asarray(c, jnp.float32) for c in counts)
        t = jnp.where((p == 0) & (q == 0), 0, jnp.log(p) - jnp.log(q))
        x, y = (np.repeat(np.arange(OUTCOMES), c) for c in counts)
        value, slope_p, slope_q, others, none = _bounds(row, t, x, y, noise)
        exact = kljax.probs.f_divergence(p, q, row=row)
        assert none == 0, kind
        if not np.isfinite(exact):
            assert value == exact, kind
            continue
        size = float(jnp.abs(jnp.where(jnp.isfinite(t), t, 0)).max())
        assert abs(value - exact) <= accuracy.GRADIENT * eps * max(float(exact), size), kind
        if kind != "lacking":
            gained, paid = np.zeros(OUTCOMES), np.zeros(OUTCOMES)
            np.add.at(gained, x, np.asarray(slope_p, np.float64))
            np.add.at(paid, y, np.asarray(slope_q, np.float64))
            assert np.abs(gained + paid).max() <= accuracy.GRADIENT * eps * np.abs(gained).max(), kind
            assert (others <= exact + accuracy.GRADIENT * eps * np.maximum(np.abs(others), size)).all(), kind
            assert (others < exact).sum() >= (1 if name in STEPS else 39), kind


def test_the_parameter_of_a_row_has_a_slope():
    dtype = np.float32
    t, u = jnp.linspace(-3, 4, 9, dtype=dtype), jnp.linspace(-4, 2, 9, dtype=dtype)

    def bound(w):
        return f_gan(replace(rows.js(), args=(w,)), t, u)

    w, h = jnp.asarray(0.3, dtype), jnp.asarray(1e-3, dtype)
    slope, chord = jax.grad(bound)(w), (bound(w + h) - bound(w - h)) / (2 * h)
    assert abs(slope - chord) < 1e-3 * abs(slope)
    many = jax.vmap(lambda w: f_gan(replace(rows.js(), args=(w,)), t, u))(jnp.asarray([0.1, 0.5], dtype))
    each = f_gan(rows.js(jnp.asarray([0.1, 0.5], dtype)), jnp.stack([t, t]), u)
    alone = [f_gan(rows.js(jnp.asarray(w, dtype)), t, u) for w in (0.1, 0.5)]
    assert (jnp.abs(many - each) <= 1e-6).all() and (jnp.abs(each - jnp.stack(alone)) <= 1e-6).all()


CRITICS = [case for case in corpus.golden() if case["rep"] == "critic"]
# golden critics have the activations of the literature; these are their log-ratios
MAPPED = {
    "donsker_varadhan": (donsker_varadhan, lambda v: v),
    "nwj": (nwj, lambda v: v - 1),
    "fgan_kl": (lambda a, b: f_gan(rows.kl, a, b), lambda v: v - 1),
    "fgan_reverse_kl": (lambda a, b: f_gan(rows.reverse_kl, a, b), lambda v: v),
    "fgan_pearson": (lambda a, b: f_gan(rows.chi2, a, b), lambda v: np.log1p(v / 2)),
    "fgan_hellinger_sq": (lambda a, b: f_gan(rows.hellinger_sq, a, b), lambda v: 2 * v),
    "fgan_js": (lambda a, b: f_gan(rows.js(), a, b), lambda v: v),
    "fgan_gan": (lambda a, b: 2 * f_gan(rows.js(), a, b) - np.log(4), lambda v: v),
}


@pytest.mark.parametrize("case", CRITICS, ids=lambda case: case["id"])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=[pytest.mark.repeat] * (dtype == "float64" and name[:4] == "fgan"))
        for name in MAPPED
        for dtype in ("float32", "float64")
    ],
    indirect=["dtype"],
)
def test_golden_critics(name, case, dtype):
    function, mapped = MAPPED[name]
    critic = [columns.vector(case["params"][k]) for k in ("t_p", "t_q")]
    with np.errstate(invalid="ignore"):
        t_p, t_q = (mapped(np.asarray(v, np.float64)).astype(dtype) for v in critic)
    if name == "fgan_pearson" and (np.isnan(t_p).any() or np.isnan(t_q).any()):
        return  # that critic is outside of the range of f': no log-ratio has it
    got, true = function(t_p, t_q), float(case["values"][name])
    # terms of both signs, t being rounded: those of one sample each and 0 on the other side
    alone = [(t_p[:, None], np.zeros((t_p.size, 1), dtype)), (np.zeros((t_q.size, 1), dtype), t_q[:, None])]
    parts = [function(*both) for both in alone]
    scale = max(float(np.abs(part).max()) for part in parts)
    assert abs(float(got) - true) <= accuracy.AGREE * np.finfo(dtype).eps * max(scale, 1) * max(1, np.abs(t_q).max())


def test_donsker_varadhan_is_stable(dtype):
    rng = np.random.default_rng(1)
    for spread, offset in ((1, 0), (1e-4, 0), (1, 1e4), (60, -200), (200, 200)):
        t_p, t_q = ((offset + spread * rng.normal(size=n)).astype(dtype) for n in (9, 11))
        with mp.workdps(400):
            a, b = ([mp.mpf(float(x)) for x in t] for t in (t_p, t_q))
            true = mp.fsum(a) / 9 - mp.log(mp.fsum(mp.exp(x) for x in b) / 11)
        got, slope = jax.value_and_grad(donsker_varadhan, (0, 1))(jnp.asarray(t_p), jnp.asarray(t_q))
        # what the sums are made of, offsets apart
        assert abs(mp.mpf(float(got)) - true) <= 8 * float(np.finfo(dtype).eps) * 2 * np.ptp([*t_p, *t_q])
        accuracy.close(slope[0], np.full(9, 1 / 9), dtype)
        with mp.workdps(400):
            total = mp.fsum(mp.exp(x) for x in b)
            weights = [-mp.exp(x) / total for x in b]
        accuracy.close(slope[1], accuracy.exact(weights), dtype, accuracy.GRADIENT, norm=True)
    assert donsker_varadhan(jnp.zeros(2, dtype), jnp.full(3, -jnp.inf, dtype)) == jnp.inf


def test_the_bias_of_donsker_varadhan_is_the_documented_one():
    """t ~ N(0, 1/4) under q: Var(e^t) / (2 m (E e^t)^2) = (e^(1/4) - 1) / (2 m); nwj has none."""
    m, runs = 32, 100_000
    t_q = 0.5 * jax.random.normal(jax.random.key(0), (runs, m))
    t_p = jnp.zeros(1)
    bound = -0.125  # the population's: mean of t_p - log E e^t
    found = np.asarray(donsker_varadhan(t_p, t_q), np.float64)
    error = found.std() / np.sqrt(runs)
    predicted = np.expm1(0.25) / (2 * m)
    assert predicted > 10 * error and abs(found.mean() - bound - predicted) < 4 * error + predicted**2 * 4
    plain = np.asarray(nwj(t_p, t_q), np.float64)
    assert abs(plain.mean() + np.expm1(0.125)) < 4 * plain.std() / np.sqrt(runs)
    assert (plain <= found + 1e-6).all()


def test_shapes_dtypes_and_what_a_nan_spoils():
    t_p, t_q = jax.random.normal(jax.random.key(0), (3, 5)), jax.random.normal(jax.random.key(1), (7,))
    for bound in (donsker_varadhan, nwj, lambda a, b: f_gan(rows.js(), a, b)):
        whole = bound(t_p, t_q)
        assert whole.shape == (3,) and whole.dtype == jnp.float32
        accuracy.close(-whole, [-float(bound(row, t_q)) for row in t_p])
        spoilt = bound(t_p.at[1, 2].set(jnp.nan), t_q)
        assert np.isnan(spoilt).tolist() == [False, True, False]
        assert bound(t_p.astype(jnp.bfloat16), t_q.astype(jnp.bfloat16)).dtype == jnp.float32
        assert np.isnan(bound(t_p, t_q.at[0].set(jnp.nan))).all()
        with pytest.raises(AssertionError, match="t_p.*t_q.*leading axes"):
            bound(t_p, jnp.zeros((2, 7)))
    assert f_gan(rows.chi2, jnp.full(2, 200.0), jnp.full(2, 200.0)) == -jnp.inf
    before = f_gan._cache_size()
    f_gan(rows.js(0.1), t_p, t_q), f_gan(rows.js(0.2), t_p, t_q)
    assert f_gan._cache_size() <= before + 1
