"""The terminal under hostile names, encodings, streams and signals: nothing raw, the right sentence and exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sora_spec.language.loading import load_spec
from tests.hostile.case import Case, Result, sora_spec_here

ESCAPES = {
    "OSC 52": ("a\x1b]52;c;ZWNobw==\x07b", r"a\x1b]52;c;ZWNobw==\x07b"),
    "colour": ("a\x1b[31;1mb", r"a\x1b[31;1mb"),
    "C1": ("a\x9b2Jb", r"a\x9b2Jb"),
    "DEL": ("a\x7fb", r"a\x7fb"),
    "return": ("a\rerror: b", r"a\x0derror: b"),
    "backspace": ("ab\x08\x08", r"ab\x08\x08"),
    "bidi override": ("a\u202egpj.b", r"a\u202egpj.b"),
    "bidi isolate": ("a\u2066b\u2069", r"a\u2066b\u2069"),
    "zero width": ("a\u200bb", r"a\u200bb"),
    "BOM inside": ("a\ufeffb", r"a\ufeffb"),
    "line separator": ("a\u2028b", r"a\u2028b"),
    "tag": ("a\U000e0041b", r"a\U000e0041b"),
    "byte of another encoding": ("a\udcffb", r"a\udcffb"),
}
"""A name and how it must be shown."""

SPEC = """version: 1
name: hostile
clip: {frames: 1, height: 32, width: 32, fps: 8}
vae: {kind: identity}
patch: {time: 1, space: 4}
backbone: {kind: transformer, depth: 2, width: 48, heads: 3}
condition: {kind: class, classes: 10, dropout: 0.1}
objective: {kind: interpolant}
sampler: {kind: euler, steps: 5, guidance: 1}
hardware: {gpu: cpu}
"""


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _arguments()
    yield from _values()
    yield from _files()
    yield from _encodings()
    yield from _streams()
    yield from _signals()


def _says(*arguments: str, shown: str, code: int | None = None) -> Callable[[Path], str | None]:
    """The verb ends without fault and shows the name as an escape."""

    def run(folder: Path) -> str | None:
        os.chdir(folder)
        done = sora_spec_here(*arguments)
        return _judged(done, shown, code)

    return run


def _judged(done: Result, shown: str, code: int | None) -> str | None:
    said = done.out + done.err
    spoken = said.replace("%3A", ":").replace("%2C", ",").replace("%0D", r"\x0d").replace(r"\r", r"\x0d")
    if done.fault() or shown.split("=")[0] not in spoken:
        return done.fault() or f"does not show {shown}: {said[-300:]!a}"
    hidden = re.search("[\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]", said)
    if hidden:
        return f"sent {hidden.group()!a} raw"
    return None if code is None or done.code == code else f"exit code {done.code}, not {code}"


VERBS: dict[str, Sequence[str]] = {
    "validate": ("validate", "{}.yaml"),
    "validate, one line each": ("validate", "{}.yaml", "--format", "concise"),
    "validate for GitHub": ("validate", "{}.yaml", "--format", "github"),
    "a format": ("validate", "dit", "--format", "{}"),
    "an option": ("validate", "dit", "--x{}"),
    "a verb": ("{}",),
    "show": ("show", "{}.yaml"),
    "plan": ("plan", "{}.yaml"),
    "a device": ("plan", "dit", "--gpu", "{}"),
    "a count": ("plan", "dit", "--count", "{}"),
    "what to solve": ("plan", "dit", "--solve", "{}"),
    "a device file": ("plan", "dit", "--hardware", "{}"),
    "a sweep": ("plan", "dit", "--sweep", "--over", "{}"),
    "an override": ("plan", "dit", "train.{}=1"),
    "diff": ("diff", "dit", "{}"),
    "a code": ("explain", "{}"),
    "init": ("init", "--from", "{}"),
    "init on a folder": ("init", "/proc/{}/x"),
    "train": ("train", "{}.yaml"),
    "data of a training": ("train", "tiny-sit-digits", "train.data='{}'"),
    "generate": ("generate", "{}"),
    "export": ("export", "{}"),
    "data": ("data", "check", "{}"),
    "probe": ("probe", "--seconds", "{}"),
    "schema": ("schema", "--output", "/proc/{}/x"),
    "tui": ("tui", "--screen", "{}"),
    "a component": ("show", "dit", "--graph", "--component", "{}"),
}


def _arguments() -> Iterator[Case]:
    for place, arguments in VERBS.items():
        for name, (raw, shown) in ESCAPES.items():
            spoken = [argument.replace("{}", raw) for argument in arguments]
            folded = place == "data of a training" and "\r" in raw  # YAML makes a blank of it
            if not folded:
                yield Case(f"{place}: {name}", _says(*spoken, shown=shown))


def _values() -> Iterator[Case]:
    """What a spec holds behind YAML's escapes, through what prints it."""
    for name, (raw, shown) in ESCAPES.items():
        if "\udcff" in raw:
            continue
        yield Case(f"train.data read again: {name}", _read_again(raw))
        for verb in (("plan",), ("plan", "--json"), ("diff", "dit"), ("tui", "--json")):
            yield Case(f"train.data through {' '.join(verb)}: {name}", _harmless_spec(raw, verb))
        yield Case(f"weights: {name}", _weights(raw, shown))


