"""SIGKILL at every kind of moment, then the same command again: the end must be that of the run never stopped.

Moments are counted in operations on files below the folder at hand (open to write, rename, mkdir, delete), as Python's
audit events tell of them, so that each is hit exactly: half a checkpoint, a rename done and the next one not.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.case import Case

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sora_spec.train.stages.denoiser", "sora_spec.train.start", "torch.utils.tensorboard"])
_STEPS = 8
_EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}
TRAIN_MOMENTS = (1, 3, 6, 9, 14, 20, 27, 34, 42, 50, 58, 66, 74)
"""Of about 80; the last ones lie in the second and third checkpoint and in the words at the end."""
EXPORT_MOMENTS = (1, 4, 9, 14)
DATA_MOMENTS = (2, 7, 20)
LINES = (1, 4, 6)


@functools.cache
def folder_of_all() -> Path:
    """A folder for what all cases share, deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-kills-"))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def data() -> str:
    """Sixteen tiny clips in two classes."""
    from sora_spec.train.data.digits import DigitsRecipe, write_digits

    write_digits(folder_of_all() / "data", DigitsRecipe(clips=20, frames=6, size=16))
    return str(folder_of_all() / "data")


def spec(**train: Any) -> Any:
    """A spec that trains in milliseconds a step."""
    from sora_spec.language.loading import spec_from_values

    settings = {"data": data(), "batch": 4, "ema": 0.9, "steps": _STEPS, "log_every": 1, "checkpoint_every": 3}
    settings |= {"workers": 0, "sample_every": 4, "optimizer": {"kind": "adamw", "lr": 2e-3}, **train}
    return spec_from_values(
        {
            "version": 1,
            "name": "tiny",
            "clip": {"frames": 4, "height": 16, "width": 16, "fps": 8.0},
            "vae": {"kind": "identity"},
            "patch": {"time": 1, "space": 4},
            "backbone": {"kind": "transformer", "depth": 1, "width": 32, "heads": 2, "learn_sigma": False},
            "temporal": {"kind": "alternating"},
            "condition": {"kind": "class", "classes": 10, "dropout": 0.1},
            "objective": {"kind": "interpolant"},
            "sampler": {"kind": "euler", "steps": 2},
            "train": settings,
        }
    )


