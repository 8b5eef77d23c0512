"""Mixtures: the golden cases, bounds against Monte Carlo, gradients, and what has no mass."""

import doctest
import functools
import inspect

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kljax
from kljax.mixture import Mixture
from kljax.mvn import MVN
from kljax.normal import Normal
from tests import accuracy, corpus

pytestmark = pytest.mark.slow  # minutes of compilation; the golden cases and the examples run by default

PAIR = ("kl_lower", "kl_upper", "kl_variational", "kl_product")
ONE = ("entropy_lower", "entropy_upper")
MOST = 4  # components; cases with fewer get some without mass
FEW = 8  # eps: what a bound may lack of a true value
MARGIN = 32  # eps of 1 + the value: what a difference is moved by, so that rounding keeps it a bound


def cell(name):
    function = getattr(kljax.mixture, name)
    return (lambda p, q: function(p)) if name in ONE else function


@functools.cache
def cases(size):
    """Univariate ones as Normal (size 1), the others as MVN of 3 coordinates, a third one standard if there are 2."""
    return [c for c in corpus.golden() if c["rep"] == ("gmm1" if size == 1 else "gmm")]


def unpacked(rows, size):
    lower = np.eye(size)
    for i, row in enumerate(rows):
        lower[i, : i + 1] = [float.fromhex(v) for v in row]
    return lower


def given(case, side, size):
    """Weights, loc and scale of one mixture, components without mass, which are nan, added."""
    params = case["params"][side]
    count = len(params["weights"])
    weights, loc = np.zeros(MOST), np.full((MOST, size), np.nan)
    weights[:count] = [float.fromhex(v) for v in params["weights"]]
    known = np.vectorize(float.fromhex)(np.array(params["loc"])).reshape(count, -1)
    loc[:count] = np.pad(known, ((0, 0), (0, size - known.shape[1])))
    if size == 1:
        scale = np.full((MOST, 1), np.nan)
        scale[:count, 0] = [float.fromhex(v) for v in params["scale"]]
    else:
        scale = np.full((MOST, size, size), np.nan)
        scale[:count] = [unpacked(rows, size) for rows in params["scale_tril"]]
    return weights, loc, scale


def stacked(size, side, dtype):
    weights, *leaves = (np.stack(x) for x in zip(*(given(c, side, size) for c in cases(size)), strict=True))
    with np.errstate(divide="ignore"):
        logits = np.log(weights)
    kind = Normal if size == 1 else MVN
    return Mixture(jnp.asarray(logits, dtype), kind(*(jnp.asarray(x, dtype) for x in leaves)))


@functools.cache
def battery(size, dtype):
    """Values and gradients of every cell on all cases of one size of event."""
    p, q = (stacked(size, side, dtype) for side in "pq")

    def run(p, q):
        found = {}
        for name in PAIR + ONE:
            value, pull = jax.vjp(cell(name), p, q)
            found[name] = value, pull(jnp.ones_like(value))
        return found

    return jax.device_get(jax.jit(run)(p, q)), jax.device_get((p, q))


@functools.cache
def conditions(size, name):
    """How much a value moves with its inputs, relatively, from the float64 gradient."""
    with jax.enable_x64(True):
        found, inputs = battery(size, "float64")
    value, gradient = found[name]
    moved = np.zeros(value.shape)
    for x, g in zip(jax.tree.leaves(inputs), jax.tree.leaves(gradient), strict=True):
        x = np.where(np.isfinite(x), np.abs(x), 0)
        moved += np.sum(x * np.abs(g), tuple(range(1, g.ndim)))
    return moved / np.where(value == 0, 1, np.abs(value))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", ["variational_approx", "product_approx"])
def test_golden_approximations(size, name, dtype):
    ours = {"variational_approx": "kl_variational", "product_approx": "kl_product"}[name]
    got = battery(size, dtype.name)[0][ours][0]
    with accuracy.digits:
        true = [accuracy.number(c["values"][name]) for c in cases(size)]
        signs = np.array([1.0 if t >= 0 else -1.0 for t in true])
        true = accuracy.exact([abs(t) for t in true])
    equal = np.array([c["meta"].get("equal", False) for c in cases(size)])
    errors = accuracy.value_errors(got * signs, true, dtype)
    allowed = 32 * np.maximum(1, conditions(size, ours) / 8)
    near_zero = equal & (np.abs(got) <= FEW * MOST * np.finfo(dtype).eps)  # 0 by terms that cancel
    assert np.all((errors <= allowed) | near_zero), f"{errors} eps, {allowed} allowed"


