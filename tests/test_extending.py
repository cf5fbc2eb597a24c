"""docs/extending.md, executed: every patch is applied to a copy of the sources, and the page's commands run there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sora_spec.language.loading import load_spec

ROOT = Path(__file__).parents[1]
FOLDERS = ("sora_spec", "builders", "train", "compile", "tui", "specs")
PAGE = dict(
    section.split("\n", 1) for section in (ROOT / "docs/extending.md").read_text(encoding="utf-8").split("\n## ")[1:]
)
MOST = {"A temporal kind": 6, "A VAE": 8, "A sampler": 3, "A device": 1}
"""Source files that adding one may touch."""
LONG = ("data", "train", "generate")


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE[section], re.MULTILINE | re.DOTALL)


class Copy:
    """The sources with a section's patch."""

    def __init__(self, folder: Path, section: str) -> None:
        self.section, self.folder = section, folder / "tree"
        for name in FOLDERS:
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        package = folder / "path" / "sora_spec"
        package.mkdir(parents=True)
        for path in (*(self.folder / "sora_spec").iterdir(), *(self.folder / name for name in FOLDERS[1:])):
            (package / path.name).symlink_to(path)
        self.environment = os.environ | {
            "PYTHONPATH": str(folder / "path"),
            "PYTHONSAFEPATH": "1",  # not the folder that commands run in
            "XDG_CACHE_HOME": str(folder),
            "OMP_NUM_THREADS": "1",
        }
        for patch in blocks(section, "diff"):
            command = ["git", "apply", "--whitespace=nowarn", "-"]
            done = subprocess.run(command, cwd=self.folder, input=patch, text=True, capture_output=True, check=False)
            assert done.returncode == 0, f"the patch of {section!r} no longer fits: {done.stderr}"
        for text in blocks(section, "yaml"):
            (self.folder / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)

    def run(self, *arguments: str) -> str:
        """A command of the copy's package."""
        command, environment = [sys.executable, "-m", "sora_spec", *arguments], self.environment
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr}"
        return done.stdout

    def commands(self, long: bool) -> dict[str, str]:
        """What the page's commands print, by verb: those that take long with the others, or without."""
        (script,) = blocks(self.section, "sh")
        asked = [shlex.split(line)[1:] for line in script.splitlines()]
        return {words[0]: self.run(*words) for words in asked if long or words[0] not in LONG}


@pytest.mark.parametrize("section", MOST)
def test_the_page_counts_its_files(section: str) -> None:
    touched = re.findall(r"^\+\+\+ b/(\S+)", "\n".join(blocks(section, "diff")), re.MULTILINE)
    (told,) = re.findall(r"^Source files: (\d+)\.$", PAGE[section], re.MULTILINE)
    assert len(set(touched)) == len(touched) == int(told) <= MOST[section]
    assert all((ROOT / path).is_file() or "/dev/null" in PAGE[section] for path in touched)


def test_a_temporal_kind_is_planned(tmp_path: Path) -> None:
    plan = json.loads(Copy(tmp_path, "A temporal kind").commands(long=False)["plan"])
    # Of 6 blocks two each see the 8 tokens of a row or of a column, and the 4 frames of a place, not the 64 of a frame.
    depth, width, tokens, seen = 6, 48, 4 * 64, 2 * (8 + 8 + 4)
    spatial = _forward_flops(tmp_path / "tree" / "axial.yaml", "temporal={kind: none}")
    found = plan["components"]["denoiser"]["forward_flops"]
    assert spatial - found == tokens * 4 * width * (64 * depth - seen)


def _forward_flops(path: Path, change: str) -> int:
    from sora_spec.graph import Setting, count, graph_from_spec

    text = path.read_text().replace("temporal: {kind: axial}\n", "")
    path.with_name("spatial.yaml").write_text(text)
    spec = load_spec(str(path.with_name("spatial.yaml")), [change])
    return count(graph_from_spec(spec, "denoiser", Setting(batch=1))).forward_flops


def test_a_vae_is_planned(tmp_path: Path) -> None:
    plan = json.loads(Copy(tmp_path, "A VAE").commands(long=False)["plan"])
    values, latents = 3 * 8 * 8, 8
    assert plan["components"]["vae_encoder"]["forward_flops"] == 4 * 16 * 2 * values * 2 * latents


def test_a_sampler_is_planned_and_is_of_second_order(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "A sampler")
    plan = json.loads(copy.commands(long=False)["plan"])
    heun = json.loads(
        copy.run("plan", "midpoint.yaml", "--mode", "generate", "--gpu", "cpu", "--json", "sampler.kind=heun")
    )
    assert plan["time"] == heun["time"]  # as many calls, of the same network
    script = (
        "import numpy as np\n"
        "from sora_spec.builders.diffusion.arrays import NUMPY, Step\n"
        "from sora_spec.builders.diffusion.ode import ODE\n"
        "from types import SimpleNamespace as Section\n"
        "for steps in (10, 20):\n"
        "    start = Step(np.ones(1), 0.0)\n"
        "    *_, last = ODE['midpoint'](Section(steps=steps), lambda x, t: x, start, (0.0, 1.0), NUMPY, np.inf)\n"
        "    print(float(last.latents[0]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=copy.environment, capture_output=True, text=True, check=True
    )
    errors = [abs(float(line) - 2.718281828459045) for line in done.stdout.split()]
    assert 3.7 < errors[0] / errors[1] < 4.3  # dx/dt = x: half the step, a quarter of the error


def test_a_device_is_planned_for(tmp_path: Path) -> None:
    plan = json.loads(Copy(tmp_path, "A device").commands(long=False)["plan"])
    assert plan["gpu"] == "lab-gpu"
    assert plan["fits"]


@pytest.mark.slow
@pytest.mark.parametrize("section", ["A temporal kind", "A VAE", "A sampler"])
def test_the_kind_is_trained_and_sampled(section: str, tmp_path: Path) -> None:
    printed = Copy(tmp_path, section).commands(long=True)
    clips = [Path(line) for line in printed["generate"].splitlines() if line.endswith(".mp4")]
    assert clips
    assert all((tmp_path / "tree" / clip).is_file() for clip in clips)
