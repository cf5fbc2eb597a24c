"""bf16 by FSDP2's mixed-precision policy, and two ranks against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

from sora_spec.builders.weights.files import read_state
from sora_spec.builders.weights.run import load_denoiser
from sora_spec.disk.checkpoints import part_of
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec
from sora_spec.train.ranks import check_world, pick_device, started_ranks
from sora_spec.train.start import build_task, train_stage


def tensors(run: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    return read_state(part_of(run / f"denoiser/checkpoints/step-{step:08d}", f"{name}.safetensors"))


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "denoiser/metrics.jsonl").read_text().splitlines()]


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(tiny_spec) -> None:
    with started_ranks(tiny_spec(), "cpu", "bf16") as ranks:
        task = build_task(tiny_spec(train__precision="bf16"), "denoiser", None, ranks)
        inside: list[torch.dtype] = []
        task.module.get_submodule("blocks.0").register_forward_hook(lambda m, i, o: inside.append(o.dtype))
        assert all(isinstance(p, DTensor) and p.dtype == torch.float32 for p in task.module.parameters())
        output = task.module(torch.randn(2, 3, 4, 16, 16), torch.tensor([0.1, 0.9]), torch.tensor([1, 2]))
        output.square().mean().backward()
        assert inside == [torch.bfloat16]
        gradients = [p.grad for p in task.module.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_a_bf16_run_resumes_and_loads_in_fp32(tiny_spec, tmp_path: Path, recompute: str) -> None:
    fields = {"train__precision": "bf16", "train__recompute": {"kind": recompute}, "train__sample_every": 6}
    spec = tiny_spec(**fields)
    train_stage(spec, tmp_path / "whole")
    train_stage(tiny_spec(**fields, train__steps=3), tmp_path / "parts")
    train_stage(spec, tmp_path / "parts", resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for name in ("model", "ema", "optimizer"):
        one, other = (tensors(tmp_path / run, 6, name) for run in ("whole", "parts"))
        assert all(torch.equal(one[key], other[key]) for key in one | other)
        assert all(tensor.dtype == torch.float32 for tensor in one.values())
    assert next(load_denoiser(RunFolder.open(tmp_path / "whole")).parameters()).dtype == torch.float32
    train_stage(tiny_spec(), tmp_path / "fp32")
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "fp32"), rel=0.02)
    assert losses(tmp_path / "whole") != losses(tmp_path / "fp32")


def test_two_ranks_train_as_one(tiny_spec, tmp_path: Path) -> None:
    """Weights cut over two gloo ranks, each with half of the batch: the same losses as one process."""
    train_stage(tiny_spec(train__steps=4), tmp_path / "one")
    cut = tiny_spec(train__steps=4, parallel={"shard": 2}, hardware={"count": 2})
    (tmp_path / "two.yaml").write_text(dump_spec(cut))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "--", "sora_spec", "train", str(tmp_path / "two.yaml"), "--run", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = (tensors(tmp_path / run, 4, "model") for run in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=5e-5) for name in one | two)


def test_the_number_of_processes_must_be_the_specs(tiny_spec) -> None:
    spec = tiny_spec(parallel={"shard": 2}, hardware={"count": 2})
    with pytest.raises(UserError, match="asks for 2 processes") as error:
        check_world(spec, 1)
    assert "torchrun --nproc-per-node 2 -m -- sora_spec train" in str(error.value.hint)
    check_world(spec, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_devices_that_are_not_there() -> None:
    assert pick_device(None) == torch.device("cpu")
    for name, told in (("cuda", "sees no GPU"), ("toaster", "no such kind"), ("meta", "cpu and cuda")):
        with pytest.raises(UserError, match=told):
            pick_device(name)