def below(a, b, dtype, margin=0):
    """a <= b, but for a few eps of b."""
    b, eps = np.asarray(b, float), float(np.finfo(dtype).eps)
    return np.asarray(a, float) <= b + eps * (FEW * np.abs(b) + margin * (1 + np.abs(b)))


@pytest.mark.parametrize("size", [1, 3])
def test_golden_bounds(size, dtype):
    found = {name: value for name, (value, _) in battery(size, dtype.name)[0].items()}
    known = {k: [float(c["values"][k]) if k in c["values"] else np.nan for c in cases(size)] for c in cases(size)
             for k in c["values"]}  # fmt: skip
    equal = np.array([c["meta"].get("equal", False) for c in cases(size)])
    assert np.all(found["kl_lower"] >= 0)
    assert np.all(below(known["lower_bound_durrieu"], found["kl_lower"], dtype, MARGIN)), "not above Durrieu's"
    assert np.all(below(found["kl_lower"], known["kl_pq"], dtype))
    assert np.all(below(known["kl_pq"], found["kl_upper"], dtype))
    for name in ("upper_bound_durrieu", "upper_bound_convexity", "upper_bound_matched_identity"):
        if name in known:
            assert np.all(below(found["kl_upper"], known[name], dtype, MARGIN) | np.isnan(known[name])), name
    assert np.all(found["kl_upper"][equal] <= float(np.finfo(dtype).eps) ** 2)
    added = np.array([size - c["meta"].get("d", 1) for c in cases(size)]) * (np.log(2 * np.pi) + 1) / 2
    entropy = np.array(known["entropy_p"]) + added
    assert np.all(below(found["entropy_lower"], entropy, dtype, FEW))
    assert np.all(below(entropy, found["entropy_upper"], dtype, FEW))


@pytest.mark.parametrize("size", [1, 3])
def test_gradients_are_finite_and_0_without_mass(size, dtype):
    found, (p, q) = battery(size, dtype.name)
    for name, (value, gradient) in found.items():
        assert np.all(np.isfinite(value)), name
        for mixture, slopes in zip((p, q), gradient, strict=True):
            dead = np.isneginf(mixture.logits)
            for g in jax.tree.leaves(slopes):
                assert np.all(np.isfinite(g)) and np.all(g[dead] == 0), name


def drawn(seed, batch, count, size, dense, apart=2.0):
    rng = np.random.default_rng(seed)
    logits, loc = rng.normal(size=(batch, count)), apart * rng.normal(size=(batch, count, size))
    scale = np.exp(0.4 * rng.normal(size=(batch, count, size)))
    if not dense:
        return Mixture(logits, Normal(loc, scale))
    lower = np.tril(0.5 * rng.normal(size=(batch, count, size, size)), -1)
    return Mixture(logits, MVN(loc, lower + scale[..., None] * np.eye(size)))


SHAPES = [(1, False), (3, False), (2, True)]


def with_dtype(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


@pytest.mark.parametrize(("size", "dense"), SHAPES)
@pytest.mark.parametrize("apart", [0.3, 2.0])
def test_bounds_hold_against_monte_carlo(size, dense, apart):
    p, q = (with_dtype(drawn(seed, 6, m, size, dense, apart), "float32") for seed, m in ((1, 3), (2, 2)))
    x = kljax.mixture.sample(jax.random.key(3), p, (20000,))
    log_p, log_q = (np.asarray(kljax.mixture.log_prob(d, x), float) for d in (p, q))
    for low, terms, high in (("kl_lower", log_p - log_q, "kl_upper"), ("entropy_lower", -log_p, "entropy_upper")):
        mean, error = terms.mean(0), terms.std(0) / np.sqrt(len(terms))
        assert np.all(cell(low)(p, q) <= mean + 5 * error), low
        assert np.all(mean - 5 * error <= cell(high)(p, q)), high


@pytest.mark.parametrize(("size", "dense"), SHAPES)
def test_log_prob_is_that_of_the_sum(size, dense, dtype):
    p = with_dtype(drawn(4, 2, 3, size, dense), dtype)
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, size)), dtype)
    got, column = kljax.mixture.log_prob(p, x), kljax.mvn if dense else kljax.normal
    parts = np.asarray(column.log_prob(p.components, jnp.broadcast_to(x[:, None, :], (2, 3, size))), float)
    weights = np.asarray(p.logits, float)
    for i in range(2):
        total = mp.fsum(mp.exp(mp.mpf(w) + mp.mpf(v)) for w, v in zip(weights[i], parts[i], strict=True))
        true = mp.log(total / mp.fsum(mp.exp(mp.mpf(w)) for w in weights[i]))
        accuracy.close(-got[i], -true, dtype, accuracy.AGREE)


