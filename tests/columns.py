"""What the corpus needs to know of each column: how to read its cases, which of them share a program, and the truth.

A distribution is a flat vector of numbers to everything else; `wrap` makes it what the cells take. A new column is one
class here and its entry in COLUMNS.
"""

import functools
import zlib

import jax.numpy as jnp
import mpmath as mp
import numpy as np

import kljax
from tests import accuracy, families, gaussians, matrices, matrix, oracles

PADDED = 1024  # longest discrete case but the huge ones
SMALL = 64  # up to this many outcomes a case has oracle values and gradients
CURVED = 10  # and up to this many Hessian-vector products
MOVES = 8  # draws of signs that the condition of a gradient is the root mean square of


def vector(numbers) -> np.ndarray:
    """C99 hexadecimal floats, all exact in float32."""
    return np.array([float.fromhex(v) for v in np.ravel(numbers)], np.float32)


class Discrete:
    """Arrays `[K]`, padded to one length with outcomes that do not exist: one program for all."""

    THIRD = 3  # one in so many cases has its Hessian-vector products looked at

    def __init__(self, name):
        self.name, self.empty, self.reps = name, 0.0 if name == "probs" else -np.inf, (name,)

    def cases(self, case):
        """(family, p, q, whether the corpus' values are those of the case) for one case of the corpus."""
        if "rule" not in case["params"]:
            suffix = "_logits" if self.name == "logits" else ""
            yield case["family"], *(vector(case["params"][s + suffix]) for s in "pq"), True

    def gradients(self, case, name, side):
        """The slopes that the corpus knows."""
        return case["grads"].get(f"{name}|{side}" + ("" if self.name == "logits" else "|tangent"))

    def group(self, case, name):
        """The cases that share a program."""
        return PADDED

    def fill(self, group, x):
        """The vector as that program takes it."""
        return np.concatenate([x, np.full(group - len(x), self.empty, np.float32)])

    def kept(self, group, x):
        """Where in the filled vector the numbers of the case are."""
        return slice(len(x))

    def has(self, case, name):
        """Whether the cell takes the case."""
        return True

    def wrap(self, group, x):
        """The distributions of filled vectors `[N, group]`."""
        return x

    def unit(self, x):
        """The size of a step in each number of a distribution."""
        return np.isfinite(x).astype(np.float32) if self.name == "logits" else x

    def small(self, case):
        """Whether the oracle can take the case."""
        return len(case.p) <= SMALL

    def curved(self, case):
        """Whether the oracle has Hessian-vector products."""
        mass = (np.isfinite(x).all() and (self.name == "logits" or (x > 1e-30).all()) for x in (case.p, case.q))
        return len(case.p) <= CURVED and all(mass)

    def _pair(self, case, dtype, missing):
        tiny = float(np.finfo(dtype).tiny) if missing else 0
        return oracles.pair(self.name, case.p, case.q, dtype=dtype, missing=tiny)

    def value(self, name, case, dtype, **options):
        """The true value."""
        return oracles.value(name, self._pair(case, dtype, False), **options)

    def slopes(self, name, case, dtype, **options):
        """The true gradients in p and q, None where there is none."""
        return oracles.gradients(self.name, name, self._pair(case, dtype, True), **options)

    def second(self, name, case, steps, **options):
        """True Hessian-vector products."""
        return oracles.second(self.name, name, case.p, case.q, *steps, **options)

    def steepness(self, name, case, side, **options):
        """The relative condition number of a gradient in norm: what an allowed error of more eps is owed to."""
        return 1.0

    def missing(self, case):
        """Whether one of the two has mass where the other has none."""
        return np.any((case.p > self.empty) != (case.q > self.empty))

    def flushed(self, case, dtype):
        """Whether an input of the case is a zero in this dtype: a subnormal number."""
        tiny = np.finfo(dtype).tiny
        return any(np.any((abs(x) > 0) & (abs(x) < tiny)) for x in (case.p.astype(dtype), case.q.astype(dtype)))

    target = staticmethod(accuracy.target)


