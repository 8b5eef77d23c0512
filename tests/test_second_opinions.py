"""Others' answers where those are right, and the right answers where others' are known to be wrong.

The inputs of the second half are failures of published libraries; only kljax is asserted, against mpmath.
"""

import jax
import jax.numpy as jnp
import jax.scipy.special as jss
import numpy as np
import optax
import pytest
import scipy.special as ss
import scipy.stats as st
from scipy.spatial.distance import jensenshannon

import kljax
from tests import accuracy, corpus, oracles

column = pytest.mark.parametrize("column", ["probs", "logits"])
TINY = float(np.finfo(np.float32).tiny)
PEER = 64  # eps of float64: a sum of 16 terms of either sign, well apart, as the peers form it


def apart(column):
    rng = np.random.default_rng(21)
    a = 2 * rng.normal(size=(2, 6, 16))
    p, q = a if column == "logits" else np.exp(a)
    return p, q, *(x / x.sum(-1, keepdims=True) for x in np.exp(a))


SCIPY = {
    "entropy": lambda p, q: st.entropy(p, axis=-1),
    "kl": lambda p, q: st.entropy(p, q, axis=-1),
    "reverse_kl": lambda p, q: ss.rel_entr(q, p).sum(-1),
    "jeffreys": lambda p, q: ss.kl_div(p, q).sum(-1) + ss.kl_div(q, p).sum(-1),
    "js_distance": lambda p, q: jensenshannon(p, q, axis=-1),
    "wasserstein1": lambda p, q: [
        st.wasserstein_distance(range(16), range(16), a, b) for a, b in zip(p, q, strict=True)
    ],
}


@column
@pytest.mark.parametrize("name", SCIPY)
def test_scipy(column, name):
    with jax.enable_x64(True):
        p, q, mass_p, mass_q = apart(column)
        ours = np.asarray(corpus.cell(column, name)(p, q))
    accuracy.close(ours, accuracy.exact(np.asarray(SCIPY[name](mass_p, mass_q))), np.float64, PEER)


@pytest.mark.lenient
@column
def test_jax_scipy_and_optax(column):
    with jax.enable_x64(True):
        p, q, mass_p, mass_q = apart(column)
        m = getattr(kljax, column)
        theirs = {
            "entropy": jss.entr(mass_p).sum(-1),
            "kl": jss.rel_entr(mass_p, mass_q).sum(-1),
            "reverse_kl": optax.losses.kl_divergence(jnp.log(mass_p), mass_q),
            "cross_entropy": optax.losses.softmax_cross_entropy(jnp.log(mass_q), mass_p),
        }
        for name, value in theirs.items():
            ours = np.asarray(m.entropy(p) if name == "entropy" else getattr(m, name)(p, q))
            accuracy.close(ours, accuracy.exact(np.asarray(value)), np.float64, PEER)
        if column == "logits":
            slope = jax.grad(lambda b: optax.losses.kl_divergence(jax.nn.log_softmax(b), mass_p).sum())(q)
            ours = jax.grad(lambda b: m.kl(p, b).sum())(q)
            accuracy.close(np.asarray(ours), accuracy.exact(np.asarray(slope)), np.float64, PEER, norm=True)


def right(column, name, p, q, dtype=np.float32, *, slopes=True, **options):
    """kljax against mpmath on one pair: value, and the gradients where the value is finite."""
    p, q = np.asarray(p, dtype), np.asarray(q, dtype)
    cell, one = corpus.cell(column, name), oracles.pair(column, p, q, dtype=dtype)
    with corpus.x64(dtype):
        traced = {k: jnp.asarray(v, dtype) for k, v in options.items()}
        value = np.asarray(cell(p, q, **traced))
        found = [np.asarray(g) for g in jax.grad(lambda p, q: cell(p, q, **traced), (0, 1))(p, q)] if slopes else []
    true = oracles.value(name, one, **options)
    if np.isinf(float(true)):
        assert value == np.inf
    else:
        accuracy.close(value, accuracy.exact(true), dtype, accuracy.VALUE)
    for g, exact in zip(found, oracles.gradients(column, name, one, **options) if slopes else (), strict=True):
        assert np.isfinite(g).all()
        if exact:
            accuracy.close(g, accuracy.exact(exact), dtype, accuracy.GRADIENT, norm=True)
    return value, found


def test_scipy_jensen_shannon_is_nan_near_equality():  # A1, scipy#20083, #20779, #19436
    right("probs", "js_distance", [0.027501475, 0.055202297], [0.027537677, 0.055334348])
    x = np.nextafter(0.5, 0)
    right("probs", "js_distance", [x, 1 - x], [1 - x, x], np.float64)
    value, _ = right("probs", "js_distance", [0, 1], [5e-324, 1], np.float64)
    assert value == 0  # a subnormal weight is a zero


