"""Plain data parallelism by FSDP2 on shards of one rank, as `train` does it, against DistributedDataParallel.

    torchrun --nproc-per-node 2 benchmarks/data_parallel.py

Two gloo ranks on the CPU, a DiT of 21 M parameters in fp32. Memory is the highest rise of the allocator over a forward
and backward pass from a step without gradients, buckets included, in units of the weights; time is a ratio to FSDP2's,
the least of several passes. On a CPU nothing hides messages, so time is the part that other hardware changes most.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.losses import build_loss
from sora_spec.builders.trace.allocator import watched
from sora_spec.language.loading import load_spec
from sora_spec.language.shapes import derive_shapes
from sora_spec.train.ranks import Cut, Ranks, apply_ranks

SIZE = ["backbone.depth=8", "backbone.width=384", "backbone.heads=6", "parallel.replicate=2", "train.batch=8"]
CPU = torch.device("cpu")
PASSES = 5


def shared(module: Any, spec: Any, way: str) -> nn.Module:
    """The module as one of two replicas."""
    if way == "FSDP2":
        apply_ranks(module, spec, "fp32", Ranks(dist.get_rank(), 2, CPU), Cut(parts=tuple(module.blocks)))
        return module
    return DistributedDataParallel(module, gradient_as_bucket_view=way == "DDP, views of buckets")


def measure(way: str, batch: int) -> tuple[float, float]:
    """Bytes in units of the weights, and seconds."""
    spec = load_spec("tiny-dit", SIZE)
    module = build_denoiser(spec)
    weights = 4 * sum(parameter.numel() for parameter in module.parameters())
    network, objective, latent = shared(module, spec, way), build_loss(spec), derive_shapes(spec).latent
    latents, noise, at = torch.randn(batch, *latent), torch.randn(batch, *latent), torch.rand(batch)
    labels = torch.zeros(batch, dtype=torch.int64)

    def denoise(noisy: Tensor, when: Tensor) -> Tensor:
        return network(noisy, when, labels)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        objective(denoise, latents, at, noise).mean().backward()

    for _ in range(2):
        step()
    seconds: list[float] = []
    for _ in range(PASSES):
        dist.barrier()
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    module.zero_grad(set_to_none=True)
    # DDP's buckets are made before, and stay.
    gc.collect()
    return watched(step).most / weights + (way != "FSDP2"), min(seconds)


def main() -> None:
    """Print a row for each way and batch."""
    dist.init_process_group("gloo")
    for batch in (2, 16):
        first = 0.0
        for way in ("FSDP2", "DDP, views of buckets", "DDP"):
            held, seconds = measure(way, batch)
            first = first or seconds
            if dist.get_rank() == 0:
                print(f"{batch:>3} clips  {way:<24}{held:>6.2f} × the weights, {seconds / first:>5.2f} × the time")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
