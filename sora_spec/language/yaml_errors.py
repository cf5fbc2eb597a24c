"""What the YAML scanner complains about, said in the words of someone who writes a spec."""

from __future__ import annotations

import re

from sora_spec.language.diagnostics import Diagnostic, Note
from sora_spec.language.span import Span, Text

# (fragment of the scanner's sentence, our sentence, help). The first that fits is used.
_SENTENCES = (
    ("'\\t' that cannot start", "a tab where YAML allows only spaces", "Indent with spaces."),
    (
        "mapping values are not allowed",
        "a `:` that does not belong here",
        "Put text with `: ` into quotes; check the indentation of this line and the one above.",
    ),
    ("could not find expected ':'", "a key without its `:`", "Write `key: value`, with a space behind the colon."),
    ("while scanning a quoted scalar", "a quote that is never closed", "Close the text with the quote it began with."),
    ("unexpected end of stream", "a quote that is never closed", "Close the text with the quote it began with."),
    (
        "expected ',' or '}'",
        "a `{` that is never closed, or a comma that is missing",
        "Separate entries with `, ` and close with `}`.",
    ),
    (
        "expected ',' or ']'",
        "a `[` that is never closed, or a comma that is missing",
        "Separate items with `, ` and close with `]`.",
    ),
    ("but found '}'", "a `}` that closes nothing", "Remove it, or open what it closes with `{`."),
    ("but found ']'", "a `]` that closes nothing", "Remove it, or open what it closes with `[`."),
    (
        "expected <block end>",
        "a line that fits no block",
        "Align keys of one section in one column; put text that starts with `{` or `[` into quotes.",
    ),
    (
        "sequence entries are not allowed",
        "a `-` that does not belong here",
        "Start the list on its own line below the key, or write `[a, b]`.",
    ),
    ("expected the node content", "a value is missing here", "Write a value, or close what was opened before."),
    (
        "expected '<document start>'",
        "text that belongs to nothing",
        "Is a bracket closed twice, or the indentation wrong?",
    ),
    (
        "expected alphabetic or numeric",
        "an anchor or alias without a name",
        "Put text that starts with `&` or `*` into quotes.",
    ),
    ("incompatible YAML document", "a YAML version other than 1.x", "Remove the `%YAML` line."),
    ("cannot start any token", "a character that cannot start a value", "Put the text into quotes."),
    (
        "unknown escape character",
        "an unknown escape in double quotes",
        "Use single quotes, or write the backslash twice.",
    ),
    ("found undefined tag handle", "an undefined tag", "Specs use no tags; remove it."),
    ("found duplicate anchor", "an anchor that is defined twice", "Give the second one another name."),
)


_HUGE_ESCAPE = re.compile(r"\\U(?!0010|000)[0-9a-fA-F]{8}")
"""An escape beyond the last character, U+10FFFF."""


def syntax_diagnostic(error: BaseException, text: Text, offset: int) -> Diagnostic:
    """E104 for whatever ended the scanner. `offset` is where its text starts inside `text`."""
    problem = str(getattr(error, "problem", None) or error or type(error).__name__)
    context = str(getattr(error, "context", None) or "")
    keyless = "could not find expected ':'" in problem  # noticed on a later line than the key's
    span = _mark(getattr(error, "context_mark" if keyless else "problem_mark", None), text, offset)
    if isinstance(error, ValueError | OverflowError):  # no mark: chr() refuses what an escape names
        span = _huge_escape(text, offset) or span
        problem = "an escape that names no character"
    message, help = _sentence(problem, context)
    message = f"not valid YAML: {message}"
    if any(word in context for word in ("quoted scalar", "flow mapping", "flow sequence")) and "escape" not in problem:
        opened = _mark(getattr(error, "context_mark", None), text, offset)
        if opened.start < span.start:
            return Diagnostic("E104", message, opened, "opened here", (Note(span, "still open here"),), help)
    return Diagnostic("E104", message, span, "", (), help)


def _huge_escape(text: Text, offset: int) -> Span | None:
    found = _HUGE_ESCAPE.search(text.content, offset)
    return None if found is None else Span(text, found.start(), found.end())


def _sentence(problem: str, context: str) -> tuple[str, str]:
    for fragment, message, help in _SENTENCES:
        if fragment in problem or fragment in context:
            return message, help
    flat = " ".join(problem.split())[:120]
    return flat, "`sora-spec explain E104` shows the shape of a spec."


def _mark(mark: object, text: Text, offset: int) -> Span:
    index = getattr(mark, "index", None)
    size = len(text.content)
    start = min(offset + index, size) if isinstance(index, int) else offset
    # At the end of the text there is no character to point at: point behind the last visible one.
    if start >= size:
        start = len(text.content.rstrip())
    return Span(text, start, min(start + 1, size))