def flat(p, q):
    leaves, tree = jax.tree.flatten((p, q))
    sizes = np.cumsum([0] + [x.size for x in leaves])

    def back(v):
        return tree.unflatten([v[a:b].reshape(x.shape) for a, b, x in zip(sizes, sizes[1:], leaves, strict=False)])

    return jnp.concatenate([x.ravel() for x in leaves]), back


@pytest.mark.parametrize(("size", "dense"), SHAPES)
def test_gradients_are_those_of_central_differences(size, dense):
    with jax.enable_x64(True):
        p, q = (with_dtype(drawn(seed, 1, m, size, dense), "float64") for seed, m in ((6, 3), (7, 2)))
        v, back = flat(p, q)
        if dense:  # above the diagonal nothing is read
            v = flat(*jax.tree.map(lambda x: jnp.tril(x) if x.ndim == 4 else x, (p, q)))[0]
        step = 2.0**-17
        steps = step * jnp.eye(len(v))

        def run(v):
            return jnp.stack([cell(name)(*back(v))[0] for name in PAIR + ONE])

        rows = jnp.concatenate([v[None] + steps, v[None] - steps])
        values = np.asarray(jax.jit(lambda rows: jax.lax.map(run, rows))(rows))
        rough = (values[: len(v)] - values[len(v) :]).T / (2 * step)
        exact = np.asarray(jax.jit(jax.jacrev(run))(v))
        for name, a, b in zip(PAIR + ONE, rough, exact, strict=True):
            if dense:
                used = np.asarray(flat(*jax.tree.map(lambda x: jnp.tril(jnp.ones_like(x)) if x.ndim == 4 else
                                                     jnp.ones_like(x), (p, q)))[0]) > 0  # fmt: skip
                a, b = a[used], b[used]
            assert np.linalg.norm(a - b) <= step * (1 + np.linalg.norm(b)), name


@pytest.mark.parametrize(("size", "dense"), SHAPES)
def test_equal_mixtures(size, dense, dtype):
    p = with_dtype(drawn(8, 3, 3, size, dense, 0.5), dtype)
    for name in PAIR:
        value, pull = jax.vjp(cell(name), p, p)
        assert np.all(value == 0), name
        slopes = jax.tree.leaves(pull(jnp.ones_like(value)))
        assert all(np.all(np.isfinite(g)) for g in slopes), name
        if name in ("kl_lower", "kl_upper"):
            assert all(np.all(g == 0) for g in slopes), name


def test_permuted_and_split_components_are_seen(dtype):
    p = with_dtype(drawn(9, 1, 3, 2, False), dtype)
    order = np.array([2, 0, 1, 1])
    moved = jax.tree.map(lambda x: x[:, order], p)
    split = jnp.log(jnp.asarray([1.0, 1.0, 0.25, 0.75], dtype))
    moved = moved._replace(logits=moved.logits + split[None])
    assert np.all(kljax.mixture.kl_upper(p, moved) < float(np.finfo(dtype).eps) ** 1.5)


def test_one_component_on_each_side_is_the_gaussian(dtype):
    p, q = (with_dtype(drawn(seed, 4, 1, 3, False), dtype) for seed in (1, 2))
    true = kljax.normal.kl(*(Normal(*(x[:, 0] for x in d.components)) for d in (p, q)))
    for name in ("kl_lower", "kl_upper", "kl_variational"):
        accuracy.close(cell(name)(p, q), np.asarray(true, float), dtype, 4)


def test_one_component_of_q_leaves_the_entropy_of_p(dtype):
    p, q = with_dtype(drawn(1, 4, 3, 2, True), dtype), with_dtype(drawn(2, 4, 1, 2, True), dtype)
    high, low = kljax.mixture.kl_upper(p, q), kljax.mixture.kl_lower(p, q)
    most = kljax.mixture.entropy_upper(p) - kljax.mixture.entropy_lower(p)
    assert np.all(below(high - low, most, dtype) | below(high, low + most, dtype, MARGIN))


