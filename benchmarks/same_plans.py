"""Whether two checkouts plan alike: every reference spec on every device of the table, both modes, to the byte.

    python benchmarks/same_plans.py OTHER [HERE] [--specs dit,latte] [--gpus h100,rtx4090]

OTHER and HERE are checkouts (HERE: this one); each answers in a process of its own, with its own package folder, so
that neither sees the other's modules. Prints the questions whose answers differ; exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWER = """
import contextlib, io, json, re, sys
from pathlib import Path
from sora_spec.cli.main import run

def answer(*words):
    sys.argv = ["sora-spec", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
            code = 0
        except SystemExit as stop:
            code = stop.code
    return [code, out.getvalue(), err.getvalue()]

specs, gpus = (json.loads(text) for text in sys.argv[1:3])
specs = specs or sorted(path.stem for path in Path("specs").glob("*.yaml"))
gpus = gpus or re.findall(r"^([\\w.-]+):", Path("sora_spec/hardware.yaml").read_text(), re.M)
answers = {}
for spec in specs:
    for mode in ("train", "generate"):
        for gpu in gpus:
            answers[f"plan {spec} --mode {mode} --gpu {gpu} --json"] = answer(
                "plan", spec, "--mode", mode, "--gpu", gpu, "--json"
            )
json.dump(answers, sys.stderr)
"""


def answers(checkout: Path, specs: list[str], gpus: list[str]) -> dict[str, tuple[int, str, str]]:
    """What a checkout prints for each question: exit code, standard output, standard error."""
    with tempfile.TemporaryDirectory() as folder:
        # The shape in which the package is installed: see `package-dir` in pyproject.toml.
        package = Path(folder) / "sora_spec"
        package.mkdir()
        for entry in (checkout / "sora_spec").iterdir():
            (package / entry.name).symlink_to(entry)
        for name in ("builders", "train", "compile", "tui", "specs"):
            (package / name).symlink_to(checkout / name)
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}
        command = [sys.executable, "-c", ANSWER, json.dumps(specs), json.dumps(gpus)]
        result = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{checkout}: {result.stderr}")
    return {question: tuple(answer) for question, answer in json.loads(result.stderr).items()}


def main() -> None:
    """Compares, prints what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("here", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--specs", default="")
    parser.add_argument("--gpus", default="")
    given = parser.parse_args()
    specs, gpus = ([word for word in text.split(",") if word] for text in (given.specs, given.gpus))
    theirs, ours = (answers(path.resolve(), specs, gpus) for path in (given.other, given.here))
    different = [question for question in sorted(theirs | ours) if theirs.get(question) != ours.get(question)]
    for question in different:
        print(f"differs: sora-spec {question}")
    planned = sum(answer[0] in (0, 1) for answer in ours.values())
    print(
        f"{len(theirs | ours) - len(different)} of {len(theirs | ours)} answers are equal to the byte; {planned} plans"
    )
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
