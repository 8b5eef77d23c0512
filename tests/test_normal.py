"""Semantics of Normals: shapes, dtypes, equality, extremes, laws, transformations; the digits are test_golden's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kljax
from kljax.normal import LogScaleNormal, Normal
from tests import accuracy, matrix

CELLS = matrix.oracled("normal") + [c for c, marks in matrix.MARKS.items() if marks["normal"] == "b"]
ONLY_ONE = ("tv", "js", "js_distance")  # of one coordinate
each = pytest.mark.parametrize("name", CELLS)
kinds = pytest.mark.parametrize("kind", [Normal, LogScaleNormal])


def cell(name, **options):
    """A cell with its plain options, of p alone where it takes one."""
    function = functools.partial(getattr(kljax.normal, name), **matrix.options(name, "normal")[0], **options)
    return (lambda p, q: function(p)) if name in matrix.ONE else function


def normal(kind, loc, scale):
    scale = np.asarray(scale, np.float32)
    with np.errstate(divide="ignore"):
        return kind(np.asarray(loc, np.float32), scale if kind is Normal else np.log(scale))


# rows: equal, near, far, wide and narrow, overflowing locs, overflowing scales, a scale of 0, a nan
P = ([0.5, 0.5, 0.0, 0.0, 1e30, 0.0, 0.0, 0.0, np.nan, -3.0], [2.0, 2.0, 1.0, 1e-6, 1e-9, 1e-25, 1e25, 0.0, 1.0, 1e-3])
Q = (
    [0.5, 0.5000001, 90.0, 0.0, 0.0, 1e-20, 0.0, 0.0, 0.0, 3.0],
    [2.0, 2.000001, 1.0, 1.0, 1.0, 1e-12, 1e-25, 1.0, 1.0, 1e3],
)
SOUND = 7  # the first rows have values; then come one with no scale and one with a nan, and a sound one after them


@each
@pytest.mark.parametrize("kind", [Normal, pytest.param(LogScaleNormal, marks=pytest.mark.repeat)])
def test_equality_and_extremes(kind, name):
    """Values and slopes a coordinate, compiled once for either order of the arguments."""
    run, sound = cell(name, axis=()), [*range(SOUND), 9]

    @jax.jit
    def values_and_slopes(p, q):
        value, back = jax.vjp(run, p, q)
        return value, back(jnp.ones_like(value))

    p, q = normal(kind, *P), normal(kind, *Q)
    for pair in ((p, q), (q, p)):
        value, slopes = jax.tree.map(np.asarray, values_and_slopes(*pair))
        assert not np.isnan(value[sound]).any(), value
        if name not in ("entropy", "cross_entropy"):
            assert (value[sound] >= 0).all() and value[0] == 0
            assert all((s[0] == 0).all() for s in jax.tree.leaves(slopes)), "equality"
        assert not any(np.isnan(s[sound]).any() for s in jax.tree.leaves(slopes)), slopes
        if name not in matrix.ONE:
            assert np.isnan(value[[7, 8]]).all(), "a bad row is nan, the next one is not"


@pytest.mark.smoke
def test_shapes_are_checked_by_name():
    kl, tv, js = kljax.normal.kl, kljax.normal.tv, kljax.normal.js
    p = Normal(jnp.zeros((4, 3)), jnp.ones((4, 3)))
    with pytest.raises(AssertionError, match=r"kljax\.normal\.kl: p \(4, 3\) and q \(2,\): the event axis must match"):
        kl(p, Normal(jnp.zeros(2), 1.0))
    with pytest.raises(AssertionError, match="size 1 does not stretch"):
        kl(p, Normal(jnp.zeros((1, 3)), 1.0))
    with pytest.raises(AssertionError, match=r"p has loc \(3,\) and scale \(1,\): pass a scale that is one number"):
        kl(Normal(jnp.zeros(3), jnp.ones(1)), p)
    with pytest.raises(AssertionError, match=r"axis=2 is not one of its axes"):
        kl(p, p, axis=2)
    with pytest.raises(AssertionError, match=r"pass the event axis, or \(\)"):
        kl(p, p, axis=(0, 1))
    with pytest.raises(TypeError, match="p is a Normal and q a LogScaleNormal: pass two of one type"):
        kl(p, LogScaleNormal(0.0, 0.0))
    with pytest.raises(TypeError, match=r"kljax\.normal\.kl: q is a tuple; pass a Normal, from Normal\(loc, scale\)"):
        kl(p, (0.0, 1.0))
    with pytest.raises(AssertionError, match=r"kljax\.normal\.tv: the event has 3 coordinates.*tv_lower and tv_upper"):
        tv(p, p)
    with pytest.raises(AssertionError, match=r"js_lower and js_upper, or pass axis=\(\)"):
        js(p, p)
    with pytest.raises(TypeError, match="complex"):
        kl(Normal(jnp.zeros(3, complex), 1.0), p)


@pytest.mark.smoke
@kinds
def test_axes_scalars_and_batches(kind):
    rng = np.random.default_rng(0)
    p = normal(kind, rng.normal(size=(4, 3)), rng.uniform(0.5, 2, (4, 3)))
    prior = normal(kind, 0.0, 1.0)
    kl = kljax.normal.kl
    apart = np.asarray(kl(p, prior, axis=()))
    assert apart.shape == (4, 3)
    accuracy.close(kl(p, prior), apart.astype(np.float64).sum(-1))
    whole = kind(*(np.broadcast_to(x, (4, 3)) for x in prior))
    assert np.array_equal(kl(p, prior), kl(p, whole)) and np.array_equal(kl(prior, p), kl(whole, p))
    assert np.array_equal(kl(p, kind(*(np.broadcast_to(x, 3) for x in prior))), kl(p, whole)), "the tail rule"
    turned = kind(*(x.T for x in p))
    assert np.array_equal(kl(turned, prior, axis=0), kl(p, prior))
    assert kl(prior, prior).shape == () == kl(prior, prior, axis=()).shape
    assert kljax.normal.tv(prior, normal(kind, 1.0, 1.0)).shape == ()
    assert np.array_equal(kl(kind(p[0], prior[1]), prior), kl(kind(p[0], np.broadcast_to(prior[1], (4, 3))), prior))
    slope = jax.grad(lambda q: kl(p, q).sum())(prior)
    assert all(x.shape == () for x in slope)
    order = jnp.array([0.5, 1.0, 2.0, 0.25], jnp.float32)
    rows = [kljax.normal.renyi(kind(*(x[i] for x in p)), prior, order=a) for i, a in enumerate(order)]
    accuracy.close(kljax.normal.renyi(p, prior, order=order), np.stack(rows))


@pytest.mark.smoke
def test_dtypes(dtype):
    kl, x = kljax.normal.kl, jnp.arange(1, 5)
    assert kl(Normal(x, 1), Normal(x[::-1], x)).dtype == dtype
    assert kl(Normal(x.astype(jnp.bfloat16), jnp.ones(4, jnp.float16)), Normal(0, 1.0)).dtype == dtype  # 1.0 is default
    half = Normal(x.astype(jnp.bfloat16), jnp.ones(4, jnp.float16))
    assert kl(half, half).dtype == jnp.float32
    wide, narrow = Normal(x.astype(dtype), x.astype(dtype)), Normal(jnp.zeros(4, jnp.float32), jnp.ones(4, jnp.float32))
    assert kl(wide, narrow).dtype == dtype
    assert kljax.normal.sample(jax.random.key(0), half).dtype == jnp.float32


def _some(size=200, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Normal(rng.normal(size=size).astype(np.float32), rng.uniform(0.2, 3, size).astype(np.float32)) for _ in "pqr"
    ]


def _value(name, p, q, **options):
    return np.asarray(cell(name, axis=(), **options)(p, q), np.float64)


def test_laws():
    p, q, r = _some()
    slack = 1 + 2 * accuracy.AGREE * np.finfo(np.float32).eps
    get = {n: _value(n, p, q) for n in CELLS if n not in matrix.ONE}
    for name in set(matrix.SYMMETRIC) & set(get) | {"wasserstein2"}:
        accuracy.close(_value(name, q, p), get[name])
    for name, power in {**matrix.METRIC, "wasserstein2": 1}.items():
        if name in get:
            sides = [_value(name, a, b) ** power for a, b in ((p, q), (p, r), (r, q))]
            assert (sides[0] <= (sides[1] + sides[2]) * slack).all(), name
    assert (get["tv"] <= np.sqrt(get["kl"] / 2) * slack).all(), "Pinsker"
    assert (get["tv"] <= np.sqrt(-np.expm1(-get["kl"])) * slack).all(), "Bretagnolle-Huber"
    for name in ("tv", "js"):
        assert (get[f"{name}_lower"] <= get[name] * slack).all() and (get[name] <= get[f"{name}_upper"] * slack).all()
    assert (get["kl"] <= np.log1p(get["chi2"]) * slack).all() and (get["js"] <= get["geometric_js"] * slack).all()
    assert (get["fisher_rao"] <= np.sqrt(get["jeffreys"]) * slack).all()
    orders = [0.0, 1e-3, 0.5, 0.999999, 1.0, 1.000001, 1.5, 4.0, np.inf]
    rising = [np.asarray(kljax.normal.renyi(p, q, order=a, axis=()), np.float64) for a in orders]
    assert all((a <= b * slack).all() for a, b in zip(rising, rising[1:], strict=False)) and (rising[0] == 0).all()


@pytest.mark.repeat
def test_a_common_affine_map_changes_nothing():
    p, q, _ = _some()
    moved = [Normal(64 * x.loc, 64 * x.scale) for x in (p, q)]  # a power of two: exact
    for name in CELLS:
        if name not in ("entropy", "cross_entropy", "wasserstein2"):
            assert np.array_equal(_value(name, p, q), _value(name, *moved)), name
    accuracy.close(_value("wasserstein2", *moved), 64 * _value("wasserstein2", p, q))


@pytest.mark.repeat
def test_quadrature_agrees():
    p, q, _ = _some(20, 3)
    x = np.linspace(-60, 60, 400001)
    one, two = ([v.astype(np.float64)[:, None] for v in d] for d in (p, q))
    dp, dq = (np.exp(-(((x - m) / s) ** 2) / 2) / (s * np.sqrt(2 * np.pi)) for m, s in (one, two))
    log = ((x - two[0]) / two[1]) ** 2 / 2 - ((x - one[0]) / one[1]) ** 2 / 2 + np.log(two[1] / one[1])
    step = x[1] - x[0]
    mixed = 0.25 * dp + 0.75 * dq
    here = mixed > 0
    ratios = (np.log(np.where(here & (d > 0), d, 1) / np.where(here & (d > 0), mixed, 1)) for d in (dp, dq))
    skew = sum(np.sum(w * d * r, -1) for w, d, r in zip((0.25, 0.75), (dp, dq), ratios, strict=True)) * step
    accuracy.close(kljax.normal.js(p, q, weight=0.25, axis=()), skew)
    accuracy.close(kljax.normal.kl(p, q, axis=()), (dp * log).sum(-1) * step)
    accuracy.close(
        kljax.normal.alpha(p, q, order=0.25, axis=()), (np.sum(dp**0.25 * dq**0.75, -1) * step - 1) / -0.1875
    )
    accuracy.close(kljax.normal.hellinger_sq(p, q, axis=()), np.sum((np.sqrt(dp) - np.sqrt(dq)) ** 2, -1) * step / 2)
    accuracy.close(kljax.normal.tv(p, q, axis=()), np.abs(dp - dq).sum(-1) * step / 2, eps=100)  # corners of |p - q|


@pytest.mark.repeat
def test_the_integral_diverges_exactly_at_the_boundary():
    """a scale_q^2 + (1 - a) scale_p^2 = 0 at a = 9/8 for scales 3 and 1, by rounding to neither side."""
    order = np.float32(1.125)
    p, q = normal(Normal, 1.0, 3.0), normal(Normal, 0.0, 1.0)
    for name in ("renyi", "tsallis", "alpha"):
        run = getattr(kljax.normal, name)
        value, slope = jax.value_and_grad(run)(p, q, order=order)
        assert value == np.inf and all(np.isfinite(x) for x in slope), name
    below, above = (kljax.normal.renyi(p, q, order=np.nextafter(order, np.float32(a))) for a in (0, 2))
    assert 1e5 < below < np.inf == above
    assert kljax.normal.chi2(normal(Normal, 0.0, 1.5), q) == np.inf > kljax.normal.chi2(q, normal(Normal, 0.0, 1.5))
    for bad, option in (("renyi", -1.0), ("tsallis", -1.0)):
        assert np.isnan(getattr(kljax.normal, bad)(p, q, order=option))
    assert np.isnan(kljax.normal.geometric_js(p, q, weight=1.5)) and np.isnan(kljax.normal.js(p, q, weight=-0.5))


@kinds
def test_samples_have_the_density(kind):
    p = normal(kind, [0.0, 5.0], [1.0, 0.25])
    draws = np.asarray(kljax.normal.sample(jax.random.key(1), p, (20000,)), np.float64)
    assert draws.shape == (20000, 2)
    scale = np.array([1.0, 0.25])
    assert (np.abs(draws.mean(0) - [0, 5]) < 5 * scale / np.sqrt(20000)).all()
    assert (np.abs(draws.std(0) / scale - 1) < 5 / np.sqrt(40000)).all()
    surprisal = -np.asarray(kljax.normal.log_prob(p, draws.astype(np.float32)), np.float64)
    assert abs(surprisal.mean() - float(kljax.normal.entropy(p))) < 5 * surprisal.std() / np.sqrt(20000)
    x = np.array([0.5, 4.25], np.float32)
    true = 0.5 * ((x - np.array([0, 5])) / scale) ** 2 + np.log(scale * np.sqrt(2 * np.pi))
    accuracy.close(-kljax.normal.log_prob(p, x, axis=()), true)
    assert kljax.normal.sample(jax.random.key(0), normal(kind, 0.0, 1.0), (3,)).shape == (3,)
    slopes = jax.grad(lambda p: kljax.normal.sample(jax.random.key(0), p, (8,)).sum())(p)
    assert (np.asarray(slopes[0]) == 8).all() and np.isfinite(slopes[1]).all()


@pytest.mark.parametrize("name", matrix.tiers([n for n in matrix.FISHER if n in CELLS], ("kl", "js", "renyi")))
@pytest.mark.parametrize("kind", [Normal, pytest.param(LogScaleNormal, marks=pytest.mark.repeat)])
def test_the_hessian_at_equality_is_fishers(kind, name):
    scale = np.float32(1.5)
    p = normal(kind, 0.25, scale)
    run = cell(name)
    hessian = jax.jit(jax.hessian(lambda p, q: run(kind(p[0], p[1]), kind(q[0], q[1])), (0, 1)))
    got = np.asarray(hessian(jnp.stack(p), jnp.stack(p)), np.float64)
    options = matrix.options(name, "normal")[0]
    fisher = np.diag([scale**-2.0, 2 * scale**-2.0 if kind is Normal else 2.0]) * matrix.fisher(name, **options)
    for i, j in ((0, 0), (1, 1), (0, 1)):
        true = fisher if i == j else -fisher
        assert np.abs(got[i, j] - true).max() <= accuracy.AGREE * np.finfo(np.float32).eps * np.abs(true).max(), (i, j)


COMMON = ("entropy", "kl", "wasserstein2")


@pytest.mark.parametrize("name", matrix.tiers(CELLS, COMMON))
def test_transformations(name):
    """vmap is the batch, checkpoint and forward mode give the same slopes, a third derivative is finite."""
    p, q, _ = _some(5, 1)
    run, one = cell(name, axis=()), cell(name)
    batched, slopes = jax.vjp(run, p, q)
    mapped = jax.vmap(one)(p, q)
    accuracy.close(np.abs(np.asarray(mapped)), np.abs(np.asarray(batched, np.float64)), eps=2)
    first = slopes(jnp.ones(5, jnp.float32))
    again = jax.vjp(jax.checkpoint(run), p, q)[1](jnp.ones(5, jnp.float32))
    assert all(
        np.allclose(a, b, rtol=1e-5) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True)
    )
    step = jax.tree.map(jnp.ones_like, p)
    along = jax.jvp(lambda p: run(p, q), (p,), (step,))[1]
    parts = [np.asarray(x, np.float64) for x in first[0]]  # the slopes in loc and in scale may cancel
    size = sum(np.abs(part) for part in parts) * np.finfo(np.float32).eps
    assert (np.abs(np.asarray(along) - sum(parts)) <= accuracy.GRADIENT * size).all()

    def moved(t):
        return one(Normal(p.loc[0] + t, p.scale[0] + t), Normal(q.loc[0], q.scale[0]))

    assert np.isfinite(jax.grad(jax.grad(jax.grad(moved)))(0.0))


def test_a_second_call_does_not_retrace_and_orders_are_swept():
    traces = []

    def counted(p, q, order):
        traces.append(None)
        return kljax.normal.renyi(p, q, order=order)

    p, q, _ = _some(4, 2)
    swept = jax.jit(jax.vmap(counted, (None, None, 0)))
    orders = jnp.array([0.0, 0.25, 0.5, 1.0, 2.0, np.inf], jnp.float32)
    values = np.asarray(swept(p, q, orders))
    swept(p, q, orders + 1)
    assert len(traces) == 1 and (np.diff(values[np.isfinite(values)]) >= 0).all() and values[0] == 0 < values[1]


@pytest.mark.parametrize("name", matrix.tiers(("renyi", "js", "tsallis", "alpha", "geometric_js"), ("renyi", "js")))
def test_the_slope_in_the_order(name):
    """Against a central difference, in float64."""
    with jax.enable_x64(True):
        p, q = Normal(jnp.array(0.3), jnp.array(0.8)), Normal(jnp.array(-0.2), jnp.array(1.1))
        run = functools.partial(getattr(kljax.normal, name), p, q)
        parameter = matrix.PARAMETER[name]
        at = (0.25, 0.5, 0.75) if parameter == "weight" else (0.25, 0.9999999, 1.0, 2.0)
        for a in at:
            got = jax.grad(lambda a: run(**{parameter: a}))(a)
            difference = (run(**{parameter: a + 1e-5}) - run(**{parameter: a - 1e-5})) / 2e-5
            assert abs(got - difference) <= 1e-7 * (1 + abs(difference)), (a, got, difference)