class Density(Discrete):
    """Distributions with a few arrays of parameters, one program for each shape; the base of what follows."""

    def __init__(self, name, *reps):
        self.name, self.reps, self.empty = name, reps, 0.0

    def gradients(self, case, name, side):
        return None  # the oracle knows all of them

    def group(self, case, name):
        return len(case.p)

    def fill(self, group, x):
        return x

    def kept(self, group, x):
        return slice(None)

    def steepness(self, name, case, side, **options):
        """The sum of |x_i| |dg/dx_i| over the numbers of both, over |g|: one eps of each costs a gradient so many."""
        slopes = self.slopes(name, case, "float64", **options)[side]
        length = max(map(abs, slopes)) if slopes else 0
        if not length:
            return 1.0
        total, size = 0.0, len(case.p)
        for i, x in enumerate((*case.p, *case.q)):
            steps = np.zeros(2 * size, np.float32)
            steps[i] = 1
            moved = self.second(name, case, np.split(steps, [size]), **options)[side]
            if moved:
                ratio, right = ([float(v / length) for v in values] for values in (moved, slopes))
                total += abs(float(x)) * float(np.linalg.norm(ratio) / np.linalg.norm(right))
        return total

    def missing(self, case):
        return False

    def flushed(self, case, dtype):
        return False

    def small(self, case):
        return True

    def unit(self, x):
        return np.ones_like(x)


class Normals(Density):
    """Normal, as in the corpus, and LogScaleNormal with the rounded logarithms of the corpus' scales.

    The case of D coordinates is the vector of D locs and D scales. Cells to which a coordinate in which p and q agree
    adds nothing see cases of many coordinates padded to one length: two programs in all.
    """

    LONG = 64

    def __init__(self):
        super().__init__("normal", "gauss1", "gauss_diag")

    def cases(self, case):
        p, q = ((vector(case["params"][s]["loc"]), vector(case["params"][s]["scale"])) for s in "pq")
        yield case["family"], np.concatenate(p), np.concatenate(q), True
        if case["rep"] == "gauss1":
            logs = (np.concatenate([loc, np.log(scale.astype(np.float64)).astype(np.float32)]) for loc, scale in (p, q))
            yield f"log_{case['family']}", *logs, False

    def group(self, case, name):
        size, log = len(case.p) // 2, case.family.startswith("log_")
        return self.LONG if size > 1 and name not in ("entropy", "cross_entropy") else size, log

    def fill(self, group, x):
        size, log = group
        loc, scale = x.reshape(2, -1)
        rest = np.zeros(size - len(loc), np.float32)
        return np.concatenate([loc, rest, scale, rest + (0 if log else 1)])

    def kept(self, group, x):
        loc = np.arange(len(x) // 2)
        return np.concatenate([loc, group[0] + loc])

    def wrap(self, group, x):
        kind = kljax.normal.LogScaleNormal if group[1] else kljax.normal.Normal
        return kind(x[..., : group[0]], x[..., group[0] :])

    def has(self, case, name):
        return len(case.p) == 2 or name not in ("tv", "js", "js_distance")

    def curved(self, case):
        return len(case.p) == 2

    def _pair(self, case, p, q):
        log = case.family.startswith("log_")
        with mp.workdps(gaussians.DIGITS):
            sides = [[mp.mpf(v) if isinstance(v, mp.mpf) else mp.mpf(float(v)) for v in x] for x in (p, q)]
            half = len(sides[0]) // 2
            return log, [(x[:half], [mp.exp(v) for v in x[half:]] if log else x[half:]) for x in sides]

    def value(self, name, case, dtype, **options):
        return gaussians.value(name, *self._pair(case, case.p, case.q)[1], **options)

    def slopes(self, name, case, dtype, **options):
        return self._slopes(name, case, case.p, case.q, **options)

    def _slopes(self, name, case, p, q, **options):
        log, sides = self._pair(case, p, q)
        found = gaussians.gradients(name, *sides, **options)
        if name in matrix.ONE:
            found = found[0], None
        half = len(sides[0][0])
        with mp.workdps(gaussians.DIGITS):  # d/dlog(scale) = scale d/dscale
            chain = [[1] * half + (s if log else [1] * half) for _, s in sides]
            return tuple(
                [a * b for a, b in zip(g, c, strict=True)] if g else None for g, c in zip(found, chain, strict=True)
            )

    def second(self, name, case, steps, **options):
        if name.startswith("js"):
            return None, None
        with mp.workdps(gaussians.DIGITS):
            h, sides = mp.mpf(10) ** -25, []
            for sign in (1, -1):
                moved = ([mp.mpf(float(a)) + sign * h * mp.mpf(float(v)) for a, v in zip(*y, strict=True)]
                         for y in zip((case.p, case.q), steps, strict=True))  # fmt: skip
                sides.append(self._slopes(name, case, *moved, **options))
            return tuple(
                [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)] if up and down else None
                for up, down in zip(*sides, strict=True)
            )


