"""Pairs of distributions that were made to break a cell: masses at the ends of the range, ties, last digits, supports.

Each batch has one shape, so that a cell compiles once; `seed` says which numbers.
"""

import numpy as np

import kljax

OUTCOMES = 9  # at most: a row of fewer is filled up with outcomes that do not exist
TINY, MAX = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
FEW = np.array([0, 0, 1e-40, TINY, 2 * TINY, 1e-20, np.finfo(np.float32).eps / 2, 0.5, 1, 1 + 2**-23, 2, 1e15, 3.6e37])
LOGITS = np.array([-np.inf, -np.inf, -1e38, -1e4, -104, -88, -1, 0, 0, 2**-23, 1, 88, 1e4, 1e38])


def _chosen(rng, kinds):
    """For each row one of several arrays."""
    return np.choose(rng.integers(len(kinds), size=(len(kinds[0]), 1)), kinds)


def _alive(rng, rows):
    """Which outcomes exist: 2 to 9 of them."""
    return np.arange(OUTCOMES) < rng.integers(2, OUTCOMES + 1, (rows, 1))


def _logs(rng, rows):
    """Logarithms of masses: plain, steep, in steps, uniform, peaked, one-hot."""
    shape = (rows, OUTCOMES)
    hot = np.where(np.arange(OUTCOMES) == rng.integers(2, size=(rows, 1)), 0, -np.inf)
    peaked = np.where(rng.random(shape) < 0.2, 0, rng.uniform(-100, -10, shape))
    some = np.where(rng.random(shape) < 0.3, -np.inf, rng.normal(size=shape))
    kinds = [rng.normal(size=shape), rng.uniform(-85, 0, shape), np.log(rng.integers(1, 4, shape)), np.zeros(shape),
             peaked, some, hot, -rng.exponential(1e-3, shape)]  # fmt: skip
    return _chosen(rng, kinds)


def _stepped(rng, x):
    """x with about one number in three moved by one unit in the last place."""
    turn = np.where(rng.random(x.shape) < 0.5, np.float32(np.inf), np.float32(-np.inf))
    return np.where((rng.random(x.shape) < 0.3) & np.isfinite(x) & (x != 0), np.nextafter(x, turn), x)


