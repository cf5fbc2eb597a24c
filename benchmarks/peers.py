"""The planner beside other tools that estimate FLOPs or memory, on the same models; writes docs/peers.md.

    python benchmarks/peers.py [--timeout 120]

The tools go into a throw-away environment of their own (`peers-requirements.txt`), which sees the project's PyTorch;
nothing is installed beside the project. Every tool runs in a process of its own, on the meta device, where a forward
pass costs no arithmetic: the best case for those that need one. ptflops' default back end counts everything twice there
and runs on the CPU, with a limit. Seconds are those of building the model and asking the tool; imports are left out,
and named apart for PyTorch.

Truth: parameters of the built module; FLOPs of PyTorch's FlopCounterMode on the meta device with the attention op left
whole; training memory the peak of the traced tensors of a step, forward and backward, of one clip in fp32, with AdamW's
two moments. Tools that count multiply-accumulates are doubled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "peers.md"
MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "DiT-B/2 256²": ("dit", ("backbone.depth=12", "backbone.width=768", "backbone.heads=12")),
    "DiT-XL/2 256²": ("dit", ()),
    "DiT-XL/2 512²": ("dit", ("clip.height=512", "clip.width=512")),
    "Latte-XL/2 16 × 256²": ("latte", ()),
    "VDiT-XL 16 × 512²": ("opendit-video", ("clip.height=512", "clip.width=512", "train.recompute.kind=none")),
    "1.4 B, 81 × 480p": ("sora-480p", ("train.recompute.kind=none",)),
}
ALONE = ("parallel.shard=1", "train.batch=1", "train.precision=fp32")


@dataclass(frozen=True)
class Answer:
    """What a tool says of one model. None: it does not say."""

    parameters: float | None = None
    flops: float | None = None
    memory: float | None = None
    """Bytes of a training step."""


def spec_of(model: str) -> Any:
    """The spec of one of the models."""
    from sora_spec.language.loading import load_spec

    name, overrides = MODELS[model]
    return load_spec(name, [*overrides, *ALONE])


def built(model: str, device: str = "meta") -> tuple[Any, dict[str, Any]]:
    """The real module, its weights not set, and its inputs for one clip."""
    import torch

    from sora_spec.builders.denoiser import build_denoiser
    from sora_spec.language.shapes import derive_shapes

    spec = spec_of(model)
    with torch.device("meta"):
        network = build_denoiser(spec)
    with torch.device(device):
        latents, moment = torch.zeros(1, *derive_shapes(spec).latent), torch.zeros(1)
        condition: Any = torch.zeros(1, dtype=torch.int64)
        if spec.condition.kind == "text":
            tokens = () if spec.condition.pooled else (spec.condition.tokens,)
            condition = torch.zeros(1, *tokens, spec.condition.width)
    names = list(network.forward.__code__.co_varnames[1:4])
    network = network if device == "meta" else network.to_empty(device=device)
    return network, dict(zip(names, (latents, moment, condition), strict=True))


def step(**more: Any) -> Any:
    """A training step of one clip in fp32."""
    from sora_spec.graph import Setting

    return Setting(batch=1, precision="fp32", attention="efficient", fused_rms_norm=True, rounding=512, **more)


def planner(model: str) -> Answer:
    """This project, without PyTorch."""
    from sora_spec.plan.memory.workload import workload

    spec = spec_of(model)
    work = workload(spec, "denoiser_step", step())
    trained = sum(w.resident.numel * w.times for w in work.weights if w.resident.trained)
    memory = work.peak.tensor_bytes + work.parameter_bytes + work.buffer_bytes + 8 * trained
    return Answer(work.parameters, workload(spec, "denoiser", step()).forward_flops, memory)


def truth(model: str) -> Answer:
    """PyTorch itself."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from sora_spec.builders.trace.kernels import forced_attention
    from sora_spec.builders.trace.recorder import record

    network, inputs = built(model)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), forced_attention("efficient"), counter:
        network(**inputs)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    traced = record(spec_of(model), "denoiser_step", step()).tape
    parameters = sum(p.numel() for p in network.parameters())
    return Answer(parameters, counter.get_total_flops(), max(op.live_bytes for op in traced.ops) + 8 * trained)


