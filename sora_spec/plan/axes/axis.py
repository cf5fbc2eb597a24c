"""What an axis is: one thing about a job that may vary, with its values, its words and what turning it means.

A value is turned into a `Change`, which makes another job of a job (searches, curves) or another question of a question
(what-if knobs), so that both say the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sora_spec.errors import UserError
from sora_spec.language.changes import changed, flow
from sora_spec.language.fields import field_at, help_at, kinds_at
from sora_spec.plan.devices.hardware import find_device
from sora_spec.plan.layout import with_count

if TYPE_CHECKING:
    from sora_spec.plan.job import Job, Question

SAID_BY = {"gpu": "hardware.gpu", "count": "hardware.count"}
"""Fields of a question that a value of the spec says as well."""


@dataclass(frozen=True)
class Change:
    """Other values of a spec, other options, or both."""

    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """By dotted path: what the models hold, or a whole section as a mapping."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """By field of `Question`."""
    dropped: tuple[str, ...] = ()
    """Paths about which a question says nothing any more."""

    def at(self, job: Job) -> Job:
        """The job with it. Raises UserError where there is none."""
        options = dict(self.options)
        count, gpu = options.pop("count", None), options.pop("gpu", "")
        device = find_device(gpu, job.hardware or None) if gpu else job.device
        job = replace(job, spec=changed(job.spec, self.values), device=device, **options)
        if count is None:
            return job
        spec = with_count(job.spec, count, job.stage, job.typed) if job.mode == "train" else job.spec
        return replace(job, count=count, spec=spec)

    def asked(self, question: Question, job: Job) -> Question:
        """The question with it; what an argument said of `job` is said by an argument again."""
        values, options = dict(self.values), dict(self.options)
        for path in self.dropped:
            question = question.without(path)
        for name, path in SAID_BY.items():
            if name in options and path in job.typed:
                values[path] = options.pop(name)
        for path, value in values.items():
            question = question.having(path, flow(value))
        return replace(question, **options)


class Ease(NamedTuple):
    """How an axis makes a job need less memory."""

    place: int
    """Where a set of changes names it."""
    weight: float
    """How much it disturbs the user's intent: 1 changes only how the work is done."""
    settings: Iterable[tuple[str, Change]]
    """Words and change, from mild to strong: each needs no more memory than the one before."""


@dataclass(frozen=True, kw_only=True)
class Solved:
    """An axis whose extreme can be sought and drawn. Values need ever more memory; of devices, ever less."""

    every: Callable[[Job], Sequence[Any]]
    """All that can be tried. Raises UserError where it cannot vary."""
    few: Callable[[Job], Iterable[Any]]
    """Those of a curve; none where it cannot vary."""
    words: Callable[[Job, Any], str]
    x: Callable[[Job, Any], int] = lambda _, value: value
    """Place on a curve's axis."""


