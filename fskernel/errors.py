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
