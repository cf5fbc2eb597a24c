"""Sequence parallelism (DeepSpeed-Ulysses, arXiv 2309.14509): what one of `n` ranks runs of a transformer.

Every rank holds a share of all tokens, and around attention a share of all heads: queries, keys and values change hands
before it, results after it.

Legend: `B` batch, `f` token frames, `S` tokens of a frame, `N` = f·S, `M` = N/n, `D` width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.graph.eager.layout import Shape, contiguous_strides
from sora_spec.graph.eager.ops.attention import attention
from sora_spec.graph.eager.ops.pointwise import add, contiguous, mul, sub
from sora_spec.graph.eager.ops.views import cat, chunk, expand_to, narrow, rearrange, reshape
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run_one

if TYPE_CHECKING:
    from sora_spec.graph.lower.blocks import Attention
    from sora_spec.graph.lower.families import Axis

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, one row for each token."""


@dataclass(frozen=True)
class SequenceGroup:
    """`ranks` that share the tokens of one clip: `frames` of `places` each."""

    ranks: int
    frames: int
    places: int

    @property
    def share(self) -> int:
        """M: the tokens of one rank."""
        return self.frames * self.places // self.ranks

    def split(self, x: Tensor) -> Tensor:
        """(B, f, S, D) → (B, 1, M, D), a copy of this rank's tokens: the others' can be freed."""
        flat = reshape(x, (x.shape[0], 1, x.shape[1] * x.shape[2], x.shape[3]))
        return contiguous(narrow(flat, 2, 0, self.share))

    def join(self, x: Tensor) -> Tensor:
        """(B, 1, M, D) → (B, f, S, D): everyone's tokens."""
        whole = rearrange(gather(x, self.ranks), "n b 1 m d -> b (n m) d")
        return rearrange(whole, "b (f s) d -> b f s d", f=self.frames)

    def rows(self, table: Tensor) -> Tensor:
        """(1, f, 1, D) → (1, 1, M, D): the rows of a table over frames that belong to this rank's tokens."""
        _, frames, _, width = table.shape
        return narrow(
            reshape(expand_to(table, (1, frames, self.places, width)), (1, 1, frames * self.places, width)),
            2,
            0,
            self.share,
        )

    def to_heads(self, x: Tensor) -> Tensor:
        """(B, M, heads, d) → (B, N, heads/n, d)."""
        got = exchange(contiguous(rearrange(x, "b m (n h) d -> n b m h d", n=self.ranks)))
        return rearrange(got, "n b m h d -> b (n m) h d")

    def to_tokens(self, x: Tensor) -> Tensor:
        """(B, N, heads/n, d) → (B, M, heads, d)."""
        got = exchange(contiguous(rearrange(x, "b (n m) h d -> n b m h d", n=self.ranks)))
        return rearrange(got, "n b m h d -> b m (n h) d")

    def attend(self, axis: Axis, layer: Attention, x: Tensor, rotation: Rotation | None) -> Tensor:
        """Attention of (B, 1, M, D) along an axis, among all tokens."""
        y = rearrange(x, "b 1 m d -> b m d")
        q, k, v = [
            rearrange(self.to_heads(part), self._along(axis), **self._sizes(axis))
            for part in [rearrange(one, "b m (h d) -> b m h d", h=layer.heads) for one in chunk(layer.qkv(y), 3, -1)]
        ]
        q, k = layer.q_norm(q) if layer.q_norm else q, layer.k_norm(k) if layer.k_norm else k
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        y = rearrange(attention(q, k, v, layer.kernel), self._back(axis), **self._sizes(axis))
        return rearrange(layer.out(rearrange(self.to_tokens(y), "b m h d -> b m (h d)")), "b m d -> b 1 m d")

    def _sizes(self, axis: Axis) -> dict[str, int]:
        return {} if axis == "joint" else {"f": self.frames, "s": self.places}

    @staticmethod
    def _along(axis: Axis) -> str:
        match axis:
            case "space" | "factorized":
                return "b (f s) h d -> (b f) h s d"
            case "time":
                return "b (f s) h d -> (b s) h f d"
            case "joint":
                return "b l h d -> b h l d"

    @staticmethod
    def _back(axis: Axis) -> str:
        match axis:
            case "space" | "factorized":
                return "(b f) h s d -> b (f s) h d"
            case "time":
                return "(b s) h f d -> b (f s) h d"
            case "joint":
                return "b h l d -> b l h d"


def sequence_group(ranks: int, grid: tuple[int, int, int], heads: int) -> SequenceGroup | None:
    """The group of `ranks`, or None for one. Raises UserError when tokens or heads cannot be shared evenly."""
    if ranks == 1:
        return None
    frames, rows, columns = grid
    for count, what in ((frames * rows * columns, "tokens"), (heads, "heads")):
        if count % ranks:
            raise UserError(f"{ranks} ranks of a sequence group cannot share {count} {what} evenly")
    return SequenceGroup(ranks, frames, rows * columns)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the channel pairs (i, i + d/2)."""
    cos, sin = rotation
    first, second = chunk(x, 2, -1)
    return cat([sub(mul(first, cos), mul(second, sin)), add(mul(second, cos), mul(first, sin))], -1)


def exchange(x: Tensor) -> Tensor:
    """All-to-all of a row-major tensor along its first dimension: a new one of its size, and so for the gradient."""
    node = node_for(_exchange_rule, (x,))
    return attach(node, _like(x, "all_to_all"))


def _exchange_rule(node: Node, g: Tensor) -> Grads:
    return [_like(contiguous(g), "all_to_all")]


def _like(x: Tensor, name: str) -> Tensor:
    return run_one(name, (x,), x.shape, contiguous_strides(x.shape), x.dtype)


def gather(x: Tensor, ranks: int) -> Tensor:
    """All-gather: (...) → (n, ...). Its gradient is reduce-scattered."""
    node = node_for(_gather_rule, (x,), x.shape)
    shape = (ranks, *x.shape)
    return attach(node, run_one("all_gather", (contiguous(x),), shape, contiguous_strides(shape), x.dtype))


def _gather_rule(node: Node, g: Tensor) -> Grads:
    shape: Shape = node.attributes
    return [run_one("reduce_scatter", (contiguous(g),), shape, contiguous_strides(shape), g.dtype)]
