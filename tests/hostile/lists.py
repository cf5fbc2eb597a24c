"""Hostile lists: each with the table of files, labels and class numbers that is right, or with its refusal.

Everything runs in this process on files that hold one byte: what is in a clip is the part `videos`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tests.hostile.case import Case, sora_spec
from tests.hostile.listed import BARE, TWO, Listed
from tests.hostile.lists_formats import encodings, json_lists
from tests.hostile.lists_labels import folders, labels, paths


def headed() -> Iterable[Listed]:
    """Headings, separators, quoting."""
    yield Listed("spaces after commas", "l.csv", "path, label\na.mp4, cat\nb.mp4, dog\n", TWO)
    yield Listed(
        "numbers after spaces", "l.csv", "path, label\na.mp4, 2\nb.mp4, 0\n", [("a.mp4", "2", 2), ("b.mp4", "0", 0)]
    )
    yield Listed("spaces and tabs around", "l.csv", " path \t,\tlabel\n  a.mp4 , cat \n b.mp4\t,\tdog\t\n", TWO)
    yield Listed("a column before", "l.csv", "label,path\ncat,a.mp4\ndog,b.mp4\n", TWO)
    for heading in ("filename,label", "file,class", "video,category", "File Name,Class-Name", "video_path,target"):
        yield Listed(f"headings {heading}", "l.csv", f"{heading}\na.mp4,cat\nb.mp4,dog\n", TWO)
    for heading in ("file,caption", "video,text", "clip,prompt", "image,description"):
        yield Listed(
            f"headings {heading}", "l.csv", f"{heading}\na.mp4,x\nb.mp4,y\n", BARE, captions=("x", "y"), classes=None
        )
    for separator in (";", "\t", "|"):
        text = "path,label,caption\na.mp4,cat,a! b\nb.mp4,dog,c\n".replace(",", separator).replace("!", ",")
        yield Listed(f"separated by {separator!r}", "l.csv", text, TWO, captions=("a, b", "c"))
    yield Listed("tsv with commas inside", "l.tsv", "path\tlabel\na,1.mp4\tcat\n", [("a,1.mp4", "cat", 0)])
    yield Listed("commas in a .tsv", "l.tsv", "path,label\na.mp4,cat\nb.mp4,dog\n", TWO)
    yield Listed("Excel's sep line", "l.csv", "sep=;\r\npath;label\r\na.mp4;cat\r\nb.mp4;dog\r\n", TWO)
    yield Listed("an unknown sep line", "l.csv", "sep=:\npath:label\na.mp4:cat\n", None, ("l.csv:1", "sep=:"))
    yield Listed("everything quoted", "l.csv", '"path","label"\n"a.mp4","cat"\n"b.mp4","dog"\n', TWO)
    yield Listed(
        "a quoted comma, quote and newline",
        "l.csv",
        'path,label,caption\na.mp4,cat,"a ""big"" cat,\nrunning"\nb.mp4,dog,x\n',
        TWO,
        captions=('a "big" cat,\nrunning', "x"),
    )
    yield Listed(
        "an unquoted comma",
        "l.csv",
        "path,caption,label\na.mp4,a cat, running,2\n",
        None,
        ("l.csv:2", "4 cells", "quote"),
    )
    yield Listed(
        "an unquoted comma at the end",
        "l.csv",
        "path,label,caption\na.mp4,2,x\nb.mp4,1,a dog, running\n",
        None,
        ("l.csv:3", "4 cells", '"a dog, running"'),
    )
    yield Listed("a row too short", "l.csv", "path,label,caption\na.mp4,x\n", None, ("l.csv:2", "2 cells", "a.mp4,x,"))
    yield Listed("empty cells too many", "l.csv", "path,label,,\na.mp4,cat,,\nb.mp4,dog,,,\n", TWO)
    yield Listed("separators alone are blank", "l.csv", "path,label\n,\na.mp4,cat\n , \nb.mp4,dog\n,,,\n", TWO)
    yield Listed(
        "a quote never closed", "l.csv", 'path,label\na.mp4,"cat\nb.mp4,dog\n', None, ("l.csv:2", "never closed")
    )
    swallowed = 'path,label,caption\na.mp4,1,"open\nb.mp4,2,x\nc.mp4,0,five"\n'
    yield Listed("quotes that swallow rows", "l.csv", swallowed, None, ("l.csv:2", "b.mp4,2,x"))
    yield Listed("an index without heading", "l.csv", ",path,label\n0,a.mp4,cat\n1,b.mp4,dog\n", TWO)
    yield Listed("a newline without quotes", "l.csv", "path,caption\na.mp4,one\ntwo\n", None, ("l.csv:3", "1 cell"))
    yield Listed("text after a quote", "l.csv", 'path,caption\na.mp4,"big" dog\n', None, ("l.csv:2", "closing quote"))
    yield Listed(
        "quotes inside plain text",
        "l.csv",
        'path,caption\na.mp4,a 5" disk\n',
        [("a.mp4", None, None)],
        captions=('a 5" disk',),
        classes=None,
    )
    yield Listed("a label twice", "l.csv", "path,label,label\na.mp4,1,2\n", None, ("l.csv:1", "label"))
    yield Listed("two names for the path", "l.csv", "file,video\na.mp4,b.mp4\n", None, ("'file' and 'video'", "path"))
    yield Listed("the field's own word wins", "l.csv", "path,label,class_name\na.mp4,3,cat\n", [("a.mp4", "3", 3)])
    yield Listed(
        "columns unread are named", "l.csv", "id,path,label,fps\n1,a.mp4,cat,8\n2,b.mp4,dog,8\n", TWO, ("id, fps",)
    )
    yield Listed("no heading for the path", "l.csv", "url,label\nhttp://x/a.mp4,1\n", None, ("l.csv:1", "no heading"))
    yield Listed("headings in capitals with a mark", "l.csv", "\ufeffPATH,Label\na.mp4,cat\nb.mp4,dog\n", TWO)
    ruled = "| path | label |\n|:-----|-------|\n| a.mp4 | cat |\n| b.mp4 | dog |\n"
    yield Listed("a Markdown table", "l.csv", ruled, TWO)
    yield Listed("headings as a comment", "l.csv", "# path, label\na.mp4,cat\nb.mp4,dog\n", TWO)
    yield Listed("a blank first line", "l.csv", "\n\n  \npath,label\na.mp4,cat\nb.mp4,dog\n", TWO)
    twice = "path,label\na.mp4,cat\npath,label\nb.mp4,dog\n"
    yield Listed("two lists joined", "l.csv", twice, None, ("l.csv:3", "headings"))
    yield Listed("headings alone", "l.csv", "path,label\n", None, ("names no video",))


def without_headings() -> Iterable[Listed]:
    yield Listed(
        "two columns", "l.csv", 'a.mp4,"x, y"\nb.mp4,z\n', BARE, ("no headings",), captions=("x, y", "z"), classes=None
    )
    yield Listed("two columns and classes", "l.csv", "a.mp4,cat\nb.mp4,dog\n", None, ("no label", "path,label"))
    yield Listed("three columns", "l.csv", "a.mp4,cat,x\nb.mp4,dog,y\n", None, ("l.csv:1", "no headings"))
    yield Listed(
        "a comma later", "l.csv", "a.mp4,x\nb.mp4,y, z\n", None, ("l.csv:2", "3 cells", '"y, z"'), classes=None
    )
    yield Listed("semicolons", "l.csv", "a.mp4;x, y\nb.mp4;z\n", BARE, captions=("x, y", "z"), classes=None)
    yield Listed("one column", "l.csv", "a.mp4\nb.mp4\n", BARE, classes=None)
    yield Listed(
        "a caption that is a heading's word",
        "l.csv",
        "a.mp4,image\nb.mp4,video\n",
        BARE,
        classes=None,
        captions=("image", "video"),
    )
    yield Listed("plain paths", "l.txt", "# all of them\na.mp4\n\n  b.mp4  \n", BARE, ("list of paths",), classes=None)
    yield Listed("plain paths with commas", "l.txt", "a, b.mp4\n", [("a, b.mp4", None, None)], classes=None)
    yield Listed("headings in a .txt", "l.txt", "path,label\na.mp4,cat\nb.mp4,dog\n", TWO)
    yield Listed("tabs in a .txt", "l.txt", "path\tlabel\na.mp4\tcat\nb.mp4\tdog\n", TWO)
    yield Listed(
        "path label in a .txt",
        "l.txt",
        "a.mp4 0\nb.mp4 1\n",
        None,
        ("2 of 2", "do not exist", "headings"),
        classes=None,
        files=("a.mp4", "b.mp4"),
    )


GROUPS: tuple[Callable[[], Iterable[Listed]], ...] = (
    headed, without_headings, encodings, json_lists, labels, paths, folders,
)  # fmt: skip


def listed() -> list[Listed]:
    """All of them."""
    return [each for group in GROUPS for each in group()]


def _command(content: bytes, *words: str) -> Callable[[Path], str | None]:
    """`train` in a process of its own refuses the list, saying all `words`, and leaves no run folder behind."""

    def run(folder: Path) -> str | None:
        (folder / "l.csv").write_bytes(content)
        arguments = ("train.data=l.csv", "--run", "run", "--device", "cpu")
        wrong = sora_spec("train", "tiny-sit-digits", *arguments, cwd=folder).refused(*words)
        return wrong or ("a run folder was made" if (folder / "run").exists() else None)

    return run


def cases() -> Iterable[Case]:
    """See `Case`."""
    yield from (Case(each.name, each.run) for each in listed())
    yield Case("train: a comma", _command(b"path,label\na.mp4,a, b\n", "l.csv:2", "quote"))
    yield Case(
        "train: nothing exists", _command(b"path,label\na.mp4,0\n", "1 of 1 files", "a.mp4 (line 2)", "looked in")
    )
    yield Case("train: escapes", _command(b"path,label\n\x1b]52;c;eA==\x07.mp4,0\n", "do not exist", "x1b]52"))
    yield Case("train: not UTF-8", _command(b"path,label\n\xe9.mp4,0\n", "l.csv:2", "0xE9"))
