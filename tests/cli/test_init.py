"""`sora-spec init`: starting points in which every line says what it is, and which are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from typer.testing import CliRunner

from sora_spec.cli.main import app
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import packaged_names, packaged_path, specs_folder


def init(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["init", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def words_of(text: str) -> str:
    """A text without its line breaks, comment signs and repeated spaces."""
    return re.sub(r"\s+", " ", re.sub(r"^\s*#", " ", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", packaged_names())
def test_a_starting_point_is_the_packaged_spec_and_every_line_is_explained(name: str, tmp_path: Path) -> None:
    path = tmp_path / "my-model.yaml"
    init(str(path), "--from", name)
    assert load_spec(path) == load_spec(name, ["name=my-model"])
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        explained = "  # " in line or lines[number - 1].lstrip().startswith("# ")
        assert explained or not line or line.startswith("#"), line


@pytest.mark.parametrize("name", packaged_names())
def test_the_words_are_those_of_the_models_and_of_the_packaged_file(name: str) -> None:
    """Docstrings as the model classes hold them, and not a word of the packaged comments lost."""
    said = words_of(init("-", "--from", name))
    spec = load_spec(name)
    for section in (spec.vae, spec.backbone, spec.objective, spec.sampler, spec.train.optimizer):
        assert words_of(type(section).__doc__ or "nothing") in said
    packaged = packaged_path(name)
    assert packaged is not None
    for comment in re.findall(r"(?:^|\s)#\s*(.*)$", packaged.read_text(), re.MULTILINE):
        assert words_of(comment.replace(f"specs/{packaged.name}", name)).rstrip(".") in said


def test_an_editor_finds_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a place on this machine; by a relative path where spec and schema lie below the current folder."""
    schema, pointer = specs_folder() / "schema.json", re.compile(r"# yaml-language-server: \$schema=(\S+)\n")
    init(str(tmp_path / "a.yaml"))
    given = pointer.match((tmp_path / "a.yaml").read_text())
    assert given is not None
    assert Path(unquote(urlparse(given[1]).path)).samefile(schema)
    inside = tmp_path / "project"
    (inside / "venv").mkdir(parents=True)
    (inside / "venv/schema.json").write_bytes(schema.read_bytes())
    monkeypatch.setattr("sora_spec.language.starting.specs_folder", lambda: inside / "venv")
    monkeypatch.chdir(inside)
    init("models/b.yaml")
    assert "$schema=../venv/schema.json\n" in (inside / "models/b.yaml").read_text()


@pytest.mark.parametrize(
    ("file", "name"),
    [("my.yaml", "my"), ("007.yaml", "007"), ("true.yaml", "true"), ("1e3.yaml", "1e3"), ("v1.2.yml", "v1.2")],
)
def test_a_spec_is_named_after_its_file(file: str, name: str, tmp_path: Path) -> None:
    init(str(tmp_path / file))
    assert load_spec(tmp_path / file).name == name
    assert f"runs/{name} --label" in (tmp_path / file).read_text()


@pytest.mark.parametrize("file", ["spec.yaml", "my model.yaml", "ünïcode.yaml", ".hidden"])
def test_a_file_name_that_is_no_name_leaves_the_spec_its_own(file: str, tmp_path: Path) -> None:
    init(str(tmp_path / file))
    assert load_spec(tmp_path / file).name == "tiny-sit-digits"


def test_starting_points_are_listed_with_a_sentence_each() -> None:
    lines = init("--list").splitlines()
    assert [line.split()[0] for line in lines] == packaged_names()
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_nothing_and_the_retry_works(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.yaml"

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        assert CliRunner().invoke(app, ["init", str(path)]).exit_code != 0
    assert list(tmp_path.iterdir()) == []
    init(str(path))
    before = path.read_bytes()
    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        assert CliRunner().invoke(app, ["init", str(path), "--from", "dit", "--force"]).exit_code != 0
    assert path.read_bytes() == before


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.symlink_to("/dev/null")
    assert CliRunner().invoke(app, ["init", str(device)]).exit_code != 0
    init(str(device), "--force")
    assert device.is_symlink()
    assert device.is_char_device()
