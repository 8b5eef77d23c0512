"""What goes wrong elsewhere: the lines that the README prints, from the peers that are installed here.

python bench/peers.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.spatial.distance import jensenshannon

import kljax


def main() -> None:
    """Print each peer's answer beside kljax's."""
    rng = np.random.default_rng(0)
    a = (2 * rng.normal(size=1000)).astype(np.float32)
    b = (a + 1e-4 * rng.normal(size=1000)).astype(np.float32)
    wide = [jax.nn.log_softmax(jnp.asarray(x)) for x in (a, b)]
    print(
        "optax, KL of two near models:   ",
        optax.kl_divergence(wide[1], jnp.exp(wide[0])),
        "kljax:",
        kljax.logits.kl(a, b),
    )
    q, p = jnp.array([0.5, 1.0, 2.0, -1.0]), jnp.array([0.0, 0.4, 0.6, 0.0])
    theirs = jax.grad(lambda t: optax.kl_divergence(jax.nn.log_softmax(q), t))(p)
    ours = jax.grad(lambda t: kljax.probs.kl(t, jax.nn.softmax(q)))(p)
    print("optax, its gradient at a zero:  ", theirs, "kljax:", ours)
    x = np.array([0.027501475, 0.055202297], np.float32)
    y = np.array([0.027537677, 0.055334348], np.float32)
    print("scipy, Jensen-Shannon distance: ", jensenshannon(x, y), "kljax:", kljax.probs.js_distance(x, y))
    x, y = jnp.exp(wide[0]), jnp.exp(wide[1])
    print("by hand, 1 - sum(sqrt(p * q)):  ", 1 - jnp.sum(jnp.sqrt(x * y)), "kljax:", kljax.logits.hellinger_sq(a, b))


if __name__ == "__main__":
    main()
