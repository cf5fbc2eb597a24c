"""`sora-spec explain`: the long text of a code."""

from __future__ import annotations

from typing import Annotated

import typer

from sora_spec import output
from sora_spec.language.codes import all_codes, find_code, markdown


def _complete_code(incomplete: str) -> list[str]:
    return [code for code in all_codes() if code.startswith(incomplete.upper())]


def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="For example E301.", autocompletion=_complete_code)
    ] = None,
) -> None:
    """Explain the code of a problem, with a wrong and a right example. Without a code, list them all."""
    if code is None:
        output.data("\n".join(f"{known.code}  {known.title}" for known in all_codes().values()))
        return
    text = markdown(find_code(code))
    if not output.coloured():
        output.data(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=min(Console().width, 100)).print(Markdown(text))
