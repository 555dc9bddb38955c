"""Errors of the public interface."""


class BudgetError(ValueError):
    """No K that was searched keeps within the budget.

    Attributes:
        rows: what was measured, as `SearchResult.rows`.
    """

    def __init__(self, message: str, rows: list[dict]):
        self.rows = rows
        super().__init__(message)


class ConversionError(ValueError):
    """A module cannot become a Few-Spikes network: names the node, the reason and the cure."""

    def __init__(self, node: str, reason: str, cure: str):
        self.node, self.reason, self.cure = node, reason, cure
        super().__init__(f"cannot convert '{node}': {reason}. {cure}")


class ScheduleError(RuntimeError):
    """A pipelined network did in a time step what its schedule rules out.

    Attributes:
        layer: the step of the network where it was seen. image: of which it was busy, from 0.
        step: the time step; the first image enters at 0.
    """

    def __init__(self, layer: str, image: int, step: int, reason: str):
        self.layer, self.image, self.step = layer, image, step
        super().__init__(f"'{layer}', image {image}, time step {step}: {reason}")
