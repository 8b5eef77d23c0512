"""What samples alone say of a divergence: estimates with standard errors, distances of samples, tests, drift.

`estimate`, `kl_estimate` and `monte_carlo` know densities at draws; the others have only the draws, points `[n, d]` or
numbers `[n]`, in their leading axis (for a batch of samples vmap over it). Every estimate varies with the sample: what
is exact elsewhere in kljax, never negative and 0 at equality, holds here on average at best.
"""

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _check, _estimate, _neighbours
from kljax._cells import replaced
from kljax._estimate import Estimate
from kljax._neighbours import Kernel, gaussian, inverse_multiquadric, laplace
from kljax.rows import Row

__all__ = [
    "Estimate", "Histogram", "Interval", "Kernel", "Test", "bootstrap", "energy", "estimate", "gaussian", "histogram",
    "inverse_multiquadric", "kl_estimate", "knn_entropy", "knn_kl", "laplace", "mmd_sq", "monte_carlo",
    "permutation_test", "sliced_wasserstein", "wasserstein1",
]  # fmt: skip


class Histogram(NamedTuple):
    """Probabilities `[bins]` of two samples, and the inner edges `[bins - 1]`: the outer bins are unbounded."""

    p: Array
    q: Array
    edges: Array


class Test(NamedTuple):
    """The statistic of two samples, and how often one as large comes from relabelled ones."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name
    statistic: Array
    p_value: Array


class Interval(NamedTuple):
    """The statistic of two samples, and quantiles of that of resampled ones."""

    statistic: Array
    low: Array
    high: Array


@partial(jax.jit, static_argnames="axis")
def estimate(row: Row, log_p: ArrayLike, log_q: ArrayLike, *, axis: int = 0) -> Estimate:
    """Any f-divergence D(p, q) = E_q f(p/q) by the mean of f(p/q) over draws of q, unbiased, in [0, inf].

    row: a row of `kljax.rows`. log_p, log_q: normalised log-densities at the draws.
    Shapes: `[n, ...] -> Estimate(value [...], stderr [...])`, in nats; `axis` is that of the draws.
    The gradient is that of D(p, q): in log_p the mean of u f'(u) d log_p, u = p/q, and in log_q that of
    (f(u) - u f'(u)) d log_q, which counts in that q's draws move with q; stderr has none.
    Degenerate input: log_p may be -inf. Where p/q has no second moment under q, stderr says too little; `monte_carlo`
    needs no moments. Errors: AssertionError at trace time where shapes do not match.

    >>> import jax, jax.numpy as jnp, kljax
    >>> from kljax.normal import Normal
    >>> p, q = Normal(jnp.zeros(1), 1.0), Normal(jnp.ones(1), 1.5)
    >>> x = kljax.normal.sample(jax.random.key(0), q, (20000,))
    >>> logs = kljax.normal.log_prob(p, x), kljax.normal.log_prob(q, x)
    >>> value, stderr = kljax.samples.estimate(kljax.rows.js(), *logs)
    >>> print(f"{value:.3f} +- {stderr:.3f}, exact {kljax.normal.js(p, q):.3f}")
    0.099 +- 0.001, exact 0.099
    """
    cell = "kljax.samples.estimate"
    log_p, log_q = _check.events(cell, ("log_p", "log_q"), (log_p, log_q), axis, None, 0)
    return _estimate.of_row(replaced(cell, row, log_p), log_p, log_q)


@partial(jax.jit, static_argnames=("kind", "axis"))
def kl_estimate(
    log_p: ArrayLike, log_q: ArrayLike, *, kind: str = "k3", log_behaviour: ArrayLike | None = None, axis: int = 0
) -> Estimate:
    """KL(p, q) from draws of p by the mean of a term of L = log q/p, in [-inf, inf], with the gradient of KL(p, q).

    kind: "k1" is -L, unbiased; "k2" is L^2 / 2, biased, of small variance; "k3" is e^L - 1 - L, unbiased, >= 0, less
    variable than k1 while KL is below some 0.6, and of infinite variance where q/p has no second moment.
    log_p, log_q: log-densities at the draws, such as log-probabilities of sampled tokens. log_behaviour: those of the
    distribution that the draws came from, if not p: each is then weighted by p over it (not normalised by their sum).
    Shapes: `[n, ...] -> Estimate(value [...], stderr [...])`, in nats; `axis` is that of the draws.
    Whatever the kind, the gradient is that of KL(p, q): in log_p the mean of (log p/q - its mean) d log_p, p's draws
    moving with p, and in log_q the mean of -d log_q. (Differentiated as they stand, k1 would give 0 in p on average and
    k3 the gradient of KL(q, p).) With the mean of the same n draws as baseline it is short by the factor 1 - 1/n.
    Degenerate input: log_q = -inf at a draw gives +inf. Errors: ValueError for another kind; AssertionError at trace
    time where shapes do not match. Source: Schulman, Approximating KL divergence (2020).

    >>> import jax, jax.numpy as jnp, kljax
    >>> policy, reference = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]))
    >>> token = jax.random.categorical(jax.random.key(0), policy, shape=(20000,))
    >>> value, stderr = kljax.samples.kl_estimate(policy[token], reference[token])
    >>> print(f"{value:.4f} +- {stderr:.4f}, exact {kljax.logits.kl(policy, reference):.4f}")
    0.0252 +- 0.0001, exact 0.0253
    """
    cell = "kljax.samples.kl_estimate"
    _check.choice(cell, "kind", kind, tuple(_estimate.KINDS))
    names = ("log_p", "log_q", "log_behaviour")[: 2 if log_behaviour is None else 3]
    given = (log_p, log_q, log_behaviour)[: len(names)]
    log_p, log_q, *rest = _check.events(cell, names, given, axis, None, 0)  # type: ignore[arg-type]
    return _estimate.of_kl(kind, log_p, log_q, rest[0] if rest else None)


@partial(jax.jit, static_argnames=("n", "column"))
def monte_carlo(key: Array, row: Row, p: object, q: object, *, n: int, column: ModuleType) -> Estimate:
    """Any f-divergence of two distributions of a column, by n draws from (p + q)/2, unbiased, in [0, inf].

    column: `kljax.normal`, `mvn`, `lowrank` or `mixture`, whose `sample` and `log_prob` it calls; a draw tells
    2 f(u) / (1 + u), u = p/q, half of the draws coming from either. Of tv, js, hellinger_sq and le_cam that lies in
    [0, 2], so that no moments are needed, and a mean of 10,000 is within 0.01 or so whatever p and q are.
    Shapes: p, q with one batch shape `[...] -> Estimate(value [...], stderr [...])`, in nats. n: even, at least 4.
    The gradient in p and q is that of the divergence, by reparameterised draws, but for a `mixture`, whose choice of
    component is not; stderr has none.
    Degenerate input: the errors of log p - log q, a difference of two log-densities, are those of the larger.
    Errors: those of the column; AssertionError for another n.

    >>> import jax, jax.numpy as jnp, kljax
    >>> from kljax.normal import Normal
    >>> p, q = Normal(jnp.zeros(4), 1.0), Normal(jnp.ones(4), 1.0)
    >>> value, stderr = kljax.samples.monte_carlo(
    ...     jax.random.key(0), kljax.rows.tv, p, q, n=20000, column=kljax.normal
    ... )
    >>> print(f"{value:.3f} +- {stderr:.3f}")
    0.684 +- 0.002
    """
    cell = "kljax.samples.monte_carlo"
    _check.within(cell, "n % 2", n % 2, 0, 0)
    _check.within(cell, "n", n, 4, 1 << 31)
    return _estimate.of_mixture(key, partial(replaced, cell, row), p, q, n // 2, column)


@partial(jax.jit, static_argnames="k")
def knn_kl(x: ArrayLike, y: ArrayLike, *, k: int = 5) -> Array:
    """KL(p, q) of densities from draws alone, d/n sum log(nu/rho) + log(m / (n - 1)), in [-inf, inf].

    rho, nu: the distances of a point of x to the k-th nearest other point of x and to the k-th nearest of y. Exact
    neighbours, n m distances in blocks. Consistent for any k; a larger k has less variance and more bias; from few
    points, in many dimensions or with heavy tails the bias is large, and near equality half of the values are negative.
    Shapes: x `[n, d]` from p, y `[m, d]` from q, or `[n]`, `[m]`, `-> []`, in nats. k: at most n - 1 and m.
    Degenerate input: repeated points are no draws of a density: k + 1 equal ones in x give +inf, k in y at one of x
    -inf, both nan; add noise, or take `histogram`. Errors: AssertionError at trace time for other shapes or k.
    Source: Wang, Kulkarni and Verdu, Divergence estimation for multidimensional densities (2009).

    >>> import jax, kljax
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 2000, 2))
    >>> print(f"{kljax.samples.knn_kl(x, y + 1):.2f}")  # exact 1
    0.91
    """
    x, y = _check.points("kljax.samples.knn_kl", x=x, y=y)
    _check.within("kljax.samples.knn_kl", "k", k, 1, min(len(x) - 1, len(y)))
    _, x, y = _neighbours.in_units(x, y)
    ratios = jnp.sqrt(_neighbours.nearest(x, y, k)) / jnp.sqrt(_neighbours.nearest(x, None, k))
    return x.shape[-1] * jnp.mean(jnp.log(ratios)) + math.log(len(y) / (len(x) - 1))


@partial(jax.jit, static_argnames="k")
def knn_entropy(x: ArrayLike, *, k: int = 5) -> Array:
    """Differential entropy from draws alone, d/n sum log rho + log V_d + psi(n) - psi(k), in [-inf, inf].

    rho: the distance of a point to its k-th nearest other; V_d: the volume of the unit ball. Exact neighbours, in
    blocks.
    Shapes: x `[n, d]` or `[n]`, `-> []`, in nats. k: at most n - 1.
    Degenerate input: k + 1 equal points give -inf. Errors: AssertionError at trace time for other shapes or k.
    Source: Kozachenko and Leonenko, Sample estimate of the entropy of a random vector (1987).

    >>> import jax, kljax
    >>> x = jax.random.normal(jax.random.key(0), (2000, 2))
    >>> print(f"{kljax.samples.knn_entropy(x):.2f}")  # exact 2.84
    2.86
    """
    (x,) = _check.points("kljax.samples.knn_entropy", x=x)
    n, d = x.shape
    _check.within("kljax.samples.knn_entropy", "k", k, 1, n - 1)
    rest = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1) + float(np.sum(1 / np.arange(k, n)))
    unit, x = _neighbours.in_units(x)
    return d * jnp.mean(jnp.log(jnp.sqrt(_neighbours.nearest(x, None, k)) * unit)) + rest


@partial(jax.jit, static_argnames="unbiased")
def mmd_sq(x: ArrayLike, y: ArrayLike, *, kernel: Kernel | None = None, unbiased: bool = True) -> Array:
    """Squared maximum mean discrepancy, E k(x, x') + E k(y, y') - 2 E k(x, y), in [-1, 2] for the kernels here.

    kernel: `gaussian()` unless given, `laplace`, `inverse_multiquadric`, or `Kernel(function, bandwidth)` of one's own
    function of |x - y|^2 / bandwidth^2. Without a bandwidth it is the median distance among the first 512 points of
    either sample, through which no gradient passes: shuffle what is sorted. unbiased: leave out the pairs of a point
    with itself; the value may then be negative, otherwise it is >= 0 but for rounding. n m distances in blocks.
    Shapes: x `[n, d]`, y `[m, d]`, or `[n]`, `[m]`, `-> []`. Differentiable in x, y and the bandwidth.
    Degenerate input: where all points are equal the bandwidth is 1. Errors: AssertionError at trace time where shapes
    do not match. Source: Gretton et al., A kernel two-sample test (2012).

    >>> import jax, kljax
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 500, 2))
    >>> values = [kljax.samples.mmd_sq(x, z, kernel=kljax.samples.gaussian(1.0)) for z in (y, y + 1)]
    >>> print([f"{abs(v):.2f}" for v in values])
    ['0.00', '0.16']
    """
    cell = "kljax.samples.mmd_sq"
    x, y = _check.points(cell, x=x, y=y)
    _check.within(cell, "the smaller sample", min(len(x), len(y)), 2, 1 << 31)
    kernel = gaussian() if kernel is None else kernel
    return _neighbours.discrepancy(kernel.function, _neighbours.bandwidth(kernel, x, y), x, y, unbiased)


@partial(jax.jit, static_argnames="unbiased")
def energy(x: ArrayLike, y: ArrayLike, *, unbiased: bool = True) -> Array:
    """Squared energy distance, 2 E |x - y| - E |x - x'| - E |y - y'|, in [-inf, inf]: the mmd_sq of minus the distance.

    No bandwidth to choose, and first moments suffice. (scipy's `energy_distance` is the root of the biased one, of
    numbers.) unbiased: leave out the pairs of a point with itself; the value may then be negative, otherwise it is >= 0
    but for rounding. n m distances in blocks.
    Shapes: x `[n, d]`, y `[m, d]`, or `[n]`, `[m]`, `-> []`. Differentiable: equal points have slope 0.
    Degenerate input: a nan spoils the value. Errors: AssertionError at trace time where shapes do not match.
    Source: Szekely and Rizzo, Energy statistics (2013).

    >>> import jax, kljax
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 500, 2))
    >>> print([f"{abs(kljax.samples.energy(x, z)):.2f}" for z in (y, y + 1)])
    ['0.00', '0.75']
    """
    x, y = _check.points("kljax.samples.energy", x=x, y=y)
    _check.within("kljax.samples.energy", "the smaller sample", min(len(x), len(y)), 2, 1 << 31)
    unit, *_ = _neighbours.in_units(x, y)
    return unit * _neighbours.discrepancy(_neighbours.minus_distance, unit, x, y, unbiased)


@jax.jit
def wasserstein1(x: ArrayLike, y: ArrayLike) -> Array:
    """Wasserstein distance of order 1 of two samples of numbers, the integral of |F_x - F_y|, in [0, inf]: a metric.

    Exact for the samples, and formed from differences of order statistics, so that an offset costs nothing.
    Shapes: x `[..., n]`, y `[..., m] -> [...]`, in the unit of x; leading axes equal, or one the tail of the other's.
    Differentiable; where order statistics are equal the slope is 0. Weighted outcomes: `kljax.probs.wasserstein1`.
    Degenerate input: a nan spoils its own row alone. Errors: AssertionError at trace time where shapes do not match.

    >>> import jax.numpy as jnp, kljax
    >>> print(kljax.samples.wasserstein1(jnp.array([0.0, 1.0]), jnp.array([3.0, 1.0, 2.0])))
    1.5
    """
    x, y = _check.wide(x, y)
    x, y = _check.batch("kljax.samples.wasserstein1", "x", x, "y", y)
    return _neighbours.quantile_gap(x, y)


@partial(jax.jit, static_argnames="n")
def sliced_wasserstein(key: Array, x: ArrayLike, y: ArrayLike, *, n: int = 100) -> Estimate:
    """Mean of `wasserstein1` of two samples projected on n random directions, in [0, inf].

    stderr is that of the choice of directions, not of the samples.
    Shapes: x `[k, d]`, y `[m, d] -> Estimate(value [], stderr [])`, in the unit of x. Differentiable.
    Degenerate input: a nan spoils the value. Errors: AssertionError at trace time where shapes do not match.
    Source: Bonneel et al., Sliced and Radon Wasserstein barycenters of measures (2015).

    >>> import jax, kljax
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 500, 2))
    >>> value, stderr = kljax.samples.sliced_wasserstein(jax.random.key(1), x, y + 3, n=1000)
    >>> print(f"{value:.1f} +- {stderr:.1f}")
    2.7 +- 0.0
    """
    x, y = _check.points("kljax.samples.sliced_wasserstein", x=x, y=y)
    along = jax.random.normal(key, (n, x.shape[-1]), x.dtype)
    along = along / jnp.linalg.norm(along, axis=-1, keepdims=True)

    def gap(direction):
        return _neighbours.quantile_gap(*(jnp.dot(z, direction, precision="highest") for z in (x, y)))

    size = max(1, min(n, _neighbours.BLOCK // (len(x) + len(y))))
    return _estimate.mean(lax.map(jax.checkpoint(gap), along, batch_size=size))


@jax.jit
def _counted(x: Array, y: Array, edges: Array, pseudocount: ArrayLike) -> Histogram:
    counts = [jnp.bincount(jnp.searchsorted(edges, z, side="right"), length=len(edges) + 1) for z in (x, y)]
    p, q = (
        jnp.where(jnp.isnan(z).any(), jnp.nan, (c.astype(z.dtype) + pseudocount) / (len(z) + pseudocount * len(c)))
        for z, c in zip((x, y), counts, strict=True)
    )
    return Histogram(p, q, edges)


def histogram(
    x: ArrayLike, y: ArrayLike, *, bins: int | ArrayLike, method: str = "quantile", pseudocount: float = 0
) -> Histogram:
    """Two samples of numbers as probabilities of the same bins, (count + pseudocount) / (n + pseudocount bins).

    bins: how many, or their inner edges. method: "quantile" puts a reference x into bins of equal counts, "uniform"
    divides the range of both samples evenly. The outer bins have no outer edge, so that nothing of y is lost; a value
    on an edge belongs to the bin above. pseudocount: added to every bin of both, and p and q still sum to 1; with 0 an
    empty bin is an honest zero, and kl may be +inf, js, tv and hellinger are not.
    The population stability index of drift monitoring is `kljax.probs.jeffreys(h.p, h.q)`.
    Shapes: x `[n]`, y `[m] -> Histogram(p [bins], q [bins], edges [bins - 1])`. Gradients are 0: counts are steps.
    Degenerate input: equal quantiles make empty bins, which divergences delete; a sample with a nan has only nans.
    Errors: ValueError for another method; AssertionError where shapes do not match.

    >>> import jax.numpy as jnp, kljax
    >>> h = kljax.samples.histogram(jnp.arange(100.0), jnp.arange(50.0, 150.0), bins=4, pseudocount=0.5)
    >>> print(h.p, h.q.round(3), f"PSI {kljax.probs.jeffreys(h.p, h.q):.2f}")
    [0.25 0.25 0.25 0.25] [0.005 0.005 0.25  0.74 ] PSI 2.46
    """
    cell = "kljax.samples.histogram"
    _check.choice(cell, "method", method, ("quantile", "uniform"))
    x, y = (a[:, 0] for a in _check.points(cell, x=x, y=y))
    if not isinstance(bins, int):
        edges = jnp.sort(jnp.asarray(bins).astype(x.dtype))
    elif method == "quantile":
        edges = jnp.quantile(x, jnp.arange(1, bins, dtype=x.dtype) / bins)
    else:
        low, high = jnp.minimum(x.min(), y.min()), jnp.maximum(x.max(), y.max())
        edges = low + (high - low) * (jnp.arange(1, bins, dtype=x.dtype) / bins)
    return _counted(x, y, edges, pseudocount)


def _pooled(x: ArrayLike, y: ArrayLike) -> list[Array]:
    """Two samples in one dtype: integers, such as the numbers of rows elsewhere, stay what they are."""
    given = [jnp.asarray(z) for z in (x, y)]
    whole = all(jnp.issubdtype(z.dtype, jnp.integer) for z in given) and given[0].dtype == given[1].dtype
    return given if whole else _check.wide(*given)


def _resampled(statistic: Callable[..., Array], draw: Callable, key: Array, n: int, size: int) -> Array:
    """The statistic of n redrawn pairs of samples, as many at a time as have their distances in a block.

    The last block is filled: a shorter one would be compiled for itself.
    """
    blocks = max(1, -(-n // max(1, _neighbours.BLOCK // size**2)))
    batch = max(1, -(-n // blocks))
    keys = jnp.arange(blocks * batch)
    return lax.map(lambda i: statistic(*draw(jax.random.fold_in(key, i))), keys, batch_size=batch)[:n]


@partial(jax.jit, static_argnames=("statistic", "n"))
def permutation_test(key: Array, statistic: Callable[..., Array], x: ArrayLike, y: ArrayLike, *, n: int = 999) -> Test:
    """Whether two samples have one distribution: p = (1 + relabellings with a statistic as large) / (n + 1).

    statistic: a function of (x, y) to a number that is large where they differ, such as `energy` or `mmd_sq`; define it
    once, another function compiles anew. n: random relabellings. The level is exact for any statistic and any n: under
    the null p <= a has a chance of at most a. Integers stay integers, so that a sample may be the numbers of units that
    are exchanged whole, and the statistic look up what belongs to them.
    Shapes: x `[k, ...]`, y `[m, ...] -> Test(statistic [], p_value [])`, p_value in [1/(n+1), 1].
    Degenerate input: relabellings within rounding of the statistic count as large; a nan statistic has p-value nan.
    Errors: those of the statistic. Source: Phipson and Smyth, Permutation p-values should never be zero (2010).

    >>> import jax, kljax
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 40))
    >>> for z in (y, y + 1.5):
    ...     print(f"{kljax.samples.permutation_test(jax.random.key(1), kljax.samples.energy, x, z, n=199).p_value:.3f}")
    0.625
    0.005
    """
    x, y = _pooled(x, y)
    pooled, (seen,) = jnp.concatenate([x, y]), _check.wide(statistic(x, y))

    def draw(key):
        mixed = jax.random.permutation(key, pooled)
        return mixed[: len(x)], mixed[len(x) :]

    found = _resampled(statistic, draw, key, n, len(pooled)).astype(seen.dtype)
    least = seen - 64 * jnp.finfo(seen.dtype).eps * jnp.abs(seen)
    return Test(seen, jnp.where(jnp.isnan(seen), jnp.nan, (1 + jnp.sum(found >= least)) / (n + 1)))


@partial(jax.jit, static_argnames=("statistic", "n"))
def bootstrap(
    key: Array, statistic: Callable[..., Array], x: ArrayLike, y: ArrayLike, *, n: int = 999, level: ArrayLike = 0.95
) -> Interval:
    """The interval of a statistic of two samples between quantiles (1 -+ level)/2 of n resampled statistics.

    statistic: a function of (x, y) to a number; define it once. x and y are resampled apart, with replacement. Coverage
    is near the level for smooth statistics of some tens of points (differences of means, divergences of histograms that
    are not near 0). Repeated points bias distances of samples upwards, and knn cannot bear them: there, and near
    equality, use `permutation_test`.
    Shapes: x `[k, ...]`, y `[m, ...] -> Interval(statistic [], low [], high [])`. level: in (0, 1), may be traced.
    Degenerate input: a nan statistic of any resampled pair makes low and high nan. Errors: those of the statistic.
    Source: Efron, Bootstrap methods: another look at the jackknife (1979).

    >>> import jax, jax.numpy as jnp, kljax
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 100))
    >>> found = kljax.samples.bootstrap(jax.random.key(1), kljax.samples.wasserstein1, x, y + 2)
    >>> print(f"{found.low:.2f} < {found.statistic:.2f} < {found.high:.2f}")
    1.56 < 1.81 < 2.06
    """
    x, y = _pooled(x, y)

    def draw(key):
        keys = jax.random.split(key)
        return tuple(z[jax.random.randint(k, (len(z),), 0, len(z))] for k, z in zip(keys, (x, y), strict=True))

    (found,) = _check.wide(_resampled(statistic, draw, key, n, len(x) + len(y)))
    half = jnp.asarray(level).astype(found.dtype) / 2
    low, high = jnp.quantile(found, jnp.stack([0.5 - half, 0.5 + half]))
    return Interval(statistic(x, y), low, high)
