"""Time steps of a converted network: every layer is active for K steps after the one before it."""

from __future__ import annotations

from collections.abc import Iterable


def depth(steps: Iterable) -> int:
    """FS layers on the longest path from the picture to the logits, plus the readout.

    ResNet50: 49 layers of neurons and the readout, 50, as the paper's author counts.
    """
    deepest: dict[str, int] = {}
    for step in steps:
        below = max((deepest[s] for s in step.sources), default=0)
        neurons = step.op == "readout" or (step.op == "conv" and step.code.K > 0)
        deepest[step.name] = below + int(neurons)
    return max(deepest.values())


def latency_steps(steps: Iterable, K: int) -> int:
    """Time steps from the picture to the logits: depth * K."""
    return depth(steps) * K


def interval_steps(K: int) -> int:
    """Time steps between two pictures in a pipeline: each layer listens K steps and fires K."""
    return 2 * K