def weights(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """p and q `[rows, OUTCOMES]` for `probs`: every row has mass on both sides, and a total that float32 holds."""
    rng = np.random.default_rng(seed)
    alive = _alive(rng, rows)

    def side():
        few = rng.choice(FEW, (rows, OUTCOMES))
        wild = 10 ** rng.uniform(-38, 37, (rows, OUTCOMES))
        scale = 10 ** rng.uniform(-37, 37, (rows, 1)) * (rng.random((rows, 1)) < 0.3)
        plain = np.exp(_logs(rng, rows))
        scaled = plain * np.where(scale > 0, np.minimum(scale, MAX / 2 / plain.sum(-1, keepdims=True)), 1)
        return _massive(np.where(alive, _chosen(rng, [scaled, scaled, scaled, few, wild]), 0))

    with np.errstate(over="ignore", under="ignore", divide="ignore"):  # a row may have no mass yet
        p, other = side(), side()
        near = p * (1 + 10 ** rng.uniform(-7, -1, (rows, 1)) * rng.uniform(-1, 1, p.shape))
        moved = p * np.float32(2.0) ** np.where(p.max(-1, keepdims=True) > 1, -1, 1)
        apart = np.where(p > 0, 0, np.where(alive, other, 0))
        swapped = np.where(alive.all(-1, keepdims=True), np.roll(p, 1, -1), other)
        drop = np.where(rng.random(p.shape) < 0.3, rng.choice([0, TINY, 1e-30]), p)
        q = _chosen(rng, [p, _stepped(rng, p), near.astype(np.float32), moved, other, other, apart, swapped, drop])
    return p, _massive(q)


def _massive(x):
    """float32, the first outcome of an empty row 1; subnormal numbers, which are zeros, make no mass."""
    x = x.astype(np.float32)
    x[:, 0] = np.where((x >= TINY).any(-1), x[:, 0], 1)
    return x


def logits(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """p and q `[rows, OUTCOMES]` for `logits`, every row with mass on both sides."""
    rng = np.random.default_rng(seed)
    alive = _alive(rng, rows)

    def side():
        few = rng.choice(LOGITS, (rows, OUTCOMES))
        wild = rng.choice([-1, 1], (rows, OUTCOMES)) * 10 ** rng.uniform(-38, 38, (rows, OUTCOMES))
        plain = _logs(rng, rows)
        raised = plain + rng.choice([0, 100, -1e4, 1e6], (rows, 1))
        return _possible(np.where(alive, _chosen(rng, [plain, plain, plain * 100, raised, few, wild]), -np.inf))

    p, other = side(), side()
    with np.errstate(invalid="ignore"):
        near = p + 10 ** rng.uniform(-7, -1, (rows, 1)) * rng.uniform(-1, 1, p.shape)
        moved = p + rng.choice([-64.0, 1.0, 2.0**10], (rows, 1))
        apart = np.where(p > -np.inf, -np.inf, np.where(alive, other, -np.inf))
        swapped = np.where(alive.all(-1, keepdims=True), np.roll(p, 1, -1), other)
        drop = np.where(rng.random(p.shape) < 0.3, rng.choice([-np.inf, -200, -90]), p)
    q = _chosen(rng, [p, _stepped(rng, p), near, moved, other, other, apart, swapped, drop])
    return p, _possible(np.where(alive, q, -np.inf))


def _possible(x):
    x = x.astype(np.float32)
    x[:, 0] = np.where((x > -np.inf).any(-1), x[:, 0], 0)
    return x


def _scales(rng, shape, low=-18, high=18):
    """Positive numbers: near 1, over all of the range, powers of two, the ends."""
    ends = rng.choice([10.0**low, 1, 10.0**high], shape)
    near = np.exp(rng.normal(size=shape))
    return _chosen(rng, [near, 10 ** rng.uniform(low, high, shape), 2.0 ** rng.integers(-3, 4, shape), ends])


def positive(rng, rows, number, low=-18, high=18) -> tuple[np.ndarray, np.ndarray]:
    """Positive parameters of p and of q, which are apart, near, one unit in the last place apart, or equal."""
    a, b = (_scales(rng, (rows, number), low, high).astype(np.float32) for _ in range(2))
    near = a * (1 + 10 ** rng.uniform(-7, -1, (rows, 1)) * rng.uniform(-1, 1, a.shape))
    near = np.clip(near, np.float32(10.0**low), np.float32(10.0**high))
    return a, _chosen(rng, [a, _stepped(rng, a), near.astype(np.float32), b, b])


def locations(rng, rows, number, low=-18, high=18) -> tuple[np.ndarray, np.ndarray]:
    """Locations of p and of q, from equal to 1e36 apart."""
    shape = (rows, number)
    sign = rng.choice([-1, 0, 1], shape)
    a = (sign * _scales(rng, shape, low, high)).astype(np.float32)
    b = (rng.choice([-1, 0, 1], shape) * _scales(rng, shape, low, high)).astype(np.float32)
    return a, _chosen(rng, [a, _stepped(rng, a), (a * np.float32(1.001)), b, a + rng.normal(size=shape)]).astype(
        np.float32
    )


def normals(seed: int, rows: int, number: int = 3, kind=kljax.normal.Normal):
    """Two Normals with independent coordinates, of scales 1e-9 to 1e9."""
    rng = np.random.default_rng(seed)
    (m, n), (s, t) = locations(rng, rows, number, -9, 9), positive(rng, rows, number, -9, 9)
    if kind is kljax.normal.LogScaleNormal:
        s, t = np.log(s), np.log(t)
    return kind(m, s), kind(n, t)


def gaussians(seed: int, rows: int, number: int = 3):
    """Two Gaussians over vectors of scales 1e-9 to 1e9, any entries below the diagonals of their factors."""
    rng = np.random.default_rng(seed)
    p, q = normals(seed + 1, rows, number)
    below = np.tril(rng.uniform(-1, 1, (rows, number, number)) * 10 ** rng.uniform(-6, 0, (rows, 1, 1)), -1)
    other = np.tril(rng.uniform(-1, 1, (rows, number, number)), -1)
    same = rng.random((rows, 1, 1)) < 0.6

    def factor(scale, mix):
        return ((np.eye(number) + mix) * scale[..., None, :]).astype(np.float32)

    return kljax.mvn.MVN(p.loc, factor(p.scale, below)), kljax.mvn.MVN(
        q.loc, factor(q.scale, np.where(same, below, other))
    )


def low_rank(seed: int, rows: int, number: int = 5, rank: int = 2):
    """Two Gaussians of a diagonal and a few directions, of 0.01 to 100 each: F' F/d up to 1e7."""
    rng = np.random.default_rng(seed)
    (m, n), (s, t) = locations(rng, rows, number, -9, 9), positive(rng, rows, number, -2, 2)
    factors = positive(rng, rows, number * rank, -2, 2)
    sign = rng.choice([-1, 0, 1], (rows, number, rank)).astype(np.float32)
    f, g = (x.reshape(rows, number, rank) * sign for x in factors)
    return kljax.lowrank.LowRank(m, f, s), kljax.lowrank.LowRank(n, g, t)


def members(kind, seed: int, rows: int):
    """Two members of an exponential family of scalar parameters, or two Laplace distributions."""
    rng = np.random.default_rng(seed)
    most = 1 if kind is kljax.expfam.Geometric else MAX
    a, b = (np.minimum(x, most) for x in positive(rng, rows, len(kind._fields), -9, 9))
    if kind in (kljax.expfam.Laplace, kljax.expfam.Bernoulli):
        a[:, :1], b[:, :1] = locations(rng, rows, 1)
    return kind(*a.T), kind(*b.T)
