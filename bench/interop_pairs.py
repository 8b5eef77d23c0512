"""Every KL pair of the families of `kljax.interop` that distrax, TFP, numpyro and torch have, beside kljax's.

python bench/interop_pairs.py

Random and nearly equal float32 parameters; the true values are the textbook formulas in 60 digits. For each pair: the
worst relative difference of the two, the worst error of each in eps of float32, and who is right where they differ.
Libraries that are not installed are left out.
"""

import importlib
import warnings

import jax.numpy as jnp
import mpmath as mp
import numpy as np

import kljax

EPS = float(np.finfo(np.float32).eps)
COUNT = 16
SIZE = 3
mp.mp.dps = 60


# parameters


def _positive(rng, *shape):
    return np.exp(0.7 * rng.normal(size=shape))


def _tril(rng):
    lower = np.tril(0.5 * rng.normal(size=(COUNT, SIZE, SIZE)), -1)
    return lower + _positive(rng, COUNT, 1, SIZE) * np.eye(SIZE)


def _probs(rng):
    x = _positive(rng, COUNT, 5)
    return x / x.sum(-1, keepdims=True)


PARAMETERS = {
    "Normal": lambda r: (r.normal(size=COUNT), _positive(r, COUNT)),
    "Independent(Normal)": lambda r: (r.normal(size=(COUNT, SIZE)), _positive(r, COUNT, SIZE)),
    "diagonal MVN": lambda r: (r.normal(size=(COUNT, SIZE)), _positive(r, COUNT, SIZE)),
    "MVN (scale_tril)": lambda r: (r.normal(size=(COUNT, SIZE)), _tril(r)),
    "low-rank MVN": lambda r: (
        r.normal(size=(COUNT, SIZE)),
        r.normal(size=(COUNT, SIZE, 1)),
        _positive(r, COUNT, SIZE),
    ),
    "Categorical(probs)": lambda r: (_probs(r),),
    "Categorical(logits)": lambda r: (2 * r.normal(size=(COUNT, 5)),),
    "Bernoulli(probs)": lambda r: (r.uniform(0.02, 0.98, COUNT),),
    "Bernoulli(logits)": lambda r: (2 * r.normal(size=COUNT),),
    "Beta": lambda r: (_positive(r, COUNT), _positive(r, COUNT)),
    "Gamma": lambda r: (_positive(r, COUNT), _positive(r, COUNT)),
    "Dirichlet": lambda r: (_positive(r, COUNT, 4),),
    "Poisson": lambda r: (_positive(r, COUNT),),
    "Exponential": lambda r: (_positive(r, COUNT),),
    "Laplace": lambda r: (r.normal(size=COUNT), _positive(r, COUNT)),
    "Geometric": lambda r: (r.uniform(0.02, 0.98, COUNT),),
}


# true values of one pair


def _matrix_kl(m, s, n, t):
    inverse = t**-1
    product, d = inverse * s, n - m
    trace = mp.fsum(product[i, i] for i in range(len(m)))
    return (trace - len(m) + (d.T * inverse * d)[0] + mp.log(mp.det(t) / mp.det(s))) / 2


def _mp(x):
    return mp.matrix(np.asarray(x, float).tolist())


def _normal(m, s, n, t):
    m, s, n, t = (np.atleast_1d(x) for x in (m, s, n, t))
    pairs = zip(*([mp.mpf(float(v)) for v in x] for x in (m, s, n, t)), strict=True)
    return mp.fsum(mp.log(d / b) + (b * b + (a - c) ** 2) / (2 * d * d) - mp.mpf(1) / 2 for a, b, c, d in pairs)


def _weights(p, q):
    p, q = ([v / mp.fsum(x) for v in x] for x in (p, q))
    return mp.fsum(a * mp.log(a / b) for a, b in zip(p, q, strict=True))


def _floats(x):
    return [mp.mpf(float(v)) for v in np.atleast_1d(x)]


def _dirichlet(a, b):
    total = mp.fsum(a)
    value = mp.loggamma(total) - mp.loggamma(mp.fsum(b)) - mp.fsum(mp.loggamma(x) for x in a)
    value += mp.fsum(mp.loggamma(x) for x in b)
    return value + mp.fsum((x - y) * (mp.digamma(x) - mp.digamma(total)) for x, y in zip(a, b, strict=True))


