"""A picture of a graph as a Mermaid flowchart."""

from __future__ import annotations

from sora_spec.characters import in_one_line
from sora_spec.graph.show.picture import Box, Picture

_COLOURS = {
    "attention": "fill:#e8ddf5,stroke:#7a4fb5,color:#2b1a45",
    "linear": "fill:#dbe8f7,stroke:#3a6ea5,color:#12263f",
    "conv": "fill:#dcf0e3,stroke:#3d8a5a,color:#12301f",
    "other": "fill:#f1f1ee,stroke:#8a8a80,color:#2a2a26",
}


def mermaid(picture: Picture) -> str:
    """Boxes as nodes, groups as subgraphs, inputs as stadiums."""
    lines = ["---", f"title: {_quoted(picture.title)}", "---", "flowchart TD"]
    for box in picture.boxes:
        lines += _box(box, "  ")
    lines += [f"  {source} --> {target}" for source, target in picture.arrows]
    lines += [f"  classDef {look} {colours}" for look, colours in _COLOURS.items()]
    return "\n".join(lines)


def _box(box: Box, indent: str) -> list[str]:
    text = "<br/>".join([f"<b>{_escaped(box.title)}</b>", *map(_escaped, box.lines)])
    if not box.children:
        lines = [f'{indent}{box.id}["{text}"]:::{box.look}']
    else:
        lines = [f'{indent}subgraph {box.id}["{_escaped(" · ".join([box.title, *box.lines]))}"]']
        for child in box.children:
            lines += _box(child, indent + "  ")
        lines.append(f"{indent}end")
    for number, name in enumerate(box.inputs):
        lines.append(f'{indent}{box.id}_in{number}(["{_escaped(name)}"]) --> {box.id}')
    return lines


def _escaped(text: str) -> str:
    return (
        in_one_line(text)
        .replace("&", "&amp;")
        .replace('"', "&quot;")
        .replace("<", "&lt;")
        .replace("[", "&#91;")
        .replace("]", "&#93;")
    )


def _quoted(text: str) -> str:
    return '"' + in_one_line(text).replace("\\", "\\\\").replace('"', "'") + '"'
