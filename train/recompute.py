"""Activation checkpointing, applied to blocks from outside."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from sora_spec.language.schema.training import Recompute
from sora_spec.recipe.training import recompute_every, recomputed_blocks


def recompute_blocks(blocks: Iterable[nn.Module], recompute: Recompute) -> None:
    """Let one block in `recompute.every` keep only its inputs and run again in the backward pass.

    The forward method is wrapped and not the module: parameter names stay as they are, and hooks on the module (FSDP2
    gathering its weights) run once around both passes. Blocks draw no random numbers, so none are saved.
    """
    modules = list(blocks)
    for index in recomputed_blocks(recompute_every(recompute), len(modules)):
        block = modules[index]
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
