"""The golden corpus as stacked vectors, a compiled battery per cell, group and dtype, and errors in eps by family.

Compilation is what these tests cost. So the cases of a column are brought to few lengths (`columns.py` says how), and
one program returns value, tangent, gradients and Hessian-vector products for all of a length; options are traced.
"""

import functools
import json
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import kljax
from tests import accuracy, matrix
from tests.columns import COLUMNS

MEASURED = Path(__file__).parent / "measured.json"
DTYPES = ("float32", "float64")
PARTS = ("value", "gradient", "tangent", "second")


class Case(NamedTuple):
    """Two inputs of a column with what the corpus knows of them; a mirrored case has them swapped."""

    id: str
    family: str
    p: np.ndarray
    q: np.ndarray
    values: dict  # (cell, options) -> (decimal string, divisor)
    gradients: dict  # cell -> two lists of decimal strings
    equal: bool
    mirrored: bool


class Errors(NamedTuple):
    """Errors in eps of one part of a battery, what is allowed, and where they are; nan where nothing is known."""

    part: str
    options: str
    errors: np.ndarray
    allowed: np.ndarray


def x64(dtype):
    """The context in which arrays of this dtype exist."""
    return jax.enable_x64(True) if np.dtype(dtype) == np.float64 else nullcontext()


def cell(column: str, name: str):
    """A cell as a function of p and q, also where it looks at p alone."""
    function = getattr(getattr(kljax, column), name)
    return (lambda p, q, **options: function(p, **options)) if name in matrix.ONE else function


@functools.cache
def golden() -> list[dict]:
    """The shared corpus."""
    return json.loads((Path(__file__).parent / "golden" / "public.json").read_text())["cases"]


@functools.cache
def cases(column: str) -> tuple[Case, ...]:
    """All cases of a column but the huge ones, and their mirrors."""
    found, kind = [], COLUMNS[column]
    for case in golden():
        for family, p, q, known in kind.cases(case) if case["rep"] in kind.reps else ():
            for mirrored in (False, True):
                inputs = (q, p) if mirrored else (p, q)
                facts = (_values(case, mirrored), _gradients(case, kind, mirrored)) if known else ({}, {})
                equal = case["meta"].get("equal", False)
                found.append(Case(case["id"], family, *inputs, *facts, equal, mirrored))
    return tuple(found)


def key(options: dict) -> str:
    """The options of a cell as text."""
    return ",".join(f"{k}={v}" for k, v in options.items())


def _values(case, mirrored):
    known = {}
    for name, text in case["values"].items():
        for cell_name, swapped, options, divisor in matrix.from_golden(name):
            if text is not None and swapped == mirrored:
                known[cell_name, key(options)] = (text, divisor)
    return known


def _gradients(case, kind, mirrored):
    known = {}
    for name in {g.split("|")[0] for g in case.get("grads", {})}:
        for cell_name, swapped, options, divisor in matrix.from_golden(name):
            sides = [kind.gradients(case, name, side) for side in ("qp" if mirrored else "pq")]
            if divisor == 1 and swapped == mirrored and any(sides):
                known[cell_name, key(options)] = sides
    return known


@functools.cache
def groups(column: str, name: str) -> dict:
    """The indices of the cases of each length, by what `columns.py` calls a group."""
    found, kind = {}, COLUMNS[column]
    for i, case in enumerate(cases(column)):
        if kind.has(case, name):
            found.setdefault(kind.group(case, name), []).append(i)
    return found


@functools.cache
def stacked(column: str, group, indices: tuple) -> tuple[np.ndarray, ...]:
    """Inputs and directions [N, length] in float32 of one group: p, q, dp, dq."""
    kind = COLUMNS[column]
    arrays = [np.stack([kind.fill(group, getattr(cases(column)[i], s)) for i in indices]) for s in "pq"]
    steps = np.random.default_rng(7).integers(-64, 65, (2, *arrays[0].shape)).astype(np.float32) / 64
    return *arrays, *(step * kind.unit(x) for step, x in zip(steps, arrays, strict=True))


def inputs(column: str, name: str) -> list[tuple[np.ndarray, ...]]:
    """Each case's p, q, dp, dq, None where the cell is not of it."""
    found = [None] * len(cases(column))
    for group, indices in groups(column, name).items():
        rows = stacked(column, group, tuple(indices))
        for j, i in enumerate(indices):
            found[i] = tuple(x[j, COLUMNS[column].kept(group, cases(column)[i].p)] for x in rows)
    return found


