"""The table of devices: what each can hold and do; `sora_spec/hardware.yaml`, or a user's file of the same form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sora_spec.errors import UserError
from sora_spec.language.device_names import ENTRY, TABLE, known_capability, model_of, same_size
from sora_spec.language.diagnostics import edits, nearest
from sora_spec.language.span import Text
from sora_spec.language.yaml_tree import ListNode, MapNode, Node, ScalarNode, read_tree
from sora_spec.plan.interval import Interval

Kind = Literal["cuda", "cpu"]
GIB = 2**30
NO_MODEL = frozenset(("gpu", "cuda", "mps", "tpu", "npu", "xpu", "rocm", "auto", "nvidia", "any"))
"""Words for a kind of device, which are near to one's name at most by chance."""
MEMORY: dict[Kind, Interval] = {"cuda": Interval(0.221, 0.32, 0.464), "cpu": Interval(0.6, 1.0, 3.0)}
"""Share of the memory's rate where an entry does not say. Programs on GPUs move more than the graph counts: casts,
copies, norms in pieces (`benchmarks/calibration.py`). A CPU's caches hold small tensors."""


@dataclass(frozen=True)
class Device:
    """One device of the table. Rates are FLOP/s and byte/s."""

    name: str
    title: str
    kind: Kind
    capability: float
    """CUDA compute capability; 0 for a CPU."""
    memory_bytes: int
    rates: dict[str, float]
    """Matrix rate by precision: fp32, tf32, bf16, fp8."""
    bandwidth: float
    link_kind: str
    link: float
    network: float
    efficiency: Interval
    """Share of the matrix rate that large matrix products and convolutions reach."""
    usd_per_hour: float | None
    sources: dict[str, str]
    from_file: str | None = None
    """The user's file it comes from."""
    attention_efficiency: Interval | None = None
    """Share of the matrix rate that fused attention over long sequences reaches, where it is known apart."""

    memory_efficiency: Interval | None = None
    """Share of the memory's rate at which programs move the bytes that the model graph counts, where it is known."""

    @property
    def attention(self) -> Interval:
        """Share of the matrix rate that fused attention reaches."""
        return self.attention_efficiency or self.efficiency

    @property
    def memory(self) -> Interval:
        """Share of the memory's rate at which programs move the bytes that the model graph counts."""
        return self.memory_efficiency or MEMORY[self.kind]

    def rate(self, precision: str) -> float:
        """Matrix rate in a precision, or in the next wider one that the device has."""
        wider = {"fp8": "bf16", "bf16": "fp32", "tf32": "fp32"}
        while precision not in self.rates:
            precision = wider[precision]
        return self.rates[precision]


def device_names(file: str | Path | None = None) -> list[str]:
    """Every name that can be given, those of the user's file first."""
    return list(dict.fromkeys([*(own_names(file) if file else []), *own_names(TABLE)]))


def own_names(file: str | Path) -> list[str]:
    """The names in one file alone."""
    return ENTRY.findall(_content(file))


def find_device(name: str, file: str | Path | None = None) -> Device:
    """The device of that name, or the one that is called so; the user's file counts first.

    Raises UserError: no such device, several of them, or an entry that is wrong, with file, line and column.
    """
    if file is not None:
        _check_whole(str(file))
    for source in (file, TABLE) if file is not None else (TABLE,):
        found = _entry(str(source), name)
        if found is not None:
            return found
    meant = meant_devices(name, file)
    if len(meant) == 1 and not _another(name, meant[0]):
        return meant[0]
    raise UserError(*_unknown(name, meant, file))


def meant_devices(name: str, file: str | Path | None = None) -> list[Device]:
    """Entries of the user's file, or else of the table, with a name's model, and its memory where it says one."""
    asked = model_of(name)
    if not asked.key:
        return []
    for source in (file, TABLE) if file is not None else (TABLE,):
        found: list[Device] = []
        for entry in own_names(source):
            of_name = model_of(entry).key == asked.key or entry.replace("-", "") == name.lower()
            if of_name or source is not TABLE:  # the table's titles say no more than its names
                device = _entry(str(source), entry)
                if device is not None and (of_name or model_of(device.title).key == asked.key):
                    found.append(device)
        if asked.gigabytes is not None:
            found = [device for device in found if same_size(asked.gigabytes, device.memory_bytes)]
        if found:
            return found
    return []


def _another(name: str, device: Device) -> str:
    """Why an entry of the right model is another board all the same; empty where it is not."""
    asked, its = model_of(name).board, model_of(device.title).board
    return f"{device.name} is the {its.upper()} board" if asked and its and asked != its else ""


