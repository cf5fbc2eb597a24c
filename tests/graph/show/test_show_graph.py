"""`sora-spec show --graph`: goldens, widths, the contract of its JSON, and lines that hold what they promise.

`python tests/graph/show/test_show_graph.py` writes the goldens anew; read them in the diff.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sora_spec import output
from sora_spec.cli import main
from sora_spec.cli.show_graph import lines_of, parse_setting
from sora_spec.errors import UserError
from sora_spec.graph import COMPONENTS, Setting, alive_after, count, graph_from_spec, memory
from sora_spec.graph.show.overview import has
from sora_spec.graph.show.picture import Box, picture_of
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import find_spec_file, packaged_names
from sora_spec.language.source import load_document

ROOT = Path(__file__).parents[3]
PRINTED = Path(__file__).parent / "printed"
SCHEMA: dict[str, Any] = json.loads((ROOT / "specs" / "graph.schema.json").read_text())

GOLDEN = {
    "tiny-dit-denoiser-80.txt": (80, ["tiny-dit", "--component", "denoiser"]),
    "tiny-dit-denoiser-48.txt": (48, ["tiny-dit", "--component", "denoiser"]),
    "tiny-latte-step-120.txt": (120, ["tiny-latte", "--component", "denoiser_step", "--setting", "batch=2"]),
    "tiny-sit-digits-overview-60.txt": (60, ["tiny-sit-digits"]),
    "latte-denoiser.mmd": (80, ["latte", "--component", "denoiser", "--format", "mermaid"]),
    "dit-step.svg": (80, ["dit", "--component", "denoiser_step", "--format", "svg"]),
    "opendit-overview.svg": (80, ["opendit-video", "--format", "svg"]),
}


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `sora-spec show ARGUMENTS --graph` in this process: exit code, stdout, stderr."""

    def run(*arguments: str, columns: int = 100) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["sora-spec", "show", *arguments, "--graph"])
        monkeypatch.setattr(output.VERBOSITY, "level", 0)
        with pytest.raises(SystemExit) as stop:
            main.run()
        found = capsys.readouterr()
        return int(stop.value.code or 0), found.out, found.err

    return run


@pytest.mark.parametrize("name", GOLDEN)
def test_goldens(name: str, show) -> None:
    columns, arguments = GOLDEN[name]
    code, found, err = show(*arguments, columns=columns)
    assert (code, err) == (0, "")
    assert found == (PRINTED / name).read_text()


@pytest.mark.parametrize("columns", [44, 60, 72, 80, 100, 132, 200])
def test_text_fits_its_terminal_and_has_a_line_for_every_op(columns: int, show) -> None:
    _, found, _ = show("dit", "--component", "denoiser_step", columns=columns)
    lines = found.splitlines()
    assert max(map(len, lines)) <= min(columns, 132)
    graph = graph_from_spec(load_spec("dit"), "denoiser_step")
    header = next(i for i, line in enumerate(lines) if re.match(r"  op +result", line))
    body = lines[header + 1 :]
    assert sum(line.startswith("  ") and not line.startswith("  ←") for line in body) == len(graph.ops)


@pytest.mark.parametrize("name", packaged_names())
def test_every_op_of_every_packaged_spec_names_a_line_of_its_file(name: str) -> None:
    document = load_document(find_spec_file(name))
    spec, lines = load_spec(name), lines_of(document)
    text = Path(find_spec_file(name)).read_text().splitlines()
    for component in COMPONENTS:
        if not has(spec, component):
            continue
        graph = graph_from_spec(spec, component)
        for op in graph.ops:
            _holds(graph.yaml(op.region), lines, text, f"{component} {graph.label(op.region)} {op.name}")
        for resident in graph.residents:
            _holds(graph.yaml(resident.region), lines, text, f"{component} {resident.name}")


def _holds(path: tuple[str | int, ...], lines: Any, text: list[str], what: str) -> None:
    """The line shows the value's key, or where that is a default, a section above it; or begins the file's sections."""
    assert path, f"{what} has no YAML path"
    line = lines(path)
    assert line is not None, f"{what}: {path}"
    assert 1 <= line <= len(text)
    keys = [str(part) for part in path]
    found = any(re.search(rf"\b{re.escape(key)}\b *:", text[line - 1]) for key in keys)
    unwritten = not any(re.match(rf"{re.escape(keys[0])} *:", row) for row in text)
    assert found or unwritten, f"{what}: {path} is not at line {line}: {text[line - 1]}"


