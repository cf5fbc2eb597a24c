"""What is open: the specs, what is asked of each, and the last answer to it. No widget, no thread, no maths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sora_spec.packaged import find_spec_file
from sora_spec.plan.snapshot import Snapshot
from sora_spec.plan.whatif import Advice, Answer, WhatIf
from sora_spec.source import Document, load_document, parse_document
from sora_spec.span import Text

MOST_UNDO = 200


@dataclass
class OpenSpec:
    """One spec of the list."""

    argument: str
    """As the command line names it: a path, or the bare name of a packaged spec."""
    document: Document
    """As written, without overrides."""
    whatif: WhatIf
    answer: Answer | None = None
    """To the newest question that has been answered, with a plan or without."""
    snapshot: Snapshot | None = None
    """Of `answer`."""
    good: Snapshot | None = None
    """The last one with a plan: what is shown, greyed, while the spec is wrong."""
    advice: Advice | None = None
    """None until it is known for `answer`."""
    asked: int = 0
    """Number of the newest question."""
    answered: int = 0
    """Number of the question that `answer` belongs to."""
    stamp: float = 0.0
    """Modification time of the file when it was read or written."""
    unsaved: bool = False
    """Whether the text differs from the file."""
    past: list[WhatIf] = field(default_factory=list[WhatIf])
    future: list[WhatIf] = field(default_factory=list[WhatIf])

    @property
    def name(self) -> str:
        """What the list calls it."""
        return Path(self.argument).stem if self.argument.endswith((".yaml", ".yml")) else self.argument

    @property
    def path(self) -> str:
        """The file that it was read from."""
        return self.document.text.name

    @property
    def standing(self) -> str:
        """A key of `SIGNS`."""
        return "waiting" if self.answer is None else self.answer.standing

    @property
    def fresh(self) -> bool:
        """Whether the answer is to the newest question."""
        return self.answer is not None and self.answered == self.asked

    def ask(self, whatif: WhatIf) -> bool:
        """Ask another question. False if it is the one that is asked already."""
        if whatif == self.whatif:
            return False
        self.past = [*self.past[1 - MOST_UNDO :], self.whatif]
        self.future.clear()
        self._now(whatif)
        return True

    def undo(self) -> bool:
        """Ask the question before. False if there is none."""
        if not self.past:
            return False
        self.future.append(self.whatif)
        self._now(self.past.pop())
        return True

    def redo(self) -> bool:
        """Ask the question that `undo` took back. False if there is none."""
        if not self.future:
            return False
        self.past.append(self.whatif)
        self._now(self.future.pop())
        return True

    def write(self, content: str) -> bool:
        """Take another text. False if it is the same."""
        if content == self.document.text.content:
            return False
        self.document = parse_document(Text(self.path, content))
        self.asked += 1
        return True

    def _now(self, whatif: WhatIf) -> None:
        self.whatif = whatif
        self.asked += 1

    def take(self, answer: Answer, snapshot: Snapshot, number: int) -> bool:
        """Keep an answer. False if a newer one is there."""
        if number < self.answered:
            return False
        self.answer, self.snapshot, self.answered = answer, snapshot, number
        self.advice = None
        if answer.plan is not None:
            self.good = snapshot
        return True


@dataclass
class Session:
    """All specs of the list, and the one that is looked at."""

    specs: list[OpenSpec]
    index: int = 0

    @property
    def current(self) -> OpenSpec:
        """The spec that is looked at."""
        return self.specs[self.index]


def open_spec(argument: str, whatif: WhatIf) -> OpenSpec:
    """A spec from a file or a packaged name. One that cannot be read is opened too, with the reason as diagnostic."""
    path = find_spec_file(argument)
    return OpenSpec(argument, load_document(path), whatif, asked=1, stamp=modified(path))


def open_session(arguments: Sequence[str], whatif: WhatIf) -> Session:
    """A session with every spec under the same first question."""
    return Session([open_spec(argument, whatif) for argument in arguments])


def modified(path: str) -> float:
    """Modification time of a file; 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
