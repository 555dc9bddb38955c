"""One changed network file for every number."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from . import hostile, legal
from .draft import Draft
from .seeds import File

LEGAL_SHARE = 0.4  # of the files, that are changed only as a conversion might have done it


class Mutant(NamedTuple):
    """A changed file.

    Attributes:
        draft: to be written.
        start: name of the file that was changed.
        fields: what was changed, in order.
        legal: only changes that leave it a network.
    """

    draft: Draft
    start: str
    fields: tuple[str, ...]
    legal: bool


def mutant(files: Mapping[str, File], seed: int) -> Mutant:
    """The file with this number: the same for the same number."""
    dice = random.Random(seed)
    start = dice.choice(list(files))
    draft = Draft(files[start], dice)
    only_legal = dice.random() < LEGAL_SHARE
    changes = dice.randint(1, 3)
    # Legal ones come first: they count on a draft that is whole.
    hostile_ones = 0 if only_legal else dice.choice((1, 1, min(2, changes)))
    fields: list[str] = []
    for i in range(changes):
        kinds = legal.CHANGES if i < changes - hostile_ones else hostile.CHANGES
        found = None
        while found is None:
            found = dice.choice(kinds)(draft)
        fields.append(found)
    return Mutant(draft, start, tuple(fields), only_legal)