@pytest.mark.parametrize("name", ["dit", "tiny-latte", "opendit-video", "tiny-causal3d"])
def test_json_keeps_its_contract_and_adds_up(name: str, show) -> None:
    code, text, err = show(name, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    repeat = [region["repeat"] for region in found["regions"]]
    flops = sum(op["flops"] * repeat[op["region"]] for op in found["ops"])
    parameters = 0
    for resident in found["residents"]:
        if resident["role"] == "parameter":
            size = 1
            for extent in resident["shape"]:
                size *= extent
            parameters += size * repeat[resident["region"]]
    assert flops == found["totals"]["forward_flops"]
    assert parameters == found["totals"]["parameters"]
    assert max(op["live_bytes"] for op in found["ops"]) <= found["totals"]["peak_bytes"]
    names = [part["component"] for part in found["components"]]
    assert ("text_encode" in names) == (name == "opendit-video")
    assert all(part["missing"] is None for part in found["components"])


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_prints_in_every_format(component: str, show) -> None:
    for form in ("text", "json", "mermaid", "svg"):
        code, found, err = show("opendit-video", "--component", component, "--format", form, "--setting", "batch=2")
        assert (code, err) == (0, "")
        if form == "json":
            jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(found))
        if form == "svg":
            assert ElementTree.fromstring(found).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("name", ["dit", "latte", "tiny-causal3d", "opendit-video"])
def test_boxes_of_a_picture_add_up_and_do_not_overlap(name: str, show) -> None:
    _, text, _ = show(name, "--component", "denoiser", "--format", "svg")
    svg = "{http://www.w3.org/2000/svg}"
    rects = [
        tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        for rect in ElementTree.fromstring(text).iter(f"{svg}rect")
        if "x" in rect.attrib
    ]
    for i, (x, y, w, h) in enumerate(rects):
        for u, v, p, q in rects[i + 1 :]:
            apart = x + w <= u or u + p <= x or y + h <= v or v + q <= y
            inside = x <= u and u + p <= x + w and y <= v and v + q <= y + h
            assert apart or inside
    graph = graph_from_spec(load_spec(name), "denoiser")
    picture = picture_of(graph)
    depth = load_spec(name).backbone.depth
    repeats = [int(m[1]) for box in picture.boxes if (m := re.search(r"× (\d+)$", box.title))]
    single = sum(1 for box in picture.boxes if box.look == "group" and "×" not in box.title)
    assert sum(repeats) + single == depth
    ids = {box.id for box in _all(picture.boxes)}
    assert all(source in ids and target in ids for source, target in picture.arrows)


def _all(boxes: tuple[Box, ...]) -> list[Box]:
    return [found for box in boxes for found in (box, *_all(box.children))]


def test_alive_bytes_are_those_of_the_run_without_repeats() -> None:
    spec = load_spec("tiny-latte", ["backbone.depth=12"])
    for component in ("denoiser", "denoiser_step", "sampler_step"):
        graph = graph_from_spec(spec, component, Setting(batch=2))
        whole = alive_after(graph_from_spec(spec, component, Setting(batch=2, full=True)))
        assert graph.repeat is not None
        short = alive_after(graph)
        first = graph.runs[0].end
        assert short[:first] == whole[:first]
        assert short[-1] == whole[-1]


def test_mistakes_are_usage_errors(show) -> None:
    for arguments, words in (
        (["--component", "engine"], "is none of all, text_encode"),
        (["--format", "png"], "is none of text, json, mermaid, svg"),
        (["--setting", "batch=0"], "a number from 1"),
        (["--setting", "precision=fp8"], "one of fp32, bf16"),
        (["--setting", "speed=1"], "NAME is one of batch"),
        (["--component", "text_encode"], "has no text encoder"),
    ):
        code, out, err = show("dit", *arguments)
        assert (code, out) == (2, "")
        assert words in err
    with pytest.raises(UserError):
        parse_setting(["full=maybe"])
    assert parse_setting(["full=true", "rounding=512"]) == Setting(full=True, rounding=512)


def test_an_argument_s_value_has_no_line(show) -> None:
    _, text, _ = show("dit", "backbone.heads=12", "--component", "denoiser", "--format", "json")
    found = json.loads(text)
    at = {op["yaml"]: op["line"] for op in found["ops"]}
    assert at["backbone.heads"] is None
    assert at["backbone.mlp_ratio"] is not None


@pytest.mark.parametrize("way", ["blocks", "selective"])
def test_recomputation_accounts_for_every_byte_and_flop(way: Any) -> None:
    from sora_spec.graph import recomputation

    spec = load_spec("tiny-latte", ["backbone.depth=10"])
    graphs = [graph_from_spec(spec, "denoiser_step", Setting(batch=2, recompute=how)) for how in ("none", way)]
    trade = recomputation(*graphs)
    saved = [memory(graph).forward_live_bytes for graph in graphs]
    flops = [count(graph).backward_flops for graph in graphs]
    assert trade.removed_bytes == saved[0] - saved[1] == sum(part.removed_bytes for part in trade.trades) > 0
    assert trade.added_flops == flops[1] - flops[0] == sum(part.added_flops for part in trade.trades)
    assert (trade.added_flops > 0) == (way == "blocks")
    assert all(part.yaml for part in trade.trades)


def regenerate() -> None:
    """Write the goldens."""
    for name, (columns, arguments) in GOLDEN.items():
        command = [sys.executable, "-m", "sora_spec", "show", *arguments, "--graph"]
        environment = {**os.environ, "COLUMNS": str(columns)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        (PRINTED / name).write_text(done.stdout)


if __name__ == "__main__":
    regenerate()
