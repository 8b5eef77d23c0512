"""The golden corpora: every value and gradient within its target, and within four times what was measured."""

import json

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kljax
from tests import accuracy, columns, corpus, huge, matrix, oracles

# A battery takes seconds to minutes to compile: those of every column that run by default, the rest being slow; some
# of these, in float64 most of all, are among the repeats.
SMOKE = {"probs": {"kl", "entropy"}, "logits": {"kl", "entropy"}, "normal": {"kl"}}
DEFAULT = {
    "probs": {"kl", "entropy", "js", "tv"}, "logits": {"kl", "entropy", "js", "tv"}, "normal": {"kl", "tv", "renyi"},
    "mvn": {"kl"}, "lowrank": {"kl"},
}  # fmt: skip


def _marks(column, name, dtype):
    marks = [pytest.mark.smoke] if name in SMOKE.get(column, ()) else []
    if name not in DEFAULT.get(column, ()):
        return [*marks, pytest.mark.slow]
    again = name == "renyi" or (dtype == "float64" and (name == "tv" or column == "mvn"))
    again |= name == "js" or (column, name) in (("normal", "tv"), ("lowrank", "kl"))
    return marks + [pytest.mark.repeat] * again


BATTERIES = [
    pytest.param(column, name, dtype, marks=_marks(column, name, dtype))
    for column in matrix.COLUMNS
    for name in matrix.oracled(column)
    for dtype in corpus.DTYPES
]


@pytest.mark.parametrize(("column", "name", "dtype"), BATTERIES)
def test_corpus(column, name, dtype):
    found = corpus.measure(column, name, dtype)
    over = corpus.over(column, found)
    assert not over, "\n".join(over)
    limits = json.loads(corpus.MEASURED.read_text()).get(f"{column}.{name}.{dtype}")
    for family, errors in corpus.worst(column, found).items() if limits else ():  # else only the targets hold it
        for part, error, limit in zip(corpus.PARTS, errors, limits[family], strict=True):
            assert error <= 4 * max(limit, 1), f"{family} {part}: {error:.3g} eps, {limit} measured before"


@pytest.mark.parametrize("name", ["kl", "js", "tv", pytest.param("renyi", marks=pytest.mark.slow)])
@pytest.mark.parametrize("column", ["logits"])
def test_fifty_thousand_outcomes(column, name, dtype):
    errors = huge.huge(column, name, str(dtype))
    assert errors and all(error <= target for error, target in errors.values()), errors


def _cases(rep):
    return [case for case in corpus.golden() if case["rep"] == rep]


@pytest.mark.parametrize("case", _cases("probs_n"), ids=lambda case: case["id"])
@pytest.mark.parametrize("column", matrix.DISCRETE)
def test_js_many(column, case, dtype):
    p = np.array([columns.vector(row) for row in case["params"]["p"]], dtype)
    weights = jnp.asarray(columns.vector(case["params"]["weights"]).astype(dtype))
    if column == "logits":
        p = _exact_log(p, dtype)
    got = getattr(kljax, column).js_many(p, weights=weights)
    true = _js_many(column, p, weights) if column == "logits" else case["values"]["js_n"]
    accuracy.close(got, accuracy.exact(true), dtype, accuracy.VALUE)


def _exact_log(p, dtype):
    """Logits near log p; what they mean to the last digit is for the oracle to say."""
    with np.errstate(divide="ignore"):
        return np.log(p.astype(np.float64)).astype(dtype)


def _js_many(column, p, weights):
    with mp.workdps(60):
        w = [mp.mpf(float(v)) for v in weights]
        rows = [oracles.pair(column, row, row).p for row in p]
        kept = [oracles.pair(column, row, row).kept for row in p]
        full = [dict(zip(k, row, strict=True)) for k, row in zip(kept, rows, strict=True)]
        m = [
            mp.fsum(v * row.get(i, 0) for v, row in zip(w, full, strict=True)) / mp.fsum(w) for i in range(p.shape[-1])
        ]
        return mp.fsum(
            v * x * mp.log(x / m[i]) for v, row in zip(w, full, strict=True) for i, x in row.items()
        ) / mp.fsum(w)


@pytest.mark.parametrize("case", _cases("joint"), ids=lambda case: case["id"])
def test_joint_tables(case, dtype):
    table = np.array([columns.vector(row) for row in case["params"]["table"]], dtype)
    values = case["values"]
    entropies = {
        "mutual_information": kljax.probs.mutual_information(table),
        "entropy_joint": kljax.probs.entropy(table.ravel()),
    }
    for name, got in entropies.items():
        accuracy.close(got, accuracy.exact(values[name]), dtype, accuracy.VALUE)
    turned = kljax.probs.mutual_information(np.stack([table] * 2, -1).swapaxes(0, 1), axes=(0, 1))
    accuracy.close(turned, accuracy.exact([values["mutual_information"]] * 2), dtype, accuracy.VALUE)


@pytest.mark.parametrize("case", _cases("ordinal"), ids=lambda case: case["id"])
def test_wasserstein_positions(case, dtype):
    p, q, positions = (columns.vector(case["params"][k]).astype(dtype) for k in ("p", "q", "positions"))
    got = kljax.probs.wasserstein1(p, q, positions=positions)
    accuracy.close(got, accuracy.exact(case["values"]["w1"]), dtype, accuracy.VALUE)


def _unnormalised():
    return [c for c in corpus.golden() if c["rep"] == "probs" and "kl_pq_generalized" in c.get("raw", {})]


def test_generalized_kl(dtype):
    for case in _unnormalised():
        p, q = (columns.vector(case["params"][k]).astype(dtype) for k in "pq")
        if case["meta"]["has_subnormal"] and dtype == np.float32:
            continue
        got = kljax.probs.generalized_kl(p, q)
        accuracy.close(got, accuracy.exact(case["raw"]["kl_pq_generalized"]), dtype, accuracy.VALUE)


SKEW = 0.25
SKEWED = kljax.rows.from_convex(
    lambda u: u * jnp.log(u / (SKEW * u + (1 - SKEW))), at_zero=0.0, slope_at_infinity=float(np.log(1 / SKEW))
)


@pytest.mark.repeat
@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
@pytest.mark.parametrize("column", ["probs", "logits"])
def test_a_row_of_ones_own(column, dtype):
    """KL(p || (1 - a) p + a q) is no cell; from_convex makes it one, with gradients."""
    cases, rows = corpus.cases(column), corpus.groups(column, "kl")
    ((group, indices),) = rows.items()
    p, q, *_ = corpus.stacked(column, group, tuple(indices))
    name = f"skew_kl@{1 - SKEW}"
    known = {c["id"]: c["values"].get(name) for c in corpus.golden() if c["rep"] == column}
    ids = [
        i
        for i, c in enumerate(cases)
        if not c.mirrored and known[c.id] and not corpus.COLUMNS[column].flushed(c, dtype)
    ]
    cell = getattr(kljax, column).f_divergence

    def total(p, q):
        value = cell(p, q, row=SKEWED)
        return jnp.sum(value), value

    run = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, cell_values), slopes = run(p[ids].astype(dtype), q[ids].astype(dtype))
    true = accuracy.exact([known[cases[i].id] for i in ids])
    errors = accuracy.value_errors(cell_values, true, dtype)
    worst = int(np.argmax(errors))
    assert errors[worst] <= accuracy.GRADIENT, f"{cases[ids[worst]].id}: {errors[worst]} eps"
    assert all(np.isfinite(g).all() for g in slopes)
