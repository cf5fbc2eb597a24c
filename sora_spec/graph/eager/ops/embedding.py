"""Rows of a table."""

from __future__ import annotations

from sora_spec.graph.eager.layout import contiguous_strides
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run_one


def embedding(table: Tensor, rows: Tensor) -> Tensor:
    """`F.embedding`. Its gradient is as large as the table."""
    node = node_for(_embedding_rule, (table,), table.shape)
    if node is not None:
        node.save(rows)
    shape = (*rows.shape, table.shape[1])
    return attach(node, run_one("embedding", (table, rows), shape, contiguous_strides(shape), table.dtype))


def _embedding_rule(node: Node, g: Tensor) -> Grads:
    shape: tuple[int, ...] = node.attributes
    (rows,) = node.unpack()
    return [run_one("embedding_dense_backward", (g, rows), shape, contiguous_strides(shape), g.dtype)]
