"""Settings of the C library's heap in a model process. glibc only; elsewhere nothing is done.

By default each large array of a model is a mapping of its own, made and faulted in page by page, and each
thread has its own arena. One arena that grows in large steps loads a forest of 400 trees in two thirds of
the time (mallopt(3)).
"""

from __future__ import annotations

import ctypes

MIB = 2**20
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def prepare_for_load() -> None:
    """Called before the process has a second thread: a thread keeps the arena that it began with."""
    _set(_M_ARENA_MAX, 1)
    _set(_M_MMAP_THRESHOLD, 32 * MIB)
    _set(_M_TRIM_THRESHOLD, 256 * MIB)
    _set(_M_TOP_PAD, 16 * MIB)


def settle() -> None:
    """Gives back what the load took for a moment, and keeps little in reserve from now on."""
    _set(_M_TOP_PAD, MIB)
    _set(_M_TRIM_THRESHOLD, 16 * MIB)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(ctypes.c_int(parameter), ctypes.c_int(value))
