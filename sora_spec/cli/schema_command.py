"""`sora-spec schema`: the JSON schema of the language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.language.packaged import specs_folder


def schema(
    check: Annotated[
        bool, typer.Option("--check", help="Compare the packaged schema with the models; exit 1 if they differ.")
    ] = False,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file instead of stdout.")
    ] = None,
) -> None:
    """Print the JSON schema (draft 2020-12), for editors: `# yaml-language-server: $schema=schema.json`."""
    from sora_spec.language.schema.json_schema import schema_text

    text = schema_text()
    if check:
        packaged = specs_folder() / "schema.json"
        if not packaged.exists() or packaged.read_text(encoding="utf-8") != text:
            hint = f"sora-spec schema --output {packaged}"
            raise UserError(f"{packaged} differs from the models", hint, exit_code=1)
        output.note(f"ok  {packaged}")
    elif target is None:
        output.data(text)
    else:
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{target} cannot be written: {error.strerror}", "name a file in a folder of yours"
            ) from error
        output.note(f"wrote {target}")
