"""Every public call of other libraries for a divergence, and the call of kljax with the same number.

python -m bench.migration [--page]

Both calls are text that is evaluated: what is printed, or written to the page of the documentation by --page, is
what was run. `SAME` is held to agree in float64 on distributions that are well apart; `WRONG` shows both answers beside
that of kljax in float64, on float32 numbers where the other call has lost its digits or has no gradient. Libraries that
are not installed are left out: pip install ".[peers]".
"""

import argparse
import importlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

import kljax

PAGE = Path(__file__).parent.parent / "notebooks" / "site" / "migration.md"
MARK = "<!-- bench.migration -->"


class Call(NamedTuple):
    """The same number twice."""

    library: str
    there: str
    here: str


class Wrong(NamedTuple):
    """Two answers to one question; `case` names the numbers."""

    library: str
    why: str
    case: str
    there: str
    here: str


LIBRARIES = {  # name in the text: module
    "optax": "optax", "jss": "jax.scipy.special", "ss": "scipy.special", "st": "scipy.stats",
    "distance": "scipy.spatial.distance", "torch": "torch", "F": "torch.nn.functional", "td": "torch.distributions",
    "tfd": "tensorflow_probability.substrates.jax.distributions", "tfp_vi": "tensorflow_probability.substrates.jax.vi",
    "distrax": "distrax", "nd": "numpyro.distributions",
}  # fmt: skip

_NORMAL = "kljax.normal.kl(kljax.normal.Normal(m, s), kljax.normal.Normal(n, t), axis=())"
_MVN = "kljax.mvn.kl(kljax.mvn.MVN(m, L), kljax.mvn.MVN(n, R))"
_DIAGONAL = "kljax.normal.kl(kljax.normal.Normal(m, s), kljax.normal.Normal(n, t))"
_GAMMA = "kljax.expfam.kl(kljax.expfam.Gamma(s, t), kljax.expfam.Gamma(t, s))"
_BETA = "kljax.expfam.kl(kljax.expfam.Beta(s, t), kljax.expfam.Beta(t, s))"
_DIRICHLET = "kljax.expfam.kl(kljax.expfam.Dirichlet(s), kljax.expfam.Dirichlet(t))"

