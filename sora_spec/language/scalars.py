"""YAML 1.2's core schema for plain scalars: what `no`, `012` and `1e-4` mean. YAML 1.2 specification, §10.3.2."""

from __future__ import annotations

import re

Scalar = None | bool | int | float | str

MAX_DIGITS = 64
"""Longer numbers are refused: no size, rate or count needs them, and converting them costs quadratic time."""

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUES = frozenset(("true", "True", "TRUE"))
_FALSES = frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = frozenset((".nan", ".NaN", ".NAN"))


class TooManyDigitsError(ValueError):
    """A number of more than `MAX_DIGITS` digits."""


def plain_scalar(text: str) -> Scalar:
    """Value of an unquoted scalar. `yes`, `no`, `on` and `1_000` are text; `012` is twelve.

    Raises TooManyDigitsError: the number is longer than any sensible one.
    """
    if text in _NULLS:
        return None
    if text in _TRUES or text in _FALSES:
        return text in _TRUES
    if text[0] not in "+-.0123456789":
        return text
    return _number(text)


def _number(text: str) -> int | float | str:
    for pattern, base in ((_INTEGER, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise TooManyDigitsError
            return int(text, base)
    if _FLOAT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise TooManyDigitsError
        return float(text)
    if _INFINITY.fullmatch(text):
        return float("-inf") if text[0] == "-" else float("inf")
    return float("nan") if text in _NAN else text
