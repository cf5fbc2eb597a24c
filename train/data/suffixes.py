"""Which files are looked at as video or picture, by the end of their names."""

from __future__ import annotations

import os
from collections.abc import Iterable


def _suffixes(words: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in words.split())


VIDEO_SUFFIXES = _suffixes(
    "mp4 m4v mp4v mpg4 mpeg4 ismv mov qt mkv mk3d webm avi divx xvid mpg mpeg mpe m1v m2v mpv mpv2 mp2v m2p vob vro "
    "evo ts m2ts mts m2t tp trp tod mod wmv asf flv f4v ogv ogm ogx 3gp 3gpp 3g2 3gp2 mxf gxf y4m nut nsv rm rmvb ivr "
    "dv dif ivf obu av1 h261 h263 h264 264 avc h26l h265 265 hevc h266 266 vvc mjpeg mjpg mj2 amv vc1 wtv dvr-ms bik "
    "smk flc fli roq swf cine thp pva nuv lxf dnxhd dnxhr cavs avs2 avs3 kux gif"
)
"""Names of video files, in lower case; upper and lower case are the same."""

IMAGE_SUFFIXES = _suffixes("png apng jpg jpeg jpe jfif bmp webp avif tif tiff jp2 ppm pgm tga heic heif")
"""Names of pictures. Those that move (WebP, APNG, AVIF) are read as clips."""


def thumbnails(paths: Iterable[str]) -> set[str]:
    """Pictures that stand beside a video of the same name: `a.jpg` beside `a.mp4`, and `a.mp4.jpg`."""
    split = [(path, *os.path.splitext(path)) for path in paths]
    videos = {path: stem for path, stem, suffix in split if suffix.lower() in VIDEO_SUFFIXES}
    taken = videos.keys() | set(videos.values())
    return {path for path, stem, suffix in split if suffix.lower() in IMAGE_SUFFIXES and stem in taken}
