"""Frozen text encoders, without gradients: what `transformers` runs for T5, UMT5, CLIP's text model and BERT.

Prompts are taken to fill their tokens: a padding mask adds a bool per token, and to T5 and BERT a bias per pair of
tokens. The statements follow those of `transformers` line by line, since a name that lives a line longer keeps bytes.

Legend: `B` prompts, `M` tokens, `D` width.
"""

from __future__ import annotations

from sora_spec.errors import UserError
from sora_spec.graph.dtypes import DType
from sora_spec.graph.layout import Shape, contiguous_strides
from sora_spec.graph.lower.encoder_configs import EncoderConfig
from sora_spec.graph.lower.weights import Linear, Weights
from sora_spec.graph.ops.attention import Kernel
from sora_spec.graph.ops.embedding import embedding
from sora_spec.graph.ops.masked_attention import masked_attention
from sora_spec.graph.ops.matrix import linear_without_bias
from sora_spec.graph.ops.norm import affine_layer_norm
from sora_spec.graph.ops.pointwise import (
    add,
    add_scalar,
    binary,
    cast_to,
    contiguous,
    gelu,
    made_from_nothing,
    mul,
    mul_scalar,
    power,
    rsqrt,
    silu,
    tanh,
    unary,
)
from sora_spec.graph.ops.reduction import mean
from sora_spec.graph.ops.views import expand_to, narrow, permute, rearrange, unsqueeze
from sora_spec.graph.tensor import Tensor, run_one

ENCODER, TOKENS = ("condition", "encoder"), ("condition", "tokens")


def build_text_encoder(weights: Weights, config: EncoderConfig, depth: int) -> T5Encoder | ClipText | Bert:
    """The encoder with `depth` of its blocks."""
    match config.family:
        case "t5" | "umt5":
            return T5Encoder(weights, config, depth)
        case "clip":
            return ClipText(weights, config, depth)
        case "bert":
            return Bert(weights, config, depth)


def check_tokens(config: EncoderConfig, tokens: int) -> None:
    """Raises UserError where a prompt is longer than the encoder's table of positions."""
    if config.positions and tokens > config.positions:
        raise UserError(
            f"condition.tokens: this encoder takes prompts of {config.positions} tokens, and {tokens} are asked for",
            f"set condition.tokens={config.positions}",
        )


def activate(name: str, x: Tensor) -> Tensor:
    """The activation of that name, composed as `transformers` composes it."""
    match name:
        case "gelu":
            return gelu(x)
        case "silu":
            return silu(x)
        case "quick_gelu":
            return mul(x, unary("sigmoid", mul_scalar(x)))
        case "gelu_new":
            half = mul_scalar(x)
            return mul(half, add_scalar(tanh(mul_scalar(add(x, mul_scalar(power(x)))))))
        case _:
            return unary(name, x)


class Unbiased:
    """`nn.Linear` without a bias."""

    def __init__(self, weights: Weights, name: str, width: int, out: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (out, width))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., width) → (..., out)."""
        return linear_without_bias(x, self.weight)


class LayerNorm:
    """`nn.LayerNorm` with gain and bias."""

    def __init__(self, weights: Weights, name: str, width: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (width,))
        self.bias = weights.parameter(f"{name}.bias", (width,))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) → the same shape."""
        return affine_layer_norm(x, self.weight, self.bias)


# T5 and UMT5.


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
        return rearrange(contiguous(permute(y, (0, 2, 1, 3))), "b m h d -> b m (h d)")

    def relative_bias(self, x: Tensor, tokens: int) -> Tensor:
        """The value of each pair of tokens and head, (1, heads, M, M)."""
        assert self.table is not None
        with self.tape.enter("relative_positions", TOKENS):
            context = add_scalar(unsqueeze(_arange(x, tokens), 1))
            memory = unsqueeze(_arange(x, tokens), 0)
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


def _arange(like: Tensor, size: int) -> Tensor:
    return made_from_nothing("arange", like, (size,), DType.INT64)


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


# CLIP.


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
        y = _heads_joined(masked_attention(heads[0], heads[1], heads[2], self.kernel, causal=x.shape[1] > 1))
        return self.out(y)

    def mlp(self, x: Tensor) -> Tensor:
        """Two projections with the activation between."""
        x = self.fc1(x)
        x = activate(self.config.activation, x)
        return self.fc2(x)


def _heads_joined(y: Tensor) -> Tensor:
    return rearrange(contiguous(permute(y, (0, 2, 1, 3))), "b m h d -> b m (h d)")


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
        """Tokens and places."""
        rows = embedding(self.table, tokens)
        places = embedding(self.places, narrow(self.numbers, 1, 0, tokens.shape[1]))
        return add(rows, places)

    def pool(self, last: Tensor, tokens: Tensor) -> Tensor:
        """The features at the end of each prompt."""
        batch, width = tokens.shape[0], last.shape[2]
        rows = _arange(tokens, batch)
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


# BERT.


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
        return _heads_joined(masked_attention(heads[0], heads[1], heads[2], self.kernel))

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
