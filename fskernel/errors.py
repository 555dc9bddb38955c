"""Errors of the public interface."""


class ConversionError(ValueError):
    """A module cannot become a Few-Spikes network: names the node, the reason and the cure."""

    def __init__(self, node: str, reason: str, cure: str):
        self.node, self.reason, self.cure = node, reason, cure
        super().__init__(f"cannot convert '{node}': {reason}. {cure}")