def _gamma(a, b, c, d):
    return (a - c) * mp.digamma(a) - mp.loggamma(a) + mp.loggamma(c) + c * mp.log(b / d) + a * (d - b) / b


def _laplace(m, s, n, t):
    return mp.log(t / s) + (s * mp.exp(-abs(m - n) / s) + abs(m - n)) / t - 1


def _scalars(function):
    return lambda *x: function(*(mp.mpf(float(v)) for v in x))


TRUE = {
    "Normal": _normal,
    "Independent(Normal)": _normal,
    "diagonal MVN": _normal,
    "MVN (scale_tril)": lambda m, s, n, t: _matrix_kl(_mp(m), _mp(s) * _mp(s).T, _mp(n), _mp(t) * _mp(t).T),
    "low-rank MVN": lambda m, f, d, n, g, e: _matrix_kl(
        _mp(m), _mp(f) * _mp(f).T + mp.diag(_floats(d)), _mp(n), _mp(g) * _mp(g).T + mp.diag(_floats(e))
    ),
    "Categorical(probs)": lambda p, q: _weights(_floats(p), _floats(q)),
    "Categorical(logits)": lambda p, q: _weights(*([mp.exp(v) for v in _floats(x)] for x in (p, q))),
    "Bernoulli(probs)": _scalars(lambda p, q: _weights([p, 1 - p], [q, 1 - q])),
    "Bernoulli(logits)": _scalars(lambda p, q: _weights([mp.exp(p), mp.mpf(1)], [mp.exp(q), mp.mpf(1)])),
    "Beta": _scalars(lambda a, b, c, d: _dirichlet([a, b], [c, d])),
    "Gamma": _scalars(_gamma),
    "Dirichlet": lambda a, b: _dirichlet(_floats(a), _floats(b)),
    "Poisson": _scalars(lambda a, b: a * mp.log(a / b) - a + b),
    "Exponential": _scalars(lambda a, b: mp.log(a / b) + b / a - 1),
    "Laplace": _scalars(_laplace),
    "Geometric": _scalars(lambda p, q: mp.log(p / q) + (1 - p) / p * mp.log((1 - p) / (1 - q))),
}


# libraries: how a family is made, and the KL


def _distrax():
    d = importlib.import_module("distrax")
    make = {
        "Normal": d.Normal,
        "Independent(Normal)": lambda m, s: d.Independent(d.Normal(m, s), 1),
        "diagonal MVN": d.MultivariateNormalDiag,
        "MVN (scale_tril)": d.MultivariateNormalTri,
        "Categorical(probs)": lambda p: d.Categorical(probs=p),
        "Categorical(logits)": lambda x: d.Categorical(logits=x),
        "Bernoulli(probs)": lambda p: d.Bernoulli(probs=p),
        "Bernoulli(logits)": lambda x: d.Bernoulli(logits=x),
        "Beta": d.Beta, "Gamma": d.Gamma, "Dirichlet": d.Dirichlet, "Laplace": d.Laplace,
    }  # fmt: skip
    return make, lambda p, q: p.kl_divergence(q), jnp.asarray


def _tfp():
    d = importlib.import_module("tensorflow_probability.substrates.jax").distributions
    make = {
        "Normal": d.Normal,
        "Independent(Normal)": lambda m, s: d.Independent(d.Normal(m, s), 1),
        "diagonal MVN": d.MultivariateNormalDiag,
        "MVN (scale_tril)": d.MultivariateNormalTriL,
        "low-rank MVN": lambda m, f, v: d.MultivariateNormalDiagPlusLowRankCovariance(m, v, f),
        "Categorical(probs)": lambda p: d.Categorical(probs=p),
        "Categorical(logits)": lambda x: d.Categorical(logits=x),
        "Bernoulli(probs)": lambda p: d.Bernoulli(probs=p),
        "Bernoulli(logits)": lambda x: d.Bernoulli(logits=x),
        "Beta": d.Beta, "Gamma": d.Gamma, "Dirichlet": d.Dirichlet, "Laplace": d.Laplace, "Poisson": d.Poisson,
        "Exponential": d.Exponential, "Geometric": lambda p: d.Geometric(probs=p),
    }  # fmt: skip
    return make, d.kl_divergence, jnp.asarray


