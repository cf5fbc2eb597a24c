"""Stages run by PyTorch, eagerly, from a run folder."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from sora_spec.compile.bundle.contract import Contract
from sora_spec.compile.run.executors.stage import Stage


class TorchStage(Stage):
    """A module whose forward takes the contract's inputs in order and returns its one output.

    Offloaded, its weights wait in the CPU's memory; where the CPU is the device, that saves nothing.
    """

    backend = "torch"

    def __init__(self, name: str, module: nn.Module, contract: Contract, offload: bool = False) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = module.eval()
        self.runtime = f"torch {torch.__version__} {self.device.type}"
        super().__init__(name, contract, offload)

    def _open(self) -> None:
        self.module.to(self.device)

    def _close(self) -> None:
        self.module.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # else the allocator keeps the memory that the next stage is to have

    def _run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            result = self.module(*(torch.from_numpy(value).to(self.device) for value in inputs.values()))
        return {self.contract.outputs[0].name: result.cpu().numpy()}
