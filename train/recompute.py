"""Activation checkpointing, applied to blocks from outside."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from sora_spec.language.schema.training import NoRecompute, Recompute


def recompute_blocks(blocks: Iterable[nn.Module], recompute: Recompute) -> None:
    """Let one block in `recompute.every` keep only its inputs and run again in the backward pass.

    The forward method is wrapped and not the module: parameter names stay as they are, and hooks on the module (FSDP2
    gathering its weights) run once around both passes. Blocks draw no random numbers, so none are saved.
    """
    if isinstance(recompute, NoRecompute):
        return
    for index, block in enumerate(blocks):
        if index % recompute.every == 0:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
