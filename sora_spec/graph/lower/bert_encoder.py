"""BERT and its small relatives, without gradients.

The statements follow those of `transformers` line by line, since a name that lives a line longer keeps bytes.

Legend: `B` prompts, `M` tokens, `D` width.
"""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape, contiguous_strides
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.graph.eager.ops.embedding import embedding
from sora_spec.graph.eager.ops.masked_attention import masked_attention
from sora_spec.graph.eager.ops.pointwise import add, tanh
from sora_spec.graph.eager.ops.views import expand_to, narrow, rearrange
from sora_spec.graph.eager.tensor import Tensor, run_one
from sora_spec.graph.lower.text_layers import ENCODER, LayerNorm, activate, heads_joined
from sora_spec.graph.lower.weights import Linear, Weights
from sora_spec.language.text_encoders import EncoderConfig


class BertBlock:
    """Attention and MLP, each added and then normalised."""

    def __init__(self, weights: Weights, config: EncoderConfig) -> None:
        self.config, self.tape = config, weights.tape
        self.kernel: Kernel = weights.policy.attention
        width = config.width
        with self.tape.enter("attention", ENCODER):
            self.q, self.k, self.v, self.out = [Linear(weights, name, width, width) for name in "qkvo"]
            self.norm1 = LayerNorm(weights, "attention.output.LayerNorm", width)
        with self.tape.enter("mlp", ENCODER):
            self.fc1 = Linear(weights, "intermediate", width, config.hidden)
            self.fc2 = Linear(weights, "output", config.hidden, width)
            self.norm2 = LayerNorm(weights, "output.LayerNorm", width)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, M, D) → the same shape."""
        with self.tape.enter("attention", ENCODER):
            attended = self.attention(x)
        with self.tape.enter("mlp", ENCODER):
            inner = self.intermediate(attended)
            return self.output(self.fc2, self.norm2, inner, attended)

    def attention(self, x: Tensor) -> Tensor:
        """norm(x + out(attention(x)))."""
        y = self.attend(x)
        return self.output(self.out, self.norm1, y, x)

    def attend(self, x: Tensor) -> Tensor:
        """Attention to all tokens."""
        heads = [rearrange(part(x), "b m (h d) -> b h m d", h=self.config.heads) for part in (self.q, self.k, self.v)]
        return heads_joined(masked_attention(heads[0], heads[1], heads[2], self.kernel))

    def intermediate(self, x: Tensor) -> Tensor:
        """Projection and activation."""
        x = self.fc1(x)
        return activate(self.config.activation, x)

    def output(self, dense: Linear, norm: LayerNorm, x: Tensor, residual: Tensor) -> Tensor:
        """norm(dense(x) + residual)."""
        x = dense(x)
        return norm(add(x, residual))


class Bert:
    """BERT (arXiv 1810.04805), of which the MiniLM sentence encoders are small ones; with its pooled first token."""

    def __init__(self, weights: Weights, config: EncoderConfig, depth: int) -> None:
        self.config, self.tape = config, weights.tape
        width, numbers = config.width, (1, config.positions)
        with self.tape.enter("embeddings", ENCODER):
            self.table = weights.parameter("word_embeddings", (config.vocabulary, width))
            self.places = weights.parameter("position_embeddings", (config.positions, width))
            self.segments = weights.parameter("token_type_embeddings", (config.types, width))
            self.norm = LayerNorm(weights, "embeddings.LayerNorm", width)
            self.numbers = weights.buffer("position_ids", numbers, DType.INT64)
            self.kinds = weights.buffer("token_type_ids", numbers, DType.INT64)
        self.blocks: list[BertBlock] = []
        for index in range(depth):
            with self.tape.enter(f"blocks[{index}]", ENCODER, index):
                self.blocks.append(BertBlock(weights, config))
        with self.tape.enter("pooling", ENCODER):
            self.pooler = Linear(weights, "pooler", width, width)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, M) → (B, D): the pooled vector, while the features of all tokens are alive."""
        with self.tape.enter("embeddings"):
            embedded = self.embed(tokens)
        x = embedded
        for index, block in enumerate(self.blocks):
            with self.tape.enter(f"blocks[{index}]"):
                x = block(x)
        with self.tape.enter("pooling"):
            first = x.alias((x.shape[0], x.shape[2]), (x.strides[0], x.strides[2]))
            pooled = self.pooler(first)
            return tanh(pooled)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens, segments and places, normalised."""
        batch, length = tokens.shape
        numbers = narrow(self.numbers, 1, 0, length)
        shape: Shape = (1, length)
        kinds = run_one("gather", (self.kinds, numbers), shape, contiguous_strides(shape), DType.INT64)
        rows = embedding(self.table, tokens)
        segments = embedding(self.segments, expand_to(kinds, (batch, length)))
        x = add(rows, segments)
        places = embedding(self.places, numbers)
        x = add(x, places)
        return self.norm(x)
