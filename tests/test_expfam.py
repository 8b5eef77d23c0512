"""Exponential families: near equality, at the edges, in the laws that tie them together, and in their messages."""

import doctest

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kljax
from kljax import expfam
from tests import accuracy, corpus, families

pytestmark = pytest.mark.slow  # minutes of compilation; the golden cases and the examples run by default

INF, NAN = float("inf"), float("nan")
BASES = {
    "Bernoulli": [0.75], "Poisson": [3.5], "Geometric": [0.3], "Exponential": [2.25], "Gamma": [2.5, 0.75],
    "InverseGamma": [1.25, 3.0], "Beta": [0.5, 12.0], "Dirichlet": [0.3, 2.0, 7.0], "Laplace": [1.5, 0.75],
    "VonMisesFisher": [0.5, -2.0, 1.0], "Wishart": [4.5, 1.25, 0.5, 0.75],
}  # fmt: skip
TURN = np.array([1.0, -0.5, 0.25, 0.75])
STEPS = {"float32": 10.0 ** -np.arange(1, 8), "float64": 10.0 ** -np.arange(1, 16, 2)}
CELLS = [name for name in expfam.__all__ if name[0].islower()]


def ladder(name, dtype):
    """Pairs that come ever closer, the last of them equal."""
    base = np.array(BASES[name], dtype)
    steps = np.append(STEPS[str(dtype)], 0)[:, None]
    q = (base * (1 + steps * TURN[: len(base)])).astype(dtype)
    return np.broadcast_to(base, q.shape), q


@pytest.mark.parametrize("name", BASES)
def test_near_equality(name, dtype):
    p, q = ladder(name, dtype)

    def cells(p, q):
        one, two = families.wrap(name, p), families.wrap(name, q)
        return expfam.kl(one, two), expfam.renyi(one, two, order=2.0), expfam.hellinger_sq(one, two)

    @jax.jit
    def run(p, q):
        values, pull = jax.vjp(cells, p, q)
        unit = jnp.ones_like(values[0])
        return values, pull((unit, 0 * unit, 0 * unit))

    values, gradients = jax.tree.map(np.asarray, run(jnp.asarray(p), jnp.asarray(q)))
    for got, (cell, options) in zip(values, (("kl", {}), ("renyi", {"order": 2.0}), ("hellinger_sq", {})), strict=True):
        true = accuracy.exact([families.value(name, cell, *pair, **options) for pair in zip(p, q, strict=True)])
        errors = accuracy.value_errors(got, true, dtype)
        assert np.all(errors <= 64), (cell, errors)
        assert got[-1] == 0
    for side, got in enumerate(gradients):
        assert np.all(got[-1] == 0)
        for i in range(len(p) - 1):
            true = families.gradients(name, "kl", p[i], q[i])[side]
            error = accuracy.norm_errors(got[i], accuracy.exact(true), dtype)
            assert error <= 64, (side, i, error)


@pytest.mark.parametrize("name", BASES)
def test_the_hessian_is_the_fisher_metric(name):
    x = jnp.array(BASES[name], jnp.float32)

    def at(cell, **options):
        return lambda q: cell(families.wrap(name, x), families.wrap(name, q), **options)

    @jax.jit
    def run(x):
        return jax.hessian(at(expfam.kl))(x), jax.hessian(at(expfam.alpha, order=0.25))(x)

    first, second = (np.asarray(h, np.float64) for h in run(x))
    assert np.all(np.linalg.eigvalsh(first) > 0)
    assert np.max(np.abs(first - second)) <= 2e-5 * np.max(np.abs(first))
    known = {
        "Poisson": lambda x: 1 / x,
        "Geometric": lambda x: 1 / (x * x * (1 - x)),
        "Exponential": lambda x: 1 / x**2,
    }
    if name in known:
        assert np.isclose(first[0, 0], known[name](BASES[name][0]), rtol=1e-5)


def test_uniform_on_the_sphere_has_a_fisher_metric():
    for d in (2, 3):
        zero = jnp.zeros(d)
        found = jax.hessian(lambda q: expfam.kl(expfam.VonMisesFisher(zero), expfam.VonMisesFisher(q)))(zero)  # noqa: B023
        assert np.allclose(found, np.eye(d) / d, atol=1e-6)


