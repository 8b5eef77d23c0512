"""The golden corpus as stacked arrays, one compiled battery per cell and dtype, and its errors in eps by family.

Compilation is what these tests cost. So all cases of a column are padded to one length with outcomes that do not exist,
and one program returns value, tangent, gradients and Hessian-vector products for all of them; options are traced.
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
from tests import accuracy, matrix, oracles

PADDED = 1024  # longest case but one
SMALL = 64  # up to this many outcomes a case has oracle values and gradients
CURVED = 10  # and up to this many Hessian-vector products
MEASURED = Path(__file__).parent / "measured.json"
EMPTY = {"probs": 0.0, "logits": -np.inf}
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


def vector(numbers) -> np.ndarray:
    """C99 hexadecimal floats, all exact in float32."""
    return np.array([float.fromhex(v) for v in numbers], np.float32)


@functools.cache
def cases(column: str) -> tuple[Case, ...]:
    """All cases of a column but the huge ones, and their mirrors."""
    found, suffix = [], "_logits" if column == "logits" else ""
    for case in golden():
        if case["rep"] == column and "rule" not in case["params"]:
            p, q = (vector(case["params"][s + suffix]) for s in "pq")
            about = case["id"], case["family"]
            for mirrored in (False, True):
                inputs = (q, p) if mirrored else (p, q)
                known = _values(case, mirrored), _gradients(case, column, mirrored)
                found.append(Case(*about, *inputs, *known, case["meta"].get("equal", False), mirrored))
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


def _gradients(case, column, mirrored):
    known, kind = {}, "" if column == "logits" else "|tangent"
    for name in {g.split("|")[0] for g in case.get("grads", {})}:
        for cell_name, swapped, options, divisor in matrix.from_golden(name):
            sides = [case["grads"].get(f"{name}|{side}{kind}") for side in ("qp" if mirrored else "pq")]
            if divisor == 1 and swapped == mirrored and any(sides):
                known[cell_name, key(options)] = sides
    return known


@functools.cache
def stacked(column: str) -> tuple[np.ndarray, ...]:
    """Inputs and directions [N, PADDED] in float32: p, q, dp, dq, padded with outcomes that do not exist."""
    arrays = np.full((2, len(cases(column)), PADDED), EMPTY[column], np.float32)
    for i, case in enumerate(cases(column)):
        arrays[0, i, : len(case.p)], arrays[1, i, : len(case.q)] = case.p, case.q
    steps = np.random.default_rng(7).integers(-64, 65, arrays.shape).astype(np.float32) / 64
    unit = np.where(np.isfinite(arrays), 1, 0) if column == "logits" else arrays
    return *arrays, *(steps * unit)


@functools.cache
def battery(column: str, name: str):
    """Value, tangent, gradients and Hessian-vector products of a cell, as one compiled program."""
    function = cell(column, name)

    @jax.jit
    def run(p, q, dp, dq, options):
        def f(p, q):
            return function(p, q, **options)

        def gradients(p, q):
            return jax.grad(lambda p, q: jnp.sum(f(p, q)), (0, 1))(p, q)

        value, tangent = jax.jvp(f, (p, q), (dp, dq))
        return value, tangent, *jax.jvp(gradients, (p, q), (dp, dq))

    return run


@functools.cache
def _pair(column, index, dtype, missing):
    case = cases(column)[index]
    tiny = float(np.finfo(dtype).tiny) if missing else 0
    return oracles.pair(column, case.p, case.q, dtype=dtype, missing=tiny)


def flushed(case: Case, dtype) -> bool:
    """Whether an input of the case is a zero in this dtype: a subnormal number."""
    tiny = np.finfo(dtype).tiny
    return any(np.any((abs(x) > 0) & (abs(x) < tiny)) for x in (case.p.astype(dtype), case.q.astype(dtype)))


@functools.cache
def near(column: str) -> np.ndarray:
    """Whether kl is at most 16 in both directions: where DESIGN 7 has a target for gradients."""
    kl = [[float(case.values[name, ""][0]) for case in cases(column)] for name in ("kl", "reverse_kl")]
    return np.max(kl, 0) <= 16


def true_value(column, name, index, options, dtype):
    """The corpus' value, else the oracle's, else nan."""
    case = cases(column)[index]
    if (name, key(options)) in case.values and not (column == "probs" and flushed(case, dtype)):
        text, divisor = case.values[name, key(options)]
        with accuracy.digits:
            return accuracy.number(text) / divisor
    if case.equal and name not in (*matrix.ONE, "cross_entropy"):
        return 0
    return oracles.value(name, _pair(column, index, dtype, False), **options) if len(case.p) <= SMALL else float("nan")


@functools.cache
def truths(column: str, name: str, options: tuple, dtype: str):
    """Values [N], gradients 2 x [N, PADDED] (nan where unknown) and condition numbers [N] of every case."""
    values, known = [], [[], []]
    for i in range(len(cases(column))):
        values.append(true_value(column, name, i, dict(options), dtype))
        for side, gradient in zip(known, _true_gradients(column, name, i, dict(options), dtype), strict=True):
            side.append(gradient)
    values = accuracy.exact(values)
    gradients = [_rows(side, case_count=len(values.high)) for side in known]
    return values, gradients, _condition(column, values, gradients)


def _rows(side, case_count):
    high, low = np.full((2, case_count, PADDED), np.nan)
    for i, g in enumerate(side):
        if g is not None:
            high[i], low[i] = 0, 0
            high[i, : len(g.high)], low[i, : len(g.low)] = g
    return accuracy.Exact(high, low)


def _true_gradients(column, name, index, options, dtype):
    case = cases(column)[index]
    if case.equal and name not in (*matrix.ONE, "cross_entropy"):
        return [accuracy.exact(np.zeros(len(case.p)))] * 2
    if len(case.p) <= SMALL:
        found = oracles.gradients(column, name, _pair(column, index, dtype, True), **options)
        return [g if g is None else _clipped(column, accuracy.exact(g), case, dtype) for g in found]
    sides = case.gradients.get((name, key(options)), (None, None))
    return [g if g is None else accuracy.exact(g) for g in sides]


def _clipped(column, gradient, case, dtype):
    """DESIGN 4.4: where mass is missing a slope may be infinite; it is reported as at finfo.tiny, up to max^(1/4)."""
    present = [x > (-np.inf if column == "logits" else 0) for x in (case.p, case.q)]
    most = float(np.finfo(dtype).max) ** 0.25 if np.any(present[0] != present[1]) or flushed(case, dtype) else np.inf
    over = np.abs(gradient.high) > most
    return accuracy.Exact(np.clip(gradient.high, -most, most), np.where(over, 0, gradient.low))


def _condition(column, values, gradients):
    inputs = [np.where(np.isfinite(x), x.astype(np.float64), 0) for x in stacked(column)[:2]]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        moved = sum(np.nansum(np.abs(x * g.high), -1) for x, g in zip(inputs, gradients, strict=True))
        return np.nan_to_num(moved / np.abs(values.high), nan=1.0, posinf=1.0)


def _long_condition(column, name, index, options, dtype, value):
    """The condition number of a long case, for which `truths` has no gradient: worked out where it is asked for."""
    case = cases(column)[index]
    slopes = oracles.gradients(column, name, _pair(column, index, dtype, True), **options)
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
    found, inputs = [], stacked(column)
    with x64(dtype):
        for options in matrix.options(name):
            traced = {k: jnp.asarray(v, dtype) for k, v in options.items()}
            results = jax.tree.map(np.asarray, battery(column, name)(*(x.astype(dtype) for x in inputs), traced))
            found += _judge(column, name, dtype, options, results)
    return found


def _judge(column, name, dtype, options, results):
    value, tangent, gradients, seconds = results
    true, slopes, kappa = truths(column, name, tuple(options.items()), dtype)
    text = key(options)
    unknown = np.isnan(true.high)
    errors = np.where(unknown, np.nan, accuracy.value_errors(value, true, dtype, absolute=name == "hockey_stick"))
    for i in np.flatnonzero(errors > accuracy.target(kappa)):
        kappa[i] = _long_condition(column, name, i, options, dtype, true.high[i])
    parts = [Errors("value", text, errors, accuracy.target(kappa))]
    measured = np.isfinite(true.high)  # infinite values have gradients of their own kind: test_zero_mass
    allowed = np.where(near(column), accuracy.GRADIENT, np.inf)
    if name in matrix.ONE:  # a mass that the compiler flushes to zero is deleted, with gradient 0
        allowed = np.where([flushed(case, dtype) for case in cases(column)], np.inf, allowed)
    for got, slope in zip(gradients, slopes, strict=True):
        known = ~np.isnan(slope.high).any(-1)
        known &= ~(np.abs(slope.high) > float(np.finfo(dtype).max) / 100).any(-1)  # no float can say that
        wrong = accuracy.norm_errors(got, accuracy.Exact(*(np.nan_to_num(s) for s in slope)), dtype)
        exact = np.array([case.equal for case in cases(column)]) & (name not in (*matrix.ONE, "cross_entropy"))
        wrong = np.where(exact & np.any(got != 0, -1), np.inf, wrong)
        wrong = np.where(
            known & (measured | np.isinf(wrong)), wrong, np.where(np.isfinite(got).all(-1), np.nan, np.inf)
        )
        parts.append(Errors("gradient", text, wrong, allowed))
    parts.append(Errors("tangent", text, _tangents(column, tangent, slopes, measured, dtype), allowed))
    parts += _seconds(column, name, dtype, options, seconds)
    return parts


def _tangents(column, got, slopes, measured, dtype):
    steps = stacked(column)[2:]
    terms = [
        s.astype(np.longdouble) * (g.high + g.low.astype(np.longdouble)) for s, g in zip(steps, slopes, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        true, size = sum(t.sum(-1) for t in terms), sum(np.abs(t).sum(-1) for t in terms)
        wrong = np.where(size > accuracy.SHORTEST, np.abs(got - true) / size / np.finfo(dtype).eps, 0)
    most = float(np.finfo(dtype).max) / 100
    beyond = [(np.abs(g.high) > most).any(-1) for g in slopes]  # no float can say that slope
    wrong = np.where(np.isnan(size) | ~measured | (size > most) | beyond[0] | beyond[1], np.nan, wrong)
    return np.where(np.isfinite(got), wrong, np.inf).astype(np.float64)


def _seconds(column, name, dtype, options, got):
    """Hessian-vector products of the cases with few outcomes, all of them with mass on both sides."""
    wrong = np.where(np.isfinite(got[0]).all(-1) & np.isfinite(got[1]).all(-1), np.nan, np.inf)
    for i, case in enumerate(cases(column)):
        if _curved(column, case) and np.isnan(wrong[i]):
            steps = (x[i, : len(case.p)] for x in stacked(column)[2:])
            true = oracles.second(column, name, case.p, case.q, *steps, **options)
            pieces = [(g[i, : len(case.p)], t) for g, t in zip(got, true, strict=True) if t]
            if pieces:
                g, t = np.concatenate([p[0] for p in pieces]), accuracy.exact(sum((p[1] for p in pieces), []))
                wrong[i] = accuracy.norm_errors(g, t, dtype)
    return [Errors("second", key(options), wrong, np.full(len(wrong), np.inf))]


def _curved(column, case):
    if len(case.p) > CURVED or case.mirrored or case.equal or zlib.crc32(case.id.encode()) % 3:
        return False
    return all(np.isfinite(x).all() and (column == "logits" or (x > 1e-30).all()) for x in (case.p, case.q))


def expand(rule: dict) -> tuple[np.ndarray, np.ndarray]:
    """The logits of a case that is stored as a rule."""

    def stream(seed):
        while True:
            seed = (1664525 * seed + 1013904223) % 2**32
            yield seed

    def independent(seed, shift):
        source = stream(seed)
        return np.array([((next(source) >> 9) - 2**22) * 2.0**-shift for _ in range(rule["K"])], np.float32)

    assert rule["rule"] == "lcg_independent", rule
    return independent(rule["seed_p"], rule["shift_p"]), independent(rule["seed_q"], rule["shift_q"])


def huge(column: str, name: str, dtype: str) -> dict[str, tuple[float, float]]:
    """Errors of the cases that are stored as a rule, and what is allowed: values and the gradients that are probed."""
    function, errors = cell(column, name), {}
    for case in golden():
        if case["rep"] != column or "rule" not in case["params"]:
            continue
        with x64(dtype):
            p, q = (jnp.asarray(x, dtype) for x in expand(case["params"]))
            for quantity, text in case["values"].items():
                for known, swapped, options, divisor in matrix.from_golden(quantity):
                    if known != name or swapped or options not in matrix.options(name):
                        continue
                    with accuracy.digits:
                        true = accuracy.exact(accuracy.number(text) / divisor)
                    traced = {k: jnp.asarray(v, dtype) for k, v in options.items()}
                    value, gradients = jax.jit(jax.value_and_grad(function, (0, 1)))(p, q, **traced)
                    absolute = name == "hockey_stick"
                    found = float(accuracy.value_errors(value, true, dtype, absolute=absolute))
                    errors[f"{case['id']} {key(options)}"] = found, accuracy.VALUE
                    errors |= _probed(case, quantity, gradients, dtype)
    return errors


def _probed(case, quantity, gradients, dtype):
    probe, found = case["grad_probe"], {}
    for side, g in zip("pq", gradients, strict=True):
        if f"{quantity}|{side}" in probe["grads"]:
            true = accuracy.exact(probe["grads"][f"{quantity}|{side}"])
            error = float(accuracy.norm_errors(np.asarray(g)[probe["indices"]], true, dtype))
            found[f"{case['id']} {quantity}|{side}"] = error, accuracy.GRADIENT
    return found


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
    lines = []
    for e in found:
        for i in np.flatnonzero(e.errors > e.allowed):
            case = cases(column)[i]
            side = " mirrored" if case.mirrored else ""
            lines.append(f"{e.part} {case.id}{side} {e.options}: {e.errors[i]:.3g} eps, {e.allowed[i]:.3g} allowed")
    return lines
