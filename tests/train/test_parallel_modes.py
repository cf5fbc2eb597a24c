"""How weights are cut and where they are kept changes memory and messages, and no bit of what is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from sora_spec.builders.weights.files import read_state
from sora_spec.disk.checkpoints import part_of
from sora_spec.language.loading import dump_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.train.ranks import started_ranks
from sora_spec.train.start import build_task, train_stage
from sora_spec.train.trainer import Trainer

STEPS = 4
PAIR = {"parallel__shard": 2, "hardware": {"count": 2}}
MODES: dict[str, dict[str, Any]] = {
    "zero3": PAIR,
    "zero2": PAIR | {"parallel__reshard": False},
    "offload": PAIR | {"parallel__offload": True},
    "host_average": PAIR | {"train__ema_device": "cpu"},
    "all": PAIR | {"parallel__reshard": False, "parallel__offload": True, "train__ema_device": "cpu"},
    "replicas": {"parallel__shard": 1, "parallel__replicate": 2, "hardware": {"count": 2}},
}


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "denoiser/metrics.jsonl").read_text().splitlines()]


def checkpoint(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name in ("model", "ema", "optimizer"):
        tensors = read_state(part_of(run / f"denoiser/checkpoints/step-{step:08d}", f"{name}.safetensors"))
        found |= {f"{name}/{key}": tensor for key, tensor in tensors.items()}
    return found


def assert_same_bits(run: Path, other: Path) -> None:
    assert losses(run) == losses(other)
    one, two = checkpoint(run), checkpoint(other)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


_SCRIPT = """
import sys
from pathlib import Path
import torch.distributed as dist
from sora_spec.language.loading import load_spec
from sora_spec.train.start import train_stage

dist.init_process_group("gloo")  # one for all runs, which leave alone what they did not make
for path in sys.argv[1:]:
    train_stage(load_spec(path), Path(path).with_suffix(""), device="cpu")
dist.destroy_process_group()
"""


def train_on_two_ranks(folder: Path, specs: dict[str, Spec]) -> None:
    """Train each spec into `folder/NAME` on the same two gloo ranks, one after the other."""
    paths: list[str] = []
    for name, spec in specs.items():
        path = folder / f"{name}.yaml"
        path.write_text(dump_spec(spec))
        paths.append(str(path))
    script = folder / "train_all.py"
    script.write_text(_SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command += [str(script), *paths]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tiny_spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one process, and one of two ranks for each mode."""
    folder = tmp_path_factory.mktemp("modes")
    train_stage(tiny_spec(train__steps=STEPS), folder / "single")
    train_on_two_ranks(folder, {name: tiny_spec(train__steps=STEPS, **fields) for name, fields in MODES.items()})
    return folder


@pytest.mark.parametrize("mode", [name for name in MODES if name not in ("zero3", "replicas")])
def test_two_ranks_agree_to_the_last_bit_whatever_the_mode(runs: Path, mode: str) -> None:
    assert_same_bits(runs / mode, runs / "zero3")


@pytest.mark.parametrize("mode", ["zero3", "replicas"])
def test_two_ranks_train_as_one_process(runs: Path, mode: str) -> None:
    """Each rank sums over half of the batch, and floating-point sums depend on their order: the last bits differ."""
    assert losses(runs / mode) == pytest.approx(losses(runs / "single"), rel=1e-5)
    one, two = checkpoint(runs / mode), checkpoint(runs / "single")
    assert [name for name in two if not torch.allclose(one[name], two[name], atol=5e-5)] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"parallel__offload": True},
        {"train__ema_device": "cpu"},
        {"parallel__offload": True, "parallel__reshard": False, "train__ema_device": "cpu"},
    ],
)
def test_one_rank_agrees_with_the_plain_module_to_the_last_bit(tiny_spec, runs: Path, tmp_path: Path, fields) -> None:
    """FSDP2 on one rank divides by nothing and sums nothing."""
    train_stage(tiny_spec(train__steps=STEPS, **fields), tmp_path / "run")
    assert_same_bits(tmp_path / "run", runs / "single")


def test_bf16_does_not_depend_on_the_mode_either(tiny_spec, tmp_path: Path) -> None:
    bf16 = {"train__precision": "bf16", "train__steps": STEPS}
    train_stage(tiny_spec(**bf16), tmp_path / "plain")
    train_stage(tiny_spec(**bf16, parallel__reshard=False), tmp_path / "kept")
    train_stage(tiny_spec(**bf16, parallel__offload=True, train__ema_device="cpu"), tmp_path / "host")
    assert_same_bits(tmp_path / "kept", tmp_path / "plain")
    assert_same_bits(tmp_path / "host", tmp_path / "plain")


@pytest.mark.parametrize("reshard", [True, False])
def test_sampling_with_the_average_leaves_training_as_it_was(tiny_spec, tmp_path: Path, reshard: bool) -> None:
    """FSDP2 keeps weights gathered after a forward pass; those of the average must not be trained on."""
    fields = {"train__precision": "bf16", "train__steps": STEPS, "parallel__reshard": reshard}
    train_stage(tiny_spec(**fields), tmp_path / "plain")
    train_stage(tiny_spec(**fields, train__sample_every=1), tmp_path / "sampled")
    assert_same_bits(tmp_path / "sampled", tmp_path / "plain")


def test_every_mode_resumes_to_the_last_bit(tiny_spec, tmp_path: Path) -> None:
    fields = {"parallel__offload": True, "parallel__reshard": False, "train__ema_device": "cpu"}
    train_stage(tiny_spec(train__steps=STEPS, train__checkpoint_every=2, **fields), tmp_path / "whole")
    train_stage(tiny_spec(train__steps=2, train__checkpoint_every=2, **fields), tmp_path / "parts")
    resumed = tiny_spec(train__steps=STEPS, train__checkpoint_every=2, **fields | {"parallel__reshard": True})
    train_stage(resumed, tmp_path / "parts", resume=True)
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("reshard", [True, False])
def test_blocks_are_freed_after_their_forward_pass_or_kept(tiny_spec, reshard: bool) -> None:
    spec = tiny_spec(train__precision="bf16", parallel__reshard=reshard)
    with started_ranks(spec, "cpu", "bf16") as ranks:
        module: Any = build_task(spec, "denoiser", None, ranks).module
        module(torch.randn(2, 3, 4, 16, 16), torch.tensor([0.1, 0.9]), torch.tensor([1, 2]))
        blocks: list[Any] = [part for part in module.modules() if isinstance(part, FSDPModule) and part is not module]
        assert len(blocks) == 2
        cut = [all(isinstance(weight, DTensor) for weight in block.parameters()) for block in blocks]
        assert cut == [reshard, reshard]


def test_the_average_on_the_host_shares_no_memory_with_the_weights(tiny_spec) -> None:
    spec = tiny_spec(train__ema_device="cpu")
    with started_ranks(spec, "cpu", "fp32") as ranks:
        trained = Trainer(build_task(spec, "denoiser", None, ranks), ranks).trained
        assert trained.average is not None
        for name, weight in trained.module.named_parameters():
            assert trained.average.average[name].data_ptr() != weight.data_ptr()
