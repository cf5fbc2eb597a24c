"""One rank's part under sequence parallelism, against a block written out in PyTorch and traced on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from sora_spec.builders.trace.kernels import efficient, flash
from sora_spec.builders.trace.memory_trace import MemoryTrace
from sora_spec.errors import UserError
from sora_spec.graph import Setting, count, graph_from_spec, memory
from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.engine import backward
from sora_spec.graph.eager.ops.pointwise import unary
from sora_spec.graph.eager.tape import Tape
from sora_spec.graph.eager.tensor import leaf
from sora_spec.graph.lower.blocks import Block
from sora_spec.graph.lower.sequence import SequenceGroup
from sora_spec.graph.lower.weights import Policy, Weights
from sora_spec.language.loading import load_spec

B, FRAMES, PLACES, WIDTH, HEADS = 2, 4, 6, 64, 4
KERNELS = {"flash": flash, "efficient": efficient}


class Exchange(torch.autograd.Function):
    """An all-to-all that moves nothing: on the meta device only its result's size matters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        assert x.is_contiguous()
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.empty_like(grads[0].contiguous())


class LocalBlock(nn.Module):
    """A DiT block on the tokens of one rank of `ranks`, with a share of the heads inside attention."""

    def __init__(self, axis: str, ranks: int, kernel: str) -> None:
        super().__init__()
        self.axis, self.ranks, self.kernel = axis, ranks, KERNELS[kernel]
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = rearrange(self.modulation(c), "b d -> b 1 1 d").chunk(6, -1)
        normed = layer_norm(x, (WIDTH,), eps=1e-6)
        update = self.attend((normed * (1 + scale1)).add_(shift1))
        del normed
        x = (gate1 * update).add_(x)
        del update
        normed = layer_norm(x, (WIDTH,), eps=1e-6)
        hidden = gelu(self.fc1((normed * (1 + scale2)).add_(shift2)), approximate="tanh")
        del normed
        return (gate2 * self.fc2(hidden)).add_(x)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.to_heads(rearrange(part, "b 1 m (h d) -> b m h d", h=HEADS)) for part in self.qkv(x).chunk(3, -1)
        )
        y = self.to_tokens(self.back(self.kernel(self.along(q), self.along(k), self.along(v))))
        return self.out(rearrange(y, "b m h d -> b 1 m (h d)"))

    def to_heads(self, x: Tensor) -> Tensor:
        sent = rearrange(x, "b m (n h) d -> n b m h d", n=self.ranks).contiguous()
        return rearrange(Exchange.apply(sent), "n b m h d -> b (n m) h d")

    def to_tokens(self, x: Tensor) -> Tensor:
        sent = rearrange(x, "b (n m) h d -> n b m h d", n=self.ranks).contiguous()
        return rearrange(Exchange.apply(sent), "n b m h d -> b m (n h) d")

    def along(self, x: Tensor) -> Tensor:
        if self.axis == "space":
            return rearrange(x, "b (f s) h d -> (b f) h s d", f=FRAMES)
        if self.axis == "time":
            return rearrange(x, "b (f s) h d -> (b s) h f d", f=FRAMES)
        return rearrange(x, "b l h d -> b h l d")

    def back(self, x: Tensor) -> Tensor:
        if self.axis == "space":
            return rearrange(x, "(b f) h s d -> b (f s) h d", f=FRAMES)
        if self.axis == "time":
            return rearrange(x, "(b s) h f d -> b (f s) h d", s=PLACES)
        return rearrange(x, "b h l d -> b l h d")


def traced(axis: str, ranks: int, kernel: str) -> tuple[int, int, int, int]:
    """Bytes alive after forward, forward and whole peak above what exists before, and FLOPs."""
    with torch.device("meta"):
        block = LocalBlock(axis, ranks, kernel)
        x = torch.empty(B, 1, FRAMES * PLACES // ranks, WIDTH, requires_grad=True)
        c = torch.empty(B, WIDTH, requires_grad=True)
    trace = MemoryTrace()
    held = trace.hold([*block.parameters(), x, c])
    with trace:
        y = block(x, c)
        live, forward_peak = trace.live_bytes, trace.peak_bytes
        torch.autograd.backward(y, torch.empty_like(y))
    return live - held, forward_peak - held, trace.peak_bytes - held, sum(event.flops for event in trace.ops)


def predicted(axis: Any, ranks: int, kernel: Any) -> tuple[int, int, int, int]:
    """The same from the lowering."""
    tape = Tape(observed=True)
    weights = Weights(tape, Policy(DType.F32, kernel, sequence=ranks))
    width = [f"backbone.width={WIDTH}", f"backbone.heads={HEADS}", "backbone.mlp_ratio=4"]
    backbone: Any = load_spec("tiny-dit", width).backbone
    block = Block(weights, axis, backbone, SequenceGroup(ranks, FRAMES, PLACES))
    x = leaf(tape, (B, 1, FRAMES * PLACES // ranks, WIDTH), DType.F32, requires_grad=True)
    c = leaf(tape, (B, WIDTH), DType.F32, requires_grad=True)
    held = tape.live_bytes
    y = block(x, c)
    live, done = tape.live_bytes, len(tape.ops)
    backward(y, unary("empty_like", y))
    peaks = [max(op.live_bytes for op in ops) for ops in (tape.ops[:done], tape.ops)]
    return live - held, peaks[0] - held, peaks[1] - held, sum(op.flops for op in tape.ops)


@pytest.mark.parametrize("axis", ["space", "time", "joint"])
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("kernel", ["flash", "efficient"])
def test_one_ranks_block(axis: str, ranks: int, kernel: str) -> None:
    assert predicted(axis, ranks, kernel) == traced(axis, ranks, kernel)


@pytest.mark.parametrize("name", ["dit", "latte", "tiny-latte"])
def test_blocks_of_a_rank_do_their_share(name: str) -> None:
    """What is computed for all tokens is shared evenly; embeddings and modulation are not."""
    spec = load_spec(name)
    whole, half = (
        graph_from_spec(spec, "denoiser_step", Setting(batch=2, precision="bf16", sequence=ranks)) for ranks in (1, 2)
    )
    assert count(half).parameters == count(whole).parameters
    assert count(whole).flops / 2 < count(half).flops < count(whole).flops * 0.51
    saved = [memory(graph).forward_live_bytes for graph in (whole, half)]
    assert saved[0] / 2 < saved[1] < saved[0] * 0.56


@pytest.mark.parametrize("temporal", ["alternating", "joint"])
def test_saved_activations_never_grow_with_ranks(temporal: str) -> None:
    spec = load_spec("latte", [f"temporal={{kind: {temporal}}}"])
    found = [
        memory(graph_from_spec(spec, "denoiser_step", Setting(batch=2, sequence=ranks))).forward_live_bytes
        for ranks in (1, 2, 4, 8)
    ]
    assert found == sorted(found, reverse=True)


def test_ranks_that_cannot_share_are_refused() -> None:
    spec = load_spec("tiny-latte")
    for ranks, word in ((7, "tokens"), (16, "heads")):
        with pytest.raises(UserError, match=word):
            graph_from_spec(spec, "denoiser_step", Setting(sequence=ranks))