@functools.cache
def battery(column: str, name: str, group):
    """Value, tangent, gradients and Hessian-vector products of a cell, as one compiled program."""
    function, wrap = cell(column, name), functools.partial(COLUMNS[column].wrap, group)

    @jax.jit
    def run(p, q, dp, dq, options):
        def f(p, q):
            return function(wrap(p), wrap(q), **options)

        def gradients(p, q):
            return jax.grad(lambda p, q: jnp.sum(f(p, q)), (0, 1))(p, q)

        value, tangent = jax.jvp(f, (p, q), (dp, dq))
        return value, tangent, *jax.jvp(gradients, (p, q), (dp, dq))

    return run


def flushed(column: str, dtype) -> np.ndarray:
    """Whether an input of each case is a zero in this dtype: a subnormal number."""
    return np.array([COLUMNS[column].flushed(case, dtype) for case in cases(column)])


@functools.cache
def near(column: str) -> np.ndarray:
    """Whether kl is at most 16 in both directions: where DESIGN 7 has a target for gradients."""
    kl = [truths(column, name, (), "float64")[0].high for name in ("kl", "reverse_kl")]
    return np.max(kl, 0) <= 16


def _equal(column, name):
    """Cases of equal distributions, where the cell and its gradient are 0."""
    return np.array([case.equal and name not in (*matrix.ONE, "cross_entropy") for case in cases(column)])


def true_value(column, name, index, options, dtype):
    """The corpus' value, else the oracle's, else nan."""
    case, kind = cases(column)[index], COLUMNS[column]
    if not kind.has(case, name):
        return float("nan")
    if (name, key(options)) in case.values and not (column == "probs" and kind.flushed(case, dtype)):
        text, divisor = case.values[name, key(options)]
        with accuracy.digits:
            return accuracy.number(text) / divisor
    if case.equal and name not in (*matrix.ONE, "cross_entropy"):
        return 0
    return kind.value(name, case, dtype, **options) if kind.small(case) else float("nan")


class Truth(NamedTuple):
    """Values [N], gradients 2 x N vectors (None where unknown) and condition numbers [N] of every case."""

    values: accuracy.Exact
    gradients: list
    kappa: np.ndarray


@functools.cache
def truths(column: str, name: str, options: tuple, dtype: str) -> Truth:
    """What is known of a cell on every case."""
    every = range(len(cases(column)))
    values = accuracy.exact([true_value(column, name, i, dict(options), dtype) for i in every])
    gradients = [_true_gradients(column, name, i, dict(options), dtype) for i in every]
    kappa = np.array([_condition(case, g, v) for case, g, v in zip(cases(column), gradients, values.high, strict=True)])
    return Truth(values, gradients, kappa)


def _true_gradients(column, name, index, options, dtype):
    case, kind = cases(column)[index], COLUMNS[column]
    if not kind.has(case, name):
        return [None, None]
    if case.equal and name not in (*matrix.ONE, "cross_entropy"):
        return [accuracy.exact(np.zeros(len(case.p)))] * 2
    if kind.small(case):
        found = kind.slopes(name, case, dtype, **options)
        return [g if g is None else _clipped(kind, accuracy.exact(g), case, dtype) for g in found]
    sides = case.gradients.get((name, key(options)), (None, None))
    return [g if g is None else accuracy.exact(g) for g in sides]


def _clipped(kind, gradient, case, dtype):
    """DESIGN 4.4: where mass is missing a slope may be infinite; it is reported as at finfo.tiny, up to max^(1/4)."""
    most = float(np.finfo(dtype).max) ** 0.25 if kind.missing(case) or kind.flushed(case, dtype) else np.inf
    over = np.abs(gradient.high) > most
    return accuracy.Exact(np.clip(gradient.high, -most, most), np.where(over, 0, gradient.low))


