"""The processor's cores that are ours."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may run on, which a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