def test_optax_gradient_is_nan_at_zero_targets():  # A2, optax#1786
    q = jax.nn.softmax(jnp.array([0.5, 1.0, 2.0, -1.0]))
    p = jnp.array([0.0, 0.4, 0.6, 0.0])
    slope = np.asarray(jax.grad(lambda p: kljax.probs.kl(p, q))(p))
    masked = np.asarray(jax.grad(lambda p: kljax.probs.kl(p, q, where=p > 0))(p))
    assert np.isfinite(slope).all() and (slope[[0, 3]] < 0).all(), "mass there lowers the divergence"
    true = oracles.gradients("probs", "kl", oracles.pair("probs", np.asarray(p), np.asarray(q), missing=TINY))[0]
    accuracy.close(slope, accuracy.exact(true), norm=True, eps=accuracy.GRADIENT)
    assert (masked[[0, 3]] == 0).all() and np.isfinite(masked).all()
    m = jnp.array([-jnp.inf, 1.0, 2.0, -jnp.inf])
    value = kljax.logits.kl(jnp.log(p), m)
    both = oracles.pair("logits", np.log(np.asarray(p[1:3])), np.asarray(m[1:3]))
    accuracy.close(value, accuracy.exact(oracles.value("kl", both)), eps=accuracy.VALUE)
    assert kljax.logits.kl(m, m) == 0


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4, 1e-5])
def test_textbook_kl_loses_its_digits_near_equality(size):  # A3
    rng = np.random.default_rng(0)
    a = rng.normal(size=1000).astype(np.float32) * 2
    b = (a + size * rng.normal(size=1000)).astype(np.float32)
    right("logits", "kl", a, b)


def test_kl_of_identical_bfloat16_logits_is_zero():  # A4, EasyDeL#267
    z = (8 * jax.random.normal(jax.random.key(0), (6, 248320))).astype(jnp.bfloat16)
    assert (np.asarray(kljax.logits.kl(z, z)) == 0).all()


def test_closing_over_a_bfloat16_teacher_changes_nothing():  # A5
    t = 2 * jax.random.normal(jax.random.key(1), (4, 32000))
    s = (t + jax.random.normal(jax.random.key(2), t.shape)).astype(jnp.bfloat16)
    t = t.astype(jnp.bfloat16)
    closed = jax.jit(jax.grad(lambda s: kljax.logits.kl(t, s).sum()))(s)
    given = jax.jit(jax.grad(lambda s, t: kljax.logits.kl(t, s).sum()))(s, t)
    wide = jax.jit(jax.grad(lambda s, t: kljax.logits.kl(t, s).sum()))(s.astype(jnp.float32), t.astype(jnp.float32))
    assert closed.dtype == jnp.bfloat16
    true = accuracy.exact(np.asarray(wide))
    for got in (closed, given):  # one rounding to 8 bits
        accuracy.close(np.asarray(got.astype(jnp.float32)), true, np.float32, 2.0**15, norm=True)


@pytest.mark.parametrize("name", ["hellinger_sq", "bhattacharyya", "renyi", "chi2"])
def test_textbook_power_sums_are_negative_near_equality(name):  # A6
    a = 2 * jax.random.normal(jax.random.key(0), (1000,))
    b = a + 1e-4 * jax.random.normal(jax.random.key(1), (1000,))
    options = {"order": 2.0} if name == "renyi" else {}
    right("logits", name, a, b, slopes=False, **options)
    right("probs", name, jax.nn.softmax(a), jax.nn.softmax(b), slopes=False, **options)


def test_the_root_at_equality_has_gradient_zero():  # A6
    p = jax.nn.softmax(2 * jax.random.normal(jax.random.key(0), (1000,)))
    for g in jax.grad(kljax.probs.hellinger, (0, 1))(p, p):
        assert (np.asarray(g) == 0).all()


def test_slopes_where_mass_is_missing():  # A9, jax#38239
    p, q = jnp.array([0.0, 0.4, 0.6]), jnp.array([0.2, 0.4, 0.4])
    true = oracles.gradients("probs", "kl", oracles.pair("probs", np.asarray(p), np.asarray(q), missing=TINY))[0]
    accuracy.close(jax.grad(kljax.probs.kl)(p, q), accuracy.exact(true), norm=True, eps=accuracy.GRADIENT)
    half, one = jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])
    value, slope = jax.value_and_grad(kljax.probs.kl, 1)(half, one)
    most = float(np.finfo(np.float32).max) ** 0.25
    assert value == np.inf and slope[1] < -most / 2 and np.isfinite(slope).all(), "downhill, not flat"