def _silenced(action: Callable[..., None], folder: Path, moment: int | None, arguments: tuple[Any, ...]) -> None:
    """In a process of its own: do `action`, and end by SIGKILL at operation number `moment` below `folder`."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    made = [0]

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(details[1], str) and set(details[1]) & set("wax+")):
            return
        if event != "open" and event not in _EVENTS:
            return
        if str(folder) not in str(details[0]):
            return
        made[0] += 1
        if made[0] == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    action(*arguments)
    print(made[0])


def run(action: Callable[..., None], folder: Path, moment: int | None, *arguments: Any) -> int:
    """Exit code of `action` in a process of its own; −9 where the kill hit it."""
    process = CONTEXT.Process(target=_silenced, args=(action, folder, moment, arguments))
    process.start()
    process.join()
    return process.exitcode or 0


def train(values: str, path: str) -> None:
    """Train into `path`, from its newest checkpoint where it is a run."""
    from sora_spec.disk.run_folder import RunFolder
    from sora_spec.language.loading import load_spec
    from sora_spec.train.start import train_stage

    train_stage(load_spec(values), Path(path), resume=RunFolder.is_run(path))


def export(path: str, target: str) -> None:
    """Export a run."""
    from sora_spec.compile.export.exporter import ExportSettings, export_run
    from sora_spec.disk.run_folder import RunFolder

    export_run(RunFolder.open(path), Path(target), ExportSettings(force=True))


def write_data(target: str) -> None:
    """Write digits."""
    from sora_spec.train.data.digits import DigitsRecipe, write_digits

    write_digits(Path(target), DigitsRecipe(clips=20, frames=4, size=16))


def init(target: str) -> None:
    """Write a spec."""
    from sora_spec.cli.init import init as verb

    verb(Path(target))


def written(folder: Path) -> str:
    """A spec file in `folder`."""
    from sora_spec.language.loading import dump_spec

    path = folder / "tiny.yaml"
    path.write_text(dump_spec(spec()))
    return str(path)


@functools.cache
def whole() -> Path:
    """The run that was never stopped."""
    path = folder_of_all() / "whole"
    assert run(train, path, None, written(folder_of_all()), str(path)) == 0
    return path


@functools.cache
def whole_bundle() -> Path:
    """Its bundle, never stopped."""
    path = folder_of_all() / "bundle"
    assert run(export, path, None, str(whole()), str(path)) == 0
    return path


def temporaries(folder: Path) -> list[str]:
    """Names that should be gone."""
    return [str(path) for path in folder.rglob(".*") if path.name.endswith((".tmp", ".old"))]


def lines(path: Path) -> list[dict[str, Any]]:
    """Metrics without the times."""
    file = path / "denoiser/metrics.jsonl"
    found: list[dict[str, Any]] = []
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            values = json.loads(line)
            found.append({name: value for name, value in values.items() if not name.endswith("_seconds")})
    return found


def differs(path: Path) -> str | None:
    """What is other than in the run that was never stopped."""
    if lines(path) != lines(whole()):
        return f"other metrics: {len(lines(path))} lines of {len(lines(whole()))}"
    for step in (6, _STEPS):
        for name in ("model", "ema", "optimizer"):
            file = f"denoiser/checkpoints/step-{step:08d}/{name}.safetensors"
            if (path / file).read_bytes() != (whole() / file).read_bytes():
                return f"{file} differs"
    if (path / "classes.json").read_bytes() != (whole() / "classes.json").read_bytes():
        return "classes.json differs"
    left = temporaries(path)
    return f"left behind: {left}" if left else None


def _killed_training(folder: Path, *moments: int) -> str | None:
    path, values = folder / "run", written(folder)
    whole()
    for moment in moments:
        code = run(train, path, moment, values, str(path))
        if code != -signal.SIGKILL:
            return f"was not killed at operation {moment}: exit code {code}"
    code = run(train, path, None, values, str(path))
    return f"exit code {code} when resumed" if code else differs(path)


def _killed_at_line(folder: Path, line: int) -> str | None:
    path, values = folder / "run", written(folder)
    whole()
    process = CONTEXT.Process(target=_silenced, args=(train, path, None, (values, str(path))))
    process.start()
    while len(lines(path)) < line and process.is_alive():
        time.sleep(0.001)
    process.kill()
    process.join()
    code = run(train, path, None, values, str(path))
    return f"exit code {code} when resumed" if code else differs(path)


def _killed_export(folder: Path, moment: int) -> str | None:
    target = folder / "bundle"
    from sora_spec.compile.bundle.bundle import Bundle

    code = run(export, folder, moment, str(whole()), str(target))
    if code != -signal.SIGKILL:
        return f"was not killed: exit code {code}"
    if target.exists():
        Bundle.open(target, verify=True)  # the kill came after the rename
    code = run(export, target, None, str(whole()), str(target))
    if code:
        return f"exit code {code} when exported again"
    sums = [
        [stage["weights_sha256"] for stage in json.loads((path / "manifest.json").read_text())["stages"].values()]
        for path in (target, whole_bundle())
    ]
    left = temporaries(folder)
    return f"left behind: {left}" if left else None if sums[0] == sums[1] else "other weights in the bundle"


def _killed_data(folder: Path, moment: int) -> str | None:
    target, wanted = folder / "digits", folder_of_all() / "wanted"
    if not wanted.exists():
        run(write_data, wanted, None, str(wanted))
    code = run(write_data, folder, moment, str(target))
    if code != -signal.SIGKILL:
        return f"was not killed: exit code {code}"
    if target.exists():
        return "half a data set is there"
    code = run(write_data, target, None, str(target))
    if code:
        return f"exit code {code} when written again"
    files = sorted(path.relative_to(wanted) for path in wanted.rglob("*") if path.is_file())
    odd = [file for file in files if (target / file).read_bytes() != (wanted / file).read_bytes()]
    left = temporaries(folder)
    return f"left behind: {left}" if left else f"differ: {odd}" if odd or not files else None


def _killed_init(folder: Path, moment: int) -> str | None:
    target = folder / "spec.yaml"
    code = run(init, folder, moment, str(target))
    if code != -signal.SIGKILL:
        return f"was not killed: exit code {code}"
    code = run(init, target, None, str(target))
    if code:
        return f"exit code {code} when written again"
    from sora_spec.language.loading import load_spec

    load_spec(str(target))
    left = temporaries(folder)
    return f"left behind: {left}" if left else None


def _two_at_once(folder: Path) -> str | None:
    """Two trainings in one folder: one trains to its end as if alone, the other is refused."""
    path, values = folder / "run", written(folder)
    whole()
    run(train, path, 20, values, str(path))
    both = [CONTEXT.Process(target=_silenced, args=(train, path, None, (values, str(path)))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    codes = sorted(process.exitcode or 0 for process in both)
    # The second may also come when the first is done, and then finds nothing to do.
    return f"exit codes {codes}" if codes not in ([0, 1], [0, 0]) else differs(path)


def cases() -> Iterator[Case]:
    """27 kills and two trainings at once."""
    for moment in TRAIN_MOMENTS:
        yield Case(f"train killed at operation {moment}", functools.partial(_killed_training_at, moment))
    yield Case("train killed three times", lambda folder: _killed_training(folder, 30, 25, 20))
    for line in LINES:
        yield Case(f"train killed after line {line}", functools.partial(_at_line, line))
    for moment in EXPORT_MOMENTS:
        yield Case(f"export killed at operation {moment}", lambda folder, moment=moment: _killed_export(folder, moment))
    for moment in DATA_MOMENTS:
        yield Case(f"data killed at operation {moment}", lambda folder, moment=moment: _killed_data(folder, moment))
    yield Case("init killed while writing", lambda folder: _killed_init(folder, 2))
    yield Case("two trainings in one folder", _two_at_once)


def _killed_training_at(moment: int, folder: Path) -> str | None:
    return _killed_training(folder, moment)


def _at_line(line: int, folder: Path) -> str | None:
    return _killed_at_line(folder, line)