def poisson(p, q, cell="kl", **options):
    return float(getattr(expfam, cell)(expfam.Poisson(p), expfam.Poisson(q), **options))


def test_a_rate_of_zero_is_a_point_mass():
    assert poisson(0.0, 2.0) == 2.0 and poisson(2.0, 0.0) == INF and poisson(0.0, 0.0) == 0.0
    assert poisson(0.0, 2.0, "renyi", order=0.0) == 2.0 and poisson(0.0, 2.0, "renyi", order=INF) == 2.0
    accuracy.close(poisson(0.0, 2.0, "tsallis", order=0.0), -mp.expm1(-2))
    accuracy.close(poisson(0.0, 2.0, "hellinger_sq"), -mp.expm1(-1))
    assert float(expfam.entropy(expfam.Poisson(0.0))) == 0.0
    slopes = jax.grad(lambda p, q: expfam.kl(expfam.Poisson(p), expfam.Poisson(q)), (0, 1))(0.0, 2.0)
    assert -90 < slopes[0] < -80 and slopes[1] == 1.0


def test_success_at_once_and_certainty():
    one, half = expfam.Geometric(1.0), expfam.Geometric(0.5)
    accuracy.close(expfam.kl(one, half), mp.log(2))
    assert expfam.kl(half, one) == INF and expfam.kl(one, one) == 0 and expfam.entropy(one) == 0
    accuracy.close(expfam.renyi(one, half, order=0.0), mp.log(2))
    sure, even = expfam.Bernoulli(INF), expfam.Bernoulli(0.0)
    accuracy.close(expfam.kl(sure, even), mp.log(2))
    assert (
        expfam.kl(even, sure) == INF and expfam.kl(sure, sure) == 0 and expfam.kl(sure, expfam.Bernoulli(-INF)) == INF
    )
    three = expfam.Categorical(jnp.array([0.0, 0.0, -INF]))
    accuracy.close(expfam.kl(three, expfam.Categorical(jnp.zeros(3))), mp.log(mp.mpf(3) / 2))


@pytest.mark.parametrize("name", [n for n in BASES if n != "Bernoulli"])
def test_a_wrong_parameter_spoils_its_own_row_alone(name):
    p = np.tile(np.array(BASES[name], np.float32), (3, 1))
    p[1, 0 if name != "Laplace" else 1] = NAN
    p[2, 0 if name != "Laplace" else 1] = NAN if name == "VonMisesFisher" else -1
    q = families.wrap(name, jnp.array(BASES[name], jnp.float32) * 1.25)
    value = np.asarray(expfam.kl(families.wrap(name, jnp.asarray(p)), q))
    assert value[0] > 0 and np.isnan(value[1:]).all()


def test_what_diverges_is_infinite():
    p, q = expfam.Gamma(2.0, 1.0), expfam.Gamma(3.0, 2.0)
    assert expfam.chi2(p, q) == INF and expfam.chi2(q, p) < INF
    assert np.all(np.isfinite(jax.grad(lambda p: expfam.chi2(p, q))(p)))
    wide, narrow = expfam.Laplace(0.0, 2.0), expfam.Laplace(1.0, 0.5)
    assert expfam.renyi(wide, narrow, order=2.0) == INF and expfam.renyi(wide, narrow, order=INF) == INF
    accuracy.close(expfam.renyi(narrow, wide, order=INF), mp.log(4) + mp.mpf(1) / 2)
    assert expfam.alpha(wide, narrow, order=1.25) < INF


PAIR = expfam.Gamma(np.array([2.5, 0.5], np.float32), np.float32(0.75)), expfam.Gamma(np.float32(3.0), np.float32(0.5))


