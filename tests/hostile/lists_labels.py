"""Hostile lists: labels, paths, and folders of classes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tests.hostile.listed import BARE, TWO, Listed, Rows


def labels() -> Iterable[Listed]:
    yield Listed(
        "numbers for themselves", "l.csv", "path,label\na.mp4,7\nb.mp4,3\n", [("a.mp4", "7", 7), ("b.mp4", "3", 3)]
    )
    yield Listed(
        "leading zeros",
        "l.csv",
        "path,label\na.mp4,07\nb.mp4,7\n",
        [("a.mp4", "07", 7), ("b.mp4", "7", 7)],
        ("'07' and '7' are one class, 7",),
    )
    yield Listed(
        "numbers as pandas writes them",
        "l.csv",
        "path,label\na.mp4,1.0\nb.mp4,4.0\n",
        [("a.mp4", "1.0", 1), ("b.mp4", "4.0", 4)],
    )
    zeros = "0" * 5000  # Python reads numbers of up to 4,300 digits
    yield Listed(
        "5,000 zeros in front",
        "l.csv",
        f"path,label\na.mp4,{zeros}1\nb.mp4,{zeros}\n",
        [("a.mp4", f"{zeros}1", 1), ("b.mp4", zeros, 0)],
    )
    yield Listed("5,000 digits", "l.csv", f"path,label\na.mp4,{'1' * 5000}\n", None, ("111…", "condition.classes"))
    yield Listed("5,000 digits in JSON", "l.jsonl", f'{{"path": "a.mp4", "label": {"1" * 5000}}}', None, ("digits",))
    yield Listed("Arabic digits", "l.csv", "path,label\na.mp4,٣\nb.mp4,1\n", [("a.mp4", "٣", 3), ("b.mp4", "1", 1)])
    for label in ("-1", "0.5", "1e3"):
        yield Listed(f"label {label}", "l.csv", f"path,label\na.mp4,{label}\nb.mp4,1\n", None, (label, "whole numbers"))
    yield Listed(
        "out of range", "l.csv", "path,label\na.mp4,10\n", None, ("label 10", "condition.classes is 10"), classes=10
    )
    yield Listed(
        "far out of range", "l.csv", "path,label\na.mp4," + "9" * 5000 + "\n", None, ("999", "condition.classes")
    )
    yield Listed("too many names", "l.csv", "path,label\na.mp4,x\nb.mp4,y\n", None, ("2 classes (x, y)",), classes=1)
    yield Listed("numbers beside names", "l.csv", "path,label\na.mp4,3\nb.mp4,cat\n", None, ("numbers and names", "3"))
    yield Listed("a label missing", "l.csv", "path,label\na.mp4,cat\nb.mp4,\n", None, ("1 of 2", "b.mp4 (line 3)"))
    yield Listed("a label of spaces", "l.csv", "path,label\na.mp4,cat\nb.mp4,   \n", None, ("1 of 2", "b.mp4 (line 3)"))
    yield Listed("labels missing, not needed", "l.csv", "path,label\na.mp4,\nb.mp4,\n", BARE, classes=None)
    yield Listed(
        "Cat and cat",
        "l.csv",
        "path,label\na.mp4,Cat\nb.mp4,cat\n",
        [("a.mp4", "Cat", 0), ("b.mp4", "cat", 1)],
        ("'Cat' (1) and 'cat' (1)",),
    )
    yield Listed(
        "é in two spellings",
        "l.csv",
        "path,label\na.mp4,caf\u00e9\nb.mp4,cafe\u0301\n",
        [("a.mp4", "caf\u00e9", 1), ("b.mp4", "cafe\u0301", 0)],
        ("different classes",),
    )
    yield Listed(
        "two cats",
        "l.csv",
        "path,label\na.mp4,big cat\nb.mp4,big_cat\n",
        [("a.mp4", "big cat", 0), ("b.mp4", "big_cat", 1)],
        ("different classes",),
    )
    yield Listed(
        "nan as a name",
        "l.csv",
        "path,label\na.mp4,nan\nb.mp4,dog\n",
        [("a.mp4", "nan", 1), ("b.mp4", "dog", 0)],
        ("'nan' is taken as the name",),
    )
    yield Listed(
        "natural order", "l.csv", "path,label\na.mp4,c10\nb.mp4,c9\n", [("a.mp4", "c10", 1), ("b.mp4", "c9", 0)]
    )
    yield Listed(
        "one file, two labels",
        "l.csv",
        "path,label\na.mp4,cat\nb.mp4,dog\n./a.mp4,dog\n",
        None,
        ("./a.mp4", "'cat' on line 2", "'dog' on line 4"),
    )
    yield Listed(
        "one file, two labels, not needed",
        "l.csv",
        "path,label\na.mp4,cat\na.mp4,dog\n",
        [("a.mp4", "cat", None), ("a.mp4", "dog", None)],
        classes=None,
    )
    yield Listed(
        "a row twice",
        "l.csv",
        "path,label\na.mp4,cat\na.mp4,cat\nb.mp4,dog\n",
        [("a.mp4", "cat", 0), ("a.mp4", "cat", 0), ("b.mp4", "dog", 1)],
        ("again: 1",),
    )
    signs: Rows = [("a.mp4", "+3", 3), ("b.mp4", "1", 1)]
    yield Listed("a plus sign", "l.csv", "path,label\na.mp4,+3\nb.mp4,1\n", signs)
    yield Listed("a label's heading nobody knows", "l.csv", "path,action\na.mp4,run\n", None, ("no label", "action"))


def paths() -> Iterable[Listed]:
    there = ("clips/a.mp4", "clips/b.mp4")
    right: Rows = [("clips/a.mp4", "cat", 0), ("clips/b.mp4", "dog", 1)]
    yield Listed("backslashes", "l.csv", "path,label\nclips\\a.mp4,cat\nclips\\b.mp4,dog\n", right, files=there)
    yield Listed(
        "a backslash in a name", "l.csv", "path,label\na\\b.mp4,cat\n", [("a\\b.mp4", "cat", 0)], files=("a\\b.mp4",)
    )
    yield Listed("a drive", "l.csv", "path,label\nC:\\clips\\a.mp4,cat\n", None, ("l.csv:2", "Windows"))
    for address in ("https://x.org/a.mp4", "s3://bucket/a.mp4", "gs://b/a.mp4", "hf://datasets/a.mp4"):
        yield Listed(
            f"address {address[:5]}", "l.csv", f"path,label\n{address},cat\n", None, ("l.csv:2", "is an address")
        )
    yield Listed(
        "a colon", "l.csv", "path,label\nclip:01.mp4,cat\n", [("clip:01.mp4", "cat", 0)], files=("clip:01.mp4",)
    )
    for address in ("file://", "file://[x", "file://host/a.mp4", "file:///a%00.mp4"):
        yield Listed(f"a wrong {address}", "l.csv", f"path,label\n{address},cat\n", None, ("l.csv:2",))
    yield Listed("a file address", "l.csv", "path,label\nfile:///tmp/a%20b.mp4,cat\n", [("/tmp/a b.mp4", "cat", 0)])
    home = os.path.expanduser("~")
    yield Listed("~", "l.csv", "path,label\n~/a.mp4,cat\n", [(f"{home}/a.mp4", "cat", 0)])
    yield Listed("~ of nobody", "l.csv", "path,label\n~nobody-here/a.mp4,cat\n", [("~nobody-here/a.mp4", "cat", 0)])
    yield Listed("a file named ~", "l.csv", "path,label\n~a.mp4,cat\n", [("~a.mp4", "cat", 0)], files=("~a.mp4",))
    yield Listed(
        "from a list elsewhere",
        "lists/l.csv",
        "path,label\n../clips/a.mp4,cat\n",
        [("../clips/a.mp4", "cat", 0)],
        files=there,
    )
    yield Listed(
        "none exists",
        "l.csv",
        "path,label\nx/a.mp4,cat\nx/b.mp4,dog\n",
        None,
        ("2 of 2 files", "do not exist", "x/a.mp4 (line 2)", "looked in", "/x"),
        files=there,
    )
    yield Listed(
        "some do not exist",
        "l.csv",
        "path,label\nclips/a.mp4,cat\nclips/c.mp4,dog\n",
        [("clips/a.mp4", "cat", 0), ("clips/c.mp4", "dog", 1)],
        ("1 of 2 files", "clips/c.mp4 (line 3)"),
        files=there,
    )
    yield Listed(
        "another case", "l.csv", "path,label\nclips/A.mp4,cat\n", None, ("1 of 1", "clips/a.mp4 meant?"), files=there
    )
    yield Listed("single quotes", "l.csv", "path,label\n'clips/a.mp4','cat'\n", None, ("1 of 1",), files=there)
    yield Listed("no suffix", "l.csv", "path,label\nclips/a,cat\n", None, ("1 of 1", "clips/a.mp4 meant?"), files=there)
    yield Listed(
        "a heading nobody knows", "l.csv", "foo\na.mp4\n", None, ("l.csv:1", "no heading", "foo"), classes=None
    )
    yield Listed("headings nobody knows", "l.csv", "vid,kind\na.mp4,x\n", None, ("l.csv:1", "no heading", "vid"))
    yield Listed("one file without suffix", "l.csv", "foo\n", [("foo", None, None)], files=("foo",), classes=None)
    yield Listed(
        "a name of 5000 letters", "l.csv", "path,label\n" + "a" * 5000 + ".mp4,cat\n", None, ("1 of 1",), files=there
    )
    yield Listed(
        "a # that is a file", "l.csv", "path,label\n#1.mp4,cat\n", None, ("l.csv:2", "./#1.mp4"), files=("#1.mp4",)
    )
    yield Listed(
        "a # that is meant",
        "l.csv",
        'path,label\n"#1.mp4",cat\n./#1.mp4,cat\n',
        [("#1.mp4", "cat", 0), ("./#1.mp4", "cat", 0)],
        ("again: 1",),
        files=("#1.mp4",),
    )
    yield Listed(
        "comments",
        "l.csv",
        '# by "me", today\npath,label\na.mp4,cat\n#b.mp4,dog\nb.mp4,dog\n',
        TWO,
        ("comment lines: 2",),
    )
    yield Listed(
        "a # inside a caption",
        "l.csv",
        'path,label,caption\na.mp4,cat,"x\n#y"\nb.mp4,dog,z\n',
        TWO,
        captions=("x\n#y", "z"),
    )
    yield Listed("a path of spaces", "l.csv", "path,label\n  ,cat\n", None, ("l.csv:2", "no path"))
    yield Listed("no such list", "none.csv", "", None, ("does not exist",))
    yield Listed("another kind", "l.xlsx", "x", None, ("neither a folder nor a list",))
    yield Listed("an empty list", "l.csv", "\n", None, ("names no video",))
    yield Listed("commas alone", "l.csv", ",,,\n,,\n", None, ("names no video",))


def folders() -> Iterable[Listed]:
    yield Listed(
        "flat", "d", files=("d/cat/1.mp4", "d/dog/2.mp4"), rows=[("cat/1.mp4", "cat", 0), ("dog/2.mp4", "dog", 1)]
    )
    nested: Rows = [("cat/scene1/1.mp4", "cat", 0), ("dog/scene1/1.mp4", "dog", 1)]
    yield Listed("nested", "d", files=("d/cat/scene1/1.mp4", "d/dog/scene1/1.mp4"), rows=nested)
    deep: Rows = [("cat/1.mp4", "cat", 0), ("cat/x/y/2.mp4", "cat", 0), ("dog/z/3.mp4", "dog", 1)]
    yield Listed("deep and shallow", "d", files=tuple(f"d/{path}" for path, _, _ in deep), rows=deep)
    yield Listed("numbers", "d", files=("d/10/a.mp4", "d/2/a.mp4"), rows=[("10/a.mp4", "10", 10), ("2/a.mp4", "2", 2)])
    yield Listed(
        "decimals are names of folders",
        "d",
        files=("d/0.5/a.mp4", "d/1.5/a.mp4"),
        rows=[("0.5/a.mp4", "0.5", 0), ("1.5/a.mp4", "1.5", 1)],
    )
    linked: Rows = [("ant/1.mp4", "ant", 0), ("cat/2.mp4", "cat", 1)]
    yield Listed("a linked class", "d", files=("d/cat/2.mp4", "far/1.mp4"), links={"d/ant": "../far"}, rows=linked)
    yield Listed(
        "a linked file", "d", files=("d/ant/1.mp4", "far/2.mp4"), links={"d/cat/2.mp4": "../../far/2.mp4"}, rows=linked
    )
    yield Listed("the source is a link", "d", files=("far/ant/1.mp4", "far/cat/2.mp4"), links={"d": "far"}, rows=linked)
    yield Listed(
        "a link to the source",
        "d",
        files=("d/ant/1.mp4", "d/cat/2.mp4"),
        links={"d/cat/up": "../../d"},
        rows=linked,
        says=("1 × links to a folder above them",),
    )
    yield Listed(
        "a link to itself",
        "d",
        files=("d/ant/1.mp4", "d/cat/2.mp4"),
        links={"d/cat/self": "self"},
        rows=linked,
        says=("1 × links that lead nowhere",),
    )
    yield Listed(
        "links in a circle",
        "d",
        files=("d/ant/1.mp4", "d/cat/2.mp4", "x/n.txt", "y/n.txt"),
        rows=linked,
        links={"d/ant/x": "../../x", "x/y": "../y", "y/x": "../x"},
        says=("links to a folder above them",),
    )
    yield Listed(
        "a second way to a folder",
        "d",
        files=("d/ant/1.mp4", "d/cat/in/2.mp4"),
        links={"d/cat/again": "in"},
        rows=[("ant/1.mp4", "ant", 0), ("cat/in/2.mp4", "cat", 1)],
        says=("read already",),
    )
    yield Listed(
        "a dead link",
        "d",
        files=("d/ant/1.mp4", "d/cat/2.mp4"),
        links={"d/cat/3.mp4": "gone.mp4"},
        rows=linked,
        says=("1 × links that lead nowhere",),
    )
    yield Listed(
        "one class under two names", "d", files=("d/cat/1.mp4",), links={"d/kitty": "cat"}, says=("two labels", "kitty")
    )
    yield Listed(
        "a file beside the classes", "d", files=("d/1.mp4", "d/cat/2.mp4"), says=("1 of 2", "no label", "d/1.mp4")
    )
    yield Listed(
        "hidden",
        "d",
        files=("d/ant/1.mp4", "d/cat/2.mp4", "d/.git/x.mp4", "d/cat/._2.mp4"),
        rows=linked,
        says=("2 × hidden",),
    )
    yield Listed(
        "folders of systems",
        "d",
        files=(
            "d/ant/1.mp4",
            "d/ant/@eaDir/1.mp4/SCREENSHOT.jpg",
            "d/cat/2.mp4",
            "d/@eaDir/x.jpg",
            "d/$RECYCLE.BIN/3.mp4",
        ),
        rows=linked,
        says=("3 × folders of the system",),
    )
    yield Listed(
        "other files",
        "d",
        files=("d/ant/1.mp4", "d/cat/2.mp4", "d/cat/2.txt", "d/l.csv", "d/cat/x.zip", "d/README"),
        rows=linked,
        says=("1 × lists", "1 × suffix .zip", "1 × no suffix"),
    )
    yield Listed(
        "a class without clips",
        "d",
        files=("d/ant/1.mp4", "d/bat/notes.txt", "d/cat/2.mp4"),
        rows=linked,
        says=("folder bat",),
    )
    yield Listed(
        "splits are no classes",
        "d",
        files=("d/train/cat/1.mp4", "d/test/cat/2.mp4"),
        says=("parts of a data set", "d/t"),
    )
    yield Listed(
        "one folder around the classes", "d", files=("d/v/cat/1.mp4", "d/v/dog/2.mp4"), says=("one class", "d/v")
    )
    yield Listed(
        "one class is asked for",
        "d",
        files=("d/v/a/1.mp4", "d/v/b/2.mp4"),
        classes=1,
        rows=[("v/a/1.mp4", "v", 0), ("v/b/2.mp4", "v", 0)],
    )
    yield Listed(
        "a list in the folder",
        "d",
        files=("d/1.mp4", "d/metadata.csv"),
        says=("no label", "train.data=", "d/metadata.csv"),
    )
    yield Listed("empty", "d", files=("d/notes.txt",), says=("names no video", "1 files"))
    yield Listed(
        "spaces and unicode",
        "d",
        files=("d/big cat/ä b.MP4", "d/犬/1.mp4"),
        rows=[("big cat/ä b.MP4", "big cat", 0), ("犬/1.mp4", "犬", 1)],
    )
