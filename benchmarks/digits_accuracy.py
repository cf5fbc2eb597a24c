"""How often an independent classifier reads the asked digit off generated videos.

    python benchmarks/digits_accuracy.py runs/tiny-sit-digits [--clips 100] [--seed 0] [generate's options…]

Generates the clips with `sora-spec generate`, ten labels in turn, reads the mp4 files back, and asks a support-vector
machine that has seen the real 8×8 digits of scikit-learn's training split and nothing else. In every frame the digit is
looked for where the most light is; the frames of a clip vote with their decision values. The same is done with real
clips of held-out handwriting (`sora-spec data digits --split test`), which is the score of a perfect generator.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image
from sklearn.svm import SVC

from sora_spec.train.data.digits import split_samples

SHARE = 0.8125
"""Side of the digit as a share of the frame's, as `data digits` draws it."""


def read_grey(path: Path) -> np.ndarray:
    """Frames (T, Y, X) in [0, 1]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]) / 255.0


def picture_of(frame: np.ndarray) -> np.ndarray:
    """The brightest box of the digit's size, averaged down to 8×8 with values 0 to 16, as the classifier knows them."""
    side = round(SHARE * frame.shape[0])
    sums = np.pad(frame, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    light = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(light.argmax(), light.shape)
    box = Image.fromarray((frame[top : top + side, left : left + side] * 16).astype(np.float32))
    return np.asarray(box.resize((8, 8), Image.Resampling.BOX)).ravel()


class Reader:
    """The classifier, trained on real digits only."""

    def __init__(self) -> None:
        images, labels = split_samples("train")
        self.machine = SVC(gamma=0.001, C=10).fit((images * 16).reshape(len(images), -1), labels)

    def read(self, path: Path) -> int:
        """The digit of a clip."""
        pictures = np.stack([picture_of(frame) for frame in read_grey(path)])
        return int(self.machine.decision_function(pictures).sum(0).argmax())


def score(reader: Reader, clips: list[tuple[Path, int]]) -> tuple[int, np.ndarray]:
    """How many clips are read as labelled, and the confusion counts [asked, read]."""
    confusion = np.zeros((10, 10), int)
    for path, label in clips:
        confusion[label, reader.read(path)] += 1
    return int(confusion.trace()), confusion


def sora_spec(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sora_spec", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder or bundle")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments, rest = parser.parse_known_args()
    reader = Reader()
    with tempfile.TemporaryDirectory() as folder:
        labels = [str(number % 10) for number in range(arguments.clips)]
        asked = [part for label in labels for part in ("--label", label)]
        out = Path(folder, "generated")
        sora_spec("generate", arguments.run, *asked, "--seed", str(arguments.seed), "--out", str(out), *rest)
        clips = json.loads((out / "generate.json").read_text())["clips"]
        generated = [(out / clip["file"], int(clip["label"])) for clip in clips]
        right, confusion = score(reader, generated)
        sora_spec(
            "data", "digits", f"{folder}/real", "--split", "test", "--clips", str(arguments.clips), "--frames", "9"
        )
        listed = [json.loads(line) for line in Path(folder, "real", "clips.jsonl").read_text().splitlines()]
        real, _ = score(reader, [(Path(folder, "real", clip["path"]), clip["label"]) for clip in listed])
    print(f"generated: {right} of {len(generated)} clips read as asked ({right / len(generated):.0%})")
    print(f"real held-out clips: {real} of {len(listed)} ({real / len(listed):.0%}); chance 10%")
    print("asked \\ read  " + " ".join(f"{digit:3d}" for digit in range(10)))
    for digit, row in enumerate(confusion):
        print(f"{digit:12d}  " + " ".join(f"{count:3d}" for count in row))


if __name__ == "__main__":
    main()
