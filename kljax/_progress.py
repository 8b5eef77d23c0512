"""How far a long piece of work is, on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kljax._files import CLI_EXTRA

_SELDOM = 30.0  # seconds between two lines of a log


@contextmanager
def bar(total: int, unit: str, *, show: bool = True) -> Iterator[Callable[[int], Any]]:
    """A callback that is told how much more is done, and moves a bar with rate and time left."""
    if not show:
        yield lambda done: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        print(f"kljax: no progress bar without tqdm: {CLI_EXTRA}", file=sys.stderr)
        yield lambda done: None
        return
    often = 0.1 if sys.stderr.isatty() else _SELDOM
    with tqdm(
        total=total, unit=f" {unit}", unit_scale=True, leave=False, mininterval=often, maxinterval=often
    ) as shown:
        yield shown.update