SAME = [
    Call("optax", "optax.losses.kl_divergence(log_q, p)", "kljax.probs.kl(p, q)"),
    Call("optax", "optax.losses.kl_divergence_with_log_targets(log_q, log_p)", "kljax.logits.kl(log_p, log_q)"),
    Call("optax", "optax.losses.convex_kl_divergence(log_q, p)", "kljax.probs.generalized_kl(p, q)"),
    Call("optax", "optax.losses.softmax_cross_entropy(b, p)", "kljax.logits.cross_entropy(log_p, b)"),
    Call("optax", "optax.losses.safe_softmax_cross_entropy(b, p)", "kljax.logits.cross_entropy(log_p, b)"),
    Call("jax.scipy", "jss.rel_entr(p, q).sum(-1)", "kljax.probs.kl(p, q)"),
    Call("jax.scipy", "jss.kl_div(p, q)", "kljax.probs.contributions(p, q)"),
    Call("jax.scipy", "jss.kl_div(2 * p, q).sum(-1)", "kljax.probs.generalized_kl(2 * p, q)"),
    Call("jax.scipy", "jss.entr(p).sum(-1)", "kljax.probs.entropy(p)"),
    Call("scipy", "st.entropy(p, axis=-1)", "kljax.probs.entropy(p)"),
    Call("scipy", "st.entropy(p, q, axis=-1)", "kljax.probs.kl(p, q)"),
    Call("scipy", "ss.rel_entr(p, q).sum(-1)", "kljax.probs.kl(p, q)"),
    Call("scipy", "ss.kl_div(p, q)", "kljax.probs.contributions(p, q)"),
    Call("scipy", "ss.kl_div(2 * p, q).sum(-1)", "kljax.probs.generalized_kl(2 * p, q)"),
    Call("scipy", "ss.entr(p).sum(-1)", "kljax.probs.entropy(p)"),
    Call("scipy", "distance.jensenshannon(p, q, axis=-1)", "kljax.probs.js_distance(p, q)"),
    Call("scipy", "distance.cdist(p, q, 'jensenshannon')", "kljax.pairwise(kljax.probs.js_distance, p, q)"),
    Call("scipy", "distance.cdist(p, q, 'cityblock') / 2", "kljax.pairwise(kljax.probs.tv, p, q)"),
    Call("scipy", "st.wasserstein_distance(x, x, p[0], q[0])", "kljax.probs.wasserstein1(p[0], q[0], positions=x)"),
    Call("scipy", "st.wasserstein_distance(m[0], n[0])", "kljax.samples.wasserstein1(m[0], n[0])"),
    Call("scipy", "st.energy_distance(m[0], n[0]) ** 2", "kljax.samples.energy(m[0], n[0], unbiased=False)"),
    Call("scipy", "st.norm(m, s).entropy()", "kljax.normal.entropy(kljax.normal.Normal(m, s), axis=())"),
    Call("scipy", "st.multivariate_normal(m[0], L[0] @ L[0].T).entropy()",
         "kljax.mvn.entropy(kljax.mvn.MVN(m[0], L[0]))"),
    Call("torch", "F.kl_div(log_q, p, reduction='batchmean')", "kljax.probs.kl(p, q).mean()"),
    Call("torch", "F.kl_div(log_q, log_p, reduction='none', log_target=True).sum(-1)", "kljax.logits.kl(log_p, log_q)"),
    Call("torch", "F.cross_entropy(b, p)", "kljax.logits.cross_entropy(log_p, b).mean()"),
    Call("torch", "td.kl_divergence(td.Categorical(logits=a), td.Categorical(logits=b))", "kljax.logits.kl(a, b)"),
    Call("torch", "td.Categorical(logits=a).entropy()", "kljax.logits.entropy(a)"),
    Call("torch", "td.kl_divergence(td.Normal(m, s), td.Normal(n, t))", _NORMAL),
    Call("torch",
         "td.kl_divergence(td.Independent(td.Normal(m, s), 1), td.Independent(td.Normal(n, t), 1))", _DIAGONAL),
    Call("torch",
         "td.kl_divergence(td.MultivariateNormal(m, scale_tril=L), td.MultivariateNormal(n, scale_tril=R))", _MVN),
    Call("torch", "td.kl_divergence(td.Gamma(s, t), td.Gamma(t, s))", _GAMMA),
    Call("torch", "td.kl_divergence(td.Beta(s, t), td.Beta(t, s))", _BETA),
    Call("torch", "td.kl_divergence(td.Dirichlet(s), td.Dirichlet(t))", _DIRICHLET),
    Call("TFP", "tfd.kl_divergence(tfd.Categorical(logits=a), tfd.Categorical(logits=b))", "kljax.logits.kl(a, b)"),
    Call("TFP", "tfd.Categorical(logits=a).cross_entropy(tfd.Categorical(logits=b))",
         "kljax.logits.cross_entropy(a, b)"),
    Call("TFP", "tfd.Normal(m, s).kl_divergence(tfd.Normal(n, t))", _NORMAL),
    Call("TFP", "tfd.MultivariateNormalDiag(m, s).kl_divergence(tfd.MultivariateNormalDiag(n, t))", _DIAGONAL),
    Call("TFP", "tfd.MultivariateNormalTriL(m, L).kl_divergence(tfd.MultivariateNormalTriL(n, R))", _MVN),
    Call("TFP", "tfd.Gamma(s, t).kl_divergence(tfd.Gamma(t, s))", _GAMMA),
    Call("TFP", "tfd.Beta(s, t).kl_divergence(tfd.Beta(t, s))", _BETA),
    Call("TFP", "tfd.Dirichlet(s).kl_divergence(tfd.Dirichlet(t))", _DIRICHLET),
    *(Call("TFP", f"(q * tfp_vi.{theirs}(log_p - log_q)).sum(-1)", ours) for theirs, ours in (
        ("kl_forward", "kljax.probs.kl(p, q)"), ("kl_reverse", "kljax.probs.reverse_kl(p, q)"),
        ("jeffreys", "kljax.probs.jeffreys(p, q) / 2"), ("pearson", "kljax.probs.chi2(p, q)"),
        ("total_variation", "kljax.probs.tv(p, q)"), ("squared_hellinger", "2 * kljax.probs.hellinger_sq(p, q)"),
        ("triangular", "kljax.probs.le_cam(p, q)"),
    )),
    Call("distrax", "distrax.Categorical(logits=a).kl_divergence(distrax.Categorical(logits=b))",
         "kljax.logits.kl(a, b)"),
    Call("distrax", "distrax.Categorical(probs=p).entropy()", "kljax.probs.entropy(p)"),
    Call("distrax", "distrax.Normal(m, s).kl_divergence(distrax.Normal(n, t))", _NORMAL),
    Call("distrax",
         "distrax.MultivariateNormalDiag(m, s).kl_divergence(distrax.MultivariateNormalDiag(n, t))", _DIAGONAL),
    Call("distrax", "distrax.MultivariateNormalTri(m, L).kl_divergence(distrax.MultivariateNormalTri(n, R))", _MVN),
    Call("numpyro", "nd.kl_divergence(nd.CategoricalProbs(p), nd.CategoricalProbs(q))", "kljax.probs.kl(p, q)"),
    Call("numpyro", "nd.kl_divergence(nd.Normal(m, s), nd.Normal(n, t))", _NORMAL),
    Call("numpyro", "nd.kl_divergence(nd.Normal(m, s).to_event(1), nd.Normal(n, t).to_event(1))", _DIAGONAL),
    Call("numpyro", "nd.kl_divergence(nd.MultivariateNormal(m, scale_tril=L), nd.MultivariateNormal(n, scale_tril=R))",
         _MVN),
    Call("numpyro", "nd.kl_divergence(nd.Gamma(s, t), nd.Gamma(t, s))", _GAMMA),
    Call("numpyro", "nd.kl_divergence(nd.Beta(s, t), nd.Beta(t, s))", _BETA),
    Call("numpyro", "nd.kl_divergence(nd.Dirichlet(s), nd.Dirichlet(t))", _DIRICHLET),
]  # fmt: skip

