"""What `kljax.fit` finds where the optimum is known, and what estimators from draws find over 1,000 repetitions.

python -m bench.recovery [--repetitions 1000]
prints two tables: the value at the start, reached and exact, and the largest error of any parameter; then bias, spread,
reported standard error and how often the truth lies within 1.96 of it.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kljax
from bench import cases
from kljax.mvn import MVN
from kljax.normal import LogScaleNormal, Normal

# of two distributions, and least where they agree alone
ROWS = tuple(name for name in cases.TEXTBOOK if name not in (*cases.ONE, "hockey_stick"))
SOLVERS = {
    "Adam": lambda: None,
    "L-BFGS": optax.lbfgs,
}


def optimum(name: str) -> tuple[kljax.Fit, float, float]:
    """A softmax of 8 outcomes pulled to p by a row: the run, the exact value and the largest error of q."""
    p = jnp.log(jax.random.dirichlet(jax.random.key(0), jnp.ones(8)))
    cell = cases.ours("logits", name)
    run = kljax.fit(lambda q: cell(p, q), jnp.zeros(8))
    exact = float(kljax.logits.entropy(p)) if name == "cross_entropy" else 0.0
    return run, exact, float(jnp.abs(jax.nn.softmax(run.params) - jnp.exp(p)).max())


def _correlated() -> MVN:
    """Three correlated coordinates."""
    return MVN(jnp.array([1.0, -2.0, 0.5]), jnp.array([[1.0, 0, 0], [0.8, 0.6, 0], [-0.5, 0.7, 1.2]]))


def _diagonal(q: LogScaleNormal) -> MVN:
    return MVN(q.loc, jnp.diag(jnp.exp(q.log_scale)))


def projections() -> dict:
    """name: (loss, start, the exact parameters): KL projections with a closed form."""
    p = _correlated()
    covariance = p.scale_tril @ p.scale_tril.T
    start = LogScaleNormal(jnp.zeros(3), jnp.zeros(3))
    moments = LogScaleNormal(p.loc, jnp.log(jnp.diag(covariance)) / 2)
    field = LogScaleNormal(p.loc, -jnp.log(jnp.diag(jnp.linalg.inv(covariance))) / 2)
    x = jax.random.normal(jax.random.key(1), (500, 3)) * jnp.array([1.0, 2.0, 0.1]) + jnp.array([3.0, 0.0, -1.0])
    whole = LogScaleNormal(p.loc, jnp.zeros(3))
    fitted = LogScaleNormal(x.mean(0), jnp.log(x.std(0)))
    return {
        "forward KL, independent coordinates: the moments": (lambda q: kljax.mvn.kl(p, _diagonal(q)), start, moments),
        "reverse KL, independent coordinates: the precisions": (lambda q: kljax.mvn.kl(_diagonal(q), p), start, field),
        "forward KL of 500 draws: maximum likelihood": (
            lambda q: -kljax.normal.log_prob(q, x).mean(), start, fitted,
        ),
        "wasserstein2 to a Gaussian: itself": (
            lambda q: kljax.normal.wasserstein2(q, whole) ** 2, LogScaleNormal(jnp.zeros(3), jnp.ones(3)), whole,
        ),
    }  # fmt: skip


def projected(name: str, solver: str) -> tuple[kljax.Fit, float, float]:
    """The run, the exact value and the largest error of a parameter."""
    loss, start, exact = projections()[name]
    run = kljax.fit(loss, start, **({"optimizer": SOLVERS[solver](), "steps": 60} if solver == "L-BFGS" else {}))
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), run.params, exact)
    return run, float(loss(exact)), max(jax.tree.leaves(gaps))


P, Q = Normal(jnp.zeros(2), jnp.ones(2)), Normal(jnp.array([0.5, 0.3]), jnp.array([1.2, 0.9]))


@functools.partial(jax.jit, static_argnums=1)
def estimates(keys: jax.Array, n: int) -> dict[str, kljax.samples.Estimate]:
    """One repetition a key, of n draws of each."""

    def one(key):
        keys, log, s, r = jax.random.split(key, 3), kljax.normal.log_prob, kljax.samples, kljax.rows
        x, y = (kljax.normal.sample(k, d, (n,)) for k, d in zip(keys, (P, Q), strict=False))
        found = {f"kl_estimate {k}": s.kl_estimate(log(P, x), log(Q, x), kind=k) for k in ("k1", "k2", "k3")}
        for name, row in (("kl", r.kl), ("js", r.js()), ("hellinger_sq", r.hellinger_sq), ("tv", r.tv)):
            found[f"estimate {name}"] = s.estimate(row, log(P, y), log(Q, y))
        return found | {"monte_carlo kl": s.monte_carlo(keys[2], kljax.rows.kl, P, Q, n=n, column=kljax.normal)}

    return jax.vmap(one)(keys)


def truths() -> dict[str, float]:
    """By the last word of a name; what has no closed form by quadrature."""
    grid = jnp.linspace(-9, 9, 1201)
    points = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(-1, 2)
    logs = [kljax.normal.log_prob(d, points) for d in (P, Q)]
    kl = float(kljax.normal.kl(P, Q))
    area = float((grid[1] - grid[0]) ** 2)
    k2 = float(jnp.sum(jnp.exp(logs[0]) * (logs[0] - logs[1]) ** 2) * area / 2)
    found = {name: float(getattr(kljax.logits, name)(*logs)) for name in ("js", "tv", "hellinger_sq")}
    return found | {"kl": kl, "k1": kl, "k3": kl, "k2": k2}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    count = parser.parse_args().repetitions
    _table("minimised", "by", "start", "reached", "exact", "error of parameters")
    for name in ROWS:
        _optimum_line(f"`{name}`", "Adam", *optimum(name))
    for name in projections():
        for solver in SOLVERS:
            _optimum_line(name, solver, *projected(name, solver))
    print()
    _table("estimator, n draws", "truth", "bias", "its standard error", "spread", "stderr", "covered")
    true = truths()
    for n in (100, 1000):
        for name, found in estimates(jax.random.split(jax.random.key(0), count), n).items():
            value, stderr = (np.asarray(x, float) for x in found)
            exact, spread = true[name.split()[-1]], value.std()
            bias, covered = value.mean() - exact, (abs(value - exact) < 1.96 * stderr).mean()
            numbers = f"{bias:.1e}", f"{spread / count**0.5:.1e}", f"{spread:.4f}", f"{stderr.mean():.4f}"
            _line(f"`{name}`, {n}", f"{exact:.4f}", *numbers, f"{covered:.3f}")


def _table(*heads: str) -> None:
    _line(*heads)
    _line(*["---"] * len(heads))


def _line(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def _optimum_line(name: str, solver: str, run: kljax.Fit, exact: float, error: float) -> None:
    _line(name, solver, f"{run.losses[0]:.4f}", f"{run.losses[-1]:.6g}", f"{exact:.6g}", f"{error:.1e}")


if __name__ == "__main__":
    main()