def _numpyro():
    d = importlib.import_module("numpyro.distributions")
    make = _of_pyro(d) | {"Independent(Normal)": lambda m, s: d.Independent(d.Normal(m, s), 1)}
    return make, d.kl.kl_divergence, jnp.asarray


def _torch():
    torch, d = importlib.import_module("torch"), importlib.import_module("torch.distributions")
    make = _of_pyro(d) | {"Independent(Normal)": lambda m, s: d.Independent(d.Normal(m, s), 1)}
    return make, d.kl_divergence, torch.from_numpy


def _of_pyro(d):
    return {
        "Normal": d.Normal,
        "MVN (scale_tril)": lambda m, s: d.MultivariateNormal(m, scale_tril=s),
        "low-rank MVN": d.LowRankMultivariateNormal,
        "Categorical(probs)": lambda p: d.Categorical(probs=p),
        "Categorical(logits)": lambda x: d.Categorical(logits=x),
        "Bernoulli(probs)": lambda p: d.Bernoulli(probs=p),
        "Bernoulli(logits)": lambda x: d.Bernoulli(logits=x),
        "Beta": d.Beta, "Gamma": d.Gamma, "Dirichlet": d.Dirichlet, "Laplace": d.Laplace, "Poisson": d.Poisson,
        "Exponential": d.Exponential, "Geometric": lambda p: d.Geometric(probs=p),
    }  # fmt: skip


LIBRARIES = {"distrax": _distrax, "tfp": _tfp, "numpyro": _numpyro, "torch": _torch}


def ours(p, q, whole):
    """kl of two distributions of a library, through `convert`."""
    p, q = kljax.interop.convert(p), kljax.interop.convert(q)
    if isinstance(p, kljax.normal.Normal):
        return kljax.normal.kl(p, q, axis=-1 if whole else ())
    for column in (kljax.mvn, kljax.lowrank):
        if type(p).__module__ == column.__name__:
            return column.kl(p, q)
    return kljax.expfam.kl(p, q)


def inputs(family, near, seed=0):
    """float32 parameters of COUNT pairs, independent ones or ones that differ by about 1e-3."""
    rng = np.random.default_rng(seed)
    p, q = (PARAMETERS[family](rng) for _ in range(2))
    if near:
        q = tuple(a + 1e-3 * (b - a) for a, b in zip(p, q, strict=True))
    return [tuple(np.asarray(x, np.float32) for x in side) for side in (p, q)]


def compared(library, family, near):
    """Worst relative difference and the worst errors of kljax and of the library, in eps."""
    make, kl, array = library
    p, q = inputs(family, near)
    made = [make[family](*(array(x) for x in side)) for side in (p, q)]
    got = np.asarray(ours(*made, family != "Normal"), float)
    theirs = np.asarray(kl(*made), float)
    true = [TRUE[family](*(x[i] for x in (*p, *q))) for i in range(COUNT)]
    errors = [max(float(abs(mp.mpf(v) - t) / t) / EPS for v, t in zip(x, true, strict=True)) for x in (got, theirs)]
    return float(np.max(np.abs(got - theirs) / np.asarray(true, float))), *errors


def table():
    """Lines of (library, family, inputs, difference, error of kljax, error of the library), or what is raised."""
    for name, load in LIBRARIES.items():
        try:
            library = load()
        except ImportError:
            print(f"{name}: not installed")
            continue
        for family in library[0]:
            for near in (False, True):
                try:
                    yield name, family, near, *compared(library, family, near)
                except NotImplementedError:
                    yield name, family, near, None, None, None


def main():
    """Print the table."""
    warnings.simplefilter("ignore")
    print(f"{'library':9}{'pair':22}{'inputs':8}{'difference':>11}{'kljax, eps':>13}{'theirs, eps':>13}  right")
    for name, family, near, difference, mine, theirs in table():
        if difference is None:
            print(f"{name:9}{family:22}{'':8}{'no KL':>11}")
            continue
        both = max(mine, theirs) < 64
        right = "both" if both else "kljax" if mine < theirs else name
        kind = "near" if near else "random"
        print(f"{name:9}{family:22}{kind:8}{difference:11.2e}{mine:13.2f}{theirs:13.4g}  {right}", flush=True)


if __name__ == "__main__":
    main()
