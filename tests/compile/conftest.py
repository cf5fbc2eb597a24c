"""Small runs with perturbed weights, so that no gate, head or residual branch is zero, and bundles made of them."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.export.exporter import ExportSettings, export_run
from sora_spec.disk.checkpoints import FORMAT, State
from sora_spec.disk.checksums import write_checksums
from sora_spec.disk.run_folder import RunFolder
from sora_spec.language.loading import dump_spec, spec_from_values
from sora_spec.language.schema.spec import Spec

TINY: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "clip": {"frames": 5, "height": 16, "width": 24, "fps": 8},
    "vae": {
        "kind": "causal3d",
        "compression": {"time": 2, "space": 2},
        "channels": 4,
        "width": 8,
        "multipliers": [1, 2],
        "blocks": 1,
    },
    "patch": {"time": 1, "space": 4},
    "backbone": {
        "kind": "transformer",
        "depth": 2,
        "width": 32,
        "heads": 2,
        "learn_sigma": False,
        "position": {"kind": "rope"},
        "qk_norm": True,
    },
    "temporal": {"kind": "alternating"},
    "condition": {"kind": "class", "classes": 4},
    "objective": {"kind": "interpolant"},
    "sampler": {"kind": "euler", "steps": 4, "guidance": 2.0},
    "train": {"ema": 0.0},
    "export": {"batch": [1, 2]},
}
CLASSES = ["circle", "square", "star", "wave"]


class Toys:
    """What the tests of this folder build from. A fixture, since test modules cannot import each other."""

    classes = CLASSES

    @staticmethod
    def spec(**sections: Any) -> Spec:
        """The tiny spec with whole sections replaced; a section may be given in part as `SECTION_with`."""
        values = copy.deepcopy(TINY)
        for name, section in sections.items():
            base = name.removesuffix("_with")
            values[base] = section if base == name else values[base] | section
        return spec_from_values(values)

    @staticmethod
    def perturb(module: nn.Module, seed: int = 0) -> nn.Module:
        """Add noise to every parameter."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return module

    @classmethod
    def run(cls, path: Path, spec: Spec, perturbed: bool = True, classes: list[str] | None = None) -> RunFolder:
        """A run folder as training leaves it, with random weights."""
        run = RunFolder.create(path, dump_spec(spec))
        torch.manual_seed(0)
        modules: dict[Any, nn.Module] = {"denoiser": build_denoiser(spec)}
        if spec.vae.kind != "identity":
            modules["vae"] = build_vae(spec)
        for stage, module in modules.items():
            module = cls.perturb(module) if perturbed else module
            with run.stage(stage).writing_checkpoint(10) as folder:
                save_file(module.state_dict(), folder / "model.safetensors")
                state = State(10, stage, data="", format=FORMAT, average=False)
                (folder / "state.json").write_text(json.dumps(asdict(state)))
                write_checksums(folder)
        if classes is not None:
            run.classes_path.write_text(json.dumps(classes))
        return run


@pytest.fixture(scope="session")
def toys() -> Toys:
    return Toys()


@pytest.fixture(scope="session")
def tiny_run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return toys.run(tmp_path_factory.mktemp("runs") / "tiny", toys.spec(), classes=CLASSES)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: RunFolder) -> Bundle:
    """The exported tiny run. Tests that change a bundle copy it first."""
    return export_run(tiny_run, tiny_run.path.parent / "tiny-bundle", ExportSettings())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