def _unknown(name: str, meant: list[Device], file: str | Path | None) -> tuple[str, str]:
    """Message and hint for a name that is not one entry's."""
    known = f"known: {', '.join(device_names(file))}"
    own = '`sora-spec probe` measures one, `--hardware FILE` adds it (docs/planner.md, "Your own devices")'
    if len(meant) > 1:
        return f"{name!r} is several devices of the table", f"name one: {', '.join(device.name for device in meant)}"
    if meant:
        rest = f"name {meant[0].name} to plan on that one, or add yours: {own}"
        return f"there is no device {name!r} in the table: {_another(name, meant[0])}", rest
    family = [device.name for device in meant_devices(model_of(name).key, file)] if model_of(name).gigabytes else []
    if family:
        return f"there is no device {name!r} in the table", f"of that model it has {', '.join(family)}; {own}"
    message = f"there is no device {name!r} in the table"
    if known_capability(name) is not None:
        return f"{message}: it has no figures of that GPU", f"{own}; {known}"
    if several := _several(name, file):
        return message, several
    if re.sub(r"[^a-z]", "", name.lower()) in NO_MODEL:
        return f"{name!r} names no model of a device", f"{known}; {own}"
    near = nearest_name(name, device_names(file))
    return message, f"{f'did you mean {near}? ' if near else ''}{known}; {own}"


def _several(name: str, file: str | Path | None) -> str:
    """The options that `8xH100` or `H100 x 8` stands for; empty where a name is not of that form."""
    times = re.fullmatch(r"(?:(\d+)\s*[x×*]\s*)?(.+?)(?:\s*[x×*]\s*(\d+))?", name.strip(), re.IGNORECASE)
    count = (times[1] or times[3]) if times else None
    if times is None or not count:
        return ""
    models = " or ".join(device.name for device in meant_devices(times[2], file))
    return f"a device and how many of it are two options: --gpu {models} --count {count}" if models else ""


def nearest_name(name: str, names: Iterable[str]) -> str:
    """The device that a typing mistake makes of another one: all entries of its model, `or` between them.

    Empty where several models are as near, or where the name is that of a GPU without figures.
    """
    typed, found = re.sub(r"[^a-z0-9]", "", name.lower()), dict[str, list[str]]()
    for known in names if known_capability(name) is None and typed not in NO_MODEL else ():
        flat, key = known.replace("-", ""), model_of(known).key
        if edits(typed, flat) <= 1 or edits(typed, key) <= 1 < len(key):
            found.setdefault(key, []).append(known)
    return " or ".join(next(iter(found.values()))) if len(found) == 1 else ""


@lru_cache(maxsize=8)
def _content(file: str | Path) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{file} cannot be read: {reason}", "give a YAML file of devices") from error


@lru_cache(maxsize=64)
def _entry(file: str, name: str) -> Device | None:
    """One device. Only its lines are parsed; those above stand in as empty lines, so that positions hold."""
    content = _content(file)
    for match in ENTRY.finditer(content):
        if match.group(1) == name:
            after = ENTRY.search(content, match.end())
            above = "\n" * content.count("\n", 0, match.start())
            text = Text(_shown(file), above + content[match.start() : after.start() if after else len(content)])
            return next(_devices(text, None if file == str(TABLE) else file))
    return None


def _shown(file: str) -> str:
    return "hardware.yaml" if file == str(TABLE) else file


@lru_cache(maxsize=8)
def _check_whole(file: str) -> None:
    """Every entry of a user's file must be right, not only the one that is asked for."""
    list(_devices(Text(file, _content(file)), file))


def _devices(text: Text, file: str | None) -> Iterator[Device]:
    tree, problems = read_tree(text)
    if problems:
        raise UserError("\n".join(f"{p.where()}: {p.message}" for p in problems), "mend the file, then try again")
    if not isinstance(tree, MapNode):
        raise UserError(f"{text.name} holds no devices", "write `name:` and below it what `hardware.yaml` has")
    reader = _Reader(text)
    found = [reader.device(name, entry.node) for name, entry in tree.entries.items()]
    if reader.problems:
        raise UserError("\n".join(reader.problems), "the form of an entry is that of sora_spec/hardware.yaml")
    yield from (replace(device, from_file=file) for device in found if device is not None)


_FIELDS = (
    *("title", "kind", "capability", "memory_gib", "tflops", "bandwidth_gbs"),
    *("link", "network_gbs", "efficiency", "usd_per_hour", "sources"),
)
_OPTIONAL = {"title", "capability", "network_gbs", "usd_per_hour"}
_SOURCED = ("memory_gib", "tflops", "bandwidth_gbs", "efficiency")


