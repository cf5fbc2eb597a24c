"""Hostile files end in a clear error within a second of work, without a traceback and within 512 MiB of memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_BYTES = 512 * 2**20
PROCESSOR_SECONDS = 30  # for all files together

BOMB = "x-a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"x-{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
LINKS = "x-0: &a0 {k: 1}\n" + "".join(f"x-{i}: &a{i} {{k: *a{i - 1}}}\n" for i in range(1, 200))
MERGES = "x-0: &a0 {k0: 1}\n" + "".join(f"x-{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}\n" for i in range(1, 60))

FILES: dict[str, tuple[bytes, str]] = {
    "alias bomb": (BOMB.encode(), "E110"),
    "alias chain": (LINKS.encode(), "E110"),
    "merge bomb": (MERGES.encode(), "E110"),
    "recursive alias": (b"a: &a [*a]", "E110"),
    "megabyte scalar": (b"name: " + b"x" * 2**20, "E102"),
    "scalar at the limit": (b"name: " + b"x" * (128 * 1024 - 6), "E208"),
    "number of 10,000 digits": (b"version: " + b"9" * 10_000, "E113"),
    "float of 10,000 digits": (b"version: 0." + b"9" * 10_000, "E113"),
    "brackets": (b"[" * 100_000, "E111"),
    "braces": (b"{a: " * 25_000, "E111"),
    "nested blocks": ("\n".join(" " * i + "a:" for i in range(400)).encode(), "E111"),
    "question marks": (b"? " * 50_000, "E111"),
    "dashes": (b"- " * 50_000, "E111"),
    "many keys": ("".join(f"k{i}: {i}\n" for i in range(12_000)).encode(), "E102"),
    "many items": (b"[" + b"1," * 60_000 + b"1]", "E111"),
    "comments": (b"# x\n" * 32_000, "E105"),
    "blank lines": (b"\n" * 130_000, "E105"),
    "NUL": (b"a: \0", "E103"),
    "binary": (bytes(range(256)) * 40, "E103"),
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "E103"),
    "Latin-1": ("name: caf\xe9".encode("latin-1"), "E103"),
    "UTF-16": ("name: a".encode("utf-16"), "E103"),
    "control character": (b"a: \x1b[2J", "E103"),
    "lone surrogate": (b'a: "\xed\xa0\x80"', "E103"),
    "empty": (b"", "E105"),
    "only a document mark": (b"---\n", "E105"),
    "two documents": (b"a: 1\n---\nb: 2", "E105"),
    "top-level list": (b"- a", "E106"),
    "top-level text": (b"a", "E106"),
    "python object": (b"a: !!python/object/apply:os.system ['true']", "E109"),
    "own tag": (b"a: !foo 1", "E109"),
    "undefined tag handle": (b"a: !x!y 1", "E104"),
    "complex key": (b"? [a, b]\n: 1", "E108"),
    "number key": (b"1: 1", "E108"),
    "null key": (b"~: 1", "E108"),
    "tab": (b"a:\n\tb: 1", "E104"),
    "directive": (b"%YAML 9.9\n---\na: 1", "E104"),
    "percent signs": (b"%" * 100_000, "E104"),
    "bad escape": (b'a: "\\q"', "E104"),
    "huge escape": (b'a: "\\UFFFFFFFF"', "E104"),
    "unclosed quote": (b'a: "' + b"\\n" * 60_000, "E104"),
    "infinity": (b"clip: {fps: .inf}", "E209"),
    "not a number": (b"clip: {fps: .nan}", "E209"),
    "overflow": (b"clip: {fps: 1e999}", "E209"),
    "negative": (b"clip: {frames: -5}", "E204"),
    "astronomical": (b"clip: {frames: 99999999999999999999}", "E204"),
    "terminal escapes": (b'name: "\\e[2J\\a"', "E208"),
}


def limit_memory() -> None:
    """Give a child process little memory and little processor time."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))


