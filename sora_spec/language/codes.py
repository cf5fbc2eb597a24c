"""Every code that a report can carry: what it means, a spec that gets it, and one that does not.

E1xx reading, E2xx single values, E3xx sections against each other, E4xx not buildable yet, Wxxx warnings.
The examples of E2xx and above are sections laid over a small valid spec; tests check that each really gets its code.
"""

from __future__ import annotations

from functools import cache

from sora_spec.errors import UserError
from sora_spec.language.code_texts import across, buildable, reading, values
from sora_spec.language.code_texts.code import Code
from sora_spec.language.diagnostics import nearest


@cache
def all_codes() -> dict[str, Code]:
    """Every code by its number, ascending."""
    found = (*reading.CODES, *values.CODES, *across.CODES, *buildable.CODES)
    return {code.code: code for code in sorted(found, key=lambda code: code.code)}


def find_code(name: str) -> Code:
    """The code called `name`, in any case. Raises UserError: there is none."""
    codes = all_codes()
    wanted = name.strip().upper()
    if wanted in codes:
        return codes[wanted]
    match = nearest(wanted, codes)
    hint = f"did you mean {match}? " if match else ""
    raise UserError(f"no code is called {name}", f"{hint}sora-spec explain lists them all")


def markdown(code: Code) -> str:
    """The long text of a code."""
    parts = [f"# {code.code}: {code.title}", code.text]
    if code.wrong:
        parts.append(f"Wrong:\n\n```yaml\n{code.wrong}\n```")
    if code.right:
        parts.append(f"Right:\n\n```yaml\n{code.right}\n```")
    return "\n\n".join(parts) + "\n"
