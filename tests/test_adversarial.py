"""Every cell on pairs that were made to break it: no nan, no negative, nothing beyond its range, asymmetric or unequal.

By default 6,000 pairs of a few cells, in the slow run 100,000 of each. What they found is in test_found.py by number.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kljax
from kljax import affinity
from tests import adversaries, corpus, families, matrix
from tests.draws import EPS, SMALL

ROWS = 2000
FEW, MANY = 3, 50  # batches
CELLS = [(c, n) for c in matrix.DISCRETE for n in matrix.oracled("probs")]
QUICK = ("kl", "renyi", "tv", "cross_entropy")  # by default one of each engine, as each compiles for seconds
ENDS = {  # options beyond those that the corpus measures
    "alpha": ("order", (-1e-6, 1 + 2.0**-22, -3.0, 8.0, 50.0, -50.0)),
    "renyi": ("order", (1e-6, 30.0, 1 - 2.0**-23)), "tsallis": ("order", (1e-6, 30.0, 1 - 2.0**-23)),
    "js": ("weight", (1e-6, 1 - 2.0**-23, 1e-30)), "scaled_js": ("weight", (1e-6, 1 - 2.0**-23, 1e-30)),
    "geometric_js": ("weight", (0.0, 1.0, 1e-6)), "hockey_stick": ("gamma", (1 + 2.0**-23, 1e6)),
    "renyi_entropy": ("order", (1e-6, 30.0)), "tsallis_entropy": ("order", (1e-6, 30.0)),
}  # fmt: skip
FAMILIES = ("Bernoulli", "Poisson", "Geometric", "Exponential", "Gamma", "InverseGamma", "Beta", "Laplace")
DRAWS = {  # the column, and two of a kind by a seed and how many
    "probs": ("probs", adversaries.weights), "logits": ("logits", adversaries.logits),
    "Normal": ("normal", adversaries.normals),
    "LogScaleNormal": ("normal", functools.partial(adversaries.normals, kind=kljax.normal.LogScaleNormal)),
    "MVN": ("mvn", adversaries.gaussians), "LowRank": ("lowrank", adversaries.low_rank),
    **{n: ("expfam", functools.partial(adversaries.members, getattr(kljax.expfam, n))) for n in FAMILIES},
}  # fmt: skip
FIRST_ORDER = ("js_distance", "hellinger", "fisher_rao", "tv", "wasserstein1", "hockey_stick")


def amounts(cells, quick):
    """A few batches of the quick ones by default, many of each cell in the slow run."""
    few = [(*cell, FEW) for cell in quick]
    slow = [pytest.param(*cell, MANY, marks=pytest.mark.slow) for cell in cells]
    return pytest.mark.parametrize(("kind", "name", "batches"), few + slow)


@functools.cache
def program(column, name):
    """Value both ways and on equal arguments, and the gradients; one program for every batch and option."""
    f = corpus.cell(column, name)

    @jax.jit
    def run(p, q, options):
        def total(p, q):
            value = f(p, q, **options)
            return value.sum(), value

        (_, value), slopes = jax.value_and_grad(total, (0, 1), has_aux=True)(p, q)
        other = value if name in matrix.ONE else f(q, p, **options)
        return value, slopes, other, value if name in matrix.ONE else f(p, p, **options)

    return run


def every_option(name):
    """Those of the corpus, and the ends."""
    key, values = ENDS.get(name, ("", ()))
    return [*matrix.options(name), *({key: v} for v in values)]


def called(column, name, p, q, options):
    traced = {k: jnp.asarray(v, jnp.float32) for k, v in options.items()}
    value, slopes, other, equal = jax.tree.map(lambda x: np.asarray(x, np.float64), program(column, name)(p, q, traced))
    return value, jax.tree.leaves(slopes), other, equal


def refuse(bad, what, p, q):
    """Fail with the first pair where `bad`."""
    if bad.any():
        first = np.flatnonzero(bad)[0]
        pair = jax.tree.map(lambda x: np.asarray(x)[first].tolist(), (p, q))
        raise AssertionError(f"{what}: {bad.sum()} pairs, {pair[0]} and {pair[1]}")


def slack(column, name, p, q, value, slopes):
    """What rounding of the inputs allows two answers to be apart, relative: 16 eps, more where a step tells more."""
    sizes = [np.abs(g * (x if column == "probs" else 1)).sum(-1) for g, x in zip(slopes, (p, q), strict=True)]
    with np.errstate(all="ignore"):
        condition = sum(sizes) / value if column == "probs" else np.ones_like(value)
    return 16 * EPS * np.maximum(1, np.where(np.isfinite(condition), condition / 8, 1))


def highest(name, options):
    """`matrix.upper`, with the digits that 1 - 1e-30 loses."""
    if name in ("js", "scaled_js") and 0 < options["weight"] < 1e-8:
        w = options["weight"]
        return (1 - np.log(w)) * (w if name == "js" else 1)
    return matrix.upper(name, adversaries.OUTCOMES, **options)


@amounts(CELLS, [cell for cell in CELLS if cell[1] in QUICK])
def test_discrete_cells(kind, name, batches):
    (column, draw), options = DRAWS[kind], every_option(name)
    for batch in range(batches):
        chosen = options[batch % len(options)]
        what, (p, q) = f"{column}.{name} {chosen}, seed {batch}", draw(batch, ROWS)
        value, slopes, other, equal = called(column, name, p, q, chosen)
        refuse(~(value >= 0), f"nan or negative, {what}", p, q)
        refuse(value > highest(name, chosen) * (1 + 8 * EPS), f"out of range, {what}", p, q)
        refuse(np.any([np.isnan(g).any(-1) for g in slopes], 0), f"slope, {what}", p, q)
        if name not in (*matrix.ONE, "cross_entropy"):
            refuse(equal != 0, f"equal, {what}", p, p)
        if name in matrix.SYMMETRIC and chosen == matrix.options(name)[0]:
            # a total that is off by eps/16 shows in a pair whose largest masses are all but equal
            least = EPS if name in FIRST_ORDER else max(EPS**2, 16 * SMALL)
            with np.errstate(invalid="ignore"):
                apart = np.where(value == other, 0, np.abs(value - other))
                allowed = slack(column, name, p, q, value, slopes) * value + least
            refuse(~(apart <= allowed), f"asymmetric, {what}", p, q)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in matrix.METRIC])
@pytest.mark.parametrize("column", matrix.DISCRETE)
@pytest.mark.parametrize("batches", [1, pytest.param(MANY, marks=pytest.mark.slow)])
def test_triangle(column, name, batches):
    draw = DRAWS[column][1]
    for batch in range(batches):
        (p, q), r = draw(batch, ROWS), draw(batch + 1000, ROWS)[1]
        r = np.where(np.arange(ROWS)[:, None] % 2, np.roll(q, 1, 0), r)  # of the same kind as q, and of any
        sides = [
            called(column, name, *pair, matrix.options(name)[0])[0] ** matrix.METRIC[name]
            for pair in ((p, q), (q, r), (p, r))
        ]
        refuse(~(sides[2] <= (sides[0] + sides[1]) * (1 + 16 * EPS) + 16 * EPS), f"triangle of {column}.{name}", p, q)


OF_ONE_COORDINATE = ("js", "js_distance", "tv")  # there is no closed form for more
OF_DENSITIES = [
    (kind, name)
    for kind, (column, _) in DRAWS.items()
    for name in matrix.EXISTS[column]
    if column not in matrix.DISCRETE and name not in matrix.SPECIAL and not matrix.signed(column, name)
]


@amounts(OF_DENSITIES, [("MVN", "renyi"), ("Laplace", "kl"), ("Beta", "hellinger_sq")])
def test_densities(kind, name, batches):
    """Slopes of what is beyond 1e20 leave the range, and may be the difference of two such."""
    (column, draw), options = DRAWS[kind], every_option(name)
    for batch in range(batches):
        chosen = options[batch % len(options)]
        what, (p, q) = f"{kind}.{name} {chosen}, seed {batch}", draw(batch, ROWS)
        if name in OF_ONE_COORDINATE:
            p, q = jax.tree.map(lambda x: x[:, :1], (p, q))
        value, slopes, other, equal = called(column, name, p, q, chosen)
        refuse(~(value >= 0), f"nan or negative, {what}", p, q)
        refuse(equal != 0, f"equal, {what}", p, p)
        broken = np.any([np.isnan(g).reshape(ROWS, -1).any(-1) for g in slopes], 0)
        refuse(broken & (value < 1e20), f"slope, {what}", p, q)
        if name in affinity.SYMMETRIC and column == "expfam":  # a QR's error is that of whole rows of a factor
            with np.errstate(all="ignore"):
                steps = sum(np.abs(g * x) for g, x in zip(slopes, (*p, *q), strict=True))
                allowed = 64 * EPS * np.maximum(value, steps)
                apart = np.where(value == other, 0, np.abs(value - other))
            refuse(~(apart <= allowed + EPS**2), f"asymmetric, {what}", p, q)


WIDE = {"Dirichlet": [0.3, 2.0, 7.0], "VonMisesFisher": [0.5, -2.0, 1.0], "Wishart": [4.5, 1.25, 0.5, 0.75]}


@pytest.mark.parametrize("kind", matrix.tiers((*DRAWS, *WIDE), ("Poisson", "MVN")))
def test_no_cell_promotes_ranks_or_dtypes(kind):
    """Traced alone, which costs no compilation: value and slopes of a batch of two axes, under the strict flags."""
    if kind in WIDE:
        column, pair = "expfam", [families.wrap(kind, np.float32([WIDE[kind]] * 6)) for _ in "pq"]
    else:
        column, pair = DRAWS[kind][0], DRAWS[kind][1](0, 6)
    pair = jax.tree.map(lambda x: jnp.asarray(x).reshape(2, 3, *x.shape[1:]), tuple(pair))
    for name in [c for c in matrix.EXISTS[column] if c not in matrix.SPECIAL]:
        f, options = corpus.cell(column, name), {k: jnp.float32(v) for k, v in matrix.options(name)[0].items()}
        if column == "normal" and name in OF_ONE_COORDINATE:
            options["axis"] = ()
        sides = 0 if name in matrix.ONE else (0, 1)
        found = jax.eval_shape(jax.value_and_grad(lambda p, q, f=f, o=options: f(p, q, **o).sum(), sides), *pair)
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(found)), name
        assert jax.tree.map(jnp.shape, found[1]) == jax.tree.map(jnp.shape, pair if sides else pair[0]), name


FLAGS = {
    "debug_nans": lambda: jax.debug_nans(True), "strict_dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "leaks": jax.checking_leaks, "x64": lambda: jax.enable_x64(True),
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("column", matrix.DISCRETE)
@pytest.mark.parametrize("name", matrix.tiers(matrix.oracled("probs"), ("tv",), ("kl", "renyi")))
def test_with_a_flag_of_jax(column, name, flag):
    """Value and gradient on valid pairs: with zeros, one-hot, equal, apart."""
    rows = [[0.5, 0.3, 0.2, 0], [1, 0, 0, 0], [0.25] * 4, [0.7, 0.3, 0, 0]]
    p, q = np.array(rows, np.float32), np.array([rows[2], rows[1], rows[2], [0, 0, 0.5, 0.5]], np.float32)
    if column == "logits":
        with np.errstate(divide="ignore"):
            p, q = np.log(p), np.log(q)
    options = {k: jnp.float32(v) for k, v in matrix.options(name)[0].items()}
    run = jax.value_and_grad(lambda p, q: corpus.cell(column, name)(p, q, **options)[:3].sum(), (0, 1))
    if flag == "leaks":  # nothing is kept under it: one operation at a time renyi takes minutes
        run = jax.jit(run)
    with FLAGS[flag]():
        value, slopes = run(jnp.asarray(p), jnp.asarray(q))
    assert not np.isnan(value) and all(np.isfinite(g).all() and g.dtype == np.float32 for g in slopes)
