"""What cannot be done is said at its line, refused before anything happens, and told truly by the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language import abilities
from sora_spec.language.abilities import ROWS, UNBUILT, Lack, Verb, buildable, lacks, refuse, vae_to_train
from sora_spec.language.grammar import kinds_of
from sora_spec.language.loading import check, load_spec
from sora_spec.language.packaged import find_spec_file, packaged_names
from sora_spec.language.source import load_document

ROOT = Path(__file__).parents[2]
LPIPS = "vae.training.perceptual={kind: lpips, weights: nowhere}"


def found(name: str, verb: Verb, *overrides: str) -> list[str]:
    return [lack.path for lack in lacks(load_spec(name, overrides), verb)]


@pytest.mark.parametrize(
    ("verb", "overrides", "paths"),
    [
        ("train", ["parallel.sequence=2"], ["parallel.sequence"]),
        ("train --stage vae", ["parallel.sequence=2"], ["parallel.sequence"]),
        ("export", ["parallel.sequence=2"], []),
        ("train --stage vae", ["parallel.shard=3", "train.batch=3"], ["vae.training.batch"]),
        ("train --stage vae", ["parallel={shard: 2, replicate: 2}", "vae.training.batch=8"], []),
        ("train --stage vae", [LPIPS, "vae.training.crop=8"], ["vae.training.perceptual.kind"]),
        ("train --stage vae", [LPIPS, "vae.training.crop=16"], []),
        ("train", [LPIPS, "vae.training.crop=8"], []),
        ("export", ["export.frames=[1, 512]"], []),
        ("export", ["export.frames=[1, 513]"], ["export.frames"]),
        ("export", ["export.frames=[1, 600]", "clip.frames=600"], []),
    ],
)
def test_what_stands_in_the_way(verb: Verb, overrides: list[str], paths: list[str]) -> None:
    assert found("latte", verb, *overrides) == paths


def test_a_clip_to_export_is_counted_in_latent_frames() -> None:
    longest = 1 + 4 * (512 - 1)
    assert found("tiny-causal3d", "export", f"export.frames=[1, {longest}]") == []
    assert found("tiny-causal3d", "export", f"export.frames=[1, {longest + 4}]") == ["export.frames"]


@pytest.mark.parametrize("name", packaged_names())
def test_what_is_warned_of_is_what_is_lacking(name: str) -> None:
    spec = load_spec(name)
    wanted = [lack for lack in (row(spec) for row in ROWS) if lack is not None and not lack.expected]
    warned = [item for item in check(load_document(find_spec_file(name))).diagnostics if item.code == "W401"]
    assert sorted(item.path for item in warned) == sorted(lack.path for lack in wanted)
    assert all(item.severity == "warning" and item.span is not None and item.help for item in warned)


def test_nothing_is_warned_of_that_no_one_would_expect() -> None:
    for name, path, overrides in (
        ("tiny-dit", "vae.kind", []),
        ("latte", "vae.training.batch", ["parallel.shard=3", "train.batch=3"]),
    ):
        assert found(name, "train --stage vae", *overrides) == [path]
        assert check(load_document(find_spec_file(name), overrides)).diagnostics == []


def test_a_refusal_names_the_spec_the_verb_the_reason_and_a_way_out() -> None:
    spec = load_spec("latte", ["parallel.sequence=2"])
    with pytest.raises(UserError) as caught:
        refuse(spec, "train")
    assert caught.value.message == (
        f"{spec.name} cannot be trained: 2 ranks cannot share the tokens of one clip yet (parallel.sequence)"
    )
    assert caught.value.hint == "set parallel.sequence=1, and use parallel.shard or parallel.replicate"
    refuse(spec, "export")
    with pytest.raises(UserError, match="cannot have its VAE trained: a VAE of kind identity has nothing to train"):
        vae_to_train(load_spec("tiny-dit"))


def run(*arguments: str, cwd: Path, row: str = "") -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which tells whether PyTorch was imported."""
    code = (
        f"import sys; from sora_spec.language import abilities\n{row}\n"
        "from sora_spec.cli import main\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "try: main.run()\n"
        "finally: print('torch' in sys.modules, 'av' in sys.modules)\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


NOT_GENERATED = """
abilities.ROWS = (lambda spec: abilities.Lack(("generate",), "name", "its name is too plain", "find another name"),)
"""


@pytest.mark.parametrize(
    ("arguments", "row", "message"),
    [
        (["train", "latte", "parallel.sequence=2", "train.data=nowhere"], "", "cannot be trained: 2 ranks"),
        (["train", "latte", "--dry-run", "parallel.sequence=2"], "", "cannot be trained: 2 ranks"),
        (["train", "tiny-dit", "--stage", "vae"], "", "cannot have its VAE trained: a VAE of kind identity has"),
        (["export", "latte", "export.frames=[1, 600]"], "", "cannot be exported: a clip of 600 frames is longer"),
        (["generate", "latte"], NOT_GENERATED, "cannot generate clips: its name is too plain (name)"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_verbs_refuse_before_anything_else(arguments: list[str], row: str, message: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path, row=row)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == "False False\n"
    assert list(tmp_path.iterdir()) == []


def test_from_python_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sora_spec

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot be trained: 2 ranks cannot share"):
        sora_spec.train("latte", {"parallel.sequence": 2, "train.data": "nowhere"})
    lack = Lack(("generate",), "name", "its name is too plain", "find another name")
    monkeypatch.setattr(abilities, "ROWS", (lambda spec: lack,))
    with pytest.raises(UserError, match="cannot generate clips: its name is too plain"):
        sora_spec.sample("latte")
    assert list(tmp_path.iterdir()) == []


SECTIONS = {
    "vae": ("vae",),
    "backbone": ("backbone", "backbone.conditioning", "backbone.position", "temporal"),
    "condition": ("condition",),
    "objective": ("objective",),
    "sampler": ("sampler",),
}
"""Rows of the README's table, and what each is about."""


def table() -> dict[str, str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = text.partition("## What can be built today")[2].partition("\n## ")[0].splitlines()
    cells: list[Any] = [re.fullmatch(r"\| `(\w+)` \| (.*) \|", row) for row in rows]
    return {cell[1]: cell[2] for cell in cells if cell}


@pytest.mark.parametrize("row", SECTIONS)
def test_the_readme_names_the_kinds_that_can_be_built_and_no_others(row: str) -> None:
    named = set(re.findall(r"\w+", " ".join(re.findall("`([^`]*)`", table()[row]))))
    for section in SECTIONS[row]:
        kinds = set(kinds_of(section))
        # "none" positions need no mention.
        assert named & kinds | {"none"} == set(buildable(section)) | {"none"}, section


def test_what_cannot_be_built_is_part_of_the_language() -> None:
    for section, kinds in UNBUILT.items():
        assert set(kinds) <= set(kinds_of(section)), section