_SOFT = ("two near models: terms of either sign cancel", "near")
_SLOPE = ("the gradient at a target of 0 is nan", "zeros")
WRONG = [
    Wrong("optax", *_SOFT, "optax.losses.kl_divergence(log_q, p)", "kljax.probs.kl(p, q)"),
    Wrong("optax", *_SOFT, "optax.losses.kl_divergence_with_log_targets(log_q, log_p)",
          "kljax.logits.kl(log_p, log_q)"),
    Wrong("optax", *_SLOPE, "jax.grad(lambda p: optax.losses.kl_divergence(log_q, p))(p)",
          "jax.grad(kljax.probs.kl)(p, q)"),
    Wrong("jax.scipy", *_SOFT, "jss.rel_entr(p, q).sum(-1)", "kljax.probs.kl(p, q)"),
    Wrong("scipy", *_SOFT, "ss.rel_entr(p, q).sum(-1)", "kljax.probs.kl(p, q)"),
    Wrong("scipy", "two near models: the root of a negative number", "halves", "distance.jensenshannon(p, q)",
          "kljax.probs.js_distance(p, q)"),
    Wrong("torch", *_SOFT, "F.kl_div(log_q, p, reduction='sum')", "kljax.probs.kl(p, q)"),
    Wrong("torch", *_SOFT, "td.kl_divergence(td.Categorical(logits=a), td.Categorical(logits=b))",
          "kljax.logits.kl(a, b)"),
    Wrong("TFP", *_SOFT, "tfd.kl_divergence(tfd.Categorical(logits=a), tfd.Categorical(logits=b))",
          "kljax.logits.kl(a, b)"),
    Wrong("TFP", "a ratio of e^100: the generator overflows", "far",
          "(q * tfp_vi.jensen_shannon(log_p - log_q, self_normalized=True)).sum(-1)",
          "2 * kljax.logits.js(log_p, log_q)"),
    Wrong("distrax", *_SOFT, "distrax.Categorical(logits=a).kl_divergence(distrax.Categorical(logits=b))",
          "kljax.logits.kl(a, b)"),
    Wrong("numpyro", *_SOFT, "nd.kl_divergence(nd.CategoricalProbs(p), nd.CategoricalProbs(q))",
          "kljax.probs.kl(p, q)"),
]  # fmt: skip