def flop_counter(model: str) -> Answer:
    """PyTorch's counter as a user would call it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network, inputs = built(model)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(**inputs)
    return Answer(flops=counter.get_total_flops())


def calflops(model: str) -> Answer:
    """Hooks on modules and functions."""
    from calflops import calculate_flops  # pyright: ignore

    network, inputs = built(model)
    flops, _, parameters = calculate_flops(network, kwargs=inputs, print_results=False, output_as_string=False)
    return Answer(parameters, flops)


def ptflops(backend: str) -> Callable[[str], Answer]:
    """Hooks on modules (`pytorch`) or on the dispatcher (`aten`)."""

    def ask(model: str) -> Answer:
        from ptflops import get_model_complexity_info  # pyright: ignore

        network, inputs = built(model, "cpu" if backend == "pytorch" else "meta")
        macs, parameters = get_model_complexity_info(
            network,
            (1,),
            input_constructor=lambda _: inputs,
            as_strings=False,
            print_per_layer_stat=False,
            backend=backend,
        )
        return Answer(parameters, None if macs is None else 2 * macs)

    return ask


def fvcore(model: str) -> Answer:
    """Counts over a TorchScript trace."""
    from fvcore.nn import FlopCountAnalysis, parameter_count  # pyright: ignore

    network, inputs = built(model)
    analysis = FlopCountAnalysis(network, tuple(inputs.values()))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return Answer(parameter_count(network)[""], 2 * analysis.total())


def torchinfo(model: str) -> Answer:
    """A summary of modules: multiply-accumulates, and bytes of parameters and of what modules return, twice."""
    from torchinfo import summary  # pyright: ignore

    network, inputs = built(model)
    found = summary(network, input_data=inputs, device="meta", verbose=0)
    size = found.total_input + found.total_output_bytes + found.total_param_bytes
    return Answer(found.total_params, 2 * found.total_mult_adds, size)


def accelerate(model: str) -> Answer:
    """`accelerate estimate-memory`'s functions: training with Adam."""
    from accelerate.commands.estimate import estimate_training_usage  # pyright: ignore
    from accelerate.utils import calculate_maximum_sizes  # pyright: ignore

    network, _ = built(model)
    total, _ = calculate_maximum_sizes(network)
    usage = estimate_training_usage(total, mixed_precision="float32")
    return Answer(memory=max(usage.values()))


def deepspeed(zero: int) -> Callable[[str], Answer]:
    """DeepSpeed's estimate for one GPU without offload, restated from its documentation (Memory Requirements): ZeRO-2
    4·P + 16·P / GPUs, ZeRO-3 18·P / GPUs + 4·the largest layer."""

    def ask(model: str) -> Answer:
        network, _ = built(model)
        count = sum(p.numel() for p in network.parameters())
        largest = max(sum(p.numel() for p in m.parameters(recurse=False)) for m in network.modules())
        return Answer(count, memory=20 * count if zero == 2 else 18 * count + 4 * largest)

    return ask


TOOLS: dict[str, tuple[Callable[[str], Answer], str]] = {
    "sora-spec plan": (
        planner,
        "parameters, FLOPs, memory by phase, time, cost, fit; training and generation; no PyTorch",
    ),
    "FlopCounterMode": (flop_counter, "FLOPs"),
    "calflops": (calflops, "parameters, FLOPs"),
    "ptflops, pytorch": (ptflops("pytorch"), "parameters, FLOPs"),
    "ptflops, aten": (ptflops("aten"), "parameters, FLOPs"),
    "fvcore": (fvcore, "parameters, FLOPs"),
    "torchinfo": (torchinfo, "parameters, FLOPs, bytes that modules return"),
    "accelerate": (accelerate, "weights, gradients and Adam's moments; no activations"),
    "DeepSpeed, ZeRO-2": (deepspeed(2), "weights, gradients and Adam's moments; no activations"),
    "DeepSpeed, ZeRO-3": (deepspeed(3), "weights, gradients and Adam's moments; no activations"),
}


def measure(tool: str, model: str) -> dict[str, Any]:
    """Ask in this process."""
    start = time.perf_counter()
    if tool != "sora-spec plan":
        import torch  # noqa: F401
    imported = time.perf_counter() - start
    ask = truth if tool == "truth" else TOOLS[tool][0]
    start = time.perf_counter()
    try:
        answer = ask(model)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    return {**answer.__dict__, "seconds": time.perf_counter() - start, "import_seconds": imported}