def test_far_components(dtype):
    """Densities and masses that underflow."""
    loc = jnp.asarray([[-3e3], [0.0], [3e5]], dtype)
    p = Mixture(jnp.zeros(3, dtype), Normal(loc, jnp.ones_like(loc)))
    q = Mixture(jnp.zeros(3, dtype), Normal(loc + 2e4, jnp.full_like(loc, 0.01)))
    for name in PAIR:
        value, pull = jax.vjp(cell(name), p, q)
        assert np.isfinite(value) and value > 1e6, name
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(pull(jnp.ones_like(value)))), name
    assert np.isfinite(kljax.mixture.log_prob(p, jnp.asarray([-1e6], dtype)))


def test_no_mass_and_nan_stay_in_their_row():
    p, q = (with_dtype(drawn(seed, 3, 2, 2, False), "float32") for seed in (1, 2))
    p = p._replace(logits=p.logits.at[0].set(-jnp.inf))
    q = q._replace(components=q.components._replace(scale=q.components.scale.at[1, 0, 0].set(-1.0)))
    for name in PAIR:
        value, pull = jax.vjp(cell(name), p, q)
        assert np.array_equal(np.isnan(value), [True, True, False]), name
        slopes = jax.tree.leaves(pull(jnp.asarray([1.0, 0.0, 1.0])))
        assert all(np.all(g[0] == 0) and np.all(np.isfinite(g[2])) for g in slopes), name


def test_transformations_and_shapes():
    p, q = (with_dtype(drawn(seed, 3, 2, 2, True), "float32") for seed in (1, 2))
    one = jax.tree.map(lambda x: x[0], q)
    for name in ("kl_upper", "entropy_lower"):
        batched = cell(name)(p, q)
        accuracy.close(np.abs(jax.vmap(cell(name))(p, q)), np.abs(np.asarray(batched, float)), eps=1024)
        assert cell(name)(one, p).shape == ((3,) if name in PAIR else ())
        before = getattr(kljax.mixture, name)._cache_size()
        cell(name)(jax.tree.map(lambda x: x + 0, p), q)
        assert getattr(kljax.mixture, name)._cache_size() == before
    assert kljax.mixture.sample(jax.random.key(0), p, (5, 2)).shape == (5, 2, 3, 2)
    assert kljax.mixture.log_prob(p, jnp.zeros((4, 3, 2))).shape == (4, 3)


def test_dtypes():
    p = drawn(1, 2, 2, 1, False)
    half = with_dtype(p, "bfloat16")
    assert kljax.mixture.kl_upper(half, half).dtype == np.float32
    with jax.enable_x64(True):
        wide = with_dtype(p, "float64")
        assert kljax.mixture.kl_upper(wide, with_dtype(p, "float32")).dtype == np.float64
        assert kljax.mixture.sample(jax.random.key(0), wide).dtype == np.float64


def test_errors():
    p = with_dtype(drawn(1, 2, 2, 3, False), "float32")
    dense = Mixture(p.logits, kljax.mvn.from_normal(p.components))
    with pytest.raises(TypeError, match=r"kljax\.mixture\.kl_upper: p is a Normal; pass a Mixture"):
        kljax.mixture.kl_upper(p.components, p)
    with pytest.raises(TypeError, match="from_normal turns"):
        kljax.mixture.kl_lower(p, dense)
    with pytest.raises(TypeError, match=r"p\.components is a tuple"):
        kljax.mixture.entropy_upper(Mixture(p.logits, tuple(p.components)))
    with pytest.raises(AssertionError, match=r"p\.logits \(2, 3\).*expected \[\.\.\., M\]"):
        kljax.mixture.kl_upper(p._replace(logits=jnp.zeros((2, 3))), p)
    with pytest.raises(AssertionError, match="p has events of 3 coordinates and q of 2"):
        kljax.mixture.kl_upper(p, with_dtype(drawn(1, 2, 2, 2, False), "float32"))
    with pytest.raises(AssertionError, match="must be equal or one the tail"):
        kljax.mixture.kl_upper(p, with_dtype(drawn(1, 3, 2, 3, False), "float32"))


@pytest.mark.lenient
@pytest.mark.parametrize("name", [n for n in kljax.mixture.__all__ if n != "Mixture"])
def test_docstrings(name):
    function = getattr(kljax.mixture, name)
    assert "Shapes:" in function.__doc__ and "Errors:" in function.__doc__
    assert set(inspect.signature(function).parameters) <= {"p", "q", "x", "key", "shape"}
    test = doctest.DocTestParser().get_doctest(function.__doc__, {}, name, None, 0)
    assert test.examples and doctest.DocTestRunner().run(test).failed == 0
