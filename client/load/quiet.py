"""Holds off what would disturb a measurement."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def settle() -> None:
    """A full garbage collection that leaves later ones little to look at."""
    gc.collect()
    gc.freeze()


@contextmanager
def garbage_collection_held() -> Iterator[None]:
    """No garbage collection inside: a full one can take longer than a token."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