class _Reader:
    """Reads entries and gathers every problem with its place."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.problems: list[str] = []

    def wrong(self, node: Node, message: str) -> None:
        """Note a problem at a node."""
        self.problems.append(f"{self.text.name}:{node.span.line}:{node.span.column}: {message}")

    def device(self, name: str, node: Node) -> Device | None:
        """One entry, or None if anything is wrong with it."""
        before = len(self.problems)
        fields = self._fields(node, f"{name}", _FIELDS)
        for missing in (key for key in _FIELDS if key not in fields and key not in _OPTIONAL):
            self.wrong(node, f"`{name}` has no `{missing}`")
        if len(self.problems) > before:
            return None
        number = self._number
        sources = {key: str(self._scalar(value)) for key, value in self._mapping(fields["sources"]).items()}
        for key in _SOURCED:
            if not sources.get(key):
                self.wrong(fields["sources"], f"`{name}.sources` does not say where `{key}` comes from")
        rates = self._mapping(fields["tflops"], ("fp32", "tf32", "bf16", "fp8"))
        if "fp32" not in rates:
            self.wrong(fields["tflops"], f"`{name}.tflops` has no `fp32`")
        link = self._mapping(fields["link"], ("kind", "gbs"))
        price = fields.get("usd_per_hour")
        shares = self._efficiencies(fields["efficiency"])
        device = Device(
            name=name,
            title=str(self._scalar(fields["title"])) if "title" in fields else name,
            kind="cpu" if self._choice(fields["kind"], ("cuda", "cpu")) == "cpu" else "cuda",
            capability=number(fields["capability"], 0, 100) if "capability" in fields else 0.0,
            memory_bytes=int(number(fields["memory_gib"], 0.01, 1e6) * GIB),
            rates={key: 1e12 * number(value, 1e-6, 1e6) for key, value in rates.items()},
            bandwidth=1e9 * number(fields["bandwidth_gbs"], 0.01, 1e6),
            link_kind=str(self._scalar(link["kind"])) if "kind" in link else "link",
            link=1e9 * number(link["gbs"], 0.001, 1e6) if "gbs" in link else 1e9,
            network=1e9 * number(fields["network_gbs"], 0.001, 1e6) if "network_gbs" in fields else 12.5e9,
            efficiency=shares["matrix"],
            attention_efficiency=shares.get("attention"),
            memory_efficiency=shares.get("memory"),
            usd_per_hour=None if price is None or self._scalar(price) is None else number(price, 0, 1e6),
            sources=sources,
        )
        return device if len(self.problems) == before else None

    def _fields(self, node: Node, name: str, known: tuple[str, ...]) -> dict[str, Node]:
        if not isinstance(node, MapNode):
            self.wrong(node, f"`{name}` must be a mapping of fields")
            return {}
        for key, entry in node.entries.items():
            if key not in known:
                close = nearest(key, known)
                span = entry.key_span
                meant = f"; did you mean `{close}`?" if close else ""
                self.problems.append(f"{self.text.name}:{span.line}:{span.column}: unknown field `{key}`{meant}")
        return {key: entry.node for key, entry in node.entries.items() if key in known}

    def _mapping(self, node: Node, known: tuple[str, ...] | None = None) -> dict[str, Node]:
        if not isinstance(node, MapNode):
            self.wrong(node, "this must be a mapping")
            return {}
        return self._fields(node, "this", known or tuple(node.entries))

    def _scalar(self, node: Node) -> object:
        if not isinstance(node, ScalarNode):
            self.wrong(node, "this must be a single value")
            return None
        return node.value

    def _choice(self, node: Node, choices: tuple[str, ...]) -> str:
        value = self._scalar(node)
        if value not in choices:
            self.wrong(node, f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    def _number(self, node: Node, low: float, high: float) -> float:
        value = self._scalar(node)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(node, f"{value!r} is not a number")
            return max(low, 1.0)
        if not low <= value <= high:
            self.wrong(node, f"{value:g} is outside {low:g} to {high:g}")
        return float(value)

    def _efficiencies(self, node: Node) -> dict[str, Interval]:
        """One list for matrix products and attention, or a mapping of lists."""
        if not isinstance(node, MapNode):
            return {"matrix": self._efficiency(node)}
        fields = self._mapping(node, ("matrix", "attention", "memory"))
        if "matrix" not in fields:
            self.wrong(node, "`efficiency` has no `matrix`")
        return {"matrix": Interval(1, 1, 1)} | {kind: self._efficiency(value) for kind, value in fields.items()}

    def _efficiency(self, node: Node) -> Interval:
        items = node.items if isinstance(node, ListNode) else []
        if len(items) != 3:
            self.wrong(node, "efficiency is a list of three: low, likely, high")
            return Interval(1, 1, 1)
        low, likely, high = (self._number(item, 0.001, 1) for item in items)
        if not low <= likely <= high:
            self.wrong(node, f"efficiency must rise: {low:g}, {likely:g}, {high:g}")
        return Interval(low, likely, high)
