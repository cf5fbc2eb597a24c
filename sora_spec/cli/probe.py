"""`sora-spec probe`: measure this machine, and write a device that `plan --hardware` reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from sora_spec import output
from sora_spec.errors import UserError


def probe(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the device in the file.")] = "this-machine",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; a GPU where there is one.")] = "",
    seconds: Annotated[str, typer.Option(metavar="S", help="Time for each measurement.")] = "0.5",
    out: Annotated[str, typer.Option(metavar="FILE", help="File to add the device to.")] = "",
) -> None:
    """Measure matrix rates, bandwidth and memory, run real models, and print a device for `sora-spec plan`."""
    from sora_spec.plan.devices.probing import entry, measure, measure_programs

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"{name!r} is no name of a device", "use letters, digits, `-`, `_` and `.`")
    try:
        duration = float(seconds)
    except ValueError:
        raise UserError(f"--seconds {seconds} is not a number") from None
    if not 0 < duration <= 60:
        raise UserError(f"--seconds {seconds} is outside 0 to 60")
    with output.progress("measuring single kernels"):
        found = measure(device, duration)
    with output.progress("measuring real models"):
        programs = measure_programs(found, device, duration)
    for program in programs:
        reached = f"{program.seconds:.3g} s, {100 * program.share:.0f} % of the measured rates"
        output.note(f"  {program.program.words}: {reached}")
    text = entry(name, found, programs)
    if out:
        _add(Path(out), name, text)
        output.hint(f"sora-spec plan SPEC --gpu {name} --hardware {out}")
    else:
        output.hint(f"write it to a file: sora-spec probe {name} --out machine.yaml")
    output.data(text)


def _add(path: Path, name: str, text: str) -> None:
    """Add the entry to the file, in place of an earlier one of that name."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    kept = re.sub(rf"^{re.escape(name)}:\n(?:[ \t].*\n|\n)*", "", before, flags=re.MULTILINE)
    path.write_text(kept.rstrip("\n") + ("\n\n" if kept.strip() else "") + text + "\n", encoding="utf-8")
