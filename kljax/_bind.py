"""How a cell becomes public: the column's first argument dropped, name, signature and docstring completed, jitted.

Cells are written once, for every column that can have them, as functions whose first argument is the column.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")

STATIC = ("axis", "axes", "over", "k", "block")  # arguments that shapes depend on


def public(
    column: Any,
    function: Callable[Concatenate[Any, P], T],
    text: Mapping[str, str],
    extra: tuple[inspect.Parameter, ...] = (),
) -> Callable[P, T]:
    """The cell of one column: `text` fills in the @words of its docstring, `extra` stands for a `**shape` argument."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        parameters[-1:] = extra
    signature = signature.replace(parameters=parameters)

    def cell(*args, **kwargs):
        return function(column, *args, **kwargs)

    cell.__name__ = cell.__qualname__ = function.__name__.lstrip("_")
    cell.__module__ = f"kljax.{column.name}"
    cell.__signature__ = signature  # type: ignore[attr-defined]
    cell.__annotations__ = {k: v for k, v in function.__annotations__.items() if k not in ("column", "shape")}
    doc = function.__doc__ or ""
    for key, value in text.items():
        doc = doc.replace(key, value)
    cell.__doc__ = doc
    return jax.jit(cell, static_argnames=[name for name in STATIC if name in signature.parameters])
