"""A command group whose verbs are imported only when they run: `--help` costs no import of any verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from sora_spec import output
from sora_spec.errors import UserError


@dataclass(frozen=True)
class Verb:
    """Where a verb lives and what `--help` says about it."""

    module: str
    """Holds `app` (a Typer with sub-commands) or a function with the verb's name, `_` for `-`."""
    help: str
    panel: str


VERBS = {
    "init": Verb("sora_spec.cli.init", "Write a commented spec to start from.", "Specs"),
    "ls": Verb("sora_spec.cli.ls", "List the packaged reference specs.", "Specs"),
    "validate": Verb("sora_spec.cli.validate", "Check specs; report every problem at its line.", "Specs"),
    "show": Verb("sora_spec.cli.show", "Print a resolved spec and the shapes that follow from it.", "Specs"),
    "schema": Verb("sora_spec.cli.schema_command", "Print the JSON schema that editors use.", "Specs"),
    "plan": Verb("sora_spec.cli.plan", "Say what a spec needs: memory, time, cost; and whether it fits.", "Specs"),
    "diff": Verb("sora_spec.cli.diff", "Compare two specs: fields and costs side by side.", "Specs"),
    "tui": Verb("sora_spec.cli.tui", "Plan in the terminal: turn knobs, compare, sweep, edit, follow runs.", "Specs"),
    "explain": Verb("sora_spec.cli.explain", "Explain the code of a problem, such as E301.", "Specs"),
    "data": Verb("sora_spec.cli.data", "Write small real data sets to disk.", "Models"),
    "train": Verb("sora_spec.cli.train", "Train the VAE or the denoiser of a spec.", "Models"),
    "generate": Verb("sora_spec.cli.generate", "Generate video from a run or a bundle.", "Models"),
    "eval": Verb("sora_spec.cli.eval", "Judge a model's clips of moving digits beside real ones.", "Models"),
    "export": Verb("sora_spec.cli.export", "Export a run to ONNX and TensorRT.", "Models"),
    "export-weights": Verb(
        "sora_spec.cli.export_weights", "Write a run's weights in the official or diffusers' layout.", "Models"
    ),
    "consolidate": Verb(
        "sora_spec.cli.consolidate", "Write a checkpoint's weights and their average as safetensors.", "Models"
    ),
    "probe": Verb("sora_spec.cli.probe", "Measure this machine and write a device for `plan`.", "Machine"),
    "doctor": Verb("sora_spec.cli.doctor", "Check this machine: what works, what is missing.", "Machine"),
}


def _set_quiet(value: bool) -> bool:
    if value:
        output.set_verbosity(-1)
    return value


def _set_verbose(value: bool) -> bool:
    if value:
        output.set_verbosity(1)
    return value


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_set_quiet, expose_value=False, help="Only results and errors.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_verbose, expose_value=False, help="More detail.")
]


def _verbosity(quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Carrier of the two options that every verb has."""


def load_verb(name: str) -> Any:
    """Import a verb and build its command, `-q` and `-v` included."""
    module = import_module(VERBS[name].module)
    found = getattr(module, "app", None) or getattr(module, name.replace("-", "_"))
    command: Any = get_command(found if isinstance(found, typer.Typer) else _single(found))
    command.name = name
    carrier: Any = get_command(_single(_verbosity))
    for part in (command, *getattr(command, "commands", {}).values()):
        part.params = [*part.params, *carrier.params]
    return command


class _Text:
    """Coercion of a parameter that is text already."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        many = param.multiple or param.nargs == -1
        return list(value or ()) if many else value


def _spare_pydantic(parameters: list[Any]) -> list[Any]:
    """Let text and flags pass as they are. Recent typers send every value through a pydantic adapter, whose import
    takes longer than checking a spec; on a typer without such a hook this changes nothing."""
    for parameter in parameters:
        annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
        if hasattr(parameter, "_runtime_param") and annotation in (str, list[str], bool):
            parameter._runtime_param = _Text()
    return parameters


class QuickCommand(TyperCommand):
    """A verb that imports no pydantic for its arguments."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, `--help` included."""
        return _spare_pydantic(super().get_params(ctx))

    def get_help(self, ctx: Any) -> str:
        """The help; it is printed while it is made."""
        output.check_open()
        return super().get_help(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """The arguments read. Raises UserError for an option that was given nothing."""
        _refuse_empty(args, self.params)
        return super().parse_args(ctx, args)


_MAY_BE_EMPTY = ("--prompt",)


def _refuse_empty(arguments: Sequence[str], params: Sequence[Any]) -> None:
    """`--gpu ""`, of a variable that was never set, would count as left out, and `--out ""` as this folder."""
    valued = {name for param in params if not getattr(param, "is_flag", True) for name in param.opts}
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for word, after in zip_longest(words, words[1:]):
        option, equals, value = word.partition("=")
        given = value if equals else after
        if option in valued and option not in _MAY_BE_EMPTY and given is not None and not given.strip():
            raise UserError(f"{option} is given, but empty", "give it a value, or leave it out")


def _single(function: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    app.command(cls=QuickCommand)(function)
    return app


class LazyVerb(TyperCommand):
    """Name and one-line help of a verb; becomes the verb itself when it is asked for a context."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, imported now."""
        assert self.name is not None
        return load_verb(self.name).make_context(info_name, args, parent=parent, **extra)


class Group(TyperGroup):
    """A command of several verbs."""

    def get_help(self, ctx: Any) -> str:
        """The help; it is printed while it is made."""
        output.check_open()
        return super().get_help(ctx)


class LazyGroup(Group):
    """The root command, filled with lazy verbs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, verb in VERBS.items():
            self.add_command(LazyVerb(name, help=verb.help, rich_help_panel=verb.panel), name)

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the root, `--help` included."""
        return _spare_pydantic(super().get_params(ctx))