def environment(folder: Path) -> Path:
    """A Python with the tools, which sees the project's own packages behind its own."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    requirements = ["-r", str(HERE / "peers-requirements.txt")]
    site = next((folder / "lib").glob("python*/site-packages"))
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "project.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in packages))
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    subprocess.run(command, check=True)
    return python


def asked(python: Path, tool: str, model: str, timeout: float) -> dict[str, Any]:
    """Ask in a process of its own."""
    command = [str(python), str(Path(__file__)), "--measure", tool, model]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout, env=quiet, cwd=tempfile.gettempdir()
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {timeout:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("answer: ")]
    if not lines:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return json.loads(lines[-1].removeprefix("answer: "))


def _error(found: float | None, true: float) -> str:
    if found is None:
        return "–"
    error = 100 * (found / true - 1)
    return "0" if found == true else f"{error:+.1f} %" if abs(error) >= 0.1 else f"{error:+.1g} %"


def page(truths: dict[str, dict[str, Any]], answers: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The page as text."""
    lines = [
        "# The planner beside other tools",
        "",
        "Written by `python benchmarks/peers.py`, which says how. A cell holds the error of the forward pass's FLOPs,",
        "the error of the memory of a training step, and the seconds it took; `–` where the tool does not say. Two",
        "processor cores, no GPU.",
        "",
        "| tool | says | " + " | ".join(MODELS) + " |",
        "|---" * (2 + len(MODELS)) + "|",
    ]
    failed: list[str] = []
    for tool, (_, says) in TOOLS.items():
        cells: list[str] = []
        for model in MODELS:
            found, true = answers[tool][model], truths[model]
            if "failed" in found:
                cells.append("fails")
                failed.append(f"- {tool}, {model}: {found['failed']}")
                continue
            errors = (_error(found["flops"], true["flops"]), _error(found["memory"], true["memory"]))
            cells.append(" · ".join((*errors, f"{found['seconds']:.3g} s")))
        lines.append("| " + " | ".join((tool, says, *cells)) + " |")
    lines += [
        "",
        "The truth:",
        "",
        "| model | parameters | TFLOPs a forward pass | GB of a training step |",
        "|---|---|---|---|",
    ]
    for model, true in truths.items():
        lines.append(
            f"| {model} | {true['parameters']:,.0f} | {true['flops'] / 1e12:.4g} | {true['memory'] / 1e9:.2f} |"
        )
    wrong = [
        f"{tool} says {answers[tool][model]['parameters']:,.0f} parameters for {model}."
        for tool in TOOLS
        for model in MODELS
        if answers[tool][model].get("parameters") not in (None, truths[model]["parameters"])
    ]
    slowest = max(truth["import_seconds"] for truth in truths.values())
    lines += [
        "",
        "Every tool that says parameters counts them right, unless a line below says otherwise. All but the first",
        f"import PyTorch before they answer, up to {slowest:.1f} s here.",
        "",
        "Tools that hook modules and functions, or trace to TorchScript, do not see inside fused attention: they miss",
        "its products, more of them the longer the sequence. On the meta device attention falls apart into matrix",
        "products, which tools on the dispatcher count; on a device with a fused kernel they too miss them.",
        "",
        "The other estimates of training memory count states alone, and say so, or what modules return. For one image",
        "of 256² the states are nearly all there is, and DeepSpeed's include a copy in 16 bits that fp32 training",
        "lacks; for a clip activations are up to nine tenths.",
        *wrong,
    ]
    if failed:
        lines += ["", "What failed:", "", *failed]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--measure", nargs=2, metavar=("TOOL", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print("answer: " + json.dumps(measure(*arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder) / "peers")
        truths = {model: asked(python, "truth", model, arguments.timeout) for model in MODELS}
        answers = {tool: {model: asked(python, tool, model, arguments.timeout) for model in MODELS} for tool in TOOLS}
    PAGE.write_text(page(truths, answers), encoding="utf-8")
    print(page(truths, answers))


if __name__ == "__main__":
    main()