@column
def test_one_hot_targets_have_gradients(column):  # A10, A11
    hot, z = jnp.array([0.0, 1.0, 0.0]), jax.nn.softmax(jnp.array([0.5, 0.2, 0.3]))
    p, q = (hot, z) if column == "probs" else (jnp.log(hot), jnp.log(z))
    cell = getattr(kljax, column).kl
    value, slopes = jax.value_and_grad(cell, (0, 1))(p, q)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in slopes)
    if column == "logits":
        assert (np.asarray(slopes[0]) == 0).all(), "a logit of -inf moves no mass"
    true = oracles.gradients(column, "kl", oracles.pair(column, np.asarray(p), np.asarray(q), missing=TINY))
    for g, exact in zip(slopes, true, strict=True):
        accuracy.close(g, accuracy.exact(exact), norm=True, eps=accuracy.GRADIENT)


def test_sharp_temperatures_and_masked_logits_have_gradients():  # A11, pytorch#89558, Soup#719
    s, g = np.array([2.0, -4.0, 1.0, -6.0]) / 0.05, np.array([1.0, -3.0, 2.0, -5.0]) / 0.05
    right("logits", "kl", s, g)
    p = jnp.array([0.0, 0.4, 0.6])
    over_p, over_q = jax.grad(kljax.logits.kl, (0, 1))(jnp.log(p), jnp.array([-1.0, -1.2, -0.9]))
    assert np.isfinite(over_p).all() and over_p[0] == 0 and np.isfinite(over_q).all()
    masked = jnp.array([0.0, 0.0, -jnp.inf])
    value, slope = jax.value_and_grad(kljax.logits.kl)(masked, jnp.zeros(3))
    accuracy.close(value, np.log(1.5))
    assert np.isfinite(slope).all() and slope[2] == 0


@pytest.mark.parametrize("far", [100.0, 1000.0])
def test_far_ratios_do_not_overflow(far):  # A12: the generators of tfp.vi at log u = 100
    p, q = jnp.array([0.0, far]), jnp.array([0.0, -far])
    for a, b in ((p, q), (q, p)):
        accuracy.close(kljax.logits.js(a, b), np.log(2), eps=accuracy.VALUE)
        accuracy.close(kljax.logits.le_cam(a, b), 2, eps=accuracy.VALUE)


def test_scaled_js_is_continuous_at_its_ends():  # A18: liger-kernel and trl jump there
    s, t = jnp.array([0.0, 1.0, -2.0]), jnp.array([0.5, 0.0, 1.0])
    for weight in (0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6, 1.0):
        right("logits", "scaled_js", s, t, slopes=weight == 1e-6, weight=float(np.float32(weight)))
    ends = [float(kljax.logits.scaled_js(s, t, weight=w)) for w in (0.0, 1e-6, 1 - 1e-6, 1.0)]
    accuracy.close(ends[0], float(kljax.logits.kl(s, t)))
    accuracy.close(ends[3], float(kljax.logits.kl(t, s)))
    assert abs(ends[1] / ends[0] - 1) < 1e-5 and abs(ends[2] / ends[3] - 1) < 1e-5


def test_top_k_sees_the_tail():  # A23: tunix and maxtext renormalise the head
    h = np.array([0.5, 0.3, 0.19])
    t, s = (np.log(np.concatenate([x, np.full(97, r / 97)])).astype(np.float32) for x, r in ((h, 0.01), (h / 99, 0.99)))
    top = kljax.logits.top_k(t, 3)
    coarse = kljax.logits.kl(kljax.logits.coarsen(t, top.indices), kljax.logits.coarsen(s, top.indices))
    with accuracy.digits:
        x = oracles.pair("logits", t, s)
        p, q = ([m[0], m[1], m[2], sum(m[3:])] for m in (x.p, x.q))
        true = oracles.value("kl", x._replace(p=p, q=q, kept=[0, 1, 2, 3], size=4))
    accuracy.close(coarse, accuracy.exact(true), eps=accuracy.AGREE)
    assert coarse < kljax.logits.kl(t, s) * (1 + accuracy.AGREE * np.finfo(np.float32).eps)


def test_all_pairs_have_zeros_on_the_diagonal_and_nothing_negative():  # A24
    x = jnp.asarray(np.random.default_rng(0).dirichlet(np.full(64, 0.3), 40), jnp.float32)
    for cell in (kljax.probs.js, kljax.probs.kl):
        table = np.asarray(jax.jit(jax.vmap(jax.vmap(cell, (None, 0)), (0, None)))(x, x))
        assert (table >= 0).all() and (np.diag(table) == 0).all()