def _named(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    log_p, log_q = log_softmax(a, -1), log_softmax(b, -1)
    return {"a": a, "b": b, "p": np.exp(log_p), "q": np.exp(log_q), "log_p": log_p, "log_q": log_q}


def apart() -> dict[str, np.ndarray]:
    """Distributions that are well apart, in float64: four pairs of 8 outcomes and of Gaussians of 3 coordinates."""
    rng = np.random.default_rng(0)
    m, n = rng.normal(size=(2, 4, 3))
    s, t = np.exp(0.5 * rng.normal(size=(2, 4, 3)))
    lower = np.tril(0.3 * rng.normal(size=(2, 4, 3, 3)), -1) + np.exp(0.5 * rng.normal(size=(2, 4, 3, 1))) * np.eye(3)
    some = {"m": m, "n": n, "s": s, "t": t, "L": lower[0], "R": lower[1], "x": np.arange(8.0)}
    return _named(*rng.normal(size=(2, 4, 8))) | some


def case(name: str) -> dict[str, np.ndarray]:
    """Numbers of float32 where a formula fails."""
    rng = np.random.default_rng(0)
    if name == "near":
        a = 2 * rng.normal(size=1000)
        given = _named(a, a + 1e-4 * rng.normal(size=1000))
    elif name == "zeros":
        given = _named(np.zeros(4), np.array([0.5, 1.0, 2.0, -1.0])) | {"p": np.array([0.0, 0.4, 0.6, 0.0])}
    elif name == "far":
        given = _named(np.array([100.0, 0.0]), np.array([0.0, 100.0]))
    else:
        given = {"p": np.array([0.027501475, 0.055202297]), "q": np.array([0.027537677, 0.055334348])}
    return {key: np.asarray(value, np.float32) for key, value in given.items()}


def _module(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(LIBRARIES[name])
        except ImportError:
            return None


def needed(text: str) -> list[str]:
    """The names of libraries in a text."""
    return [name for name in LIBRARIES if re.search(rf"\b{name}\.", text)]


def missing(text: str) -> list[str]:
    """Modules that a text needs and that are not installed."""
    return [LIBRARIES[name] for name in needed(text) if _module(name) is None]


def value(text: str, given: dict[str, np.ndarray]) -> np.ndarray:
    """What a call gives, in the dtype of the numbers."""
    libraries = {name: _module(name) for name in needed(text)}
    wrap: Callable = jnp.asarray
    if {"torch", "F", "td"} & set(libraries):
        wrap = _module("torch").asarray
    elif {"ss", "st", "distance"} & set(libraries):
        wrap = np.asarray
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return np.asarray(
            eval(text, {"jax": jax, "kljax": kljax, **libraries, **{k: wrap(v) for k, v in given.items()}})
        )


def answers(wrong: Wrong) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """There, here, and here in float64, of the same numbers."""
    given = case(wrong.case)
    there, here = value(wrong.there, given), value(wrong.here, given)
    with jax.enable_x64(True):
        return there, here, value(wrong.here, {key: x.astype(np.float64) for key, x in given.items()})


def _text(x: np.ndarray) -> str:
    return np.array2string(x, precision=6, separator=", ", max_line_width=10_000)


def page() -> str:
    """The two tables."""
    lines = ["| from | there | here |", "|---|---|---|"]
    lines += [f"| {call.library} | `{call.there}` | `{call.here}` |" for call in SAME if not missing(call.there)]
    lines += [
        "",
        "## Where the other number is wrong",
        "",
        "| from | why | there | here | in float64 |",
        "|---|---|---|---|---|",
    ]
    for wrong in WRONG:
        if not missing(wrong.there):
            there, here, true = map(_text, answers(wrong))
            lines.append(
                f"| {wrong.library} | {wrong.why} | `{wrong.there}`: {there} | `{wrong.here}`: {here} | {true} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true")
    if parser.parse_args().page:
        head = PAGE.read_text().split(MARK)[0]
        PAGE.write_text(f"{head}{MARK}\n\n{page()}\n")
    else:
        print(page())


if __name__ == "__main__":
    main()