class Dense(Density):
    """MVN: the vector of D locs and the packed rows of the lower triangle, with units on the diagonal to fill it up."""

    SIZES, ORACLE = (10, 32), 10  # second derivatives of 4 matrices of 64 rows deadlock jaxlib 0.10.2 on two cores
    THIRD, BENT = 1, 5

    def __init__(self, name="mvn", rep="gauss_full"):
        super().__init__(name, rep)

    def cases(self, case):
        if case["meta"]["d"] > self.SIZES[-1]:
            return  # test_mvn.py has its values
        sides = (case["params"][s] for s in "pq")
        yield case["family"], *(np.concatenate([vector(d["loc"]), *map(vector, d["scale_tril"])]) for d in sides), True

    def size(self, x):
        """D of a vector."""
        return int((np.sqrt(9 + 8 * len(x)) - 3) / 2 + 0.5)

    def group(self, case, name):
        size = self.size(case.p)
        return size if name in ("entropy", "cross_entropy") else min(s for s in self.SIZES if s >= size)

    def _matrix(self, x):
        size = self.size(x)
        lower = np.zeros((size, size), x.dtype)
        lower[np.tril_indices(size)] = x[size:]
        return lower

    def fill(self, group, x):
        size, full = self.size(x), np.eye(group, dtype=np.float32)
        full[:size, :size] = self._matrix(x)
        loc = np.zeros(group, np.float32)
        loc[:size] = x[:size]
        return np.concatenate([loc, full[np.tril_indices(group)]])

    def kept(self, group, x):
        size = self.size(x)
        rows, columns = np.tril_indices(size)
        return np.concatenate([np.arange(size), group + rows * (rows + 1) // 2 + columns])

    def wrap(self, group, x):
        rows, columns = np.tril_indices(group)
        lower = jnp.zeros((len(x), group, group), x.dtype).at[:, rows, columns].set(x[:, group:])
        return kljax.mvn.MVN(x[:, :group], lower)

    def small(self, case):
        return self.size(case.p) <= self.ORACLE

    def curved(self, case):
        return self.size(case.p) <= self.BENT

    def covariance(self, x):
        """loc, the parameters of the covariance as a matrix, and it."""
        size = self.size(x)
        lower, entries = mp.zeros(size), iter(x[size:])
        for i in range(size):
            for j in range(i + 1):
                lower[i, j] = next(entries)
        return mp.matrix(x[:size]), lower, lower * lower.T

    def own(self, x, over_loc, over):
        """Slopes in the numbers of x from those in loc and in the covariance."""
        size, slopes = self.size(x), 2 * over * self.covariance(x)[1]
        return list(over_loc) + [slopes[i, j] for i in range(size) for j in range(i + 1)]

    def _pair(self, x, y):
        (a, _, p), (b, _, q) = self.covariance(x), self.covariance(y)
        return matrices.Pair(a - b, p, q)

    @functools.lru_cache(64)  # noqa: B019  one object for ever
    def _known(self, x, y):
        with mp.workdps(matrices.DIGITS):
            sides = [[mp.mpf(v) for v in np.frombuffer(s, np.float32).astype(float)] for s in (x, y)]
            return sides, self._pair(*sides)

    def value(self, name, case, dtype, **options):
        with mp.workdps(matrices.DIGITS):
            return matrices.row(name, self._known(case.p.tobytes(), case.q.tobytes())[1], **options).value

    def slopes(self, name, case, dtype, **options):
        return self._slopes(name, *self._known(case.p.tobytes(), case.q.tobytes()), **options)

    def _slopes(self, name, sides, pair, **options):
        with mp.workdps(matrices.DIGITS):
            found = matrices.row(name, pair, **options)
            if found.slopes is None:
                zero = found.value == 0 and name != "wasserstein2"
                return tuple([mp.mpf(0)] * len(x) if zero else None for x in sides)
            delta, over_p, over_q = found.slopes
            slopes = self.own(sides[0], delta, over_p), self.own(sides[1], -delta, over_q)
            return slopes if name not in matrix.ONE else (slopes[0], None)

    def second(self, name, case, steps, **options):
        with mp.workdps(matrices.DIGITS):
            h, found, sides = mp.mpf(10) ** -25, [], self._known(case.p.tobytes(), case.q.tobytes())[0]
            for sign in (1, -1):
                moved = [[a + sign * h * mp.mpf(float(v)) for a, v in zip(x, step, strict=True)]
                         for x, step in zip(sides, steps, strict=True)]  # fmt: skip
                found.append(self._slopes(name, moved, self._pair(*moved), **options))
            return tuple(
                [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)] if up and down else None
                for up, down in zip(*found, strict=True)
            )

    def steepness(self, name, case, side, **options):
        """Of one eps in each number of q and, that near ones stay as near, in each difference from it."""
        with mp.workdps(matrices.DIGITS):
            h, rng, sides = mp.mpf(10) ** -30, np.random.default_rng(5), self._known(case.p.tobytes(), case.q.tobytes())
            (x, y), found = sides[0], []
            here = self._slopes(name, *sides, **options)[side]
            for _ in range(MOVES):
                turn, stretch = (1 + h * (2 * s - 1) for s in rng.integers(0, 2, (2, len(x))).astype(object))
                base = [b * t for b, t in zip(y, turn, strict=True)]
                moved = [c + (a - b) * t for a, b, c, t in zip(x, y, base, stretch, strict=True)]
                there = self._slopes(name, [moved, base], self._pair(moved, base), **options)[side]
                found.append(mp.fsum((a - b) ** 2 for a, b in zip(there, here, strict=True)))
            return float(mp.sqrt(mp.fsum(found) / MOVES / mp.fsum(a * a for a in here)) / h)

    @staticmethod
    def target(kappa):
        """DESIGN 7."""
        return np.maximum(32, kappa)


class Families(Density):
    """Members of the families of `expfam` as flat vectors, those of the corpus and pairs close to them.

    The Bernoulli of the corpus have their logits rounded, so that the oracle alone knows what is true of them.
    """

    FIELDS = {
        "bernoulli": ("Bernoulli", ("prob",)), "poisson": ("Poisson", ("rate",)), "geometric": ("Geometric", ("prob",)),
        "exponential": ("Exponential", ("rate",)), "gamma": ("Gamma", ("concentration", "rate")),
        "beta": ("Beta", ("a", "b")), "dirichlet": ("Dirichlet", ("concentration",)),
        "laplace": ("Laplace", ("loc", "scale")), "laplace_centered": ("Laplace", ("loc", "scale")),
        "von_mises_fisher": ("VonMisesFisher", ("eta",)), "wishart": ("Wishart", ("df", "scale_tril")),
    }  # fmt: skip
    CLOSE = (2.0**-4, 2.0**-11, 2.0**-19)  # relative steps, which float32 still tells apart

    def __init__(self):
        super().__init__("expfam", *(f"ef:{name}" for name in self.FIELDS))

    def _numbers(self, name, side):
        values = [side.get(field, ["0x0p+0"]) for field in self.FIELDS[name][1]]
        flat = [v for field in values for row in ([field] if isinstance(field, str) else field)
                for v in ([row] if isinstance(row, str) else row)]  # fmt: skip
        x = vector(flat)
        return np.log(x / (1 - x)).astype(np.float32) if name == "bernoulli" else x

    def cases(self, case):
        name = case["rep"].removeprefix("ef:")
        family, p, q = self.FIELDS[name][0], *(self._numbers(name, case["params"][s]) for s in "pq")
        if family == "VonMisesFisher" and len(p) > 3:
            return
        yield family, p, q, name != "bernoulli"
        if family == "Gamma":
            yield "InverseGamma", p, q, True
        if case["meta"]["equal"]:
            return
        turn = np.where(np.arange(len(p)) % 2, -0.5, 1) * self.CLOSE[zlib.crc32(case["id"].encode()) % len(self.CLOSE)]
        yield family, p, (p + turn * np.where(p == 0, 1, p)).astype(np.float32), False

    def group(self, case, name):
        return case.family, len(case.p)

    def wrap(self, group, x):
        return families.wrap(group[0], x)

    def unit(self, x):
        return np.abs(x)

    def small(self, case):
        return len(case.p) <= 12

    def curved(self, case):
        return len(case.p) <= 2

    def value(self, name, case, dtype, **options):
        return families.value(case.family, name, case.p, case.q, **options)

    def slopes(self, name, case, dtype, **options):
        return families.gradients(case.family, name, case.p, case.q, **options)

    def second(self, name, case, steps, **options):
        h, sides = mp.mpf(10) ** -12, []
        with mp.workdps(families.DIGITS):
            for sign in (1, -1):
                moved = ([a + sign * h * v for a, v in zip(*map(families.exact, y), strict=True)]
                         for y in zip((case.p, case.q), steps, strict=True))  # fmt: skip
                sides.append(families.gradients(case.family, name, *moved, **options))
            return tuple(
                [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)] if up and down else None
                for up, down in zip(*sides, strict=True)
            )

    @staticmethod
    def target(kappa):
        """DESIGN 7."""
        return 64 * np.maximum(1, kappa)


