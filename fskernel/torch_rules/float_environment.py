"""The contract's floating-point environment for what Python and torch compute beside kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

try:
    from fskernel import _C
except ImportError:  # oracles run without it, in the environment that they are called in
    _C = None

P = ParamSpec("P")
R = TypeVar("R")


def in_float_environment(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose arithmetic on the calling thread rounds to nearest and flushes nothing.

    The caller's environment is back when it returns. Kernels see to this themselves, in every
    thread; a graph of torch.compile is not reached.
    """

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        if _C is None or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return _C.in_float_environment(function, *args, **kwargs)

    return inside
