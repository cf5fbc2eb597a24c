"""What is open: the specs, what is asked of each, and the last answer to it. No widget, no thread, no maths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sora_spec.characters import visible_name
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.reading import decode
from sora_spec.language.source import Document, load_document, parse_document
from sora_spec.language.span import Text
from sora_spec.language.yaml_tree import RefusedError
from sora_spec.plan.job import Job, Question
from sora_spec.plan.question import Answer
from sora_spec.plan.search.advised import Advice
from sora_spec.plan.show.snapshot import Snapshot
from sora_spec.tui.pins import Column

MOST_UNDO = 200


@dataclass(eq=False, repr=False)
class OpenSpec:
    """One spec of the list."""

    argument: str
    """As the command line names it: a path, or the bare name of a packaged spec."""
    document: Document
    """As written, without overrides: of the newest text that has been read by a worker."""
    question: Question
    answer: Answer | None = None
    """To the newest question that has been answered, with a plan or without."""
    snapshot: Snapshot | None = None
    """Of `answer`."""
    good: Snapshot | None = None
    """The last one with a plan: what is shown, greyed, while the spec is wrong."""
    good_answer: Answer | None = None
    """That `good` was made of."""
    first: Job | None = None
    """Of the first answer with a plan: what knobs are compared with."""
    beginning: Question = field(default_factory=Question)
    """The question that the session began with."""
    advice: Advice | None = None
    """None until it is known for `answer`."""
    asked: int = 0
    """Number of the newest question."""
    answered: int = 0
    """Number of the question that `answer` belongs to."""
    draft: str | None = None
    """A text that is being edited; None where it is that of `document`."""
    stamp: float = 0.0
    """Modification time of the file when it was read or written."""
    unsaved: bool = False
    """Whether the text differs from the file."""
    past: list[Question] = field(default_factory=list[Question])
    future: list[Question] = field(default_factory=list[Question])

    @property
    def name(self) -> str:
        """What the list calls it."""
        return visible_name(Path(self.argument).stem if self.argument.endswith((".yaml", ".yml")) else self.argument)

    @property
    def path(self) -> str:
        """The file that it was read from."""
        return self.document.text.name

    @property
    def standing(self) -> str:
        """A key of `SIGNS`."""
        return "waiting" if self.answer is None else self.answer.standing

    @property
    def shown(self) -> Snapshot | None:
        return self.good

    @property
    def stale(self) -> bool:
        """Whether what is shown is not the newest answer, which has no plan."""
        return self.answer is not None and self.answer.plan is None

    @property
    def job(self) -> Job | None:
        """The last job that could be planned: what knobs see."""
        return None if self.good_answer is None else self.good_answer.job

    @property
    def answered_document(self) -> Document:
        """The document that `good` was planned from, overrides included."""
        return self.document if self.good_answer is None else self.good_answer.document

    @property
    def fresh(self) -> bool:
        """Whether the answer is to the newest question."""
        return self.answer is not None and self.answered == self.asked

    def ask(self, question: Question) -> bool:
        """Ask another question. False if it is the one that is asked already."""
        if question == self.question:
            return False
        self.past = [*self.past[1 - MOST_UNDO :], self.question]
        self.future.clear()
        self._now(question)
        return True

    def undo(self) -> bool:
        """Ask the question before. False if there is none."""
        if not self.past:
            return False
        self.future.append(self.question)
        self._now(self.past.pop())
        return True

    def redo(self) -> bool:
        """Ask the question that `undo` took back. False if there is none."""
        if not self.future:
            return False
        self.past.append(self.question)
        self._now(self.future.pop())
        return True

    @property
    def content(self) -> str:
        return self.document.text.content if self.draft is None else self.draft

    def write(self, content: str) -> bool:
        """Take another text, to be read by the next worker. False if it is the same."""
        if content == self.content:
            return False
        self.draft = content
        self.asked += 1
        return True

    def rename(self, path: str) -> None:
        """The text belongs to another file from now on."""
        self.document, self.draft = document_of(path, self.content), None
        self.asked += 1

    def forget(self, question: Question) -> None:
        """Begin anew with a question, as after the one before was written into the spec."""
        self.past.clear()
        self.future.clear()
        self.first = None
        self.beginning = question
        self._now(question)

    def _now(self, question: Question) -> None:
        self.question = question
        self.asked += 1

    def take(self, answer: Answer, snapshot: Snapshot, document: Document, number: int) -> bool:
        """Keep an answer and the text that it was made from. False if a newer one is there."""
        if number < self.answered:
            return False
        self.answer, self.snapshot, self.document, self.answered = answer, snapshot, document, number
        if self.draft == document.text.content:
            self.draft = None
        self.advice = None
        if answer.plan is not None:
            self.good, self.good_answer = snapshot, answer
            self.first = self.first or answer.job
        return True


@dataclass(repr=False)
class Session:
    """All specs of the list, and the one that is looked at."""

    specs: list[OpenSpec]
    index: int = 0
    pins: list[Column] = field(default_factory=list[Column])
    """Settings put aside for the comparison."""

    @property
    def current(self) -> OpenSpec:
        return self.specs[self.index]


def open_spec(argument: str, question: Question) -> OpenSpec:
    """A spec from a file or a packaged name. One that cannot be read is opened too, with the reason as diagnostic."""
    path = find_spec_file(argument)
    return OpenSpec(argument, load_document(path), question, asked=1, stamp=modified(path), beginning=question)


def document_of(name: str, content: str) -> Document:
    """A text as a document, under the limits that files have. Never raises for what a user can type."""
    try:
        text = decode(content.encode("utf-8", errors="surrogatepass"), name)
    except RefusedError as refused:
        return Document(Text(name, content), None, [refused.diagnostic])
    return parse_document(text)


def open_session(arguments: Sequence[str], question: Question) -> Session:
    """A session with every spec under the same first question."""
    return Session([open_spec(argument, question) for argument in arguments])


def modified(path: str) -> float:
    """Modification time of a file; 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