class Thin(Dense):
    """LowRank: D locs, D x R numbers of the factor, D of the diagonal; filled up with units and columns of 0.

    A vector has no room for R: both sides are brought to RANK columns when they are read.
    """

    SIZES, ORACLE, RANK, BENT = (16, 32), 16, 4, 8

    def __init__(self):
        super().__init__("lowrank", "gauss_lowrank")

    def cases(self, case):
        def read(d):
            f = np.stack([vector(r) for r in d["cov_factor"]])
            f = np.pad(f, ((0, 0), (0, self.RANK - f.shape[1])))
            return np.concatenate([vector(d["loc"]), f.ravel(), vector(d["cov_diag"])])

        yield case["family"], read(case["params"]["p"]), read(case["params"]["q"]), True

    def size(self, x):
        return len(x) // (self.RANK + 2)

    def fill(self, group, x):
        size = self.size(x)
        loc, f, d = np.split(x, [size, -size])
        rest = np.zeros(group - size, np.float32)
        return np.concatenate([loc, rest, f, np.repeat(rest, self.RANK), d, rest + 1])

    def kept(self, group, x):
        size, one = self.size(x), np.arange(self.size(x))
        return np.concatenate([one, group + np.arange(size * self.RANK), group * (1 + self.RANK) + one])

    def wrap(self, group, x):
        loc, f, d = x[:, :group], x[:, group:-group], x[:, -group:]
        return kljax.lowrank.LowRank(loc, f.reshape(len(x), group, self.RANK), d)

    def covariance(self, x):
        size = self.size(x)
        f = mp.matrix(size, self.RANK)
        for i in range(size):
            for j in range(self.RANK):
                f[i, j] = x[size + i * self.RANK + j]
        return mp.matrix(x[:size]), f, f * f.T + mp.diag(x[-size:])

    def own(self, x, over_loc, over):
        slopes, size = 2 * over * self.covariance(x)[1], self.size(x)
        factor = [slopes[i, j] for i in range(size) for j in range(self.RANK)]
        return list(over_loc) + factor + [over[i, i] for i in range(size)]


COLUMNS = {
    "probs": Discrete("probs"), "logits": Discrete("logits"), "normal": Normals(), "mvn": Dense(), "lowrank": Thin(),
    "expfam": Families(),
}  # fmt: skip
