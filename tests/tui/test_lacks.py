"""What this program cannot do stands first in the verdict, and beside the spec's name."""

from __future__ import annotations

from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document
from sora_spec.plan.question import plan_of, question_from
from sora_spec.plan.show.snapshot import snapshot_of
from sora_spec.tui.signs import SIGNS
from sora_spec.tui.verdict import verdict_lines


def test_the_verdict_begins_with_it() -> None:
    question = question_from(["parallel.sequence=2"], gpu="h100", count=2)
    snapshot = snapshot_of(plan_of(load_document(find_spec_file("tiny-latte")), question))
    first, why, numbers = verdict_lines(snapshot, 80, plain_bar=True)[:3]
    assert [(cell.text, cell.role) for cell in first.left] == [("✘ CANNOT BE TRAINED", "bad")]
    assert why.left[0].text == "2 ranks cannot share the tokens of one clip yet (parallel.sequence)"
    assert [cell.role for cell in numbers.left] == ["strong", "good"]  # it would fit
    assert SIGNS[snapshot.standing].word == "unsupported"
