"""Time steps of a converted network: every layer is active for K steps after the one before it."""

from __future__ import annotations

from collections.abc import Iterable


def longest_path(nodes: Iterable[tuple[str, list[str], bool]]) -> int:
    """Most counted nodes on a path, for nodes (name, names it reads, is counted) in order."""
    deepest: dict[str, int] = {}
    for name, sources, counted in nodes:
        deepest[name] = max((deepest[s] for s in sources), default=0) + int(counted)
    return max(deepest.values())


def depth(steps: Iterable) -> int:
    """FS layers on the longest path from the image to the logits, plus the readout.

    ResNet50: 49 layers of neurons and the readout, 50, as the paper's author counts.
    """
    return longest_path((s.name, s.heard, s.spiking or not s.code) for s in steps)


def ends(steps: Iterable) -> dict[str, int]:
    """The time step of an image by which each step of the network has given all it gives.

    A layer fires once it has heard all its inputs, for K steps of its own: from ends - K + 1 on.
    The readout has as many steps of its own as the neurons in front of it, as if it fired; its
    logits are complete when these begin. `fskernel.schedule` executes all this.
    """
    ends: dict[str, int] = {}
    heard: dict[str, int] = {}  # for how many steps its readers listen to it
    for s in steps:
        K = s.code.K if s.spiking else 0
        heard[s.name] = K or max((heard[name] for name in s.heard), default=0)
        if s.code is None:  # the readout
            K = heard[s.name]
        ends[s.name] = max((ends[name] for name in s.heard), default=0) + K
    return ends


def latency_steps(steps: Iterable) -> int:
    """Time steps from the image to the logits: depth * K, if all layers have one K."""
    return max(ends(steps).values())


def interval_steps(K: int) -> int:
    """Time steps between two images in a pipeline: each layer listens K steps and fires K.

    K is the largest of the network: the images follow each other as its slowest layers allow.
    """
    return 2 * K
