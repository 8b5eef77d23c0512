"""The cases of fifty thousand outcomes, which the corpus stores as a rule."""

import jax
import jax.numpy as jnp
import numpy as np

from tests import accuracy, corpus, matrix


def expand(rule: dict) -> tuple[np.ndarray, np.ndarray]:
    """The logits of a case that is stored as a rule."""

    def stream(seed):
        while True:
            seed = (1664525 * seed + 1013904223) % 2**32
            yield seed

    def independent(seed, shift):
        source = stream(seed)
        return np.array([((next(source) >> 9) - 2**22) * 2.0**-shift for _ in range(rule["K"])], np.float32)

    assert rule["rule"] == "lcg_independent", rule
    return independent(rule["seed_p"], rule["shift_p"]), independent(rule["seed_q"], rule["shift_q"])


def huge(column: str, name: str, dtype: str) -> dict[str, tuple[float, float]]:
    """Errors of the cases that are stored as a rule, and what is allowed: values and the gradients that are probed."""
    function, errors = corpus.cell(column, name), {}
    for case in corpus.golden():
        if case["rep"] != column or "rule" not in case["params"]:
            continue
        with corpus.x64(dtype):
            p, q = (jnp.asarray(x, dtype) for x in expand(case["params"]))
            for quantity, text in case["values"].items():
                for known, swapped, options, divisor in matrix.from_golden(quantity):
                    if known != name or swapped or options not in matrix.options(name):
                        continue
                    with accuracy.digits:
                        true = accuracy.exact(accuracy.number(text) / divisor)
                    traced = {k: jnp.asarray(v, dtype) for k, v in options.items()}
                    value, gradients = jax.jit(jax.value_and_grad(function, (0, 1)))(p, q, **traced)
                    absolute = name == "hockey_stick"
                    found = float(accuracy.value_errors(value, true, dtype, absolute=absolute))
                    errors[f"{case['id']} {corpus.key(options)}"] = found, accuracy.VALUE
                    errors |= _probed(case, quantity, gradients, dtype)
    return errors


def _probed(case, quantity, gradients, dtype):
    probe, found = case["grad_probe"], {}
    for side, g in zip("pq", gradients, strict=True):
        if f"{quantity}|{side}" in probe["grads"]:
            true = accuracy.exact(probe["grads"][f"{quantity}|{side}"])
            error = float(accuracy.norm_errors(np.asarray(g)[probe["indices"]], true, dtype))
            found[f"{case['id']} {quantity}|{side}"] = error, accuracy.GRADIENT
    return found
