"""The verbs of the core: exit codes, stdout and stderr, completion, and errors without tracebacks."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import sora_spec
from sora_spec import output
from sora_spec.cli import main, probes
from sora_spec.cli.arguments import complete_spec, one_spec, split_arguments
from sora_spec.errors import UserError
from sora_spec.language import packaged
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import install_command, packaged_names

WRONG = "version: 1\nname: a\nclip: {frames: 0}\n"


class Result:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run the command line in this process."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["sora-spec", *arguments])
        monkeypatch.setattr(output.VERBOSITY, "level", 0)
        with pytest.raises(SystemExit) as stop:
            main.run()
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    return str(path)


def test_help_and_version(call) -> None:
    for flag in ("--help", "-h"):
        result = call(flag)
        assert (result.code, result.err) == (0, "")
        assert "validate" in result.out
    assert call("--version").out == f"sora-spec {sora_spec.__version__}\n"


def test_usage_errors_end_with_2_and_suggest(call) -> None:
    result = call("vlidate")
    assert result.code == 2
    assert "validate" in result.err
    assert call("validate").code == 2
    assert call("validate", "dit", "--formt", "json").code == 2
    assert call().code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "dit", "--gpu", ""),
        ("plan", "dit", "--count="),
        ("plan", "dit", "--hardware", " ", "--check"),
        ("diff", "dit", "sit", "--gpu", ""),
        ("tui", "dit", "--svg", ""),
        ("train", "dit", "--device", ""),
        ("generate", "run", "--out="),
        ("generate", "run", "--backend", ""),
    ],
)
def test_an_option_that_was_given_nothing_is_not_left_out(call, arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    option = next(word for word in arguments if word.startswith("--")).rstrip("=")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {option} is given, but empty")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tui dit --json --svg a.svg", "error: --json and --svg are two forms\n"),
        ("tui dit --size 120x30", "error: --size is about a picture\nhint: add --svg FILE.svg"),
        ("tui dit --json --keys f", "error: --keys is about a picture\nhint: add --svg FILE.svg"),
        ("tui dit --svg a.png", "error: --svg draws SVG, and a.png ends otherwise\nhint: name it a.svg\n"),
        ("plan dit --sweep --plot a", "error: --plot draws SVG, and a ends otherwise\nhint: name it a.svg\n"),
    ],
)
def test_what_a_picture_cannot_be_is_refused(call, arguments: str, message: str) -> None:
    result = call(*arguments.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(message)
    assert not list(Path().glob("a*.[sp][vn]g"))


def test_the_line_after_a_new_spec_can_be_pasted(call, tmp_path: Path) -> None:
    path = tmp_path / "two words.yaml"
    line = call("init", str(path)).err.partition("hint: ")[2].partition(";")[0]
    assert shlex.split(line) == ["sora-spec", "validate", str(path)]


def test_validate_good_specs(call) -> None:
    result = call("validate", "dit", "sit", "train.steps=3")
    assert (result.code, result.out, result.err) == (0, "", "ok  dit\nok  sit\n")


@pytest.mark.parametrize(
    "arguments", [("-q", "validate", "dit"), ("validate", "-q", "dit"), ("validate", "dit", "--quiet")]
)
def test_quiet_before_and_after_the_verb(call, arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert (result.code, result.out, result.err) == (0, "", "")


def test_validate_wrong_spec(call, wrong: str) -> None:
    result = call("validate", wrong, "dit")
    assert result.code == 1
    assert "error[E204]: `clip.frames` is 0" in result.out
    assert result.err == "ok  dit\n"


def test_formats(call, wrong: str) -> None:
    concise = call("validate", "--format", "concise", wrong)
    assert concise.out.splitlines()[0].startswith(f"{wrong}:1:1: E202 ")
    github = call("validate", "--format", "github", wrong)
    assert github.out.startswith(f"::error file={wrong},line=1,col=1,")
    report = json.loads(call("validate", "--format=json", wrong, "dit").out)
    assert [spec["ok"] for spec in report["specs"]] == [False, True]
    unknown = call("validate", "--format", "xml", wrong)
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.err == "error: there is no format xml\nhint: formats: full, concise, json, github\n"


def test_unreadable_is_2_even_beside_wrong_ones(call, wrong: str) -> None:
    assert call("validate", wrong, "no-such.yaml").code == 2
    assert "no spec to check" in call("validate", "a.b=1").err


def test_overrides_are_checked(call) -> None:
    result = call("validate", "dit", "train.steps=many")
    assert result.code == 1
    assert "--> argument:1:13" in result.out


def test_a_file_that_looks_like_an_override_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.b=c").write_text("version: 1")
    assert split_arguments(["a.b=c", "a.b=d", "x.yaml"]) == (["a.b=c", "x.yaml"], ["a.b=d"])
    for arguments in ([], ["a.yaml", "b.yaml"]):
        with pytest.raises(UserError):
            one_spec(arguments)


def test_show_prints_a_spec_again(call, tmp_path: Path) -> None:
    result = call("show", "dit", "train.steps=7")
    assert result.code == 0
    assert "# latents      4 × 1 × 32 × 32 " in result.out
    assert "# tokens       256 a clip = 1 × 16 × 16" in result.out
    path = tmp_path / "shown.yaml"
    path.write_text(result.out)
    assert load_spec(path) == load_spec("dit", ["train.steps=7"])


def test_show_json(call) -> None:
    values = json.loads(call("show", "--json", "latte").out)
    assert values["shapes"]["latent"] == [4, 16, 32, 32]
    assert values["shapes"]["tokens"] == 16 * 16 * 16
    assert values["spec"]["temporal"] == {"kind": "alternating"}


def test_show_of_a_wrong_spec_reports_on_stderr(call, wrong: str) -> None:
    result = call("show", wrong)
    assert (result.code, result.out) == (1, "")
    assert "error[E204]" in result.err
    assert "error: " not in result.err


def test_ls(call) -> None:
    result = call("ls")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == ["NAME", *packaged_names()]
    assert "hint: " in result.err
    rows = {row["name"]: row for row in json.loads(call("ls", "--json").out)}
    assert rows["dit"]["tokens"] == 256
    assert rows["dit"]["system"] == "dit-xl-2-256"


def test_init_never_overwrites_by_itself(call, tmp_path: Path) -> None:
    path = tmp_path / "new" / "my.yaml"
    result = call("init", str(path))
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(f"wrote {path}, which begins as tiny-sit-digits\nhint: sora-spec validate {path};")
    assert load_spec(path) == load_spec("tiny-sit-digits", ["name=my"])
    assert call("init", str(path), "--from", "dit").code == 2
    assert load_spec(path) == load_spec("tiny-sit-digits", ["name=my"])
    assert call("init", str(path), "--from", "dit", "--force").code == 0
    assert load_spec(path) == load_spec("dit", ["name=my"])


def test_init_into_a_folder_to_stdout_and_of_an_unknown_name(call, tmp_path: Path) -> None:
    assert call("init", str(tmp_path), "--from", "dit").code == 0
    assert (tmp_path / "dit.yaml").exists()
    assert call("init", "-").out.startswith("#")
    result = call("init", "-", "--from", "dti")
    assert result.code == 2
    names = ", ".join(packaged_names())
    said = f"error: there is no starting point called dti\nhint: did you mean dit? there are: {names}\n"
    assert result.err == said
    assert call("init", "/proc/no/such").code == 2


def test_schema(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call("schema")
    assert json.loads(result.out)["title"] == "Spec"
    assert call("schema", "--check").code == 0
    target = tmp_path / "schema.json"
    assert call("schema", "--output", str(target)).code == 0
    assert target.read_text() == result.out
    assert call("schema", "-o", "/proc/x").code == 2
    target.write_text("{}")
    monkeypatch.setattr("sora_spec.cli.schema_command.specs_folder", lambda: tmp_path)
    stale = call("schema", "--check")
    assert (stale.code, stale.out) == (1, "")
    assert "hint: sora-spec schema --output" in stale.err


def test_explain(call) -> None:
    result = call("explain", "e301")
    assert result.code == 0
    assert result.out.startswith("# E301: the frames do not fit the VAE")
    listed = call("explain").out.splitlines()
    assert listed[0].startswith("E101  ")
    assert len(listed) > 50
    assert call("explain", "E999").code == 2


def test_colour_only_on_a_terminal_without_no_color(wrong: str) -> None:
    def on_terminal(*command: str, **variables: str) -> str:
        leader, follower = pty.openpty()
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        process = subprocess.Popen(
            [sys.executable, "-m", "sora_spec", *command],
            stdout=follower,
            stderr=follower,
            env=environment | {"TERM": "xterm"} | variables,
        )
        process.wait()
        os.close(follower)
        text = b""
        try:
            while chunk := os.read(leader, 65536):
                text += chunk
        except OSError:  # Linux reports the closed end this way
            pass
        os.close(leader)
        return text.decode()

    assert "\x1b[31;1merror[E204]" in on_terminal("validate", wrong)
    assert "\x1b[" not in on_terminal("validate", wrong, NO_COLOR="1")
    assert "\x1b[" in on_terminal("explain", "E301")


def test_standard_input(wrong: str) -> None:
    command = [sys.executable, "-m", "sora_spec", "validate", "-", "--format", "concise"]
    result = subprocess.run(command, input=WRONG, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout.startswith("<stdin>:1:1: E202")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m sora_spec schema | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert result.stdout == "{\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, ""),
        (UserError("no data", "make some"), 2, "error: no data\nhint: make some\n"),
        (UserError("worse", exit_code=1), 1, "error: worse\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            2,
            f"error: this needs the Python package torch, which is not installed\nhint: {install_command('train')}\n",
        ),
        (
            RuntimeError("broke\nbadly"),
            2,
            "error: this is a bug in sora-spec: RuntimeError: broke badly\n"
            "hint: run the same command with -v for the traceback, and report both\n",
        ),
    ],
)
def test_errors_of_a_verb(call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str) -> None:
    def fail() -> list[str]:
        raise error

    monkeypatch.setattr("sora_spec.cli.ls.packaged_names", fail)
    result = call("ls")
    assert (result.code, result.out, result.err) == (code, "", words)


def test_traceback_of_a_bug_with_v(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sora_spec.cli.ls.packaged_names", lambda: 1 / 0)
    assert "Traceback" in call("ls", "-v").err
    assert "Traceback" in call("-v", "ls").err
    assert "Traceback" not in call("ls").err


def test_a_closed_pipe_in_the_middle(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise BrokenPipeError

    monkeypatch.setattr("sora_spec.cli.ls.packaged_names", fail)
    result = call("ls")
    assert (result.code, result.err) == (1, "")


def test_shell_completion() -> None:
    def complete(words: str) -> str:
        variables = {"_SORA_SPEC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [str(Path(sys.executable).with_name("sora-spec"))]
        return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False).stdout

    assert complete("sora-spec val").split() == ["validate"]
    assert "opendit-video" in complete("sora-spec show ope").split()
    assert complete("sora-spec validate --format g").split() == ["github"]
    assert complete("sora-spec explain E40").split() == ["E401", "E402", "E403", "E404", "E405", "E406"]
    script = subprocess.run(
        [sys.executable, "-m", "sora_spec", "--show-completion", "bash"],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_SORA_SPEC_COMPLETE=complete_bash" in script.stdout


def test_spec_completion_knows_names_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / "ab").mkdir()
    assert complete_spec(f"{tmp_path}/") == [f"{tmp_path}/a.yaml", f"{tmp_path}/ab/"]
    assert complete_spec(f"{tmp_path}/a.") == [f"{tmp_path}/a.yaml"]
    assert complete_spec("di") == ["dit"]
    assert complete_spec("/no/such/folder/x") == []


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_of_this_machine(call) -> None:
    """Everything of the core road is installed here; the report says so and agrees with its JSON."""
    result = call("doctor", "--json")
    report = json.loads(result.out)
    rows = {row["name"]: row for row in report["findings"]}
    assert rows["python"]["detail"] == ".".join(map(str, sys.version_info[:3]))
    assert rows["torch"]["status"] == "ok"
    assert "libx264" in rows["PyAV"]["detail"]
    assert "CPU" in rows["onnxruntime"]["detail"]
    assert result.code == (0 if report["ok"] else 1)
    assert report["ok"] == all(row["status"] != "missing" for row in report["findings"])


def test_doctor_names_what_is_missing_and_the_command_that_mends_it(call, monkeypatch: pytest.MonkeyPatch) -> None:
    real = probes._version
    monkeypatch.setattr(probes, "_version", lambda name: None if name == "torch" else real(name))
    monkeypatch.setattr(probes, "_installed", lambda name: name == "av")
    monkeypatch.setitem(probes._PROBES, "av", "raise SystemExit('no libx264')")
    result = call("doctor")
    assert result.code == 1
    assert "missing  torch         not installed\n" in result.out
    assert install_command("train") in result.out
    assert "is installed, but: no libx264" in result.out
    assert "absent   tensorrt-rtx  not installed\n" in result.out


@pytest.mark.parametrize(
    ("place", "origin", "command"),
    [
        ("checkout", None, "pip install -e '{checkout}[train]'"),
        ("installed", None, "pip install sora-spec[train]"),
        ("installed", {"url": "file:///a/sora.whl"}, "pip install 'sora-spec[train] @ file:///a/sora.whl'"),
        (
            "installed",
            {"url": "https://host/s", "vcs_info": {"vcs": "git"}},
            "pip install 'sora-spec[train] @ git+https://host/s'",
        ),
    ],
)
def test_extras_are_added_to_where_the_installation_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, origin: dict[str, object] | None, command: str
) -> None:
    """The forms of a requirement are pip's; where a distribution came from is PEP 610's `direct_url.json`."""
    checkout = tmp_path / "check out"
    (checkout / "sora_spec").mkdir(parents=True)
    monkeypatch.setattr(packaged, "__file__", str(checkout / "sora_spec" / "language" / "packaged.py"))
    if place != "installed":
        (checkout / "pyproject.toml").touch()
    texts = {"direct_url.json": origin and json.dumps(origin)}
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: SimpleNamespace(read_text=texts.get))
    assert shlex.split(install_command("train")) == shlex.split(command.format(checkout=checkout))


def test_doctor_reads_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100, 81920 MiB, 570.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert probes._gpu().detail == "NVIDIA A100, 81920 MiB, 570.1"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert probes._gpu().status == "absent"


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_TIMEOUT_SECONDS", 0.2)
    running = {"av": probes._start("import time; time.sleep(60)")}
    finding = probes._probed("av", "generate", "train", running, "PyAV")
    assert finding.status == "missing"
    assert "no answer" in finding.detail
