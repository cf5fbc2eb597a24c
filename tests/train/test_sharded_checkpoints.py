"""Ranks write shards beside training; any number of ranks reads them back to the last bit."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from sora_spec.builders.weights.files import read_state
from sora_spec.builders.weights.run import load_denoiser
from sora_spec.cli.consolidate import consolidate
from sora_spec.disk.checkpoints import MODEL, OPTIMIZER, part_of
from sora_spec.disk.checkpoints import read_state as read_trained
from sora_spec.disk.run_folder import RunFolder, StageFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec, load_spec
from sora_spec.train import checkpoint as checkpoint_module
from sora_spec.train.checkpoint import CheckpointWriter, load_checkpoint
from sora_spec.train.ranks import started_ranks
from sora_spec.train.start import build_task, train_stage
from sora_spec.train.trainer import Trainer

# One process imports torch, and the ranks are forked from it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sora_spec.train.stages.denoiser", "sora_spec.train.start", "torch.utils.tensorboard"])
PAIR = {"parallel__shard": 2, "hardware": {"count": 2}}
NEWEST = Path("denoiser/checkpoints/step-00000006")


def rewrite(spec_path: str, checkpoint: Path, target: Path) -> None:
    """Read a checkpoint on as many ranks as the spec has, and write it again."""
    spec = load_spec(spec_path)
    with started_ranks(spec, "cpu", "fp32") as ranks:
        trainer = Trainer(build_task(spec, "denoiser", None, ranks), ranks)
        state = read_trained(checkpoint)
        load_checkpoint(checkpoint, trainer.trained, state.step)
        writer = CheckpointWriter(StageFolder(target), ranks, 1)
        writer.save(trainer.trained, state)
        writer.wait()


def joined(folder: Path, rank: int) -> None:
    """Make this process one of two ranks that meet in `folder`."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)


def started(action: Callable[..., None], *arguments: Any) -> list[Any]:
    """Two processes that do `action(*arguments, rank)`."""
    processes = [CONTEXT.Process(target=action, args=(*arguments, rank)) for rank in (0, 1)]
    for process in processes:
        process.start()
    return processes


def ended(processes: list[Any]) -> list[int | None]:
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def on_two_ranks(folder: Path, rank: int) -> None:
    """What the runs of two ranks do, in a process of each."""
    joined(folder, rank)
    two, one = str(folder / "two.yaml"), folder / "one" / NEWEST
    train_stage(load_spec(two), folder / "whole", device="cpu")
    train_stage(load_spec(two, ["train.steps=3"]), folder / "parts", device="cpu")
    train_stage(load_spec(two), folder / "parts", device="cpu", resume=True)
    rewrite(two, one, folder / "one-on-two")
    rewrite(two, folder / "whole" / NEWEST, folder / "two-on-two")
    dist.destroy_process_group()


def trained(spec_path: str, folder: Path, full: bool, rank: int) -> None:
    """Train into `folder/run`, or go on there; `full`: no space is left for the second rank's part of step 6."""
    joined(folder, rank)
    original = FileSystemWriter.write_data

    def write(writer: FileSystemWriter, *arguments: Any) -> Any:
        if full and rank == 1 and "step-00000006" in str(writer.path):
            raise OSError(errno.ENOSPC, "No space left on device", str(writer.path))
        return original(writer, *arguments)

    kind: Any = FileSystemWriter
    kind.write_data = write
    run = folder / "run"
    try:
        train_stage(load_spec(spec_path), run, device="cpu", resume=RunFolder.is_run(run))
    except UserError as error:
        (folder / f"told-{rank}").write_text(error.message)


