"""Damaged files of run folders, and disks that are full, read-only or gone.

The right answer to damage in a checkpoint is the end of the run that was never touched, after a warning that names both
checkpoints; to damage elsewhere a refusal that names the file and leaves every byte as it was.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile import kills
from tests.hostile.case import Case, Result, sora_spec
from tests.hostile.run_damage import DAMAGES, ELSEWHERE, damaged_metrics

_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "checksums.sha256")


@functools.cache
def _six() -> Path:
    """A run of 6 steps with the checkpoints 3 and 6."""
    from sora_spec.train.start import train_stage

    path = kills.folder_of_all() / "six"
    with contextlib.redirect_stderr(io.StringIO()):
        train_stage(kills.spec(steps=6), path)
    return path


def _copied(folder: Path) -> Path:
    return Path(shutil.copytree(_six(), folder / "run"))


def _resumed(path: Path) -> tuple[str | None, str]:
    """Message of the refusal, if it was one, and what stood on stderr."""
    from sora_spec.errors import UserError
    from sora_spec.train.start import train_stage

    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        try:
            train_stage(kills.spec(), path, resume=True)
        except UserError as error:
            return error.message, told.getvalue()
    return None, told.getvalue()


def _bytes(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "train.lock"}


def _damaged_checkpoint(name: str, damage: Callable[[Path], None], folder: Path) -> str | None:
    path = _copied(folder)
    newest = path / "denoiser/checkpoints/step-00000006"
    damage(newest / name)
    refused, told = _resumed(path)
    if refused is not None:
        return f"refused: {refused}"
    if f"{newest} is damaged" not in told or "step-00000003 is taken in its place" not in told:
        return f"no warning that names both: {told[-300:]}"
    return kills.differs(path)


def _all_damaged(damage: Callable[[Path], None], folder: Path) -> str | None:
    path = _copied(folder)
    for checkpoint in (path / "denoiser/checkpoints").iterdir():
        damage(checkpoint / "model.safetensors")
    before = _bytes(path)
    refused, _ = _resumed(path)
    if refused is None or "step-00000003" not in refused or "step-00000006" not in refused:
        return f"does not name both: {refused}"
    return None if _bytes(path) == before else "a refusal changed the folder"


def _damage_read_to_generate(name: str, damage: Callable[[Path], None], folder: Path) -> str | None:
    """What `generate` and `export` load: the average of the checkpoint before."""
    import torch
    from safetensors.torch import load_file

    from sora_spec.builders.weights.run import load_denoiser
    from sora_spec.disk.run_folder import RunFolder
    from sora_spec.errors import UserError

    path = _copied(folder)
    checkpoints = path / "denoiser/checkpoints"
    damage(checkpoints / "step-00000006" / name)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            state = load_denoiser(RunFolder.open(path)).state_dict()
    except UserError as error:
        gone = not (checkpoints / "step-00000006" / name).exists() and name == "ema.safetensors"
        return None if gone and name in error.message else f"refused: {error.message}"
    if "step-00000003 is taken in its place" not in told.getvalue():
        return f"no warning: {told.getvalue()[-300:]}"
    wanted = load_file(checkpoints / "step-00000003/ema.safetensors")
    return None if all(torch.equal(state[key], value) for key, value in wanted.items()) else "other weights"


def _damaged_elsewhere(name: str, content: bytes | None, said: str, folder: Path) -> str | None:
    path = _copied(folder)
    if content is None:
        (path / name).unlink()
        (path / name).mkdir()
    else:
        (path / name).write_bytes(content)
    before = _bytes(path)
    refused, _ = _resumed(path)
    if refused is None or name not in refused or said not in refused:
        return f"does not say {name} and {said!r}: {refused}"
    return None if _bytes(path) == before else "a refusal changed the folder"


def _edited_spec(old: str, new: str, said: str, folder: Path) -> str | None:
    """The run's own spec, edited or damaged into another valid one."""
    result = None
    path = _copied(folder)
    text = (path / "spec.yaml").read_text()
    assert text.count(old) == 1, old
    (path / "spec.yaml").write_text(text.replace(old, new))
    before = _bytes(path)
    result = sora_spec("train", str(path), "--resume", cwd=folder)
    return result.refused(said) or (None if _bytes(path) == before else "a refusal changed the folder")


