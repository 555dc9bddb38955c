"""A forked process has not got its parent's threads: what would wait for them is refused."""

from __future__ import annotations

import os

import torch

_forked = False


def _in_child() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_in_child)


def refuse_waiting() -> None:
    """Refuses to run on several threads in a forked process.

    OpenMP, by which torch runs threads, keeps those that it has started for the next time. After a
    fork it still counts on them, and waits for ever.

    Raises:
        RuntimeError: this process was forked, and torch would use more than one thread.
    """
    if _forked and torch.get_num_threads() > 1:
        raise RuntimeError(
            "this process was forked, and the threads that torch may have started before are not "
            "in it, so it would wait for them for ever: call torch.set_num_threads(1) at its "
            "beginning, or start it with torch.multiprocessing's method 'spawn'"
        )
