"""Divergences between probability distributions in JAX: right to the last digits, right in the gradient."""
