"""Every code has a text, its wrong example really gets it, and its right example does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sora_spec.errors import UserError
from sora_spec.language.codes import all_codes, find_code, markdown
from sora_spec.language.loading import check
from sora_spec.language.source import parse_document
from sora_spec.language.span import Text

ROOT = Path(__file__).parents[2]
BASE = {
    "version": "1",
    "name": "base",
    "clip": "{frames: 8, height: 32, width: 32}",
    "vae": "{kind: identity}",
    "patch": "{time: 1, space: 4}",
    "backbone": "{kind: transformer, depth: 2, width: 64, heads: 4, learn_sigma: false}",
    "objective": "{kind: interpolant}",
    "sampler": "{kind: heun}",
}


def codes_of(code: str, text: str) -> list[str]:
    """Codes that an example gets; sections are laid over a valid spec."""
    if code < "E2":
        return [problem.code for problem in parse_document(Text("example", text)).problems]
    sections = {line.split(":")[0] for line in text.splitlines()}
    rest = "".join(f"{key}: {value}\n" for key, value in BASE.items() if key not in sections)
    return [problem.code for problem in check(parse_document(Text("example", rest + text))).diagnostics]


def test_the_base_is_valid() -> None:
    assert codes_of("E2", "name: base") == []


@pytest.mark.parametrize("code", [code for code in all_codes().values() if code.wrong], ids=lambda code: code.code)
def test_examples(code) -> None:
    ignored = {"W401"} - {code.code}
    assert set(codes_of(code.code, code.wrong)) - ignored == {code.code}
    assert set(codes_of(code.code, code.right)) - ignored == set()


def test_every_code_in_the_source_is_explained_and_the_other_way_round() -> None:
    sources = [path for path in (ROOT / "sora_spec").rglob("*.py") if "code_texts" not in path.parts]
    used = {code for path in sources for code in re.findall(r'"([EW]\d{3})"', path.read_text(encoding="utf-8"))}
    assert used == set(all_codes())


def test_only_what_has_no_text_has_no_example() -> None:
    assert [code.code for code in all_codes().values() if not code.wrong] == ["E101", "E102", "E103", "E114"]


def test_markdown_has_both_examples() -> None:
    text = markdown(find_code(" e301 "))
    assert text.startswith("# E301: ")
    assert text.count("```yaml") == 2


def test_unknown_code_suggests_one() -> None:
    with pytest.raises(UserError) as caught:
        find_code("E3O1")
    assert "did you mean E3" in (caught.value.hint or "")
