"""Linear heads: every cell against `logits` of the whole product in float64, the loss against the sum of cells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from bench import cases, compiled
from kljax import _fold, heads, logits, rows
from kljax.heads import Head

TOKENS, OUTCOMES, WIDE, NARROW = 11, 37, 6, 4  # a block has 4 tokens: the last is not full
EPS = float(np.finfo(np.float32).eps)
CELLS = [
    ("kl", {}), ("js", {"weight": 0.3}), ("renyi", {"order": 0.5}), ("reverse_kl", {}), ("jeffreys", {}), ("tv", {}),
    ("scaled_js", {"weight": 0.0}), ("hellinger_sq", {}), ("alpha", {"order": 2.0}),
]  # fmt: skip
SOME = [
    pytest.param(*c, marks=[pytest.mark.slow] * (i > 2) + [pytest.mark.repeat] * (c[0] in ("js", "renyi")))
    for i, c in enumerate(CELLS)
]
ROWS = {"kl": rows.kl, "tv": rows.tv, "js": rows.js(0.3), "alpha": rows.alpha(2.0)}


def some(dtype=np.float32, seed=0):
    """A teacher and a student of unlike widths, the student with bias and cap."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32), dtype)

    p = Head(draw(TOKENS, WIDE), draw(WIDE, OUTCOMES) / 2)
    return p, Head(draw(TOKENS, NARROW), draw(NARROW, OUTCOMES), draw(OUTCOMES), jnp.float32(3.0))


WHERE = np.arange(OUTCOMES) != 5


def whole(head, temperature=1.0, where=None):
    """The logits by hand."""
    z = head.hidden @ head.weight
    z = z if head.bias is None else z + head.bias[None]
    z = z if head.softcap is None else head.softcap * jnp.tanh(z / head.softcap)
    return z / temperature if where is None else jnp.where(where[None], z / temperature, -jnp.inf)


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def near(found, true, eps):
    """Every leaf within eps of the largest element of its truth."""
    for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        assert np.isfinite(got).all()
        assert np.abs(got - expected).max() <= eps * EPS * np.abs(expected).max(), (got, expected)


@pytest.mark.parametrize(("name", "options"), SOME, ids=lambda v: v if isinstance(v, str) else "")
def test_cells_are_those_of_logits(name, options):
    """Value, gradients in all of both heads and in the temperature, and a Hessian-vector product."""
    p, q = some()
    ours = functools.partial(getattr(heads, name), where=WHERE, block=4, **options)

    def truth(p, q, temperature):
        return getattr(logits, name)(whole(p, temperature, WHERE), whole(q, temperature, WHERE), **options)

    def everything(cell, p, q, temperature):
        def total(p, q, temperature):
            value = cell(p, q, temperature)
            return jnp.sum(value), value

        slopes = jax.grad(total, (0, 1, 2), has_aux=True)
        step = jax.tree.map(lambda x: 0.1 * x, q.hidden)
        moved = jax.jvp(lambda h: slopes(p, q._replace(hidden=h), temperature)[0][1], (q.hidden,), (step,))[1]
        return slopes(p, q, temperature), moved.hidden

    def called(p, q, temperature):
        return ours(p, q, temperature=temperature)

    found = jax.jit(functools.partial(everything, called))(p, q, jnp.float32(1.5))
    with jax.enable_x64(True):
        true = jax.jit(functools.partial(everything, truth))(*wide((p, q)), 1.5)
    near(found, true, 64)


@pytest.mark.lenient
@pytest.mark.smoke
@pytest.mark.parametrize("name", ["js", *(pytest.param(n, marks=pytest.mark.slow) for n in ("kl", "tv", "alpha"))])
def test_the_loss_is_the_sum_of_cells(name):
    """And of the cross-entropy to labels; value and the gradient in everything, the row's parameter too."""
    p, q = some()
    rng = np.random.default_rng(1)
    weights, labels = rng.normal(size=TOKENS).astype(np.float32), rng.integers(-1, OUTCOMES, TOKENS)
    labels[2], weights[4] = -1, 0

    def ours(row, p, q, weights, temperature, label_weight):
        options = {"weights": weights, "temperature": temperature, "labels": labels, "label_weight": label_weight}
        return heads.loss(row, p, q, block=4, **options)

    def truth(row, p, q, weights, temperature, label_weight):
        value = logits.f_divergence(whole(p, temperature), whole(q, temperature), row=row)
        term = -jnp.take_along_axis(jax.nn.log_softmax(whole(q)), jnp.maximum(labels, 0)[:, None], -1)[:, 0]
        return jnp.sum(weights * (value + label_weight * jnp.where(labels >= 0, term, 0) * (weights != 0)))

    row = jax.tree.map(jnp.float32, ROWS[name])
    given = row, p, q, weights, np.float32(1.5), np.float32(0.3)
    found = jax.jit(jax.value_and_grad(ours, tuple(range(6))))(*given)
    with jax.enable_x64(True):
        value, slopes = jax.jit(jax.value_and_grad(truth, tuple(range(6))))(*wide(given))
    slopes = (*slopes[:3], np.where(weights != 0, slopes[3], 0), *slopes[4:])
    near(found, (value, slopes), 64)


