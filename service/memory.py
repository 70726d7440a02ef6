"""Giving memory back after a large image."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # glibc's malloc.h
_ARENAS = 2


def limit_arenas() -> bool:
    """Let malloc keep few pools of memory; False where malloc is not glibc's. To be called before threads start.

    glibc otherwise gives every thread a pool of its own and keeps what was freed in it: one image of 50 megapixels
    leaves 225 MB behind in each thread that decodes one, and 4 MB with this (measured).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_ARENA_MAX, _ARENAS))
