"""kljax: divergences between probability distributions in JAX, right to the last digits and in the gradient.

Columns are representations of a distribution, rows are quantities, and a cell is `kljax.<column>.<row>(p, q)`, p first,
in nats, without any reduction over the batch; x is the quantity itself, b a bound, - a hole:

                        probs  logits  heads  normal  mvn  lowrank  mixture  expfam
    entropy             x      x       -      x       x    x        -        x
    cross_entropy       x      x       -      x       x    x        -        x
    kl                  x      x       x      x       x    x        -        x
    reverse_kl          x      x       x      x       x    x        -        x
    jeffreys            x      x       x      x       x    x        -        x
    js                  x      x       x      x       -    -        -        -
    js_distance         x      x       -      x       -    -        -        -
    scaled_js           x      x       x      -       -    -        -        -
    tv                  x      x       x      x       -    -        -        -
    hellinger_sq        x      x       x      x       x    x        -        x
    hellinger           x      x       -      x       x    x        -        x
    bhattacharyya       x      x       -      x       x    x        -        x
    renyi               x      x       x      x       x    x        -        x
    tsallis             x      x       -      x       x    x        -        x
    alpha               x      x       x      x       x    x        -        x
    chi2                x      x       -      x       x    x        -        x
    le_cam              x      x       -      -       -    -        -        -
    hockey_stick        x      x       -      -       -    -        -        -
    geometric_js        x      x       -      x       x    x        -        -
    f_divergence        x      x       -      -       -    -        -        -
    contributions       x      x       -      -       -    -        -        -
    fisher_rao          x      x       -      x       -    -        -        -
    wasserstein1        x      x       -      -       -    -        -        -
    wasserstein2        -      -       -      x       x    -        -        -
    js_many             x      x       -      -       -    -        -        -
    renyi_entropy       x      x       -      -       -    -        -        -
    tsallis_entropy     x      x       -      -       -    -        -        -
    mutual_information  x      -       -      -       -    -        -        -
    generalized_kl      x      -       -      -       -    -        -        -
    top_k               -      x       -      -       -    -        -        -
    coarsen             -      x       -      -       -    -        -        -
    tv_lower            -      -       -      b       b    b        -        -
    tv_upper            -      -       -      b       b    b        -        -
    js_lower            -      -       -      b       b    b        -        -
    js_upper            -      -       -      b       b    b        -        -
    tv_shared           -      -       -      -       x    -        -        -
    kl_lower            -      -       -      -       -    -        b        -
    kl_upper            -      -       -      -       -    -        b        -
    kl_variational      -      -       -      -       -    -        x        -
    kl_product          -      -       -      -       -    -        x        -
    entropy_lower       -      -       -      -       -    -        b        -
    entropy_upper       -      -       -      -       -    -        b        -
    kl_natural          -      -       -      -       -    -        -        x
    renyi_natural       -      -       -      -       -    -        -        x
    log_prob            -      -       -      x       x    x        x        -
    sample              -      -       -      x       x    x        x        -
    loss                -      -       x      -       -    -        -        -

Verbs: `compare(p, q)` prints every row of a pair of batches, `check(p)` finds what is wrong with a distribution,
`pairwise(cell, P, Q)` is the matrix of all pairs of rows, by tiles and on all devices, `sweep` the same on disk,
`fit(loss, params)` minimises a function of a pytree. The f-divergences themselves are the table in `kljax.rows`;
`kljax.interop.convert` reads the distribution objects of distrax, TFP, numpyro and torch.

From draws, `kljax.samples` estimates (`estimate`, `kl_estimate`, `monte_carlo`, `knn_kl`, `knn_entropy`), measures
(`mmd_sq`, `energy`, `wasserstein1`, `sliced_wasserstein`, `histogram`) and tests (`permutation_test`, `bootstrap`);
`kljax.variational` has the bounds that a critic gives: `f_gan`, `donsker_varadhan`, `nwj`.
"""

from kljax import expfam, heads, interop, logits, lowrank, mixture, mvn, normal, probs, rows, samples, variational
from kljax._compare import compare
from kljax._fit import Fit, fit
from kljax._pairwise import pairwise
from kljax._sweep import sweep
from kljax._validate import check

__all__ = [
    "Fit", "check", "compare", "expfam", "fit", "heads", "interop", "logits", "lowrank", "mixture", "mvn", "normal",
    "pairwise", "probs", "rows", "samples", "sweep", "variational",
]  # fmt: skip
__version__ = "0.1.0"
