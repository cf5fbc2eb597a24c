"""The encoders of T5 and UMT5, without gradients.

The statements follow those of `transformers` line by line, since a name that lives a line longer keeps bytes.

Legend: `B` prompts, `M` tokens, `D` width.
"""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.graph.eager.ops.embedding import embedding
from sora_spec.graph.eager.ops.masked_attention import masked_attention
from sora_spec.graph.eager.ops.pointwise import add, add_scalar, binary, cast_to, contiguous, mul, power, rsqrt, unary
from sora_spec.graph.eager.ops.reduction import mean
from sora_spec.graph.eager.ops.views import permute, rearrange, unsqueeze
from sora_spec.graph.eager.tensor import Tensor, run_one
from sora_spec.graph.lower.text_layers import ENCODER, TOKENS, Unbiased, activate, arange, heads_joined
from sora_spec.graph.lower.weights import Weights
from sora_spec.language.text_encoders import EncoderConfig


class T5Norm:
    """Scale by the root mean square, in float32."""

    def __init__(self, weights: Weights, name: str, width: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (width,))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) → the same shape."""
        variance = mean(power(cast_to(x, DType.F32)), (-1,), keepdim=True)
        x = mul(x, rsqrt(add_scalar(variance)))
        x = cast_to(x, self.weight.dtype)
        return mul(self.weight, x)


class T5Attention:
    """Self-attention whose scores are shifted by a learned value per distance and head."""

    def __init__(self, weights: Weights, config: EncoderConfig, has_bias: bool) -> None:
        inner = config.heads * config.head_width
        self.config, self.tape = config, weights.tape
        self.kernel: Kernel = weights.policy.attention
        self.q = Unbiased(weights, "q", config.width, inner)
        self.k = Unbiased(weights, "k", config.width, inner)
        self.v = Unbiased(weights, "v", config.width, inner)
        self.o = Unbiased(weights, "o", inner, config.width)
        self.table = weights.parameter("relative_attention_bias", (config.buckets, config.heads)) if has_bias else None

    def __call__(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, M, D) and the bias of an earlier block → the same shape, and the bias (1, heads, M, M) for the next."""
        heads = self.config.heads
        q = rearrange(self.q(x), "b m (h d) -> b h m d", h=heads)
        k = rearrange(self.k(x), "b m (h d) -> b h m d", h=heads)
        v = rearrange(self.v(x), "b m (h d) -> b h m d", h=heads)
        if bias is None:
            bias = self.relative_bias(x, x.shape[1])
        y = self.attend(q, k, v, bias)
        return self.o(y), bias if self.config.family == "t5" else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """(B, heads, M, d) → (B, M, heads·d)."""
        rows = contiguous(bias)
        y = masked_attention(q, k, v, self.kernel, rows)
        return heads_joined(y)

    def relative_bias(self, x: Tensor, tokens: int) -> Tensor:
        """The value of each pair of tokens and head, (1, heads, M, M)."""
        assert self.table is not None
        with self.tape.enter("relative_positions", TOKENS):
            context = add_scalar(unsqueeze(arange(x, tokens), 1))
            memory = unsqueeze(arange(x, tokens), 0)
            distance = binary("sub", memory, context)
            bucket = self.buckets(distance)
            return unsqueeze(permute(embedding(self.table, bucket), (2, 0, 1)), 0)

    def buckets(self, distance: Tensor) -> Tensor:
        """Number of the bucket of each distance: near ones exactly, far ones by their logarithm."""
        after = unary("mul", unary("_to_copy", unary("gt", distance, DType.BOOL), DType.INT64))
        # `0 + tensor` is a kernel, and the sum that follows it is made in place.
        found = unary("add", after)
        del after
        distance = unary("abs", distance)
        near = unary("lt", distance, DType.BOOL)
        if self.config.family == "umt5":
            ratio = unary("div", unary("log", unary("div", unary("_to_copy", distance, DType.F32))))
            ratio = unary("mul", ratio)
            far = unary("add", unary("_to_copy", ratio, DType.INT64))
        else:
            far = unary("add", _logarithm(distance))
        far = binary("minimum", far, unary("full_like", far))
        run_one("where", (near, distance, far), far.shape, far.strides, far.dtype)
        return found


def _logarithm(distance: Tensor) -> Tensor:
    """One expression, whose parts die as soon as they are used; UMT5 gives some of them names."""
    kinds = ("_to_copy", "div", "log", "div", "mul", "_to_copy")
    types = (DType.F32, None, None, None, None, DType.INT64)
    for kind, dtype in zip(kinds, types, strict=True):
        distance = unary(kind, distance, dtype)
    return distance


class T5Block:
    """Attention and MLP, each normalised before and added after."""

    def __init__(self, weights: Weights, config: EncoderConfig, has_bias: bool) -> None:
        self.config, self.tape = config, weights.tape
        with self.tape.enter("attention", ENCODER):
            self.attention = T5Attention(weights, config, has_bias)
            self.norm1 = T5Norm(weights, "attention_norm", config.width)
        with self.tape.enter("mlp", ENCODER):
            self.wi = Unbiased(weights, "wi", config.width, config.hidden)
            self.gate = Unbiased(weights, "gate", config.width, config.hidden) if config.gated else None
            self.wo = Unbiased(weights, "wo", config.hidden, config.width)
            self.norm2 = T5Norm(weights, "mlp_norm", config.width)

    def __call__(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, M, D) → the same shape, and T5's bias for the next block."""
        with self.tape.enter("attention", ENCODER):
            x, bias = self.attend(x, bias)
        with self.tape.enter("mlp", ENCODER):
            x = self.mlp(x)
        return x, bias

    def attend(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x + attention(norm(x))."""
        normed = self.norm1(x)
        update, bias = self.attention(normed, bias)
        return add(x, update), bias

    def mlp(self, x: Tensor) -> Tensor:
        """x + MLP(norm(x))."""
        y = self.norm2(x)
        y = self.gated(y) if self.gate is not None else self.plain(y)
        return add(x, y)

    def gated(self, x: Tensor) -> Tensor:
        """Product of two projections, one of them activated."""
        assert self.gate is not None
        active = activate(self.config.activation, self.wi(x))
        linear = self.gate(x)
        x = mul(active, linear)
        return self.wo(x)

    def plain(self, x: Tensor) -> Tensor:
        """Two projections with the activation between."""
        x = self.wi(x)
        x = activate(self.config.activation, x)
        return self.wo(x)


class T5Encoder:
    """T5's encoder (arXiv 1910.10683); UMT5's (arXiv 2304.09151) learns positions in every block."""

    def __init__(self, weights: Weights, config: EncoderConfig, depth: int) -> None:
        self.config, self.tape = config, weights.tape
        with self.tape.enter("embeddings", ENCODER):
            self.table = weights.parameter("embed_tokens", (config.vocabulary, config.width))
        self.blocks: list[T5Block] = []
        for index in range(depth):
            with self.tape.enter(f"blocks[{index}]", ENCODER, index):
                self.blocks.append(T5Block(weights, config, index == 0 or config.family == "umt5"))
        with self.tape.enter("final_norm", ENCODER):
            self.norm = T5Norm(weights, "final_layer_norm", config.width)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, M) → (B, M, D)."""
        with self.tape.enter("embeddings"):
            embedded = embedding(self.table, tokens)
        x, bias = embedded, None
        for index, block in enumerate(self.blocks):
            with self.tape.enter(f"blocks[{index}]"):
                x, bias = block(x, bias)
        with self.tape.enter("final_norm"):
            return self.norm(x)
