"""How a tile of a matrix of divergences is computed: the table of cells that have a faster way than the cell itself.

A `Plan` prepares each row once and makes a tile [n, m] of n and m prepared rows. Cells that are not in the table, the
user's own functions and arguments out of the ordinary take `alone`: the cell over all pairs of the tile by vmap.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import (
    _cells,
    _check,
    _fold,
    _gaussian_products,
    _half,
    _num,
    _power,
    _prepared,
    _products,
    affinity,
    logits,
    normal,
    probs,
    rows,
)
from kljax._pair import Pair
from kljax._points import itself, summed
from kljax._prepared import Rows

_BUDGET = 1 << 19  # elements of the arrays of a tile: 2 MiB in float32, in the caches of a few cores
_LARGE = 1 << 24  # the same where there is no such cache
_SQUARE = (128, 512)  # rows of either side of a tile that is a matrix product, as few as memory allows
_MANY = 4096  # outcomes beyond which rows are cut into three slices at once
_LEAST = 64  # outcomes from which on a product is worth its preparation


class Plan(NamedTuple):
    """How to make tiles."""

    prepare: Callable[[Any], Any]  # rows, with a leading axis, to what `tile` wants of them
    # of what gives rows of P and of Q (a branch that calls it copies none before it is taken), and where a pair is a
    # row with itself
    tile: Callable[[Callable[[], Any], Callable[[], Any], Array], Array]
    symmetric: bool  # whether D(p, q) = D(q, p)
    size: int  # elements of a pair
    side: int | None = None  # the most rows of one side, where it is not the size that decides
    second: Callable[[Any], Any] | None = None  # to what it wants of rows of Q, where that is something else


_COLUMNS = {"probs": probs.COLUMN, "logits": logits.COLUMN}
_CELLS = {getattr(m, n): (c, n) for c, m in (("probs", probs), ("logits", logits)) for n in m.__all__ if n.islower()}
_ROWS: dict[str, Callable[..., rows.Row]] = {
    "kl": lambda: rows.kl, "reverse_kl": lambda: rows.reverse_kl, "jeffreys": lambda: rows.jeffreys,
    "js": rows.js, "js_distance": rows.js, "scaled_js": rows.scaled_js, "tv": lambda: rows.tv,
    "hellinger_sq": lambda: rows.hellinger_sq, "hellinger": lambda: rows.hellinger_sq,
    "fisher_rao": lambda: rows.hellinger_sq, "chi2": lambda: rows.chi2, "le_cam": lambda: rows.le_cam,
    "hockey_stick": rows.hockey_stick, "alpha": rows.alpha, "tsallis": rows.tsallis, "f_divergence": lambda row: row,
}  # fmt: skip
_OUTER = {"js_distance": _num.root, "hellinger": _num.root, "fisher_rao": _num.angle}
_ORDERS = {"hellinger_sq": 0.5, "hellinger": 0.5, "fisher_rao": 0.5, "bhattacharyya": 0.5, "chi2": 2.0}
_GAUSSIAN = {getattr(normal, name): name for name in _gaussian_products.NAMES}
_LOGARITHMIC = ("kl", "reverse_kl", "jeffreys", "cross_entropy")
_POWERS = (*_ORDERS, "renyi", "alpha", "tsallis")
_SYMMETRIC = (*affinity.SYMMETRIC, "js", "js_distance", "tv", "le_cam", "fisher_rao", "wasserstein1", "wasserstein2")


def symmetric(cell: Callable, options: Mapping[str, Any]) -> bool:
    """Whether a cell of kljax is symmetric in p and q; nothing is assumed of other functions."""
    module = getattr(cell, "__module__", None) or ""
    name = getattr(cell, "__name__", "")
    if not module.startswith("kljax.") or "weight" in options:
        return False
    if name == "f_divergence" and isinstance(options.get("row"), rows.Row):
        return options["row"].f is options["row"].r
    return name in _SYMMETRIC


def block_of(plan: Plan, block: int | None, n: int, m: int, *, square: bool = False) -> tuple[int, int]:
    """How many rows of either side a tile has; as many of both where a tile also stands for its transpose."""
    most = max(1, (_BUDGET if _fold.on_cpu() else _LARGE) // plan.size)
    first = block or plan.side or 1 << (most.bit_length() - 1) // 2
    second = block or plan.side or max(1, most // first)
    if square:
        side = _even(first, min(n, m))
        return side, side
    return _even(first, n), _even(second, m)


def _even(block: int, count: int) -> int:
    """No more rows than `block`, in as few blocks, which are as equal as can be."""
    return -(-count // -(-count // min(block, count)))


def chosen(
    cell: Callable, options: Mapping[str, Any], p: Any, q: Any, axes: tuple[str, ...] = ()
) -> tuple[Plan, Any, Any]:
    """The plan for a cell, and its rows in one dtype; q may be None. Over mesh axes, rows will meet those elsewhere."""
    column, name = _CELLS.get(cell, ("", ""))
    plain = alone(cell, options, p)
    if cell in _GAUSSIAN and _plain_gaussians(options, p, q):
        return _gaussian(_GAUSSIAN[cell], plain), p, q
    if not _plain_arguments(options, p, q):
        return plain, p, q
    p, q = (*_check.wide(p), None) if q is None else _check.wide(p, q)
    plain = alone(cell, options, p)
    where, given = options.get("where"), {k: v for k, v in options.items() if k not in ("axis", "where")}
    ready = _deleting(column, where)
    if name == "wasserstein1" and column == "probs":
        return _cumulative(ready, given.get("positions"), plain), p, q
    measure = _measure(column, name, given)
    plan = plain if measure is None else _elementwise(column, name, ready, measure, plain)
    if name in ("js", "js_distance") and not given and p.dtype == jnp.float32 and p.shape[-1] >= _LEAST:
        return _mixtures(name, plan, _reference(column, ready, p, q, axes)), p, q
    product = _product(column, name, given) if p.shape[-1] >= _LEAST else None
    return (plan if product is None else _discrete(column, name, ready, product, plan, plain)), p, q


def rows_of(plan: Plan, p: Any, q: Any) -> tuple[Any, Any]:
    """The prepared rows of either side, q None being p.

    All in one loop, so that equal rows are so to the last bit: two programs that differ in shape alone round apart.
    """
    if plan.prepare is _as_given:
        return p, p if q is None else q
    other = p if q is None else q
    if plan.second is not None:
        return (_mapped(plan.prepare, p, plan.size), p), (_mapped(plan.second, other, plan.size), other)
    n = jax.tree.leaves(p)[0].shape[0]
    every = p if q is None else jax.tree.map(lambda a, b: jnp.concatenate([a, b]), p, q)
    found = _mapped(plan.prepare, every, plan.size)
    if q is None:
        return found, found
    first, second = (jax.tree.map(lambda a, s=s: a[s], found) for s in (slice(0, n), slice(n, None)))
    return first, second


def _mapped(prepare: Callable[[Any], Any], every: Any, size: int) -> Any:
    """Rows prepared a few at a time."""
    count = jax.tree.leaves(every)[0].shape[0]
    rows = max(1, min(_BUDGET // size, -(-count // 2)))  # a loop of one step would be no loop
    found = lax.map(prepare, blocks(every, rows))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], found)


def blocks(rows: Any, size: int) -> Any:
    """`[N, ...]` as `[blocks, size, ...]`, filled up with the last row."""

    def cut(x: Array) -> Array:
        fill = [(0, -x.shape[0] % size)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, fill, mode="edge").reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, rows)


def _as_given(rows: Any) -> Any:
    return rows


def _plain_arguments(options: Mapping[str, Any], p: Any, q: Any) -> bool:
    """Whether both are matrices with the same outcomes, and options are one for all pairs."""
    arrays = [x for x in (p, q) if x is not None]
    if not all(hasattr(x, "ndim") and x.ndim == 2 and x.shape[-1] == p.shape[-1] and x.shape[-1] for x in arrays):
        return False
    ranks = {"where": 1, "positions": 1}
    simple = [jnp.ndim(x) == ranks.get(k, 0) for k, v in options.items() if v is not None for x in jax.tree.leaves(v)]
    sized = [v.shape[-1] == p.shape[-1] for k, v in options.items() if k in ranks and v is not None]
    return all(simple) and all(sized) and options.get("axis", -1) in (-1, 0)


def alone(cell: Callable, options: Mapping[str, Any], p: Any) -> Plan:
    """The cell itself, over all pairs of a tile."""
    function = partial(cell, **options)

    def tile(x: Callable, y: Callable, own: Array) -> Array:
        return jax.vmap(jax.vmap(function, (None, 0)), (0, None))(x(), y())

    size = 4 * sum(leaf.size // max(1, leaf.shape[0]) for leaf in map(jnp.asarray, jax.tree.leaves(p)))
    return Plan(_as_given, tile, symmetric(cell, options), max(1, size))


def _deleting(column: str, where: Any) -> Callable[[Array], Array]:
    if where is None:
        return lambda a: a
    return lambda a: jnp.where(jnp.asarray(where).astype(bool)[None], a, _COLUMNS[column].empty)


def _measure(column: str, name: str, given: Mapping[str, Any]) -> Callable[[Pair], Array] | None:
    """The divergence of a pair, `[..., 1]`."""
    if name in ("js", "js_distance") and not given:
        return lambda pair: jnp.where(pair.mass > 0, _num.total(_half.term(pair)), jnp.nan)
    if name in _ROWS:
        row = _ROWS[name](*given.values())
        if column == "probs" and row.direct is not None:  # differences of shares in two parts need no correction
            row = replace(row, direct=row.direct._replace(several=(), joined=None))
        return lambda pair: summed(_cells.with_parameters(_COLUMNS[column], name, row, pair.p), pair)
    if name in ("renyi", "bhattacharyya"):
        order, share = (given["order"], 1.0) if name == "renyi" else (0.5, 0.5)

        def power(pair: Pair) -> Array:
            a = _check.parameter(f"kljax.{column}.{name}", "order", order, pair.p)
            return jnp.where(pair.mass > 0, share * _power.power_sum(a, pair).value, jnp.nan)

        return power
    return None


def _elementwise(column: str, name: str, ready: Callable, measure: Callable, plain: Plan) -> Plan:
    """Sums over the outcomes of each pair, or the cell in a tile with a pair so near that its shares do not tell."""
    prepared, outer = _prepared.COLUMNS[column], _OUTER.get(name, itself)
    bound = {"hockey_stick": 0.0, "tv": max(prepared.apart, 200)}.get(name, prepared.apart)  # not of second order

    def prepare(a: Array) -> tuple[Rows, Array | None]:
        return prepared.rows(ready(a)), a if bound else None

    def tile(x: Callable, y: Callable, own: Array) -> Array:
        first = jax.tree.map(lambda a: a[:, None], x()[0])
        value = measure(prepared.pair(first, jax.tree.map(lambda a: a[None], y()[0])))[..., 0]
        found = outer(value)[0]
        if not bound:
            return found
        near = (value > 0) & (value < bound * float(jnp.finfo(value.dtype).eps)) & ~own
        return lax.cond(jnp.any(near), lambda: plain.tile(lambda: x()[1], lambda: y()[1], own), lambda: found)

    return Plan(prepare, tile, plain.symmetric, plain.size // 4)


def _mixtures(name: str, plan: Plan, reference: Array) -> Plan:
    """Jensen-Shannon from one logarithm of the mixture, or by `plan` in a tile with a pair too near for that."""
    outer = _OUTER.get(name, itself)

    def prepare(a: Array) -> Any:
        given = plan.prepare(a)
        return _half.beside(given[0].p, reference), given

    def tile(x: Callable, y: Callable, own: Array) -> Array:
        (first, (given, _)), (second, (others, _)) = x(), y()
        value, error = _half.apart(first, second, reference)
        attempt = value, _products.sure(value, error)
        found, known = _settled(*attempt, own, 0, given.mass * others.mass.T > 0, lambda value: outer(value)[0])
        return lax.cond(jnp.all(known), lambda: found, lambda: plan.tile(lambda: x()[1], lambda: y()[1], own))

    return plan._replace(prepare=prepare, tile=tile)


def _reference(column: str, ready: Callable, p: Array, q: Array | None, axes: tuple[str, ...] = ()) -> Array:
    """The mean of all rows with mass, `[1, K]`, the same on all devices: beside it logarithms are small.

    As powers of two: by the number of threads or devices that formed a sum its last bit differs, and that of a sweep
    that is resumed elsewhere must not.
    """
    total = jnp.zeros((1, p.shape[-1]), p.dtype)
    for a in (p,) if q is None else (p, q):
        share = jax.nn.softmax(ready(a), -1) if column == "logits" else ready(a) / _num.total(ready(a))
        total += jnp.sum(jnp.where(jnp.isfinite(share), share, 0), 0, keepdims=True)
    total = lax.psum(total, axes) if axes else total
    mean = total / _num.total(total)
    return jnp.where(mean > 0, _num.power_of_two(1.5 * jnp.where(mean > 0, mean, 1)), 0)


def _cumulative(ready: Callable, positions: Any, plain: Plan) -> Plan:
    """Wasserstein distance of order 1 between weights: the cumulative sums are kept, in two parts."""

    def prepare(a: Array) -> tuple[tuple[Array, ...], Array]:
        x = _prepared.COLUMNS["probs"].rows(ready(a))
        places = jnp.arange(a.shape[-1]) if positions is None else jnp.asarray(positions)
        order = jnp.argsort(places)
        width = jnp.diff(places[order].astype(a.dtype))[None]
        high, low = _num.running_sum(jnp.take(x.p, order, 1), jnp.take(x.rest, order, 1))
        return (high[:, :-1], low[:, :-1], jnp.broadcast_to(width, high[:, :-1].shape), x.mass), a

    def tile(rows_p: Callable, rows_q: Callable, own: Array) -> Array:
        x, y = rows_p()[0], rows_q()[0]
        ahead = (x[0][:, None] - y[0][None]) + (x[1][:, None] - y[1][None])
        distance = jnp.sum(jnp.abs(ahead) * x[2][:, None], -1)
        found = jnp.where(x[3] * y[3].T > 0, distance, jnp.nan)
        least = 200 * float(jnp.finfo(found.dtype).eps) * jnp.sum(x[2], -1, keepdims=True)  # 27 eps were lost at 1e-6
        near = (found > 0) & (found < least) & ~own
        return lax.cond(jnp.any(near), lambda: plain.tile(lambda: rows_p()[1], lambda: rows_q()[1], own), lambda: found)

    return Plan(prepare, tile, plain.symmetric, plain.size // 4)


def _plain_gaussians(options: Mapping[str, Any], p: Any, q: Any) -> bool:
    """Whether all fields are matrices of one shape but for the rows, and one float type."""
    fields = [x for side in (p, q) if side is not None for x in side]
    like = fields[0]
    alike = [x.ndim == 2 and x.shape[1:] == like.shape[1:] and x.dtype == like.dtype for x in fields]
    if options not in ({}, {"axis": -1}) or (q is not None and type(p) is not type(q)):
        return False
    return all(alike) and like.dtype in (jnp.float32, jnp.float64) and like.shape[1] >= _LEAST


def _gaussian(name: str, plain: Plan) -> Plan:
    product = _gaussian_products.product(name)
    own = None if name == "cross_entropy" else lambda side: 0
    return _by_products(product, lambda p: p, _gaussian_products.valid, own, lambda value: value, plain, plain)


def _product(column: str, name: str, given: Mapping[str, Any]) -> _products.Product | None:
    if name in _LOGARITHMIC:
        return _products.logarithmic(name, _prepared.COLUMNS[column])
    if name in _POWERS:
        inner = "hellinger_sq" if name in _OUTER else name
        return _products.power(inner, _prepared.COLUMNS[column], _ORDERS.get(name, given.get("order")))
    return None


def _discrete(column: str, name: str, ready: Callable, product: _products.Product, plan: Plan, plain: Plan) -> Plan:
    """A cell of probs or logits by products."""
    prepared, outer = _prepared.COLUMNS[column], _OUTER.get(name, itself)

    def rows(a: Array) -> Rows:
        return prepared.rows(ready(a))

    def own(side: Any) -> Array | int:
        return side.entropy if name == "cross_entropy" else 0

    return _by_products(product, rows, lambda rows: rows.mass, own, lambda value: outer(value)[0], plan, plain)


def _by_products(
    product: _products.Product, rows: Callable, alive: Callable, itself: Callable | None, outer: Callable, plan: Plan,
    plain: Plan,
) -> Plan:  # fmt: skip
    """A matrix product of two slices, then of three where that is not sure of all pairs, then parts by `plan`.

    alive: where a row is none, what it says is not above 0. itself: the value of a row with itself; None: as any other.
    """

    def ready(side: Callable, slices: int, a: Any) -> tuple[Any, Array]:
        given = rows(a)
        return side(given, slices), alive(given)

    def attempt(x: tuple, y: tuple, own: Array) -> tuple[Array, Array]:
        own_value = None if itself is None else itself(x[0])
        return _settled(*product.tile(x[0], y[0]), own, own_value, x[1] * y[1].T > 0, outer)

    def tile(x: Callable, y: Callable, own: Array) -> Array:
        value, known = attempt(x()[0], y()[0], own)

        def parts(value: Array, known: Array) -> Array:
            return lax.cond(jnp.all(known), lambda: value, lambda: in_parts(plan, x()[1], y()[1], own, value, known))

        def again() -> Array:
            sides = zip((product.first, product.second), (x()[1], y()[1]), strict=True)
            first, second = (_mapped(partial(ready, side, 3), a, plain.size) for side, a in sides)
            better = attempt(first, second, own)
            return parts(jnp.where(known, value, better[0]), known | better[1])

        return parts(value, known) if slices == 3 else lax.cond(jnp.all(known), lambda: value, again)

    size = plain.size // 4
    side = max(_SQUARE[0], min(_SQUARE[1], 4 * _BUDGET // size))
    slices = 2 if size <= _MANY else 3  # preparing rows costs more than products then
    first, second = (partial(ready, side, slices) for side in (product.first, product.second))
    return Plan(first, tile, plain.symmetric, size, side, second)


def _settled(
    value: Array, known: Array, own: Array, own_value: Any, valid: Array, outer: Callable
) -> tuple[Array, Array]:
    """An attempt at a tile with what needs none: a row with itself (None: as any other), and rows that are none."""
    if own_value is not None:
        value, known = jnp.where(own, own_value, value), known | own
    value = outer(jnp.where(known, value, 1))  # no root of what may be negative
    return jnp.where(valid, value, jnp.nan), known | ~valid


def in_parts(plan: Plan, p: Any, q: Any, own: Array, value: Array, known: Array) -> Array:
    """A tile of which some values are known, the parts with others by another plan."""
    n, m = own.shape
    rows, columns = block_of(plan, None, n, m)
    x, y = rows_of(plan, p, q)

    def part(place: Array) -> Array:
        def first() -> Any:
            return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, place[0], rows), x)

        def second() -> Any:
            return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, place[1], columns), y)

        here, had, fine = (lax.dynamic_slice(a, place, (rows, columns)) for a in (own, value, known))
        return lax.cond(jnp.all(fine), lambda: had, lambda: plan.tile(first, second, here).astype(had.dtype))

    def put(found: Array, place: Array) -> tuple[Array, None]:
        return lax.dynamic_update_slice(found, part(place), (place[0], place[1])), None

    parts = itertools.product(range(0, n, rows), range(0, m, columns))
    places = jnp.array([(min(i, n - rows), min(j, m - columns)) for i, j in parts], jnp.int32)
    return lax.scan(put, value, places)[0]
