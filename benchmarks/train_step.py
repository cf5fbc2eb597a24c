"""Speed of one training step: the built DiT-B/2 against the straight-line reference of the tests, on the CPU.

A step is forward, mean squared error, backward and fused AdamW, in fp32, on latents (batch, 4, 1, 32, 32). All run in
one process, in a new order every round, so that a busy machine slows all alike; medians are compared, of wall time and
of processor time (which other programs disturb less). The reference is timed twice: with attention written out, as the
published maths says, and with PyTorch's fused attention.

    OMP_NUM_THREADS=2 python benchmarks/train_step.py --rounds 7
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, scaled_dot_product_attention

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.weights.dit import from_official
from sora_spec.language.schema.spec import Spec

sys.path.insert(0, str(Path(__file__).parents[1]))
import tests.support.reference_dit as reference

SIZES = {"B/2": (12, 768, 12), "S/2": (12, 384, 6)}
Step = Callable[[Tensor, Tensor, Tensor, Tensor], float]


def spec_of(size: str) -> Spec:
    depth, width, heads = SIZES[size]
    return Spec.model_validate(
        {
            "version": 1,
            "name": "dit",
            "clip": {"frames": 1, "height": 256, "width": 256},
            "vae": {"kind": "image_kl"},
            "patch": {"time": 1, "space": 2},
            "backbone": {"kind": "transformer", "depth": depth, "width": width, "heads": heads},
            "condition": {"kind": "class", "classes": 1000},
            "objective": {"kind": "ddpm"},
            "sampler": {"kind": "ddpm"},
        }
    )


def step_of(network: Callable[..., Tensor], parameters: list[Tensor]) -> Step:
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=True)

    def step(latents: Tensor, times: Tensor, labels: Tensor, target: Tensor) -> float:
        loss = mse_loss(network(latents, times, labels), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def steps_of(size: str) -> dict[str, Step]:
    depth, width, heads = SIZES[size]
    spec = spec_of(size)
    start = reference.random_state(reference.layout(depth, width, tokens=256, label_rows=1001))
    model = build_denoiser(spec)
    model.load_state_dict(from_official(start, spec))
    steps = {"built": step_of(model, list(model.parameters()))}
    for name, attention in (
        ("reference", reference.softmax_attention),
        ("reference, fused attention", scaled_dot_product_attention),
    ):
        state = {key: value.clone().requires_grad_(key != "pos_embed") for key, value in start.items()}
        net = reference.Network(heads=heads, attention=attention)
        trained = [value for value in state.values() if value.requires_grad]
        steps[name] = step_of(partial(reference.forward, state, net), trained)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="B/2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shape = (arguments.batch, 4, 1, 32, 32)
    latents, target = torch.randn(shape), torch.randn(arguments.batch, 8, 1, 32, 32)
    times, labels = torch.rand(arguments.batch) * 999, torch.randint(0, 1000, (arguments.batch,))
    steps = steps_of(arguments.size)
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, float] = {}
    for round_ in range(arguments.rounds + 1):
        for name in random.sample(list(steps), len(steps)):  # no one always follows the same other
            begin, begin_cpu = time.perf_counter(), time.process_time()
            losses[name] = steps[name](latents, times, labels, target)
            if round_:  # the first round makes the optimiser's states and warms the allocator
                wall[name].append(time.perf_counter() - begin)
                cpu[name].append(time.process_time() - begin_cpu)
    threads = torch.get_num_threads()
    print(f"DiT-{arguments.size}, batch {arguments.batch}, fp32, {threads} threads, torch {torch.__version__}")
    built, built_cpu = statistics.median(wall["built"]), statistics.median(cpu["built"])
    for name in steps:
        median, median_cpu = statistics.median(wall[name]), statistics.median(cpu[name])
        print(
            f"{name:27} {median:6.2f} s, {median / built:4.2f} of built; "
            f"processor time {median_cpu:6.2f} s, {median_cpu / built_cpu:4.2f} of built; loss {losses[name]:.5f}"
        )


if __name__ == "__main__":
    main()