def validate(path: str, *arguments: str, standard_input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`sora-spec validate` under limits of memory and processor time."""
    return subprocess.run(
        [sys.executable, "-m", "sora_spec", "validate", path, *arguments],
        input=standard_input,
        capture_output=True,
        timeout=60,
        preexec_fn=limit_memory,
        check=False,
    )


MEASURE = """
import json, sys, time
from sora_spec.language.loading import check
from sora_spec.language.report import render_full
from sora_spec.language.source import load_document
check(load_document("dit"))
for path in sys.argv[1:]:
    start = time.process_time()
    problems = check(load_document(path)).diagnostics
    render_full(problems)
    print(json.dumps([time.process_time() - start, [problem.code for problem in problems]]))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, list[str]]]:
    """Processor seconds and codes of every hostile file, found by one process with little memory."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, (content, _) in enumerate(FILES.values()):
        (folder / f"{number}.yaml").write_bytes(content)
    paths = [str(folder / f"{number}.yaml") for number in range(len(FILES))]
    command = [sys.executable, "-c", MEASURE, *paths]
    result = subprocess.run(command, capture_output=True, check=True, timeout=120, preexec_fn=limit_memory)
    return dict(zip(FILES, map(json.loads, result.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_hostile_file(name: str, measured: dict[str, tuple[float, list[str]]]) -> None:
    seconds, codes = measured[name]
    assert FILES[name][1] in codes
    assert seconds < 1.0


@pytest.mark.parametrize("name", ["alias bomb", "brackets", "binary", "megabyte scalar", "float of 10,000 digits"])
def test_hostile_file_on_the_command_line(name: str, tmp_path: Path) -> None:
    content, code = FILES[name]
    path = tmp_path / "hostile.yaml"
    path.write_bytes(content)
    result = validate(str(path), "--format", "json")
    assert result.returncode == 1, result.stderr.decode()
    assert result.stderr == b""
    assert code in [item["code"] for item in json.loads(result.stdout)["specs"][0]["diagnostics"]]


def test_hostile_files_have_a_readable_report(tmp_path: Path) -> None:
    """One process renders all of them in full: no line is endless, nothing drives the terminal."""
    paths = list[str]()
    for number, (content, _) in enumerate(FILES.values()):
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(content)
        paths.append(str(path))
    result = subprocess.run(
        [sys.executable, "-m", "sora_spec", "validate", *paths], capture_output=True, check=False, timeout=120
    )
    assert result.returncode == 1
    assert b"Traceback" not in result.stdout + result.stderr
    assert b"\x1b" not in result.stdout
    assert b"\x07" not in result.stdout
    assert max(len(line) for line in result.stdout.decode().splitlines()) < 400


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/dev/urandom", "/tmp", "/no/such/file", "bad\x00name"[:3] + "\udcff", "/proc/self/mem"]
)
def test_what_cannot_be_read(path: str) -> None:
    result = validate(path, "--format", "concise")
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert b"E101" in result.stdout
    assert b"Traceback" not in result.stderr


def test_endless_standard_input_is_cut() -> None:
    result = validate("-", standard_input=b"a: 1 #" + b"x" * 2**22)
    assert result.returncode == 1
    assert b"E102" in result.stdout


def test_a_pipe_without_a_writer_does_not_hang(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = validate(str(pipe))
    assert result.returncode == 2
    assert b"brings nothing" in result.stdout


def test_hostile_overrides(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1")
    arguments = [f"b={'[' * 5000}", f"c={'9' * 5000}", "d=!!python/name:os.system", "e=&a [*a]", 'f="', "g={<<: 1}"]
    result = validate(str(path), "--format", "json", *arguments)
    codes = {item["code"] for item in json.loads(result.stdout)["specs"][0]["diagnostics"]}
    assert {"E111", "E113", "E109", "E110", "E104", "E112"} <= codes