def test_a_token_of_weight_zero_may_hold_nan():
    p, q = some()
    weights = jnp.ones(TOKENS).at[3].set(0)

    def loss(p, q):
        return heads.loss(rows.kl, p, q, weights=weights, block=4)

    value, slopes = jax.value_and_grad(loss, (0, 1))(p, q)
    spoilt = p._replace(hidden=p.hidden.at[3].set(jnp.nan)), q._replace(hidden=q.hidden.at[3, 0].set(jnp.inf))
    again, same = jax.value_and_grad(loss, (0, 1))(*spoilt)
    assert value == again and (slopes[1].hidden[3] == 0).all()
    for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_top_k_teacher_is_compared_by_its_outcomes_and_the_tail():
    p, q = some()
    top = logits.top_k(whole(p), 5)
    listed = jnp.concatenate([top.logits, top.log_tail[:, None]], -1)
    true = logits.kl(listed, logits.coarsen(whole(q, 2.0), top.indices))
    near(heads.kl(top, q, temperature=2.0, block=4), true, 16)
    value, slope = jax.value_and_grad(lambda q: heads.loss(rows.kl, top, q, temperature=2.0, block=4))(q)
    near(value, true.sum(), 16)
    by_cells = jax.grad(lambda q: heads.kl(top, q, temperature=2.0).sum())(q)
    near(slope, by_cells, 64)
    assert (heads.kl(top, q) < heads.kl(p, q)).all(), "the tail hides what is in it"


def test_a_renormalised_top_k_misses_what_the_tail_sees():
    """A student that is the teacher but for half of its mass, which it moves into the tail."""
    p = jnp.log(jnp.array([0.5, 0.3, 0.1, 0.06, 0.04]))
    q = jnp.log(jnp.array([0.25, 0.15, 0.2, 0.2, 0.2]))
    top = logits.top_k(p, 2)
    kept, seen = jnp.append(top.logits, top.log_tail), logits.coarsen(q, top.indices)
    whole_kl = logits.kl(p, q)
    assert logits.kl(p[top.indices], q[top.indices]) < 1e-6 * whole_kl
    assert 0.9 * whole_kl < logits.kl(kept, seen) < whole_kl
    slope = jax.grad(lambda q: logits.kl(kept, logits.coarsen(q, top.indices)))(q)
    assert (slope[2:] > 0.1).all() and (slope[:2] < -0.1).all(), "it draws the mass back"


def test_what_is_not_asked_for_is_not_computed():
    """Two products a block for the value, two more for the student or the teacher, one for hidden states alone."""
    p, q = some()

    def loss(p, q):
        return heads.loss(rows.kl, p, q, block=TOKENS)

    asked = loss, jax.grad(loss, 1), jax.grad(loss, (0, 1)), jax.grad(lambda h: loss(p, q._replace(hidden=h)))
    given = (p, q), (p, q), (p, q), (q.hidden,)
    counted = [jax.jit(f).lower(*x).as_text().count("stablehlo.dot_general") for f, x in zip(asked, given, strict=True)]
    assert counted == [2, 4, 6, 3]


def test_shapes_are_checked():
    p, q = some()
    with pytest.raises(AssertionError, match=r"kljax.heads.kl: q.hidden \(11, 4\) and q.weight \(37, 4\): .*transpose"):
        heads.kl(p, q._replace(weight=q.weight.T))
    with pytest.raises(AssertionError, match="p.weight has events of 37 outcomes and q.weight of 36"):
        heads.kl(p, q._replace(weight=q.weight[:, 1:], bias=None))
    with pytest.raises(AssertionError, match=r"where \(11,\): expected \[V\] = \(37,\)"):
        heads.tv(p, q, where=np.ones(TOKENS, bool))
    with pytest.raises(TypeError, match="p is a .*; pass a Head"):
        heads.kl(whole(p), q)
    with pytest.raises(AssertionError, match=r"weights \(37,\): pass one number, or one a token, \(11,\)"):
        heads.loss(rows.kl, p, q, weights=np.ones(OUTCOMES))


