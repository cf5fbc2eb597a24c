"""Stages run by PyTorch, eagerly, from a run folder."""

from __future__ import annotations

import torch
from torch import nn

from sora_spec.builders.diffusion.arrays import Array, NumpyArrays
from sora_spec.compile.bundle.contract import Contract
from sora_spec.compile.run.executors.stage import Stage, device_arrays
from sora_spec.recipe.parts import GraphName


class TorchStage(Stage):
    """A module whose forward takes the contract's inputs in order and returns its one output.

    Offloaded, its weights wait in the CPU's memory; where the CPU is the device, that saves nothing.
    """

    backend = "torch"

    def __init__(self, name: GraphName, module: nn.Module, contract: Contract, offload: bool = False) -> None:
        self.xp = device_arrays()
        self.device = torch.device("cpu" if isinstance(self.xp, NumpyArrays) else "cuda")
        self.module = module.eval()
        self.runtime = f"torch {torch.__version__} {self.device.type}"
        super().__init__(name, contract, offload)

    def _open(self) -> None:
        self.module.to(self.device)

    def _close(self) -> None:
        self.module.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # else the allocator keeps the memory that the next stage is to have

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            result = self.module(*(torch.as_tensor(value) for value in inputs.values()))
        return {self.contract.outputs[0].name: result.numpy() if isinstance(self.xp, NumpyArrays) else result}
