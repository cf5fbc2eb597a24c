"""Processes, devices and precision: what PyTorch's own distributed stack does to a module written for one device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.training import Precision
from sora_spec.recipe.training import uses_fsdp


@dataclass(frozen=True)
class Ranks:
    """This process among all."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """Mean of each value over all ranks, on the device, which is not waited for. `values` are lost."""
        if self.world == 1:
            return values
        dist.all_reduce(values)
        return values / self.world

    def mean_of(self, value: float) -> Tensor:
        """Mean of one number over all ranks: (1,) float64, on the device."""
        return self.mean(torch.full((1,), value, dtype=torch.float64, device=self.device))

    def of_main(self, value: float) -> float:
        """The value that the first rank has."""
        return value if self.world == 1 else self.mean_of(value * self.is_main).item() * self.world

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on at least one rank."""
        return self.mean_of(float(flag)).item() > 0


def pick_device(name: str | None) -> torch.device:
    """The named device, or the first GPU, or the CPU. Raises UserError when the named one is not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: no such kind of device", "use cpu, cuda or cuda:0") from error
    if device.type not in {"cpu", "cuda"}:
        raise UserError(f"--device {name}: training runs on cpu and cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this torch ({torch.__version__}) sees no GPU", "use --device cpu")
    return device


def check_world(spec: Spec, world: int) -> None:
    """Refuse a number of processes that is not the spec's. Raises UserError with the command to use."""
    wanted = spec.parallel.ranks
    if wanted != world:
        raise UserError(
            f"{spec.name}: parallel asks for {wanted} processes (shard × sequence × replicate), but {world} runs"
            if world == 1
            else f"{spec.name}: parallel asks for {wanted} processes (shard × sequence × replicate), but {world} run",
            # `--` keeps torchrun's own parser off our options.
            f"torchrun --nproc-per-node {wanted} -m -- sora_spec train SPEC …, or set parallel.shard={world}",
        )


@contextmanager
def started_ranks(spec: Spec, device_name: str | None, precision: Precision) -> Generator[Ranks]:
    """The process group of a run: torchrun's, or one of a single process where FSDP2 needs it, or none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    check_world(spec, world)
    device = pick_device(device_name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = _backend(spec, device)
    ours = False
    if not dist.is_initialized():
        if world > 1:
            dist.init_process_group(backend)
            ours = True
        elif uses_fsdp(spec, precision, world):
            alone: Any = dist
            dist.init_process_group(backend, rank=0, world_size=1, store=alone.HashStore())
            ours = True
    try:
        rank = dist.get_rank() if dist.is_initialized() else 0
        yield Ranks(rank, world, device)
    finally:
        if ours:
            dist.destroy_process_group()


def _backend(spec: Spec, device: torch.device) -> str:
    """NCCL moves what lies on GPUs, gloo what lies in host memory."""
    if device.type == "cpu":
        return "gloo"
    on_host = spec.parallel.offload or spec.train.ema_device == "cpu"
    return "cpu:gloo,cuda:nccl" if on_host else "nccl"


@dataclass(frozen=True)
class Cut:
    """How FSDP2 is applied to one module."""

    parts: tuple[nn.Module, ...] = ()
    """Submodules that are gathered one at a time; the rest goes with the root."""
    cast_inputs: bool = False
    """Whether inputs are cast to the compute precision. A denoiser casts by itself, after embedding time in fp32."""
    methods: tuple[str, ...] = ()
    """Methods other than `forward` that use the weights."""


def apply_ranks(module: nn.Module, spec: Spec, precision: Precision, ranks: Ranks, cut: Cut) -> None:
    """Cut weights, gradients and optimiser states over `parallel.shard` ranks, and set the precision of compute.

    bf16 means: weights, moments and the reduction of gradients in fp32, forward and backward in bf16. It needs FSDP2
    on one rank too. A module in fp32 on one rank is left as it is, unless its weights are to lie in host memory.

    The root is gathered from its forward to its backward pass in any case: freed, it would be gathered again at once.
    """
    module.to(ranks.device)
    if not uses_fsdp(spec, precision, ranks.world):
        return
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    arguments = _fsdp_arguments(spec, precision, ranks, cut)
    for part in cut.parts:
        fully_shard(part, reshard_after_forward=spec.parallel.reshard, **arguments)
    fully_shard(module, **arguments)
    # Outputs of a VAE are views of one tensor, and nothing changes them in place, which the warning is about.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for name in cut.methods:
        register_fsdp_forward_method(module, name)


def _fsdp_arguments(spec: Spec, precision: Precision, ranks: Ranks, cut: Cut) -> dict[str, Any]:
    """What all `fully_shard` calls of one module share."""
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

    dtype = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=cut.cast_inputs)
    arguments: dict[str, Any] = {"mesh": _mesh(spec, ranks), "mp_policy": policy}
    if spec.parallel.offload:
        arguments["offload_policy"] = CPUOffloadPolicy(pin_memory=ranks.device.type == "cuda")
    return arguments


def _mesh(spec: Spec, ranks: Ranks) -> Any:
    """One dimension to shard over, or two with replicas outside (hybrid sharding).

    Plain data parallelism is (N, 1): FSDP2 then gathers nothing and sums gradients block by block, which is what
    PyTorch's own `replicate` does, and unlike DistributedDataParallel keeps no second set of gradients in buckets.
    """
    from torch.distributed.device_mesh import init_device_mesh

    parallel = spec.parallel
    if parallel.replicate == 1:
        return init_device_mesh(ranks.device.type, (parallel.shard,), mesh_dim_names=("shard",))
    shape = (parallel.replicate, parallel.shard)
    return init_device_mesh(ranks.device.type, shape, mesh_dim_names=("replicate", "shard"))
