"""What the user of a command can put right."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right: shown as one sentence, without a traceback."""
