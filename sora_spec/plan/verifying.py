"""`plan --verify`: the real modules are traced in a process of their own, and compared with the prediction."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.language.facts import is_trainable
from sora_spec.language.packaged import install_command
from sora_spec.plan.show.values import line_of

if TYPE_CHECKING:
    from sora_spec.language.source import Document
    from sora_spec.plan.job import Job

_SCRIPT = r"""
import json, sys
from dataclasses import asdict
from sora_spec.builders.trace.compare import compare, compare_on_cpu
from sora_spec.graph import Setting
from sora_spec.language.loading import load_spec

request = json.load(sys.stdin)
spec = load_spec(request["path"], request["overrides"])
for part in request["parts"]:
    setting = Setting(**part["setting"])
    found = compare_on_cpu(spec, setting) if part["really"] else compare(spec, part["component"], setting)
    rows = [asdict(row) | {"equal": row.equal} for row in found.rows]
    print(json.dumps(part | asdict(found) | {"rows": rows, "equal": found.equal}), flush=True)
"""
_SMALL = 500_000_000
"""Bytes up to which a training step is really run on the CPU."""


def verify(path: str, overrides: list[str], parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predicted and traced figures of the parts of a spec.

    Raises UserError: PyTorch is missing, or the trace failed.
    """
    request = json.dumps({"path": path, "overrides": overrides, "parts": parts})
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        if "No module named 'torch'" in done.stderr:
            raise UserError("--verify builds the real modules, which needs PyTorch", install_command("train"))
        raise UserError(f"the trace failed: {lines[-1] if lines else 'no output'}", "report the spec and this message")
    return [json.loads(line) for line in done.stdout.splitlines()]


def parts_of(job: Job, batch: int = 2) -> list[dict[str, Any]]:
    """What is traced: the network alone, a training step, the VAE's halves and its training step, as the job runs
    them; and where it is small, a training step that really runs on this CPU."""
    spec = job.spec
    kernel = job.attention or ("flash" if job.takes_flash else "efficient")
    network = {
        "batch": batch,
        "precision": job.precision,
        "attention": kernel,
        "temporal_attention": job.temporal_attention,
        "fused_rms_norm": job.setting("denoiser", batch).fused_rms_norm,
    }
    parts = [_part("denoiser", network), _part("denoiser_step", network | {"owned_inputs": True})]
    if job.has_vae:
        vae = {"batch": 1, "precision": "fp32", "attention": "efficient"}
        parts += [_part("vae_encode", vae), _part("vae_decode", vae)]
        if is_trainable(spec.vae):
            parts.append(_part("vae_step", vae))
    step = job.work("denoiser_step", batch, "fp32")
    if 2 * step.parameter_bytes + step.peak.tensor_bytes <= _SMALL:
        parts.append(_part("denoiser_step", {"batch": batch}, really=True))
    return parts


def _part(component: str, setting: dict[str, Any], really: bool = False) -> dict[str, Any]:
    return {"component": component, "setting": setting, "really": really}


def verification_text(found: list[dict[str, Any]], document: Document | None) -> str:
    """Both columns, and where they part."""
    lines: list[str] = []
    for part in found:
        setting, really = part["setting"], part["really"]
        how = "really run on this CPU" if really else f"{setting['precision']}, {setting['attention']} attention"
        lines.append(f"{part['component']}: batch {setting['batch']}, {how}")
        lines.append(f"  {'':<36}{'predicted':>20}{'measured' if really else 'traced':>20}")
        for row in part["rows"]:
            mark = "" if row["equal"] else "  ←"
            lines.append(f"  {row['quantity']:<36}{row['predicted']:>20,}{row['traced']:>20,}{mark}")
        lines += [f"  within {row['tolerance']:.2%}" for row in part["rows"] if row["tolerance"] and row["equal"]]
        lines += [] if really else _divergence(part["divergence"], document)
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
