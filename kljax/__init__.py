"""kljax: divergences between probability distributions in JAX, right to the last digits and in the gradient."""

from kljax import logits, probs, rows

__version__ = "0.1.0"
