"""`sora-spec eval`: judges that know real clips only say what a model's clips are worth."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_spec import output
from sora_spec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sora_spec.language.schema.spec import Spec
    from sora_spec.train.judge.asked import DigitsData

RECORD = "generate.json"


def eval(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE|FOLDER", help="Model to draw clips from, or a folder that `generate` filled."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="As for `generate`: sampler.KEY in place of the spec's."),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=20, max=100_000, help="Clips to draw, and real ones beside them; 400 if not given."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the noise, and of where real clips are cut; 0 if not given.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Data set of the judges; train.data of the spec if not given.")
    ] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Judge each clip by what another was asked for: the score is chance.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the clips, and write eval.json beside.")] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="JSON", help="An earlier result of the same protocol to compare with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read moving digits off generated clips, and measure spread, motion and distance to real ones, floors beside."""
    from sora_spec.disk.atomic import write_atomically
    from sora_spec.train.judge.protocol import read_result
    from sora_spec.train.judge.show import table

    before = None if against is None else read_result(against)
    drawn = not (target / RECORD).is_file()
    if not drawn and (overrides or any(given is not None for given in (out, clips, seed))):
        raise UserError(
            f"{target} holds clips already: nothing is drawn", "leave out KEY=VALUE, --clips, --seed and --out"
        )
    data_set = _digits(target, data, drawn)
    with tempfile.TemporaryDirectory() as temporary:
        folder = target if not drawn else out or Path(temporary, "clips")
        if drawn:
            _generate(target, data_set, clips or 400, seed or 0, folder, overrides or ())
        result = _judge(target, folder, data_set, shuffle, (against, before))
    if out is not None:
        write_atomically(out / "eval.json", json.dumps(result, indent=1) + "\n")
    output.data(json.dumps(result) if as_json else table(result, before))


def _spec(target: Path, drawn: bool) -> Spec | None:
    """The spec of a run or bundle, or of the one that a folder of clips came from; None where that is gone."""
    from sora_spec.language.loading import load_spec
    from sora_spec.train.judge.evaluation import read_record

    source = target if drawn else Path(str(read_record(target).values.get("source", "")))
    if (source / "spec.yaml").is_file():
        return load_spec(str(source / "spec.yaml"))
    if drawn:
        raise UserError(f"{target} is no run, no bundle and no folder that `sora-spec generate` filled")
    return None


def _digits(target: Path, data: str | None, drawn: bool) -> DigitsData:
    """The data set that the judges know. Raises UserError where it does not go with what steers the model."""
    from sora_spec.train.judge.asked import find_digits

    spec = _spec(target, drawn)
    source = data if data is not None or spec is None else spec.train.data
    if source is None:
        raise UserError(f"{target} does not say what it was trained on", "name the data set: --data FOLDER")
    found = find_digits(source)
    wanted = "text" if found.captioned else "class"
    if spec is not None and spec.condition.kind != wanted:
        raise UserError(
            f"{target} is steered by {spec.condition.kind}, the data set at {source} by {wanted}",
            "name one that goes with it: --data FOLDER",
        )
    return found


def _generate(target: Path, data: DigitsData, clips: int, seed: int, folder: Path, overrides: Sequence[str]) -> None:
    """Draw clips by the verb itself. Raises typer.Exit where it fails: it has said why."""
    asked = data.asked(clips)
    with tempfile.TemporaryDirectory() as temporary:
        prompts = Path(temporary, "prompts.txt")
        prompts.write_text("".join(f"{one.prompt}\n" for one in asked), encoding="utf-8")
        steered = ["--prompts", str(prompts)] if data.captioned else ["--labels", ",".join(one.prompt for one in asked)]
        command = ["generate", str(target), *overrides, *steered, "--seed", str(seed), "--out", str(folder)]
        done = subprocess.run([sys.executable, "-m", "sora_spec", *command], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _judge(
    target: Path, folder: Path, data: DigitsData, shuffle: bool, earlier: tuple[Path | None, dict[str, Any] | None]
) -> dict[str, Any]:
    from sora_spec.train.judge.evaluation import NEEDED, Yardstick, read_generated, read_record, shuffled
    from sora_spec.train.judge.protocol import protocol_of, refuse_unlike

    record = read_record(folder)
    asked, seed = data.known(record.prompts), int(record.values["seed"])
    protocol = protocol_of(data, asked, seed, record.values["clip"], shuffle)
    against, before = earlier
    if against is not None and before is not None:
        refuse_unlike(protocol, before["protocol"], against)
    clips = read_generated(record)
    yardstick = Yardstick.of(data, record.clip, len(clips), seed)
    result = yardstick.judge(clips, shuffled(asked, seed) if shuffle else asked)
    if (share := result["held_out"]["read_as_asked"]) < NEEDED:
        output.warn(f"the judges read {share:.1%} of real held-out clips as they are; {NEEDED:.0%} would do")
    facts = {"contract": 1, "target": str(target), "sampler": record.values.get("sampler"), "protocol": protocol}
    return facts | result
