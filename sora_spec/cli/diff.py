"""`sora-spec diff`: two specs, fields and costs side by side."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sora_spec import output
from sora_spec.cli.arguments import complete_spec, split_arguments
from sora_spec.errors import UserError


def diff(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [KEY=VALUE]...",
            help="Two specs; overrides apply to the second. One spec and overrides compare it with itself.",
            autocompletion=complete_spec,
        ),
    ],
    gpu: Annotated[str, typer.Option(metavar="NAME", help="Device for the costs; each on its own when left out.")] = "",
    mode: Annotated[str, typer.Option(metavar="train|generate", help="Job for the costs.")] = "train",
    hardware: Annotated[str, typer.Option(metavar="FILE", help="Your own devices, as in hardware.yaml.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show in which fields two specs differ, and what that costs: parameters, FLOPs, memory, time.

    Exit code 0: they are the same. 1: they differ.
    """
    from sora_spec.language.loading import load_spec
    from sora_spec.language.packaged import find_spec_file
    from sora_spec.language.source import load_document
    from sora_spec.plan.layout import checked_for
    from sora_spec.plan.show.comparing import compare, comparison_text

    if mode not in ("train", "generate"):
        raise UserError(f"--mode {mode} is none of train, generate")
    specs, overrides = split_arguments(arguments)
    if len(specs) == 1 and overrides:
        specs *= 2
    if len(specs) != 2:
        raise UserError(f"this takes two specs, and the arguments name {len(specs)}", "sora-spec diff A B")
    document = load_document(find_spec_file(specs[1]), overrides)
    checked, typed = checked_for(document, None)
    second = checked.spec()
    if gpu and "hardware.gpu" in typed:
        raise UserError("--gpu and hardware.gpu both name a device", "leave one of the two out")
    job = "generate" if mode == "generate" else "train"
    found = compare(load_spec(specs[0]), second, gpu, job, hardware or None, typed)
    output.data(json.dumps(found, indent=2) if as_json else comparison_text(found))
    raise typer.Exit(1 if found["fields"] else 0)