def _condition(case, gradients, value):
    """The relative condition number in the stored inputs, 1 where it is not known."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        terms = [
            np.abs(np.where(np.isfinite(x), x.astype(np.float64), 0) * g.high)
            for x, g in zip((case.p, case.q), gradients, strict=True)
            if g is not None
        ]
        kappa = sum((t.sum() for t in terms), 0.0) / np.abs(value)
    return kappa if np.isfinite(kappa) else 1.0


def _long_condition(column, name, index, options, dtype, value):
    """The condition number of a long case, for which `truths` has no gradient: worked out where it is asked for."""
    case = cases(column)[index]
    slopes = COLUMNS[column].slopes(name, case, dtype, **options)
    terms = [
        abs(float(x)) * abs(g)
        for xs, gs in zip((case.p, case.q), slopes, strict=True)
        if gs
        for x, g in zip(xs, gs, strict=True)
        if g
    ]
    return float(sum(terms) / abs(value))


def measure(column: str, name: str, dtype: str) -> list[Errors]:
    """The errors of a cell on the whole corpus of its column."""
    found = []
    for options in matrix.options(name, column):
        results = _results(column, name, dtype, options)
        found += _judge(column, name, dtype, options, results)
    return found


def _results(column, name, dtype, options):
    """(value, tangent, gradients, seconds) of each case as NumPy, None where the cell is not of it."""
    found = [None] * len(cases(column))
    for group, indices in groups(column, name).items():
        rows = stacked(column, group, tuple(indices))
        with x64(dtype):
            traced = {k: jnp.asarray(v, dtype) for k, v in options.items()}
            out = battery(column, name, group)(*(x.astype(dtype) for x in rows), traced)
            value, tangent, gradients, seconds = jax.tree.map(np.asarray, out)
        for j, i in enumerate(indices):
            kept = COLUMNS[column].kept(group, cases(column)[i].p)
            sides = ([g[j, kept] for g in pair] for pair in (gradients, seconds))
            found[i] = value[j], tangent[j], *sides
    return found


def _judge(column, name, dtype, options, results):
    true, slopes, kappa = truths(column, name, tuple(options.items()), dtype)
    text, target, kappa = key(options), COLUMNS[column].target, kappa.copy()
    here = np.array([r is not None for r in results])
    value = np.array([r[0] if r else np.nan for r in results])
    signs = {"absolute": name == "hockey_stick", "signed": matrix.signed(column, name)}
    errors = np.where(np.isnan(true.high), np.nan, accuracy.value_errors(value, true, dtype, **signs))
    for i in np.flatnonzero(errors > target(kappa)):
        kappa[i] = _long_condition(column, name, i, options, dtype, true.high[i])
    parts = [Errors("value", text, errors, target(kappa))]
    allowed = np.where(near(column), accuracy.GRADIENT, np.inf)
    if name in matrix.ONE:  # a mass that the compiler flushes to zero is deleted, with gradient 0
        allowed = np.where(flushed(column, dtype), np.inf, allowed)
    measured = np.isfinite(true.high)  # infinite values have gradients of their own kind: test_zero_mass
    exact = _equal(column, name)
    for side in range(2):
        each = zip(results, slopes, measured, exact, strict=True)
        wrong = [_wrong_gradient(r[2][side], s[side], m, e, dtype) if r else np.nan for r, s, m, e in each]
        limits = _steep(column, name, options, (side,), np.array(wrong), allowed)
        parts.append(Errors("gradient", text, np.array(wrong), limits))
    steps = inputs(column, name)
    wrong = [_wrong_tangent(r[1], s, x[2:], m, dtype) if r else np.nan
             for r, s, x, m in zip(results, slopes, steps, measured, strict=True)]  # fmt: skip
    limits = _steep(column, name, options, (0, 1), np.array(wrong), allowed)
    parts.append(Errors("tangent", text, np.array(wrong), limits))
    wrong = [_wrong_second(column, name, i, options, r[3], steps[i][2:], dtype) if r else np.nan
             for i, r in enumerate(results)]  # fmt: skip
    parts.append(Errors("second", text, np.array(wrong), np.full(len(here), np.inf)))
    return parts


def _steep(column, name, options, sides, wrong, allowed):
    """What is allowed a gradient: its condition number where it is over its target, worked out for those alone."""
    limits, kind = allowed.copy(), COLUMNS[column]
    for i in np.flatnonzero((wrong > allowed) & np.isfinite(wrong)):
        owed = [kind.steepness(name, cases(column)[i], side, **options) for side in sides]
        limits[i] = max(limits[i], *owed)
    return limits


def _beyond(slope, dtype):
    """Whether no float can say that slope."""
    return (np.abs(slope.high) > float(np.finfo(dtype).max) / 100).any()


def _wrong_gradient(got, slope, measured, exact, dtype):
    """The error of a gradient in norm, inf where it is not finite or should be 0, nan where nothing is known."""
    if not np.isfinite(got).all() or (exact and np.any(got != 0)):
        return np.inf
    if slope is None or not measured or _beyond(slope, dtype):
        return np.nan
    return float(accuracy.norm_errors(got, slope, dtype))


def _wrong_tangent(got, slopes, steps, measured, dtype):
    if not np.isfinite(got):
        return np.inf
    if not measured or any(s is not None and _beyond(s, dtype) for s in slopes) or all(s is None for s in slopes):
        return np.nan
    least = np.finfo(dtype).tiny  # a step that the compiler flushes to zero is no step
    steps = [np.where(np.abs(step) < least, 0, step) for step in steps]
    terms = [
        step.astype(np.longdouble) * (s.high + s.low.astype(np.longdouble))
        for step, s in zip(steps, slopes, strict=True)
        if s is not None
    ]
    true, size = sum(t.sum() for t in terms), sum(np.abs(t).sum() for t in terms)
    if size > float(np.finfo(dtype).max) / 100:
        return np.nan
    return float(abs(got - true) / size / np.finfo(dtype).eps) if size > accuracy.SHORTEST else 0.0


def _wrong_second(column, name, index, options, got, steps, dtype):
    """Of Hessian-vector products, of a third of the small cases that have an oracle."""
    case, kind = cases(column)[index], COLUMNS[column]
    if not all(np.isfinite(g).all() for g in got):
        return np.inf
    if case.mirrored or case.equal or not kind.curved(case) or zlib.crc32(case.id.encode()) % kind.THIRD:
        return np.nan
    true = kind.second(name, case, steps, **options)
    pieces = [(g, t) for g, t in zip(got, true, strict=True) if t]
    if not pieces:
        return np.nan
    g, t = np.concatenate([p[0] for p in pieces]), accuracy.exact(sum((p[1] for p in pieces), []))
    if _beyond(t, dtype):
        return np.nan
    return float(accuracy.norm_errors(g, t, dtype))


def agree(column: str, name: str, pairs: list, dtype, **options):
    """Assert that values and gradients of pairs of vectors of one length are those of the oracle."""
    kind, (p, q) = COLUMNS[column], (np.stack(x).astype(np.float32) for x in zip(*pairs, strict=True))
    size = kind.group(Case("", "", p[0], q[0], {}, {}, False, False), name)
    assert p.shape[-1] == len(kind.fill(size, p[0])), "a length that needs no filling"
    function = cell(column, name)

    def total(p, q):
        value = function(kind.wrap(size, p), kind.wrap(size, q), **options)
        return jnp.sum(value), value

    slopes, value = jax.jit(jax.grad(total, (0, 1), has_aux=True))(p.astype(dtype), q.astype(dtype))
    for i, (x, y) in enumerate(zip(p, q, strict=True)):
        case = Case("", "", x, y, {}, {}, False, False)
        accuracy.close(value[i], accuracy.exact(kind.value(name, case, dtype, **options)), dtype, kind.target(1))
        for got, true in zip(slopes, kind.slopes(name, case, dtype, **options), strict=True):
            accuracy.close(got[i], accuracy.exact(true), dtype, accuracy.GRADIENT, norm=True)


def worst(column: str, found: list[Errors]) -> dict[str, list[float]]:
    """By family the worst error of each of PARTS."""
    families = np.array([case.family for case in cases(column)])
    table = {}
    for family in dict.fromkeys(families):
        here = {part: [e.errors[families == family] for e in found if e.part == part] for part in PARTS}
        table[family] = [float(np.nanmax(np.concatenate([[0.0], *here[part]]))) for part in PARTS]
    return table


def over(column: str, found: list[Errors]) -> list[str]:
    """Lines that name every error over its target."""
    return [line for e in found for line in _lines(column, e, e.errors > e.allowed)]


def owed(column: str, found: list[Errors]) -> list[str]:
    """Lines that name every value and gradient which its condition number alone allows."""
    plain = {"value": COLUMNS[column].target(1), "gradient": accuracy.GRADIENT}
    steep = [(e, (e.errors > plain[e.part]) & (e.errors <= e.allowed)) for e in found if e.part in plain]
    return [line for e, here in steep for line in _lines(column, e, here & np.isfinite(e.allowed))]


def _lines(column, e, here):
    for i in np.flatnonzero(here):
        case = cases(column)[i]
        side = " mirrored" if case.mirrored else ""
        yield f"{e.part} {case.id}{side} {e.options}: {e.errors[i]:.3g} eps, {e.allowed[i]:.3g} allowed"
