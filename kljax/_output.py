"""Files that a command writes: whole or not at all, and refused before the work begins."""

import os
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kljax._files import InputError, file_and_key
from kljax._plot import PLOT_EXTRA


def write(path: str, save: Callable[[str], Any] | None) -> None:
    """Have `save` write beside `path`, then rename, so that nobody sees half a file; None only tries."""
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(target.suffix, f".{target.stem}-", target.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    os.close(handle)
    try:
        if save is not None:
            save(name)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_output(path: str, inputs: Iterable[str | None]) -> None:
    """Raise InputError if a file cannot be written, or is one that is read."""
    check_apart(path, inputs)
    if Path(path).is_dir():
        raise InputError(f"{path}: cannot be written: it is a directory")
    write(path, None)


def check_apart(path: str, inputs: Iterable[str | None]) -> None:
    """Raise InputError if what is to be written is one that is read, or lies in it, or around it."""
    target = Path(path).resolve()
    for name in filter(None, inputs):
        file = Path(file_and_key(name)[0]).resolve()
        if target == file or file in target.parents or (target in file.parents and target.suffix == ".zarr"):
            raise InputError(f"{path}: is an input; it would be overwritten")


def check_figure(option: str, path: str) -> None:
    """Raise InputError if no figure can be drawn there."""
    if find_spec("matplotlib") is None:
        raise InputError(f"{option} needs matplotlib: {PLOT_EXTRA}")
    if Path(path).suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"{option} {path}: expected a name that ends in .png, .pdf or .svg")