def _spec(folder: Path, raw: str, key: str = "train.data") -> str:
    section, name = key.split(".")
    text = SPEC + f"{section}: {{{name}: {json.dumps(raw)}}}\n" if section == "train" else SPEC
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    return "a.yaml"


def _read_again(raw: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        done = sora_spec_here("show", _spec(folder, raw))
        if done.fault() or done.code:
            return done.fault() or done.err
        Path("b.yaml").write_text(done.out, encoding="utf-8")
        found = load_spec("b.yaml").train.data
        as_json = json.loads(sora_spec_here("show", "--json", "a.yaml").out)["spec"]["train"]["data"]
        return None if found == raw == as_json else f"{raw!a} is read again as {found!a} and {as_json!a}"

    return run


def _harmless_spec(raw: str, verb: Sequence[str]) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        done = sora_spec_here(verb[0], _spec(folder, raw), *verb[1:])
        return done.fault() or (None if done.code in (0, 1) and done.out else f"exit code {done.code}: {done.err}")

    return run


def _weights(raw: str, shown: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        (folder / "a.yaml").write_text(SPEC.replace("heads: 3", f"heads: 3, weights: {json.dumps(raw)}"))
        done = sora_spec_here("generate", "a.yaml", "--count", "1")
        return _judged(done, shown, 2)

    return run


def _files() -> Iterator[Case]:
    """Names inside files, and what is written into files."""
    for name, (raw, shown) in ESCAPES.items():
        yield Case(f"a clip called {name}", _clip(raw, shown))
        if "\udcff" in raw:
            continue
        yield Case(f"a class of a list: {name}", _list(raw, shown))
        yield Case(f"a device called {name}", _device(raw))
        yield Case(f"a manifest that leads to {name}", _manifest(raw))
        yield Case(f"a picture of a graph in a folder called {name}", _picture(raw))
    yield Case("GitHub's lines are one each", _github)
    yield Case("no line of a name is obeyed by GitHub", _workflow)


def _clip(raw: str, shown: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        Path("data", raw).mkdir(parents=True)
        Path("data", raw, f"{raw}.mp4").write_bytes(b"no video")
        return _judged(sora_spec_here("data", "check", "data"), shown, None)

    return run


def _list(raw: str, shown: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        Path("list.jsonl").write_text(json.dumps({"path": f"{raw}.mp4", "label": raw}) + "\n")
        return _judged(sora_spec_here("data", "check", "list.jsonl"), shown, None)

    return run


def _device(raw: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        Path("devices.yaml").write_text(f"{json.dumps(raw)}:\n  title: {json.dumps(raw)}\n")
        done = sora_spec_here("plan", "dit", "--hardware", "devices.yaml", "--gpu", "b")
        return done.refused("devices.yaml") if done.code else "a device without figures was taken"

    return run


def _manifest(raw: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        Path("bundle").mkdir()
        Path("bundle/manifest.json").write_text(
            json.dumps({"format": raw, "stages": {raw: {"file": f"../{raw}"}}, "files": [{"path": raw}]})
        )
        return sora_spec_here("generate", "bundle").refused("bundle")

    return run


def _picture(raw: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        Path(raw).mkdir()
        Path(raw, "a.yaml").write_text(SPEC)
        path = f"{raw}/a.yaml"
        for form in ("svg", "mermaid"):
            done = sora_spec_here("show", path, "--graph", "--component", "denoiser", "--format", form)
            if done.fault() or done.code:
                return done.fault() or done.err
            if form == "svg":
                ElementTree.fromstring(done.out)
        return None

    return run


def _github(folder: Path) -> str | None:
    os.chdir(folder)
    name = "a\n::error::b,c:d%0A.yaml"
    Path(name).write_text('version: 1\nname: "x\\n::set-env name=a::b"\nclip: {frames: 0}\n')
    done = sora_spec_here("validate", name, "--format", "github")
    lines = done.out.splitlines()
    fine = all(line.startswith("::error file=a%0A%3A%3Aerror%3A%3Ab%2Cc%3Ad%250A.yaml,line=") for line in lines)
    return done.fault() or (None if fine and len(lines) >= 3 else f"lines: {lines}")


def _workflow(folder: Path) -> str | None:
    os.chdir(folder)
    for form in ("full", "concise"):
        done = sora_spec_here("validate", "a\n::set-output name=a::b\n##[group]x.yaml", "--format", form)
        obeyed = [line for line in (done.out + done.err).splitlines() if line.lstrip().startswith(("::set", "##["))]
        if done.fault() or obeyed:
            return done.fault() or f"obeyed: {obeyed}"
    return None


ENCODINGS = ("ascii", "cp1252", "latin-1", "cp437", "koi8-r", "shift_jis", "utf-8")
PRINTING: dict[str, tuple[tuple[str, ...], str]] = {
    # name: (arguments, what must be readable in any encoding)
    "plan": (("plan", "dit"), "YES, it fits"),
    "plan of sora": (("plan", "sora-480p"), "at the peak"),
    "sweep": (("plan", "tiny-dit", "--sweep", "--over", "train.batch=8,16"), "train.batch"),
    "solve": (("plan", "tiny-dit", "--solve", "batch"), "train.batch"),
    "show": (("show", "latte"), "temporal: {kind: alternating}"),
    "graph": (("show", "tiny-dit", "--graph"), "denoiser"),
    "ls": (("ls",), "opendit-video"),
    "explain": (("explain", "E301"), "# E301"),
    "diff": (("diff", "dit", "sit"), "objective"),
    "validate": (("validate", "a.yaml"), "error[E204]"),
    "init": (("init", "-"), "version: 1"),
    "help": (("--help",), "validate"),
    "help of a verb": (("plan", "--help"), "--gpu"),
    "plan as JSON": (("plan", "dit", "--json"), '"verdict"'),
}


def _encodings() -> Iterator[Case]:
    for encoding in ENCODINGS:
        for name, (arguments, words) in PRINTING.items():
            yield Case(f"{name} in {encoding}", _printed(arguments, words, encoding))


def _printed(arguments: Sequence[str], words: str, encoding: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        os.chdir(folder)
        Path("a.yaml").write_text(SPEC.replace("frames: 1", "frames: 0").replace("fps: 8}", "fps: 8} # 動画 × é"))
        done = sora_spec_here(*arguments, encoding=encoding)
        if done.fault() or words not in done.out:
            return done.fault() or f"does not print {words}: {done.out[:200]} {done.err[:200]}"
        expected = {1} if arguments[0] == "validate" else {0, 1}
        return None if done.code in expected else f"exit code {done.code}"

    return run


SHELL: dict[str, tuple[int, str]] = {
    # line: (exit code, what stderr must say)
    "{} plan dit > /dev/full": (2, "standard output cannot be written: no space is left"),
    "{} plan dit >&-": (2, "standard output is closed"),
    "{} show dit > /dev/full": (2, "no space is left"),
    "{} show dit --json >&-": (2, "standard output is closed"),
    "{} validate nothing.yaml > /dev/full": (2, "no space is left"),
    "{} explain > /dev/full": (2, "no space is left"),
    "{} ls >&-": (2, "standard output is closed"),
    "{} diff dit sit > /dev/full": (2, "no space is left"),
    "{} schema > /dev/full": (2, "no space is left"),
    "{} init - > /dev/full": (2, "no space is left"),
    "{} init - >&-": (2, "standard output is closed"),
    "{} --help > /dev/full": (2, "no space is left"),
    "{} plan --help > /dev/full": (2, "no space is left"),
    "{} --version >&-": (2, "standard output is closed"),
    "{} plan dit > /dev/null 2>&-": (0, ""),
    "{} plan dit > /dev/null 2> /dev/full": (0, ""),
    "{} validate dit >&- 2>&- <&-": (0, ""),
    "{} validate - <&-": (2, ""),
    "{} validate nothing.yaml 2>&1 >&- | cat": (0, ""),
    "{} explain | head -1": (0, ""),
    "{} schema | true": (0, ""),
    "ulimit -f 0; {} init a.yaml": (2, "a.yaml"),
    "mkdir a; chmod 500 a; {} init a/b/c.yaml || [ $(id -u) = 0 ]": (0, ""),
    "mkfifo p; cat p > got & {} init p --force && wait && grep -q version got && [ -p p ]": (0, ""),
    "{} init {long}": (2, "too long"),
    "touch f; {} init f/a.yaml": (2, "f/a.yaml"),
    "ln -s l l; {} init l": (2, "l"),
    "ln -s l l; {} validate l --format concise 1>&2": (2, "E101 l cannot be read"),
    "PYTHONIOENCODING=ascii {} plan dit > /dev/null": (0, ""),
    "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {} plan dit > /dev/null": (0, ""),
    "PYTHONIOENCODING=utf-16 {} plan dit > /dev/null": (0, ""),
    "ulimit -n 16; {} show dit > /dev/null": (0, ""),
}


def _streams() -> Iterator[Case]:
    for line, (code, words) in SHELL.items():
        yield Case(line, _shell(line, code, words))


def _shell(line: str, code: int, words: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        command = line.replace("{long}", "x" * 300).replace("{}", "sora-spec").replace("{{", "{").replace("}}", "}")
        script = f'sora-spec() {{ "{sys.executable}" -m sora_spec "$@"; }}\n{command}'
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, capture_output=True, timeout=120, check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        result = Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
        if result.fault() or words not in result.err:
            return result.fault() or f"does not say {words}: {result.err[-300:]}"
        return None if result.code == code else f"exit code {result.code}, not {code}: {result.err[-300:]}"

    return run


LONG = ("plan", "sora-480p", "--sweep", "--over", "train.batch=8,16,24,32,40,48,56,64,72,80", "--gpu", "h100,a100-80gb")
MOMENTS = (0.02, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Seconds after the start: the interpreter, our imports, the first import of a verb, its work."""


def _signals() -> Iterator[Case]:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for moment in MOMENTS:
            yield Case(f"{number.name} after {moment} s", _signalled(LONG, number, moment))
        for verb in ("train", "generate", "export"):
            yield Case(f"{number.name} while {verb} imports torch", _signalled((verb, "tiny-dit"), number, 0.4))


def _signalled(arguments: Sequence[str], number: signal.Signals, moment: float) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        process = subprocess.Popen(
            [sys.executable, "-m", "sora_spec", *arguments], cwd=folder, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        time.sleep(moment)
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return "does not end"
        # Before Python runs a line of ours, the signal ends it by itself: the shell says the same number.
        code = 128 - process.returncode if process.returncode < 0 else process.returncode
        result = Result(code, out, err)
        in_start = number is signal.SIGINT and "sora_spec/cli/" not in err and "typer" not in err
        if result.fault() and not in_start:
            return result.fault()
        return None if code in (128 + number, 0, 2) or in_start else f"exit code {code}: {err[-300:]}"

    return run
