"""How a component runs: batch, precision, kernels, recomputation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.graph.eager.tape import Tape

Precision = Literal["fp32", "bf16"]
OptimizerKind = Literal["forloop", "foreach", "fused"]
Recompute = Literal["spec", "none", "blocks", "selective"]

MATRIX_AND_ATTENTION = (
    "addmm",
    "mm",
    "bmm",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
)
"""Ops whose results selective recomputation keeps by default: the dear ones."""


@dataclass(frozen=True)
class Setting:
    """How a component runs."""

    batch: int = 1
    """Samples of one pass. Guidance doubles them; the caller does that."""
    precision: Precision = "fp32"
    """`bf16`: weights, activations and gradients in bfloat16; a step's loss stays in float32."""
    attention: Kernel = "flash"
    """Attention kernel; `cpu` makes all kernels the CPU's."""
    recompute: Recompute = "spec"
    """What a step recomputes: as `train.recompute` says, nothing, every block, or every block but `selected` ops."""
    selected: tuple[str, ...] = MATRIX_AND_ATTENTION
    """ATen names of the ops whose outputs selective recomputation keeps."""
    fused_rms_norm: bool = False
    """Whether RMS norm is one kernel (CUDA) or composed (CPU, `meta`)."""
    rounding: int = 1
    """Every storage takes a multiple of so many bytes: 512 in CUDA's caching allocator."""
    observed: bool = False
    """Whether a dispatch mode is watching, as in a trace: PyTorch then makes some sums anew and not in place."""
    threads: int = 0
    """Threads of the CPU whose buffers in attention are counted as workspace; 0 counts none, as no trace sees them."""
    owned_inputs: bool = False
    """Whether a step owns its inputs and lets go of them once the forward pass has returned, as `train` does."""
    accumulates: bool = False
    """Whether the gradients of an earlier pass are there, to which a step's backward pass adds."""
    sequence: int = 1
    """Ranks that share the tokens of a clip (sequence parallelism); the graph of a denoiser is then that of one."""
    optimizer: OptimizerKind = "forloop"
    """AdamW's implementation in `optimizer_step`: `forloop` on the CPU, `foreach` by default on CUDA, or `fused`."""
    full: bool = False
    """Run every block, and not only as many as differ."""
    temporal_attention: Kernel | None = None
    """The kernel across frames of alternating and factorised networks, where it is another one than across space."""
    winograd: bool = False
    """Whether the tiles of cuDNN's Winograd kernels are counted as workspace of 3 × 3 convolutions (CUDA)."""


def new_tape(setting: Setting) -> Tape:
    """An empty tape for a run in this setting."""
    return Tape(setting.rounding, setting.observed, setting.attention == "cpu", setting.threads, setting.winograd)


def compute_dtype(setting: Setting) -> DType:
    """The type of weights and activations."""
    return DType.BF16 if setting.precision == "bf16" else DType.F32
