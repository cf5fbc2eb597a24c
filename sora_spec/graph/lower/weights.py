"""Where lowered modules get their parameters and buffers from."""

from __future__ import annotations

from dataclasses import dataclass

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape
from sora_spec.graph.eager.ops import matrix
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.graph.eager.tape import Tape
from sora_spec.graph.eager.tensor import Tensor, leaf


@dataclass(frozen=True)
class Policy:
    """How a component runs: precision and kernels."""

    weights: DType = DType.F32
    """Type of parameters and of the arithmetic on them."""
    attention: Kernel = "flash"
    fused_rms_norm: bool = False
    train: bool = True
    """Whether parameters want gradients."""
    sequence: int = 1
    """Ranks that share the tokens of a clip."""
    temporal_attention: Kernel | None = None
    """The kernel across frames, where it is another one than across space."""

    @property
    def across_frames(self) -> Kernel:
        return self.temporal_attention or self.attention


class Weights:
    """Makes the tensors that outlive a step, and remembers them with the region they belong to."""

    def __init__(self, tape: Tape, policy: Policy) -> None:
        self.tape, self.policy = tape, policy
        self.parameters: list[Tensor] = []
        self.buffers: list[Tensor] = []
        self.gradients: list[Tensor] = []
        """Those of an earlier pass."""
        self.states: list[Tensor] = []
        """What an optimiser or an average keeps for the parameters."""
        self.persistent: set[int] = set()
        """Buffers that checkpoints hold, by number of storage."""
        self.regions: dict[int, int] = {}
        """Region by number of storage."""

    def parameter(self, name: str, shape: Shape) -> Tensor:
        """A tensor of the current region that is trained where the policy says so."""
        tensor = leaf(self.tape, shape, self.policy.weights, self.policy.train, name)
        self.parameters.append(tensor)
        self.regions[tensor.storage.index] = self.tape.region
        return tensor

    def buffer(self, name: str, shape: Shape, dtype: DType = DType.F32, persistent: bool = False) -> Tensor:
        """A constant of the current region; `persistent` where checkpoints hold it."""
        tensor = leaf(self.tape, shape, dtype, name=name)
        self.buffers.append(tensor)
        if persistent:
            self.persistent.add(tensor.storage.index)
        self.regions[tensor.storage.index] = self.tape.region
        return tensor

    def add_gradients(self) -> None:
        """Let every trained parameter have a gradient already."""
        for parameter in self.parameters:
            if parameter.requires_grad:
                gradient = leaf(self.tape, parameter.shape, parameter.dtype, name=f"{parameter.name}.grad")
                parameter.grad = gradient
                self.gradients.append(gradient)
                self.regions[gradient.storage.index] = self.regions[parameter.storage.index]

    def state(self, of: Tensor, name: str, shape: Shape) -> Tensor:
        """A tensor that is kept beside a parameter or buffer, of its type and region."""
        tensor = leaf(self.tape, shape, of.dtype, name=f"{of.name}.{name}")
        self.states.append(tensor)
        self.regions[tensor.storage.index] = self.regions[of.storage.index]
        return tensor


class Linear:
    """`nn.Linear`."""

    def __init__(self, weights: Weights, name: str, width: int, out: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (out, width))
        self.bias = weights.parameter(f"{name}.bias", (out,))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., width) → (..., out)."""
        return matrix.linear(x, self.weight, self.bias)
