"""How often the interpreter looks for garbage that has to be looked for."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

atexit.register(gc.freeze)  # a process that ends frees all of it anyway


@contextmanager
def rare_collections() -> Iterator[None]:
    """While this lasts, garbage is rarely looked for: for work that makes by the 100,000 what stays."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