@pytest.fixture(scope="module")
def runs(tiny_spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of 6 steps: `one` of one rank, `whole` and `parts` of two, the latter resumed after 3."""
    folder = tmp_path_factory.mktemp("shards")
    # A width that does not divide evenly leaves shards of several sizes.
    odd = {"backbone__width": 36, "condition__classes": 10}
    train_stage(tiny_spec(**odd), folder / "one")
    (folder / "one.yaml").write_text(dump_spec(tiny_spec(**odd)))
    (folder / "two.yaml").write_text(dump_spec(tiny_spec(**odd, **PAIR)))
    assert ended(started(on_two_ranks, folder)) == [0, 0]
    return folder


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    found = {name: read_state(part_of(checkpoint, f"{name}.safetensors")) for name in ("model", "ema", "optimizer")}
    return {f"{name}/{key}": tensor for name, state in found.items() for key, tensor in state.items()}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_every_rank_writes_its_own_shard(runs: Path) -> None:
    checkpoint = runs / "whole" / NEWEST
    files = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
    shards = [
        f"{part}/{name}"
        for part in ("ema", "model", "optimizer")
        for name in (".metadata", "__0_0.distcp", "__1_0.distcp")
    ]
    assert files == ["checksums.sha256", *shards, "state.json"]
    sizes = [(checkpoint / "optimizer" / name).stat().st_size for name in ("__0_0.distcp", "__1_0.distcp")]
    assert max(sizes) < 1.2 * min(sizes)
    subprocess.run(["sha256sum", "--check", "--strict", "checksums.sha256"], cwd=checkpoint, check=True)
    assert str(runs) not in (checkpoint / "model/.metadata").read_bytes().decode("latin1")


def test_pytorch_reads_the_same_values(runs: Path, tmp_path: Path) -> None:
    for part in ("model", "optimizer", "ema"):
        dcp_to_torch_save(runs / "whole" / NEWEST / part, tmp_path / f"{part}.pt")
        theirs: dict[str, Any] = torch.load(tmp_path / f"{part}.pt", weights_only=True)
        assert_same(read_state(runs / "whole" / NEWEST / part), theirs)


def test_the_same_ranks_go_on_to_the_last_bit(runs: Path) -> None:
    assert_same(tensors(runs / "parts" / NEWEST), tensors(runs / "whole" / NEWEST))


def test_any_number_of_ranks_reads_the_same_values(runs: Path, tmp_path: Path) -> None:
    one, two = tensors(runs / "one" / NEWEST), tensors(runs / "whole" / NEWEST)
    assert (runs / "one" / NEWEST / MODEL).is_file()
    assert_same(tensors(runs / "one-on-two/checkpoints/step-00000006"), one)
    assert_same(tensors(runs / "two-on-two/checkpoints/step-00000006"), two)
    rewrite(str(runs / "one.yaml"), runs / "whole" / NEWEST, tmp_path)
    assert (tmp_path / "checkpoints/step-00000006" / OPTIMIZER).is_file()
    assert_same(tensors(tmp_path / "checkpoints/step-00000006"), two)


def test_one_rank_goes_on_with_a_run_of_two(runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "whole", tmp_path / "run"))
    with pytest.raises(UserError, match=r"parallel\.shard: 2 in the run, 1 now"):
        train_stage(load_spec(str(runs / "one.yaml"), ["train.steps=7"]), run, resume=True)
    train_stage(load_spec(str(runs / "one.yaml"), ["train.steps=7"]), run, resume=True, change=True)
    assert (run / "denoiser/checkpoints/step-00000007" / MODEL).is_file()


def test_shards_start_other_runs_and_generate(runs: Path, tmp_path: Path) -> None:
    run = RunFolder.open(runs / "whole")
    average = read_state(runs / "whole" / NEWEST / "ema")
    assert_same(dict(load_denoiser(run).state_dict()), average)
    spec = load_spec(str(runs / "one.yaml"), ["train.steps=1", "train.optimizer.lr=1e-12"])
    train_stage(spec, tmp_path / "new", origin=runs / "whole")
    assert RunFolder.open(tmp_path / "new").load_spec().backbone.weights == str(runs / "whole" / NEWEST / "ema")
    began = load_file(tmp_path / "new/denoiser/checkpoints/step-00000001" / MODEL)
    assert all(torch.allclose(began[name], tensor, rtol=0, atol=2e-12) for name, tensor in average.items())


def test_consolidate_writes_safetensors(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(runs / "whole", tmp_path / "run"))
    consolidate(run, step=3)
    folder, before = run / "weights/denoiser-step-00000003", run / NEWEST.with_name("step-00000003")
    assert capsys.readouterr().out.split() == [str(folder / name) for name in ("ema.safetensors", "model.safetensors")]
    for name in ("ema", "model"):
        assert_same(load_file(folder / f"{name}.safetensors"), read_state(before / name))
    consolidate(run, out=tmp_path / "w.safetensors")
    assert_same(load_file(tmp_path / "w.safetensors"), read_state(run / NEWEST / "ema"))
    consolidate(run, out=tmp_path / "w.safetensors", no_ema=True, force=True)
    assert_same(load_file(tmp_path / "w.safetensors"), read_state(run / NEWEST / "model"))
    with pytest.raises(UserError, match="exists already"):
        consolidate(run, out=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no checkpoint of step 5") as caught:
        consolidate(run, step=5)
    assert "steps: 3, 6" in str(caught.value.hint)


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("model/__1_0.distcp", flip, "model/__1_0.distcp is not as it was written"),
        ("ema/__0_0.distcp", Path.unlink, "ema/__0_0.distcp is missing"),
        ("optimizer/.metadata", flip, "optimizer/.metadata is not as it was written"),
        ("optimizer", shutil.rmtree, r"optimizer/.* is missing"),
    ],
)
def test_damaged_shards_give_way_to_the_checkpoint_before(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None], told: str
) -> None:
    run = Path(shutil.copytree(runs / "whole", tmp_path / "run"))
    damage(run / NEWEST / name)
    train_stage(load_spec(str(runs / "one.yaml"), ["train.steps=4"]), run, resume=True, change=True)
    warned = capsys.readouterr().err
    assert re.search(rf"step-00000006 is damaged \({told}", warned), warned
    assert "step-00000003 is taken in its place" in warned


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def edited(part: Path, change: Callable[[Any], None]) -> None:
    index: Metadata = pickle.loads((part / ".metadata").read_bytes())
    change(index)
    (part / ".metadata").write_bytes(pickle.dumps(index))


def test_an_index_runs_no_code_and_leaves_nothing_out(runs: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def refused(change: Callable[[Any], None], told: str) -> None:
        part = tmp_path / "model"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(runs / "whole" / NEWEST / "model", part)
        change(part)
        with pytest.raises(UserError, match=told):
            read_state(part)
        assert not marker.exists()

    def of_index(change: Callable[[Any], None]) -> Callable[[Path], None]:
        return lambda part: edited(part, change)

    def moved(index: Metadata) -> None:
        assert index.storage_data is not None
        for info in index.storage_data.values():
            info.relative_path = "../model/" + info.relative_path

    def gone(index: Metadata) -> None:
        entries: list[Any] = list(index.state_dict_metadata.values())
        next(entry for entry in entries if len(entry.chunks) > 1).chunks.pop()

    refused(
        of_index(lambda index: setattr(index, "planner_data", _Runs(marker))), r"model/\.metadata is refused.*pathlib"
    )
    refused(
        of_index(lambda index: index.state_dict_metadata.update(x=BytesStorageMetadata())),
        r"model/\.metadata is refused.*BytesStorageMetadata",
    )
    refused(of_index(moved), "does not hold its shard of")
    refused(of_index(gone), "a shard of .* is missing")
    refused(of_index(lambda index: index.storage_data.clear()), "model is damaged")
    refused(lambda part: (part / ".metadata").write_bytes(b"\x80\x04junk"), "model is damaged")
    refused(lambda part: os.truncate(part / "__1_0.distcp", 100), "does not hold its shard of")
    refused(
        lambda part: (part / "__1_0.distcp").write_bytes(bytes((part / "__1_0.distcp").stat().st_size)), "is damaged"
    )


def test_training_goes_on_while_a_checkpoint_is_written(tiny_spec, tmp_path: Path, monkeypatch) -> None:
    train_stage(tiny_spec(train__checkpoint_every=2), tmp_path / "whole")
    original, waited = checkpoint_module.save_file, list[bool]()
    metrics = tmp_path / "run/denoiser/metrics.jsonl"

    def slow(state: Any, path: Path) -> None:
        if threading.current_thread() is not threading.main_thread() and "step-00000004" in str(path):
            for _ in range(2000):  # until the fifth step is made
                if any(json.loads(line)["step"] == 5 for line in metrics.read_text().splitlines()):
                    waited.append(True)
                    break
                threading.Event().wait(0.01)
        original(state, path)

    monkeypatch.setattr(checkpoint_module, "save_file", slow)
    train_stage(tiny_spec(train__checkpoint_every=2), tmp_path / "run")
    assert waited == [True] * 3
    for step in (4, 6):
        place = f"denoiser/checkpoints/step-{step:08d}"
        assert_same(tensors(tmp_path / "run" / place), tensors(tmp_path / "whole" / place))


@pytest.mark.slow
def test_ranks_killed_while_writing_leave_the_checkpoint_before(runs: Path, tmp_path: Path) -> None:
    processes = started(trained, str(runs / "two.yaml"), tmp_path, False)
    checkpoints = tmp_path / "run/denoiser/checkpoints"
    while not (half := list(checkpoints.glob(".step-00000006.*.tmp/model"))):
        assert processes[0].is_alive()
    for process in processes:
        process.kill()
    assert ended(processes) == [-9, -9]
    assert half[0].is_dir()
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000003"]
    (tmp_path / "store").unlink()
    assert ended(started(trained, str(runs / "two.yaml"), tmp_path, False)) == [0, 0]
    assert_same(tensors(tmp_path / "run" / NEWEST), tensors(runs / "whole" / NEWEST))
    assert not list(checkpoints.glob(".*"))


@pytest.mark.slow
def test_a_full_disk_of_one_rank_stops_all(runs: Path, tmp_path: Path) -> None:
    assert ended(started(trained, str(runs / "two.yaml"), tmp_path, True)) == [0, 0]
    for rank in (0, 1):
        told = (tmp_path / f"told-{rank}").read_text()
        assert re.search(r"stopped at step 6; the last checkpoint is .*step-00000003: no space is left", told), told
    assert [path.name for path in (tmp_path / "run/denoiser/checkpoints").iterdir()] == ["step-00000003"]