def test_laws(dtype):
    p, q = (expfam.Gamma(*(jnp.asarray(x, dtype) for x in d)) for d in PAIR)
    orders = jnp.asarray([0.0, 0.25, 0.5, 0.999, 1.0, 1.001, 1.5, 2.0, 4.0], dtype)
    values = np.asarray(jax.vmap(lambda a: expfam.renyi(p, q, order=a))(orders))
    assert np.all(values[1:] >= values[:-1])
    accuracy.close(expfam.bhattacharyya(p, q), values[2] / 2, dtype)
    accuracy.close(expfam.chi2(p, q), np.expm1(values[7].astype(np.float64)), dtype, 32)
    accuracy.close(expfam.hellinger_sq(p, q), np.asarray(expfam.hellinger_sq(q, p)), dtype)
    accuracy.close(expfam.jeffreys(p, q), np.asarray(expfam.kl(p, q) + expfam.kl(q, p)), dtype)
    accuracy.close(expfam.alpha(p, q, order=0.0), np.asarray(expfam.reverse_kl(p, q)), dtype)


def test_families_that_are_each_other():
    a, b, c, d = (jnp.float32(v) for v in (2.5, 0.75, 3.25, 0.5))
    gamma = expfam.kl(expfam.Gamma(a, b), expfam.Gamma(c, d))
    inverse = expfam.kl(expfam.InverseGamma(a, b), expfam.InverseGamma(c, d))
    accuracy.close(inverse, np.asarray(gamma))
    factors = ((1 / jnp.sqrt(2 * x)).reshape(1, 1) for x in (b, d))
    wishart = expfam.kl(*(expfam.Wishart(2 * n, f) for n, f in zip((a, c), factors, strict=True)))
    accuracy.close(wishart, np.asarray(gamma), eps=64)
    beta = expfam.renyi(expfam.Beta(a, b), expfam.Beta(c, d), order=1.5)
    both = (expfam.Dirichlet(jnp.stack(x)) for x in ((a, b), (c, d)))
    accuracy.close(expfam.renyi(*both, order=1.5), np.asarray(beta))
    logits = [jnp.array([0.0, v], jnp.float32) for v in (1.5, -0.25)]
    bernoulli = expfam.kl(expfam.Bernoulli(logits[0][1]), expfam.Bernoulli(logits[1][1]))
    accuracy.close(expfam.kl(*map(expfam.Categorical, logits)), np.asarray(bernoulli))
    accuracy.close(kljax.logits.kl(*logits), np.asarray(bernoulli))
    line = expfam.kl(expfam.Laplace(a, b), expfam.Laplace(a, d))
    accuracy.close(expfam.kl(expfam.Exponential(1 / b), expfam.Exponential(1 / d)), np.asarray(line), eps=64)


def gamma_normaliser(eta):
    """Of (log x, x), eta = (a - 1, -b)."""
    return jax.scipy.special.gammaln(eta[0] + 1) - (eta[0] + 1) * jnp.log(-eta[1])


def test_natural_parameters_agree_with_the_types(dtype):
    p, q = (np.array(x, dtype) for x in ([2.5, 0.75], [3.25, 0.5]))
    steps = np.append(STEPS[str(dtype)], 1)[:, None]
    q = (p + steps * (q - p)).astype(dtype)
    members = [expfam.Gamma(x[..., 0], x[..., 1]) for x in (jnp.asarray(p), jnp.asarray(q))]
    natural = [jnp.stack([d.concentration - 1, -d.rate], -1) for d in members]
    got = np.asarray(expfam.kl_natural(gamma_normaliser, *natural))
    true = accuracy.exact([families.value("Gamma", "kl", p, row) for row in q])
    assert np.all(accuracy.value_errors(got, true, dtype) <= 256), accuracy.value_errors(got, true, dtype)
    got = np.asarray(expfam.renyi_natural(gamma_normaliser, *natural, order=0.5))
    true = accuracy.exact([families.value("Gamma", "renyi", p, row, order=0.5) for row in q])
    assert np.all(accuracy.value_errors(got, true, dtype) <= 256), accuracy.value_errors(got, true, dtype)
    assert np.all(np.asarray(expfam.kl_natural(gamma_normaliser, natural[1], natural[1])) == 0)
    far = expfam.renyi_natural(
        gamma_normaliser, jnp.asarray([1.0, -1.0], dtype), jnp.asarray([1.0, -3.0], dtype), order=2.0
    )
    assert far == INF
    with pytest.raises(TypeError, match="one structure"):
        expfam.kl_natural(gamma_normaliser, natural[0], (natural[1],))


