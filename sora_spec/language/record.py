"""A checked spec without its pydantic models: what verbs that only read run on.

Importing pydantic and defining the models takes longer than a whole plan. A record has the models' attributes, values,
equality and copies, and is made from the packaged JSON schema, which is generated from the models: so are the defaults.
Where a `Spec` is read and not built, a record may be handed in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Protocol, Self, TypeGuard, cast

from sora_spec.language.grammar import language
from sora_spec.language.schema.derived import DERIVED

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


class Section(Protocol):
    """What a model and a record have in common; `model_fields` of the class too, whose values differ in type."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """The section with some fields replaced; nothing is checked."""
        ...

    def model_dump(
        self, *, mode: Literal["python", "json"] | str = "python", exclude_defaults: bool = False
    ) -> dict[str, Any]:
        """The fields as plain values."""
        ...


class Record:
    """One section: immutable, equal to another of its kind with equal fields, and good as a key."""

    __slots__ = ("__dict__", "_hash", "_written")
    _written: frozenset[str]
    model_fields: ClassVar[dict[str, Any]] = {}
    """JSON schemas of the fields, in the order of the models."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: a spec is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: a spec is immutable")

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and self.__dict__ == other.__dict__)

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", hash((type(self).__name__, *self.__dict__.values())))
            return self._hash

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _record, (type(self).__name__, self.model_dump())

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """The section with some fields replaced; nothing is checked."""
        return _made(type(self), {**self.__dict__, **(update or {})}, self._written.union(update or ()))

    def model_dump(self, *, mode: str = "python", exclude_defaults: bool = False) -> dict[str, Any]:
        """The fields as plain values; in `json` mode tuples are lists."""
        defaults = _defaults(type(self)) if exclude_defaults else {}
        return {
            name: _plain(value, mode, exclude_defaults)
            for name, value in self.__dict__.items()
            if not (name in defaults and defaults[name] == value)
        }


def record_spec(values: Mapping[str, Any]) -> Spec:
    """The spec of checked values, such as `Checked.values.given`, with defaults filled in."""
    return cast("Spec", _record("Spec", values))


def as_record(section: Section) -> Section:
    """A record of the same fields."""
    return section if isinstance(section, Record) else _record(type(section).__name__, section.model_dump())


def written_fields(section: Section) -> Set[str]:
    """Names of the fields that the text gave, or that a copy replaced; all others are defaults."""
    return section._written if isinstance(section, Record) else cast("Any", section).model_fields_set  # pyright: ignore[reportPrivateUsage]


def is_left_out(section: Section, name: str) -> bool:
    """Whether a text may leave out this inner section and mean its kind: it has no `kind` to build on."""
    value, own = getattr(section, name), type(as_record(section))
    return hasattr(value, "kind") and type(_defaults(own).get(name)).__name__ == type(value).__name__


def is_section(value: object) -> TypeGuard[Section]:
    """Whether a value of a spec is a section, of either sort."""
    return hasattr(type(value), "model_fields")


def section_from(parent: Section, name: str, values: Mapping[str, Any]) -> Section:
    """The section that `parent`, of either sort, would hold under `name` if the text said `values`."""
    if isinstance(parent, Record):
        return _value(parent.model_fields[name], values)
    model: Any = parent
    kind: Any = type(parent)
    return getattr(kind.model_validate({**model.model_dump(), name: values}), name)


@cache
def _class(name: str) -> type[Record]:
    schema = language() if name == "Spec" else language()["$defs"][name]
    bases = (DERIVED[name], Record) if name in DERIVED else (Record,)
    return type(name, bases, {"__slots__": (), "__doc__": schema["description"], "model_fields": schema["properties"]})


@cache
def _defaults(section: type[Record]) -> dict[str, Any]:
    return {
        name: _value(schema, schema["default"]) for name, schema in section.model_fields.items() if "default" in schema
    }


def _record(name: str, values: Mapping[str, Any]) -> Record:
    section = _class(name)
    defaults, fields = _defaults(section), dict[str, Any]()
    for key, schema in section.model_fields.items():
        fields[key] = _value(schema, values[key]) if key in values else defaults[key]
    return _made(section, fields, frozenset(values))


def _made(section: type[Record], fields: dict[str, Any], written: frozenset[str]) -> Any:
    found = section.__new__(section)
    found.__dict__.update(fields)
    object.__setattr__(found, "_written", written)
    return found


def _value(schema: dict[str, Any], value: Any) -> Any:
    """A plain value as the models hold it: lists as tuples, mappings as sections, numbers as floats."""
    if "anyOf" in schema:  # the language has only one kind of it: something, or null
        return None if value is None else _value(schema["anyOf"][0], value)
    if "oneOf" in schema:
        schema = {"$ref": schema["discriminator"]["mapping"][value["kind"]]}
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        target = language()["$defs"][name]
        return _record(name, value) if "properties" in target else _value(target, value)
    if schema.get("type") == "array":
        prefix: list[dict[str, Any]] = schema.get("prefixItems", [])
        items = cast("Sequence[Any]", value)
        return tuple(
            _value(prefix[index] if index < len(prefix) else schema["items"], item) for index, item in enumerate(items)
        )
    return float(value) if schema.get("type") == "number" else value


def _is_list(value: Any) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(value, tuple)


def _plain(value: Any, mode: str, exclude_defaults: bool) -> Any:
    if isinstance(value, Record):
        return value.model_dump(mode=mode, exclude_defaults=exclude_defaults)
    if mode == "json" and _is_list(value):
        return [_plain(item, mode, exclude_defaults) for item in value]
    return value