@dataclass(frozen=True)
class Axis:
    """One thing that may vary."""

    key: str
    label: str
    """Of the Planner screen's knob."""
    about: str
    """Path of the value whose description says what it is, or that description."""
    _: KW_ONLY
    own: Callable[[Job], Any]
    """The job's own value."""
    usual: Callable[[Job], Sequence[Any]]
    """The values of a knob, from low to high where they have a scale."""
    change: Callable[[Job, Any], Change]
    words: Callable[[Job, Any], str] = lambda _, value: str(value)
    scale: Callable[[Any], float] | None = None
    """Place of a value on the scale; None for choices."""
    read: Callable[[Job, str], Any] | None = None
    """A typed value; raises UserError. None where only choices make sense."""
    applies: Callable[[Job], bool] = lambda _: True
    """Whether it has an effect on the job."""
    results: bool = False
    """Whether turning it makes another training or other clips, beyond rounding."""
    ease: Callable[[Job], Ease | None] = lambda _: None
    """What it offers where a job does not fit."""
    free: Callable[[Job], Sequence[Change]] | None = None
    """Changes among which the fastest setting is sought: the same training, the same clips."""
    ladder: bool = False
    """Whether `free` goes from the fastest, which needs most memory, to what needs least."""
    solved: Solved | None = None

    @property
    def help(self) -> str:
        """What it is."""
        return self.about if " " in self.about else help_at(self.about)

    def shown(self, job: Job) -> str:
        """The job's own value in words."""
        return self.words(job, self.own(job))

    def settings(self, job: Job) -> dict[str, Change]:
        """The usual values in words, and what each changes."""
        return {self.words(job, value): self.change(job, value) for value in self.usual(job)}

    def step(self, job: Job, way: Literal[-1, 1]) -> Change | None:
        """The next value up or down; None at the end."""
        values, own = self.usual(job), self.own(job)
        if self.scale is None:
            words = [self.words(job, value) for value in values]
            index = words.index(self.shown(job)) + way if self.shown(job) in words else 0
        else:
            scale, here = [self.scale(value) for value in values], self.scale(own)
            index = bisect_right(scale, here) if way > 0 else bisect_left(scale, here) - 1
        return self.change(job, values[index]) if 0 <= index < len(values) else None

    def enter(self, job: Job, text: str) -> Change:
        """What a typed value changes.

        Raises:
            UserError: it cannot be taken.
        """
        text, settings = text.strip(), self.settings(job)
        for words, change in settings.items():
            if words.lower() == text.lower():
                return change
        if self.read is None:
            raise UserError(f"{self.label}: {text!r} is none of its settings", ", ".join(settings))
        return self.change(job, self.read(job, text))


def value_at(job: Job, path: str) -> Any:
    """The value at a dotted path of the job's spec."""
    value: Any = job.spec
    for segment in path.split("."):
        value = getattr(value, segment)
    return value


def put(path: str) -> Callable[[Job, Any], Change]:
    """How a value of the spec is changed."""
    return lambda _, value: Change({path: value})


def field_axis(
    path: str, label: str, words: Mapping[str, str], applies: Callable[[Job], bool] = lambda _: True, **rest: Any
) -> Axis:
    """An axis of a field whose values the schema lists: a yes or no, a choice, or a kind."""

    def own(job: Job) -> Any:
        value = value_at(job, path)
        return {"kind": value.kind} if hasattr(value, "kind") else value

    def usual(job: Job) -> list[Any]:
        schema = field_at(job.spec, path) or {}
        if schema.get("type") == "boolean":
            return [False, True]
        return list(schema.get("enum", ())) or [{"kind": kind} for kind in kinds_at(job.spec, path)]

    def said(_: Job, value: Any) -> str:
        text = flow(value.get("kind") if isinstance(value, dict) else value)
        return words.get(text, text)

    def there(job: Job) -> bool:
        return field_at(job.spec, path) is not None and applies(job)

    key = path.rpartition(".")[2]
    return Axis(key, label, path, own=own, usual=usual, change=put(path), words=said, applies=there, **rest)


def whole_number(most: int) -> Callable[[Job, str], int]:
    """How a whole number is typed."""

    def read(_: Job, text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise UserError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return read


def nearest(values: Sequence[int], wanted: Iterable[float]) -> list[int]:
    """The values nearest to those wanted, each once."""
    return list(dict.fromkeys(min(values, key=lambda value: abs(value - near)) for near in wanted if values))


def halves(number: int) -> list[int]:
    """A number halved down to one."""
    return [number >> power for power in range(1, number.bit_length())]


def trains(job: Job) -> bool:
    """Something is trained."""
    return job.mode == "train"


def generates(job: Job) -> bool:
    """Clips are generated."""
    return job.mode == "generate"


def trains_denoiser(job: Job) -> bool:
    """The denoiser is trained."""
    return trains(job) and job.stage == "denoiser"


def trains_vae(job: Job) -> bool:
    """The VAE is trained."""
    return trains(job) and job.stage == "vae"


def on_cuda(job: Job) -> bool:
    """A GPU does it."""
    return job.device.kind == "cuda"
