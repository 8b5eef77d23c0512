"""kljax: divergences between probability distributions in JAX, right to the last digits and in the gradient.

Columns are representations of a distribution, rows are quantities, and a cell is `kljax.<column>.<row>(p, q)`, p first,
in nats, over the last axis, without any reduction over the batch:

                        probs  logits
    entropy             x      x
    cross_entropy       x      x
    kl                  x      x
    reverse_kl          x      x
    jeffreys            x      x
    js                  x      x
    js_distance         x      x
    scaled_js           x      x
    tv                  x      x
    hellinger_sq        x      x
    hellinger           x      x
    bhattacharyya       x      x
    renyi               x      x
    tsallis             x      x
    alpha               x      x
    chi2                x      x
    le_cam              x      x
    hockey_stick        x      x
    geometric_js        x      x
    f_divergence        x      x
    contributions       x      x
    fisher_rao          x      x
    wasserstein1        x      x
    js_many             x      x
    renyi_entropy       x      x
    tsallis_entropy     x      x
    mutual_information  x      -
    generalized_kl      x      -
    top_k               -      x
    coarsen             -      x

Verbs: `compare(p, q)` prints every row of a pair of batches, `check(p)` finds what is wrong with a distribution. The
f-divergences themselves are the table in `kljax.rows`.
"""

from kljax import expfam, interop, logits, lowrank, mixture, mvn, normal, probs, rows
from kljax._compare import compare
from kljax._validate import check

__all__ = [
    "check", "compare", "expfam", "interop", "logits", "lowrank", "mixture", "mvn", "normal", "probs", "rows",
]  # fmt: skip
__version__ = "0.1.0"
