"""Passes over an exported ONNX graph. Each says what it needs and what it leaves.

`torch.onnx.export(optimize=True)` spends most of its time in onnxscript's pattern matcher; these three passes are what
an inference graph gains from it: half the export time for the same nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import optimizer

SEQUENCE_OPS = frozenset(
    {"SplitToSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "ConcatFromSequence"}
)
"""What `chunk` and `unbind` become until folding; TensorRT's parser refuses them all."""


def simplify(model: ir.Model) -> ir.Model:
    """Fold constants, drop what is not used, merge equal nodes, in place.

    Requires: a model just exported. Ensures: no sequence ops, no unused nodes or initializers, no functions.
    """
    optimizer.fold_constants(model)
    drop_malformed_biases(model)
    passes = ir.passes.Sequential(
        common.InlinePass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.NameFixPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    model = passes(model).model
    left = SEQUENCE_OPS & set(count_ops(model))
    assert not left, f"sequence ops survived folding: {sorted(left)}"
    return model


def drop_malformed_biases(model: ir.Model) -> None:
    """Take away the zero bias of shape (channels, 2) that onnxscript 0.7 gives a Conv3d without bias (`aten_conv3d`).

    ONNX's checker lets it pass; ONNX Runtime refuses to run it. Requires: constants folded.
    """
    for node in _all_nodes(model):
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        value = None if bias is None else ir.convenience.get_const_tensor(bias)
        if value is not None and len(value.shape) != 1:
            assert not value.numpy().any(), f"{node.name} has a bias of shape {value.shape}"
            node.resize_inputs(2)


def count_ops(model: ir.Model) -> Counter[str]:
    """Nodes of the graph and its subgraphs by operator type."""
    return Counter(node.op_type for node in _all_nodes(model))


def count_nodes(model: ir.Model) -> int:
    """Nodes of the graph and its subgraphs."""
    return sum(1 for _ in _all_nodes(model))


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    return iter(ir.traversal.RecursiveGraphIterator(model.graph))
