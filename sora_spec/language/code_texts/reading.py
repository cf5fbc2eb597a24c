"""E1xx: the text cannot be read as a spec."""

from __future__ import annotations

from sora_spec.language.code_texts.code import Code

_BOMB = """x-a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]
x-b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
x-c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
x-d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]"""

CODES = (
    Code(
        "E101",
        "the file cannot be read",
        "The file is missing, a folder, a device, a pipe that nobody writes to, or the permissions forbid it. "
        "A SPEC argument is a path, `-` for standard input, or, when no such file exists, the bare name of a packaged "
        "spec; `sora-spec ls` lists those. This is the one code that ends with exit code 2.",
    ),
    Code(
        "E102",
        "the file is too large",
        "A spec is a few kilobytes of text. Files above 128 KiB are refused before they are parsed; "
        "most often the argument names data or weights by mistake.",
    ),
    Code(
        "E103",
        "no UTF-8 text",
        "Specs are UTF-8, with or without a byte-order mark. Other encodings must be converted "
        "(`iconv -f UTF-16 -t UTF-8 old.yaml > new.yaml`). NUL bytes and control characters make a file binary. "
        "An escape such as `\\ud83d` on its own is half a character, which no file name and no terminal can hold.",
    ),
    Code(
        "E104",
        "the text is not valid YAML",
        "The YAML scanner stopped here, so nothing below was looked at. Frequent causes: tabs in the indentation, text "
        "with `: ` or `#` in it that is not quoted, a bracket or quote that is never closed, keys of one section that "
        "do not start in one column.",
        "name: sit: tiny",
        'name: "sit: tiny"',
    ),
    Code(
        "E105",
        "not exactly one document",
        "A file holds one spec: it is neither empty nor does it have a second document behind `---`.",
        "name: a\n---\nname: b",
        "---\nname: a",
    ),
    Code(
        "E106",
        "the top level is no mapping",
        "A spec is a mapping of sections. A file that starts with `-` is a list.",
        "- name: a",
        "name: a",
    ),
    Code(
        "E107",
        "a key is given twice",
        "YAML leaves open which of two equal keys counts, so neither does. The report points at both places. "
        "A key beside a merge (`<<: *anchor`) is no duplicate: it overrides the merged one.",
        "patch: {space: 2, space: 4}",
        "patch: {space: 4}",
    ),
    Code(
        "E108",
        "a key is no word",
        "Every key of the language is text. Numbers, `true`, `null`, lists and mappings are no keys. "
        "(`on`, `yes` and `no` are text in YAML 1.2.)",
        "1: one",
        "x-one: 1",
    ),
    Code(
        "E109",
        "a YAML tag",
        "Tags (`!name`, `!!python/object`) make YAML build objects. Specs are plain values, so every tag is refused.",
        "name: !!str a",
        'name: "a"',
    ),
    Code(
        "E110",
        "an alias that cannot be followed",
        "An alias (`*name`) stands for the value behind the anchor (`&name`). The anchor is defined above it, must "
        "not contain the alias, and the expanded spec may hold 5,000 values in 32 levels: a few lines of aliases of "
        "aliases could otherwise fill any memory.",
        _BOMB,
        "x-a: &a [1, 2]\nx-b: *a",
    ),
    Code(
        "E111",
        "too deep or too many values",
        "A spec nests about five levels and holds about a hundred values; 32 and 5,000 are the limits. "
        "Most often a bracket is not closed or the file is no spec.",
        "x-a: " + "[" * 33 + "]" * 33,
        "x-a: [[1]]",
    ),
    Code(
        "E112",
        "a merge of something that is no mapping",
        "`<<` lays the keys of a mapping, or of a list of mappings, under the keys beside it.",
        "x-a: &a [1]\npatch: {<<: *a}",
        "x-a: &a {space: 2}\npatch: {<<: *a}",
    ),
    Code(
        "E113",
        "a number with too many digits",
        "Numbers may have up to 64 digits, which is far more than any size, rate or count needs.",
        "version: " + "1" * 70,
        "version: 1",
    ),
    Code(
        "E114",
        "an override that fits nothing",
        "An override is `dotted.path=value`, the value being YAML: `train.steps=100`, `vae.multipliers.0=2`, "
        "`train.sample_every=null`, `condition={kind: none}`. Items of a list count from 0 and must exist; for a list "
        "that the file leaves out, give all of it. Put the argument into quotes when the value has spaces or brackets.",
    ),
)
