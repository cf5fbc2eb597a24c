"""`plan --verify`: the real modules are traced in a process of their own, and compared with the prediction."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.plan.values import line_of

if TYPE_CHECKING:
    from sora_spec.source import Document

_SCRIPT = r"""
import json, sys
from dataclasses import asdict
from sora_spec.builders.verify.compare import compare
from sora_spec.graph import Setting
from sora_spec.loading import load_spec

request = json.load(sys.stdin)
spec = load_spec(request["path"], request["overrides"])
for part in request["parts"]:
    setting = Setting(batch=part["batch"], precision=part["precision"], attention=part["attention"])
    found = compare(spec, part["component"], setting)
    print(json.dumps(asdict(found) | {"equal": found.equal, "setting": part}), flush=True)
"""


def verify(path: str, overrides: list[str], parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predicted and traced figures of the parts of a spec.

    Raises:
        UserError: PyTorch is missing, or the trace failed.
    """
    request = json.dumps({"path": path, "overrides": overrides, "parts": parts})
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        missing = "No module named 'torch'" in done.stderr
        hint = "pip install 'sora-spec[train]'" if missing else "report the spec and this message"
        raise UserError(f"the trace failed: {lines[-1] if lines else 'no output'}", hint)
    return [json.loads(line) for line in done.stdout.splitlines()]


def parts_of(precision: str, attention: str, has_codec: bool, batch: int = 2) -> list[dict[str, Any]]:
    """What is traced: the network alone, a training step, and both halves of the codec."""
    network = {"batch": batch, "precision": precision, "attention": attention}
    codec = {"batch": 1, "precision": "fp32", "attention": "efficient"}
    parts = [{"component": name, **network} for name in ("denoiser", "denoiser_step")]
    return parts + [{"component": name, **codec} for name in ("vae_encode", "vae_decode") if has_codec]


def verification_text(found: list[dict[str, Any]], document: Document | None) -> str:
    """Both columns, and where they part."""
    lines: list[str] = []
    for part in found:
        setting = part["setting"]
        words = f"batch {setting['batch']}, {setting['precision']}, {setting['attention']} attention"
        lines.append(f"{part['component']}: {words}")
        lines.append(f"  {'':<36}{'predicted':>20}{'traced':>20}")
        for row in part["rows"]:
            mark = "" if row["predicted"] == row["traced"] else "  ←"
            lines.append(f"  {row['quantity']:<36}{row['predicted']:>20,}{row['traced']:>20,}{mark}")
        lines += _divergence(part["divergence"], document)
    return "\n".join(lines)


def _divergence(found: dict[str, Any] | None, document: Document | None) -> list[str]:
    if found is None:
        return ["  every op agrees"]
    path = ".".join(str(step) for step in found["yaml"])
    line = line_of(path, document)
    return [
        f"  they part at op {found['index']}, {found['region']}, made by {path}" + (f" (line {line})" if line else ""),
        f"    predicted  {found['predicted']}",
        f"    traced     {found['traced']}",
    ]
