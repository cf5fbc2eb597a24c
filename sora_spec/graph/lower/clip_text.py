"""CLIP's text model, without gradients.

The statements follow those of `transformers` line by line, since a name that lives a line longer keeps bytes.

Legend: `B` prompts, `M` tokens, `D` width.
"""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.graph.eager.ops.embedding import embedding
from sora_spec.graph.eager.ops.masked_attention import masked_attention
from sora_spec.graph.eager.ops.pointwise import add, unary
from sora_spec.graph.eager.ops.views import narrow, rearrange
from sora_spec.graph.eager.tensor import Tensor, run_one
from sora_spec.graph.lower.text_layers import ENCODER, LayerNorm, Unbiased, activate, arange, heads_joined
from sora_spec.graph.lower.weights import Linear, Weights
from sora_spec.language.text_encoders import EncoderConfig


class ClipBlock:
    """Causal attention and MLP, each normalised before and added after."""

    def __init__(self, weights: Weights, config: EncoderConfig) -> None:
        self.config, self.tape = config, weights.tape
        self.kernel: Kernel = weights.policy.attention
        width = config.width
        with self.tape.enter("attention", ENCODER):
            self.norm1 = LayerNorm(weights, "layer_norm1", width)
            self.q, self.k, self.v, self.out = [Linear(weights, name, width, width) for name in "qkvo"]
        with self.tape.enter("mlp", ENCODER):
            self.norm2 = LayerNorm(weights, "layer_norm2", width)
            self.fc1 = Linear(weights, "fc1", width, config.hidden)
            self.fc2 = Linear(weights, "fc2", config.hidden, width)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, M, D) → the same shape."""
        residual = x
        with self.tape.enter("attention", ENCODER):
            x = self.norm1(x)
            x = self.attend(x)
            x = add(residual, x)
        residual = x
        with self.tape.enter("mlp", ENCODER):
            x = self.norm2(x)
            x = self.mlp(x)
            return add(residual, x)

    def attend(self, x: Tensor) -> Tensor:
        """Attention to earlier tokens."""
        q = self.q(x)
        k = self.k(x)
        v = self.v(x)
        heads = [rearrange(part, "b m (h d) -> b h m d", h=self.config.heads) for part in (q, k, v)]
        y = heads_joined(masked_attention(heads[0], heads[1], heads[2], self.kernel, causal=x.shape[1] > 1))
        return self.out(y)

    def mlp(self, x: Tensor) -> Tensor:
        """Two projections with the activation between."""
        x = self.fc1(x)
        x = activate(self.config.activation, x)
        return self.fc2(x)


class ClipText:
    """CLIP's text model (arXiv 2103.00020): all tokens, the pooled one, and its projection where it has one."""

    def __init__(self, weights: Weights, config: EncoderConfig, depth: int) -> None:
        self.config, self.tape = config, weights.tape
        with self.tape.enter("embeddings", ENCODER):
            self.table = weights.parameter("token_embedding", (config.vocabulary, config.width))
            self.places = weights.parameter("position_embedding", (config.positions, config.width))
            self.numbers = weights.buffer("position_ids", (1, config.positions), DType.INT64)
        self.blocks: list[ClipBlock] = []
        for index in range(depth):
            with self.tape.enter(f"blocks[{index}]", ENCODER, index):
                self.blocks.append(ClipBlock(weights, config))
        with self.tape.enter("final_norm", ENCODER):
            self.norm = LayerNorm(weights, "final_layer_norm", config.width)
        self.projection = None
        if config.projection is not None:
            with self.tape.enter("projection", ENCODER):
                self.projection = Unbiased(weights, "text_projection", config.width, config.projection)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, M) → pooled (B, D) or projected (B, projection)."""
        last, pooled = self.encode(tokens)
        if self.projection is None:
            return pooled
        with self.tape.enter("projection"):
            projected = self.projection(pooled)
        del last
        return projected

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens, and the pooled one."""
        with self.tape.enter("embeddings"):
            embedded = self.embed(tokens)
        x = embedded
        for index, block in enumerate(self.blocks):
            with self.tape.enter(f"blocks[{index}]"):
                x = block(x)
        with self.tape.enter("final_norm"):
            last = self.norm(x)
        with self.tape.enter("pooling", ENCODER):
            return last, self.pool(last, tokens)

    def embed(self, tokens: Tensor) -> Tensor:
        rows = embedding(self.table, tokens)
        places = embedding(self.places, narrow(self.numbers, 1, 0, tokens.shape[1]))
        return add(rows, places)

    def pool(self, last: Tensor, tokens: Tensor) -> Tensor:
        """The features at the end of each prompt."""
        batch, width = tokens.shape[0], last.shape[2]
        rows = arange(tokens, batch)
        places = _largest(self.marked(tokens), batch)
        return run_one("index", (last, rows, places), (batch, width), (width, 1), last.dtype)

    def marked(self, tokens: Tensor) -> Tensor:
        """What is largest at the end of a prompt."""
        numbers = unary("_to_copy", tokens, DType.INT32)
        if self.config.last_token_is_largest:
            return numbers
        ends = unary("eq", numbers, DType.BOOL)
        del numbers
        return unary("_to_copy", ends, DType.INT32)


def _largest(numbers: Tensor, batch: int) -> Tensor:
    return run_one("argmax", (numbers,), (batch,), (1,), DType.INT64)
