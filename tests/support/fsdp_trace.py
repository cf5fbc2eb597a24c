"""Run by `test_shards.py` in a process of its own: what `FSDPMemTracker` sees of a step, as JSON.

A fake process group stands for all other ranks, and tensors have no values. Frozen parameters crash the tracker.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.language.loading import load_spec
from sora_spec.language.shapes import derive_shapes
from sora_spec.train import ranks as ranks_module
from sora_spec.train.optimizer import build_adamw
from sora_spec.train.ranks import Cut, Ranks, apply_ranks
from sora_spec.train.recompute import recompute_blocks

CPU = torch.device("cpu")


def trace(name: str, overrides: list[str], world: int) -> list[dict[str, Any]]:
    """Snapshots of the second step: part of the module, state, and bytes by category."""
    spec = load_spec(name, [*overrides, f"parallel.shard={world}", f"train.batch={2 * world}"])
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("shard",))
    ranks_module._mesh = lambda *_: mesh  # its table of ranks has values, and cannot be made of fake tensors
    with FakeTensorMode():
        module: Any = build_denoiser(spec)
        recompute_blocks(module.blocks, spec.train.recompute)
        module.to = lambda *_: module  # fake parameters cannot be moved, and need not be
        apply_ranks(module, spec, spec.train.precision, Ranks(0, world, CPU), Cut(parts=tuple(module.blocks)))
        optimizer = build_adamw(module, spec.train.optimizer, CPU)
        tracker = FSDPMemTracker(module, optimizer)
        latents = torch.randn(2, *derive_shapes(spec).latent)
        label = torch.zeros(2, dtype=torch.int64) if spec.condition.kind == "class" else None
        with tracker:
            for step in range(2):
                module(latents, torch.rand(2), label).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                if step == 0:
                    tracker.reset_mod_stats()
    return [
        {
            "part": stats.mod_fqn.partition(".")[2],
            "state": str(state).rpartition(".")[2],
            "bytes": {str(kind).rpartition(".")[2]: nbytes for kind, nbytes in snapshot[CPU].items()},
        }
        for stats in tracker.memory_tracking.values()
        for state, snapshots in stats.snapshots.items()
        for snapshot in snapshots[:1]
    ]


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    dist.init_process_group("fake", rank=0, world_size=request["world"], store=FakeStore())
    print(json.dumps([trace(name, overrides, request["world"]) for name, overrides in request["cases"]]))
    dist.destroy_process_group()