def test_vmap_traces_once_and_is_the_loop():
    p, q = some()
    stacked = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), q)
    found = jax.vmap(lambda q: heads.loss(rows.kl, p, q, block=4))(stacked)
    true = [heads.loss(rows.kl, p, jax.tree.map(lambda x, i=i: x[i], stacked), block=4) for i in range(2)]
    near(found, jnp.stack(true), 16)
    before = heads.loss._cache_size()
    heads.loss(rows.kl, p, some(seed=3)[1], block=4)
    assert heads.loss._cache_size() == before


def test_halves_lose_no_more_than_by_hand():
    """bfloat16: logits in float32, products back in bfloat16, the weight's gradient summed in float32."""
    p, q = some(jnp.bfloat16)
    q = q._replace(softcap=None, bias=None)

    def ours(weight):
        return heads.loss(rows.kl, p, q._replace(weight=weight), block=4)

    def by_hand(weight):
        a, b = (jax.nn.log_softmax((h @ w).astype(jnp.float32)) for h, w in ((p.hidden, p.weight), (q.hidden, weight)))
        return jnp.sum(jnp.exp(a) * (a - b))

    with jax.enable_x64(True):
        true = jax.grad(lambda w: jnp.sum(logits.kl(whole(wide(p)), whole(wide(q)._replace(weight=w)))))(wide(q).weight)
        true = np.asarray(true)
    errors = [np.abs(np.asarray(jax.grad(f)(q.weight), np.float64) - true).max() for f in (ours, by_hand)]
    assert errors[0] <= errors[1], errors
    with jax.enable_x64(True):
        true = np.asarray(logits.kl(whole(wide(p)), whole(wide(q))))
    near(heads.kl(p, q), true, 32)


@pytest.mark.lenient
def test_the_loss_needs_an_eighth_of_the_memory_of_the_composite(monkeypatch):
    monkeypatch.setattr(_fold, "_in_one_place", lambda: True)
    ours, composite, shapes = cases.heads_cases()["heads.loss"]
    memory = [
        jax.jit(f).lower(*shapes).compile().memory_analysis().temp_size_in_bytes for f in (ours, composite)
    ]  # fmt: skip
    assert memory[0] <= memory[1] / 8, memory


@pytest.mark.smoke
@pytest.mark.parametrize(
    "kind", [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.repeat)], ids=["auto", "explicit"]
)
def test_data_and_vocabulary_in_parallel(kind):
    """Tokens over one mesh axis inside shard_map, the vocabulary over another left to the compiler: same numbers."""
    tokens, outcomes = 64, 512
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=s).astype(np.float32) for s in 2 * ((tokens, 8), (8, outcomes))]
    mesh = jax.make_mesh((2, 4), ("data", "vocab"), axis_types=(kind, kind))

    def loss(*given):
        return heads.loss(rows.js(0.5), Head(*given[:2]), Head(*given[2:]), block=16)

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=2 * (P("data"), P()), out_specs=P(), axis_names={"data"}
    )  # fmt: skip
    def parallel(*given):
        return jax.lax.psum(loss(*given), "data")

    true = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*arrays)
    with jax.set_mesh(mesh):
        places = 2 * (P("data", None), P(None, "vocab"))
        given = [jax.device_put(x, jax.NamedSharding(mesh, s)) for x, s in zip(arrays, places, strict=True)]
        program = jax.jit(jax.value_and_grad(parallel, (0, 1, 2, 3))).lower(*given).compile()
        found = jax.tree.map(np.asarray, program(*given))
    near(found, true, 64)
    exchanged = compiled.collectives(program.as_text())
    # the gradients of both weights and the loss at once, a quarter each; in Explicit meshes jax gathers the weights
    # where they enter shard_map; logits of a block would be 16 * 512 numbers
    limit = 2 * 8 * outcomes // 4 + 1 if kind is AxisType.Auto else 8 * outcomes
    assert exchanged and max(exchanged.values()) <= 4 * limit, exchanged