def _damaged_log(lines: Callable[[list[bytes]], bytes], kept: list[int], said: str, folder: Path) -> str | None:
    path = _copied(folder)
    file = path / "denoiser/metrics.jsonl"
    file.write_bytes(lines(file.read_bytes().splitlines(keepends=True)))
    refused, told = _resumed(path)
    if refused is not None or said not in told:
        return f"refused ({refused}) or not told of {said!r}: {told[-300:]}"
    found = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    return None if found == [*kept, 7, 8] else f"steps {found}"


@contextlib.contextmanager
def _disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this process may mount a disk."""
    if os.geteuid() != 0:
        return False
    try:
        with _disk(kills.folder_of_all(), "64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        (kills.folder_of_all() / "disk").rmdir()


def _full_while_training(size: str, folder: Path) -> str | None:
    kills.whole()
    with _disk(folder, size) as place:
        path = place / "run"
        arguments = ("train", kills.written(folder), "--run", str(path))
        wrong = sora_spec(*arguments, cwd=folder).refused("space", "disk")
        _remount(place, "size=64m")
        again = sora_spec(*arguments, "--resume", cwd=folder)
        return wrong or again.accepted() or kills.differs(path)


def _full(arguments: tuple[str, ...], made: str, folder: Path) -> str | None:
    """A verb on a full disk leaves nothing; with room the same command works."""
    with _disk(folder, "40k") as place:
        (place / "filler").write_bytes(bytes(36 * 1024))
        with contextlib.suppress(OSError), (place / "rest").open("wb") as file:
            file.write(bytes(16 * 1024))
        command = [argument.replace("DISK", str(place)).replace("RUN", str(_six())) for argument in arguments]
        wrong = sora_spec(*command, cwd=folder).refused("disk")
        left = {path.name for path in place.iterdir()} - {"filler", "rest"}
        (place / "rest").unlink(missing_ok=True)
        _remount(place, "size=64m")
        again = sora_spec(*command, cwd=folder)
        missing = None if (place / made).exists() else f"{made} is not there"
        return wrong or (f"left behind: {left}" if left - {"clips"} else None) or again.accepted() or missing


def _read_only(arguments: tuple[str, ...], said: str, folder: Path) -> str | None:
    with _disk(folder, "64m") as place:
        shutil.copytree(_six(), place / "run")
        before = _bytes(place)
        _remount(place, "ro")
        command = [
            argument.replace("DISK", str(place)).replace("SPEC", kills.written(folder)) for argument in arguments
        ]
        result = sora_spec(*command, cwd=folder)
        wrong = result.refused(said) if said else result.accepted()
        _remount(place, "rw")
        return wrong or (None if _bytes(place) == before else "files changed")


def _small_files(folder: Path) -> str | None:
    """A limit on the size of files stops the checkpoint; without it the run goes on to the same end."""
    path, values = folder / "run", kills.written(folder)
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (60_000, 60_000))
    command = [sys.executable, "-m", "sora_spec", "train", values, "--run", str(path)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, preexec_fn=limit, check=False)
    wrong = Result(done.returncode, done.stdout, done.stderr).refused("larger than the disk", "no checkpoint yet")
    return wrong or sora_spec(*command[3:], "--resume", cwd=folder).accepted() or kills.differs(path)


@contextlib.contextmanager
def _training(folder: Path, *overrides: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A long training that has made its first steps."""
    path = folder / "run"
    command = [sys.executable, "-m", "sora_spec", "train", kills.written(folder), "--run", str(path)]
    command += ["train.steps=100000", "train.checkpoint_every=50000", "train.sample_every=null", *overrides]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    deadline = time.monotonic() + 120
    while len(kills.lines(path)) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield process, path
    finally:
        process.kill()
        process.wait()