def test_natural_gradients_near_equality():
    with corpus.x64("float64"):
        p = np.array([1.5, -0.75])
        q = p * (1 + 1e-9 * np.array([1, -0.5]))
        got = jax.grad(lambda q: expfam.kl_natural(gamma_normaliser, jnp.asarray(p), q))(jnp.asarray(q))
        typed = jax.grad(lambda q: expfam.kl(expfam.Gamma(p[0] + 1, -p[1]), expfam.Gamma(q[0] + 1, -q[1])))(
            jnp.asarray(q)
        )
        assert np.allclose(got, typed, rtol=1e-12)


def test_sums_over_counts():
    k = np.arange(200)
    for name, mass in (("Poisson", lambda x: np.exp(k * np.log(x) - x - [float(mp.loggamma(v + 1)) for v in k])),
                       ("Geometric", lambda x: x * (1 - x) ** k)):  # fmt: skip
        x, y = BASES[name][0], BASES[name][0] * 1.5
        p, q = mass(x), mass(y)
        got = expfam.kl(families.wrap(name, jnp.array([x])), families.wrap(name, jnp.array([y])))
        assert np.isclose(got, np.sum(p * np.log(p / q)), rtol=1e-5)
        assert np.isclose(expfam.entropy(families.wrap(name, jnp.array([x]))), -np.sum(p * np.log(p)), rtol=1e-5)


def test_shapes_dtypes_and_vmap():
    p, q = expfam.Gamma(jnp.ones((4, 3)) * 2, jnp.ones(3)), expfam.Gamma(3.0, 2.0)
    value = expfam.kl(p, q)
    assert value.shape == (4, 3) and value.dtype == jnp.float32
    each = jax.vmap(lambda a: expfam.kl(expfam.Gamma(a, jnp.ones(3)), q))(p.concentration)
    assert np.array_equal(each, value)
    half = expfam.Gamma(jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.int32))
    assert expfam.kl(half, q).dtype == jnp.float32
    assert expfam.renyi(p, q, order=jnp.array([0.5, 1.0, 2.0])).shape == (4, 3)
    traced = []
    normal = jax.jit(lambda a: (traced.append(1), expfam.kl(expfam.Poisson(a), expfam.Poisson(2.0)))[1])
    normal(1.0), normal(3.0)
    assert len(traced) == 1


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda: expfam.kl(expfam.Bernoulli(0.0), expfam.Geometric(0.5)), TypeError, "p is a Bernoulli and q a Geometric"),
    (lambda: expfam.kl(jnp.ones(3), expfam.Poisson(1.0)), TypeError, "p is an array; pass one of Bernoulli"),
    (lambda: expfam.kl(expfam.Gamma(jnp.ones(3), jnp.ones(2)), expfam.Gamma(1.0, 1.0)), AssertionError, "p.rate"),
    (lambda: expfam.kl(expfam.Gamma(jnp.ones((3, 1)), jnp.ones((3, 2))), expfam.Gamma(1.0, 1.0)), AssertionError,
     "size 1 does not stretch"),
    (lambda: expfam.kl(expfam.Dirichlet(jnp.ones(3)), expfam.Dirichlet(jnp.ones(2))), AssertionError, "must match"),
    (lambda: expfam.kl(expfam.Dirichlet(1.0), expfam.Dirichlet(1.0)), AssertionError, "needs 1 event axes"),
    (lambda: expfam.entropy(expfam.VonMisesFisher(jnp.ones(4))), AssertionError, "2 or 3 coordinates only"),
    (lambda: expfam.entropy(expfam.Wishart(4.0, jnp.ones((2, 3)))), AssertionError, "square lower triangular"),
])  # fmt: skip
def test_messages(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.lenient
@pytest.mark.parametrize("name", CELLS)
def test_docstrings_run(name):
    doc = getattr(expfam, name).__doc__
    assert "@" not in doc and "?" not in doc
    test = doctest.DocTestParser().get_doctest(doc, {}, name, None, 0)
    assert test.examples and doctest.DocTestRunner().run(test).failed == 0
