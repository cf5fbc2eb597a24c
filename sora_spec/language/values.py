"""The values of a spec as rules see them: attributes with defaults filled in, and holes where the spec is wrong.

A rule is written against `Spec`, and may be handed `Values` in its place. Reading a value that is missing or wrong
raises `BrokenValueError`, which skips the rule: its problem has been reported, and nothing is to be said on top of it.
"""

from __future__ import annotations

from typing import Any, Final, cast


class BrokenValueError(Exception):
    """A rule read a value that is missing or wrong."""


class _Broken:
    """Stands where a value is missing or wrong."""


BROKEN: Final = _Broken()


class Values:
    """One section: its fields as attributes."""

    def __init__(self, fields: dict[str, Any], given: dict[str, Any]) -> None:
        self._fields = fields
        self.given = given
        """What the text says, without defaults and without keys that an override made void."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._fields[name]
        except KeyError:
            raise BrokenValueError(name) from None
        if value is BROKEN:
            raise BrokenValueError(name)
        return value


def from_default(default: Any) -> Any:
    """A default of the JSON schema in the form that the models hold: lists as tuples, mappings as sections."""
    if isinstance(default, dict):
        fields = cast("dict[str, Any]", default)
        return Values({key: from_default(value) for key, value in fields.items()}, {})
    if isinstance(default, list):
        return tuple(from_default(item) for item in cast("list[Any]", default))
    return default


def from_given(value: Any) -> Any:
    """What the text says, in plain types again. Only of use where nothing is broken."""
    if isinstance(value, Values):
        return value.given
    if isinstance(value, tuple):
        return [from_given(item) for item in cast("tuple[Any, ...]", value)]
    return value
