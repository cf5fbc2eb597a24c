"""How each number of a plan is reckoned, in a line: for the tree that shows where memory and work go."""

from __future__ import annotations

from sora_spec.graph.ir import Kind
from sora_spec.plan.memory.terms import Term

# By the first words of a term's name; the first match counts.
_TERMS = (
    ("text encoder weights", "2 bytes × parameters; as much again where they are kept in fp32"),
    ("text encoder activations", "clips × tokens × width × 2 bytes × about 20 tensors"),
    ("weights set aside", "the trained weights while the moving average stands in their place"),
    ("VAE weights", "4 bytes × parameters and constants of the VAE"),
    ("denoiser buffers", "constants that the network stores: positions, frequencies"),
    ("VAE buffers", "constants that the VAE stores"),
    ("AdamW moments", "2 moments × 4 bytes × parameters that this rank holds"),
    ("AdamW temporaries", "denominators of the update while it runs"),
    ("moving average", "4 bytes × parameters that this rank holds"),
    ("gradients of earlier passes", "4 bytes × parameters that this rank holds, kept between passes"),
    ("one gradient being added", "the largest gradient, before it joins those of earlier passes"),
    ("gradients of the last step", "4 bytes × parameters that this rank holds"),
    ("gradients", "those alive at the highest moment of the pass"),
    ("FSDP2: gathered weights", "weights outside blocks and of one block, whole, in the arithmetic's type"),
    ("FSDP2: weights in flight", "the next block's weights while they are gathered"),
    ("FSDP2: gradients being reduced", "one block's gradients, in the arithmetic's type and in fp32"),
    ("activations", "tensors alive at the highest moment, from the model graph"),
    ("VAE activations", "tensors alive at the VAE's highest moment, from the model graph"),
    ("inputs", "latents, noise, time and condition of a pass"),
    ("video", "pixels of a pass in fp32"),
    ("latents", "latents of a pass"),
    ("convolution workspace", "9 bytes × values in and out of a 3 × 3 convolution, where there is room; none to 1.3 ×"),
    ("attention workspace", "flash attention's backward pass: dQ and row sums in fp32, tokens rounded to 128"),
    ("all-to-all buffers", "0 to 10 % of one block's activations"),
    ("cuBLAS workspace", "once per stream: 32 MiB from Hopper on, 8.1 MiB before"),
    ("fragmentation", "0.5 to 15 % of what is allocated, likely 6 %"),
    ("CUDA context", "driver and kernels: 350 to 900 MiB, likely 520"),
    ("NCCL buffers", "150 to 1,500 MiB, likely 500"),
    ("Python and PyTorch", "300 to 700 MiB, likely 450"),
)

_KINDS: dict[Kind, str] = {
    "linear": "2·M·K·N FLOPs",
    "conv": "2 × outputs × kernel × input channels FLOPs",
    "attention": "4·queries·keys·width FLOPs",
}


def term_formula(term: Term) -> str:
    """How a term is reckoned."""
    if " weights" in term.name and not term.name.startswith(("VAE weights,", "text", "FSDP")):
        each = "2 or 4 bytes × parameters" if term.path.startswith("export") else "bytes of the type × parameters"
        return each + (", cut along the first dimension of every tensor" if ", 1/" in term.name else "")
    return next((words for start, words in _TERMS if term.name.startswith(start)), "")


def op_formula(kind: Kind, backward: bool) -> str:
    """How an op's FLOPs are counted."""
    if kind == "attention" and backward:
        return "2.5 × forward: the flash kernel makes the scores anew"
    return _KINDS.get(kind, "no matrix product: its time is that of its bytes")
