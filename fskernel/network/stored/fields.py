"""JSON objects of files that anybody may have written, read field by field."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

_NAMES = {str: "a text", bool: "true or false", int: "an integer", float: "a number with a point"}
_NAMES |= {list: "a list", dict: "an object"}


class Fields:
    """The fields of one JSON object, each to be taken once.

    Args:
        value: what stands in the file.
        place: where that is, for messages: "step 3 ('conv1').code".

    Raises:
        ValueError: it is no object; and, from its methods, a field that is missing, of another
            type, or left over at the end.
    """

    def __init__(self, value: Any, place: str):
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} is {shown(value)}: expected an object")
        self._left, self.place = dict(value), place

    def take(self, name: str, *kinds: type | None) -> Any:
        """The field's value, of one of these types exactly; None among them allows null."""
        value = self.take_any(name)
        if type(value) not in kinds and not (value is None and None in kinds):
            expected = " or ".join("null" if kind is None else _NAMES[kind] for kind in kinds)
            raise ValueError(f"{self.place}.{name} is {shown(value)}: expected {expected}")
        return value

    def take_any(self, name: str) -> Any:
        """The field's value, whatever it is."""
        if name not in self._left:
            raise ValueError(f"{self.place}.{name} is missing")
        return self._left.pop(name)

    def take_list(self, name: str, kind: type, length: int | None = None) -> list:
        """A list of values of one type, and of this length if one is given."""
        values = self.take(name, list)
        right = all(type(value) is kind for value in values)
        if not right or len(values) != (len(values) if length is None else length):
            many = "" if length is None else f" of {length}"
            raise ValueError(
                f"{self.place}.{name} is {shown(values)}: expected a list{many}, "
                f"each {_NAMES[kind]}"
            )
        return values

    def optional(self, name: str, *kinds: type | None) -> Any:
        """As `take`; None where there is no such field."""
        return self.take(name, *kinds) if name in self._left else None

    def optional_list(self, name: str, kind: type) -> list:
        """As `take_list`; an empty list where there is no such field."""
        return self.take_list(name, kind) if name in self._left else []

    def end(self) -> None:
        """Refuses what nobody took."""
        for name in self._left:
            raise ValueError(f"{self.place}.{shown(name)} is unknown: remove it")


def shown(value: Any) -> str:
    """A value for a message, as much of it as fits a line, however deep it is nested."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
