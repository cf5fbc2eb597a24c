"""Encoding and decoding in pieces, in memory that grows with the clip only by the clip itself.

The pieces give the same values as the whole clip, because nothing in the causal VAE looks forward in time and its
norms see one position each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from sora_spec.builders.vae.causal_layers import Stream

Half = Callable[[Tensor, Stream], Tensor]
"""The causal VAE's encoder or decoder on the next piece of a clip."""


def decode_pieces(decoder: Half, z: Tensor) -> Iterator[Tensor]:
    """Pixels of unnormalised latents (B, C, F, H, W), one latent frame at a time: first 1 frame, then `time` each.

    Concatenated over dim 2 the pieces equal `decoder(z)`.
    """
    stream = Stream()
    for frame in range(z.shape[2]):
        yield decoder(z[:, :, frame : frame + 1], stream)
        stream = Stream(stream.tails)


def encode_pieces(encoder: Half, video: Tensor, time: int) -> Iterator[Tensor]:
    """Moments (B, 2C, 1, H, W) of a video (B, 3, 1 + k·time, Y, X), one latent frame at a time.

    Concatenated over dim 2 the pieces equal `encoder(video)`.
    """
    stream = Stream()
    for end in range(1, video.shape[2] + 1, time):
        yield encoder(video[:, :, max(end - time, 0) : end], stream)
        stream = Stream(stream.tails)


def join_frames(pieces: Iterator[Tensor], frames: int) -> Tensor:
    """The pieces one after the other, (B, C, `frames`, Y, X). Holds the result and one piece, where `cat` holds all."""
    first = next(pieces)
    if first.shape[2] == frames:
        return first
    shape = list(first.shape)
    shape[2] = frames
    whole = first.new_empty(shape)
    done = place_frames(whole, first, 0)
    del first
    while done < frames:
        done = place_frames(whole, next(pieces), done)  # no name holds a piece while the next one is made
    return whole


def place_frames(whole: Tensor, piece: Tensor, start: int) -> int:
    """Write a piece from frame `start` on; returns the frame after it."""
    end = start + piece.shape[2]
    whole[:, :, start:end] = piece
    return end