def _ended(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def _gone(action: Callable[[Path], object], folder: Path) -> str | None:
    with _training(folder) as (process, path):
        action(path)
        result = _ended(process)
    if (path / "denoiser").exists():
        return "the folder was made again"
    return result.refused(str(path), "deleted or moved while training", "stopped at step")


def _killed_worker(folder: Path) -> str | None:
    with _training(folder, "train.workers=1") as (process, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [w for child in children for w in Path(f"/proc/{child}/task/{child}/children").read_text().split()]
        for worker in workers:
            os.kill(int(worker), 9)
        if not workers:
            return "no worker was found"
        return _ended(process).refused("process that reads the data", "stopped at step")


def _second_training(folder: Path) -> str | None:
    with _training(folder) as (process, path):
        second = sora_spec("train", str(path), "--resume", cwd=folder)
        if process.poll() is not None:
            return "the first one ended"
        return second.refused(f"process {process.pid}", "is being trained by")


def cases() -> Iterator[Case]:
    """Damage in every file of a run folder, then disks."""
    for name in _FILES:
        for label, damage in DAMAGES.items():
            yield Case(f"{label}: {name}", functools.partial(_damaged_checkpoint, name, damage))
    for name in ("model.safetensors", "ema.safetensors", "state.json"):
        for label, damage in DAMAGES.items():
            yield Case(f"{label}, to generate: {name}", functools.partial(_damage_read_to_generate, name, damage))
    for label, damage in list(DAMAGES.items())[:-1]:  # the last one takes a whole file from the other checkpoint
        yield Case(f"{label}: all checkpoints", functools.partial(_all_damaged, damage))
    for name, content, said in ELSEWHERE:
        label = "a folder" if content is None else repr(content[:20])
        yield Case(f"{name} is {label}", functools.partial(_damaged_elsewhere, name, content, said))
    for old, new in (("lr: 0.002", "lr: 0.003"), ("depth: 1", "depth: 2"), ("ema: 0.9", "ema: 0.8")):
        field = old.partition(":")[0]
        yield Case(f"spec.yaml edited: {new}", functools.partial(_edited_spec, old, new, f".{field}: "))
    for label, lines, kept, said in damaged_metrics():
        yield Case(f"metrics.jsonl {label}", functools.partial(_damaged_log, lines, kept, said))
    yield Case("a limit on the size of files", _small_files)
    yield Case("the run folder deleted while training", functools.partial(_gone, shutil.rmtree))
    yield Case("the run folder moved while training", functools.partial(_gone, lambda p: p.rename(p.parent / "x")))
    yield Case("a killed worker", _killed_worker)
    yield Case("a second training in the folder", _second_training)
    if can_mount():
        yield from _disk_cases()


def _disk_cases() -> Iterator[Case]:
    for size in ("4k", "24k", "300k", "620k"):
        yield Case(f"training on a disk of {size}", functools.partial(_full_while_training, size))
    for verb, made in (
        (("init", "DISK/spec.yaml"), "spec.yaml"),
        (("data", "digits", "DISK/digits", "--clips", "10", "--frames", "4", "--size", "16"), "digits"),
        (("export", "RUN", "--out", "DISK/bundle"), "bundle"),
        (("generate", "RUN", "--label", "1", "--out", "DISK/clips"), "clips/generate.json"),
    ):
        yield Case(f"{verb[0]} on a full disk", functools.partial(_full, verb, made))
    for verb, said in (
        (("init", "DISK/spec.yaml"), "ead-only"),
        (("data", "digits", "DISK/digits", "--clips", "10"), "only be read"),
        (("train", "SPEC", "--run", "DISK/other"), "only be read"),
        (("train", "DISK/run", "--resume", "train.steps=9"), "only be read"),
        (("export", "DISK/run"), "only be read"),
        (("generate", "DISK/run", "--label", "1", "--out", "DISK/clips"), "only be read"),
        (("generate", "DISK/run", "--label", "1", "--out", "clips"), ""),
    ):
        yield Case(f"{' '.join(verb)} on a read-only disk", functools.partial(_read_only, verb, said))
